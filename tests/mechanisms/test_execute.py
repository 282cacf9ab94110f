"""One mechanism in topological order, in threads, and one side a process: the same pictures."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import pytest

from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import AnalogSeedCodec
from megdt.errors import MechanismError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.execute import Execution, run_side
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import ES_TO_UE, decode, denoise, embed
from megdt.mechanisms.stages import Edge, Job, Mechanism, Stage
from megdt.records import Delivery, Feature, Request, Result, Side
from tests.plain_models import PlainModels

UE1, UE2, ES = Side.ue(1), Side.ue(2), Side.ES
SHAPE = (4, 32, 32)
LINK = RadioLink(snr_db=10, channel="rayleigh", coding="abstract")


def ask(job: Job) -> Feature:
    return Feature(kind="prompt", values=f"{job.request.prompt} of {job.side}")


def mix(job: Job, *seeds: Feature | None) -> Feature:
    """The mean of what has come; its own noise where nothing has."""
    there = [seed.values for seed in seeds if seed is not None]
    del job
    return Feature(kind="seed", values=np.mean(there, axis=0, dtype=np.float32))


def shared(optional: tuple[str, ...] = ()) -> Mechanism:
    """Two UEs ask, the ES draws for both, each decodes the mean of its own and the other's seed."""
    stages: list[Stage] = []
    for n, side in ((1, UE1), (2, UE2)):
        stages += (
            Stage(name=f"ask_{n}", side=side, makes="prompt", run=ask),
            Stage(
                name=f"embed_{n}", side=ES, inputs=(f"ask_{n}",), makes="prompt_embeds", run=embed
            ),
            Stage(name=f"denoise_{n}", side=ES, inputs=(f"embed_{n}",), makes="seed", run=denoise),
        )
    for n, side in ((1, UE1), (2, UE2)):
        mine, other = f"denoise_{n}", f"denoise_{3 - n}"
        stages += (
            Stage(
                name=f"mix_{n}", side=side, inputs=(mine, other), makes="seed", run=mix,
                optional=tuple(o for o in optional if o == other),
            ),
            Stage(name=f"decode_{n}", side=side, inputs=(f"mix_{n}",), makes="image", run=decode),
        )  # fmt: skip
    return Mechanism(name="shared", stages=tuple(stages))


def settings(**changes: Any) -> dict[str, Any]:
    phone = load_profile("phone")
    return {
        "models": PlainModels(),
        "codecs": {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)},
        "links": {"prompt": LINK, "seed": LINK},
        "devices": {UE1: phone, UE2: phone, ES: load_profile("edge_gpu"), Side.UE: phone},
        **changes,
    }


REQUEST = Request(prompt="red poppies", steps=2)


def pictures(features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    return {name: f.values for name, f in features.items() if f.kind == "image"}


def same(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all((left[n] == right[n]).all() for n in left)


@pytest.mark.parametrize("mechanism", [ES_TO_UE, shared()], ids=lambda m: m.name)
def test_threads_change_nothing(mechanism: Mechanism) -> None:
    plain, threaded = (
        simulate(mechanism, REQUEST, **settings(), workers=workers) for workers in (1, 4)
    )
    assert same(pictures(plain.features), pictures(threaded.features))
    assert [replace(c, start_s=0, end_s=0) for c in plain.ledger.crossings] == [
        replace(c, start_s=0, end_s=0) for c in threaded.ledger.crossings
    ]
    tasks = [[(c.stage, c.task) for c in r.ledger.computations] for r in (plain, threaded)]
    assert tasks[0] == tasks[1]
    assert list(plain.features) == list(threaded.features)


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(MechanismError, match="the plan has no codec for it"):
        simulate(shared(), REQUEST, **settings(codecs={}), workers=3)


class Mail:
    """An exchange by queues, one an edge."""

    def __init__(self, queues: Mapping[tuple[str, str], Queue[Delivery]], wait_s: float):
        self.queues, self.wait_s = queues, wait_s
        self.deadline: float | None = None

    def post(self, edge: Edge, delivery: Delivery) -> None:
        self.queues[edge.key].put(delivery)

    def take(self, edge: Edge) -> Delivery | None:
        if self.deadline is None:
            self.deadline = time.monotonic() + self.wait_s
        try:
            return self.queues[edge.key].get(timeout=max(self.deadline - time.monotonic(), 0.0))
        except queue.Empty:
            return None


def live(
    side: Side, optional: tuple[str, ...], mail: Mail, out: Queue[Any], start: Barrier
) -> None:
    execution = Execution(mechanism=shared(optional), request=REQUEST, **settings())
    start.wait(60)
    made = run_side(execution, side, mail)
    out.put((str(side), pictures(made.features), made.missing))


def run_processes(
    sides: tuple[Side, ...], *, optional: tuple[str, ...] = (), wait_s: float = 60
) -> tuple[dict[str, np.ndarray], dict[Any, str]]:
    context = multiprocessing.get_context("spawn")  # as on machines of their own
    mail = Mail({edge.key: context.Queue() for edge in shared().edges}, wait_s)
    out: Queue[Any] = context.Queue()
    start = context.Barrier(len(sides))
    processes = [
        context.Process(target=live, args=(side, optional, mail, out, start), daemon=True)
        for side in sides
    ]
    for process in processes:
        process.start()
    found: dict[str, np.ndarray] = {}
    missing: dict[Any, str] = {}
    for _ in processes:
        _, images, gone = out.get(timeout=120)
        found |= images
        missing |= gone
    for process in processes:
        process.join(30)
    return found, missing


def test_a_process_a_side_changes_nothing() -> None:
    found, missing = run_processes((UE1, UE2, ES))
    assert missing == {}
    assert same(found, pictures(simulate(shared(), REQUEST, **settings()).features))


def test_a_silent_peer_is_a_late_feature_and_the_others_go_on() -> None:
    """UE2 says nothing: nothing is drawn for it, and UE1 decodes its own seed alone."""
    optional = ("denoise_1", "denoise_2")
    found, missing = run_processes((UE1, ES), optional=optional, wait_s=3)
    assert set(found) == {"decode_1"}
    assert missing["ask_2", ES] == "late"
    assert missing["denoise_2", UE1] == "late"


def lose(which: str, optional: tuple[str, ...] = ()) -> Result:
    """All but one feature arrive."""

    class Lossy:
        sent = 0

        def send(self, packet: Any, rng: np.random.Generator) -> Delivery:
            self.sent += 1
            delivery = LINK.send(packet, rng)
            return replace(delivery, outcome="lost") if order[self.sent - 1] == which else delivery

    mechanism = shared(optional)
    order = [f"{e.source.name} to {e.target.side}" for e in mechanism.edges]
    link = Lossy()
    return simulate(mechanism, REQUEST, **settings(links={"prompt": link, "seed": link}))


def test_what_is_lost_stops_its_own_branch_alone() -> None:
    result = lose("denoise_1 to UE2")
    assert set(pictures(result.features)) == {"decode_1"}
    assert (result.outcome, result.image) == ("lost", None)  # the last stage is UE2's
    result = lose("denoise_2 to UE1")
    assert set(pictures(result.features)) == {"decode_2"}
    assert result.outcome == "delivered"


def test_a_stage_goes_on_without_what_it_can_do_without() -> None:
    result = lose("denoise_2 to UE1", optional=("denoise_2",))
    assert set(pictures(result.features)) == {"decode_1", "decode_2"}
    own = result.arrived["denoise_1", UE1].values
    assert (result.features["mix_1"].values == own).all()
    # It waited until the loss was known.
    (gone,) = (c for c in result.ledger.crossings if c.outcome == "lost")
    (mixed,) = (c for c in result.ledger.computations if (c.stage, c.task) == ("mix_1", "run"))
    assert mixed.start_s >= gone.end_s > 0


def test_a_side_without_a_device_is_named() -> None:
    phone = load_profile("phone")
    with pytest.raises(
        MechanismError, match=r"stage 'ask_1' of shared runs on UE1, and the devices"
    ):
        simulate(shared(), REQUEST, **settings(devices={Side.UE: phone, ES: phone}))


def test_what_arrived_is_handed_on_with_the_part() -> None:
    """Another run from the same drawn seeds sends nothing of what had come already."""
    first = simulate(shared(), REQUEST, **settings())
    part = first.part({s.name for s in shared().stages if not s.name.startswith("decode")})
    again = simulate(shared(), REQUEST, **settings(), done=part)
    assert again.ledger.crossings == first.ledger.crossings
    assert same(pictures(again.features), pictures(first.features))
    assert [(c.stage, c.task) for c in again.ledger.computations] == [
        (c.stage, c.task) for c in first.ledger.computations
    ]
