"""Both sides of a request, each beside its end of a session, with only frames between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import pytest

from megdt.errors import SessionError
from megdt.link.energy import load_profile
from megdt.mechanisms.execute import Progress
from megdt.mechanisms.stages import Edge
from megdt.models.bundle import Bundle
from megdt.models.lockstep import state_hash
from megdt.models.onnx_models import OnnxModels
from megdt.records import Delivery, Feature, Ledger, Packet, Part, Side
from megdt.runtime.es_session import Sessions
from megdt.runtime.events import Answered, Cancelled, FeatureArrived, LinesArrived, Requested
from megdt.runtime.messages import Tables
from megdt.runtime.sides import (
    Post,
    join_ledgers,
    lines_of,
    outcome_of,
    parse_request,
    run_part,
    states_of,
)
from megdt.runtime.ue_session import UeSession
from megdt.worlds.garden import draw_view

TABLES: Tables = {"request": {"prompt": "red poppies", "rng_seed": 7, "steps": 2}}


def core_s(side: Side, task: str) -> float:
    return 0.001


@dataclass
class Node:
    """Two ends driven in one thread, their stages in others."""

    models: Bundle
    ue_models: OnnxModels | None = None
    wait_s: float = 60.0
    remembered: Feature | None = None
    """By the ES."""
    calls: SimpleQueue[Callable[[], Any]] = field(default_factory=SimpleQueue)
    posts: dict[Side, Post] = field(default_factory=dict)
    answer: Answered | None = None
    errors: list[BaseException] = field(default_factory=list)

    def run(
        self, tables: Tables, cancel_after: int | None = None, picture: np.ndarray | None = None
    ) -> Progress:
        """The UE's part of a request, once the ES has answered it."""
        now = time.monotonic
        sessions = Sessions(bundle="ab" * 32)
        ue = UeSession(bundle="ab" * 32, device=load_profile("phone"))
        ue.connect(now())
        hello = ue.next_frame(now())
        assert hello is not None
        es, _ = sessions.accept(hello, now(), owner="anna", new_id="s")
        ue.ask("k", tables, deadline_s=self.wait_s, now_s=now())
        scenario = parse_request(tables)

        def send_up(edge: Edge, delivery: Packet | Delivery) -> None:
            self.calls.put(
                partial(
                    ue.send_feature, "k", delivery, source=edge.source.name,
                    to_side=edge.target.side, kind=edge.source.makes,
                )
            )  # fmt: skip

        self.posts[Side.UE] = Post(Side.UE, send_up, deadline_s=self.wait_s)
        with ThreadPoolExecutor(2) as pool:

            def ue_part() -> Progress:
                made = run_part(
                    scenario, Side.UE, self.ue_models or self.models, self.posts[Side.UE],
                    view=None if picture is None else Feature(kind="image", values=picture),
                    core_s=core_s,
                )  # fmt: skip
                self.calls.put(partial(ue.send_lines, "k", lines_of(made)))
                return made

            part: Future[Progress] = pool.submit(ue_part)
            begun = time.monotonic()
            while self.answer is None and not self.errors and now() < begun + self.wait_s:
                while frame := ue.next_frame(now()):
                    for event in es.receive(frame, now()):
                        if isinstance(event, Requested):
                            self.begin(event.generation)
                            pool.submit(self.es_part, event.generation)
                        elif isinstance(event, FeatureArrived):
                            es.release(event.size_bytes, now())
                            self.posts[Side.ES].deliver(event)
                        elif isinstance(event, LinesArrived):
                            self.posts[Side.ES].deliver_lines(event.ledger)
                        elif isinstance(event, Cancelled):
                            self.posts[Side.ES].stop(SessionError("nobody waits", code="cancelled"))
                while frame := es.next_frame(now()):
                    for event in ue.receive(frame, now()):
                        if isinstance(event, FeatureArrived):
                            ue.release(event.size_bytes, now())
                            self.posts[Side.UE].deliver(event)
                        elif isinstance(event, Answered):
                            self.answer = event
                try:
                    self.calls.get(timeout=0.01)()
                except Empty:
                    if cancel_after is not None:
                        ue.cancel("k")
                        cancel_after = None
                        self.posts[Side.UE].stop(SessionError("cancelled", code="cancelled"))
            return part.result()

    def begin(self, generation: Any) -> None:
        """Before anything else comes for it."""

        def send_down(edge: Edge, delivery: Packet | Delivery) -> None:
            self.calls.put(
                partial(
                    generation.send_feature, delivery, source=edge.source.name,
                    to_side=edge.target.side, kind=edge.source.makes,
                )
            )  # fmt: skip

        self.posts[Side.ES] = Post(Side.ES, send_down, deadline_s=self.wait_s)

    def es_part(self, generation: Any) -> None:
        try:
            scenario = parse_request(generation.tables)
            post = self.posts[Side.ES]
            made = run_part(
                scenario, Side.ES, self.models, post, view=self.remembered, core_s=core_s
            )
            theirs = post.take_lines() or Ledger()
            scenario = scenario.scenario
            devices = scenario.devices.profiles(scenario.mechanism.sides)
            ledger = join_ledgers(made, theirs, devices)
            outcome = outcome_of(scenario.mechanism, ledger)
            self.calls.put(partial(generation.finish, outcome, ledger))
        except Exception as error:
            self.errors.append(error)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle()


def same_machine(ledger: Ledger) -> Ledger:
    """But for what the clock of this machine said."""
    return replace(
        ledger, computations=tuple(replace(c, measured_s=0) for c in ledger.computations)
    )


@pytest.mark.parametrize(
    "tables",
    [
        TABLES,
        TABLES | {"codecs": {"seed": "analog"}, "link": {"snr_db": 3}},
        TABLES | {"plan": {"mechanism": "es_to_ue_steps"}, "codecs": {"seed": "analog"}},
        TABLES | {"link": {"snr_db": -25, "deadline_s": 0.05}},
    ],
)
def test_over_a_session_a_request_gives_what_the_simulation_gives(
    tables: Tables, bundle: Bundle
) -> None:
    node = Node(bundle)
    made = node.run(tables)
    assert not node.errors
    assert node.answer is not None
    simulated = parse_request(tables).scenario.run(bundle, core_s=core_s)
    assert node.answer.outcome == simulated.outcome
    assert same_machine(node.answer.ledger) == same_machine(simulated.ledger)
    last = made.execution.mechanism.stages[-1].name
    if simulated.made is None:
        assert last not in made.features
    else:
        np.testing.assert_array_equal(made.features[last].values, simulated.made.values)


def test_a_cancelled_request_stops_both_sides(bundle: Bundle) -> None:
    node = Node(bundle)
    with pytest.raises(SessionError, match="cancelled"):
        node.run({"request": {"prompt": "red poppies", "steps": 60}}, cancel_after=0)


def test_what_does_not_come_by_the_deadline_is_late(bundle: Bundle) -> None:
    scenario = parse_request(TABLES)
    post = Post(Side.UE, lambda edge, sent: None, deadline_s=0.0)
    made = run_part(scenario, Side.UE, bundle, post, core_s=core_s)
    assert "late" in made.missing.values()
    assert post.take_lines() is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"link": {"channel": "trace:/etc/passwd"}}, "link.channel is 'trace:/etc/passwd'"),
        ({"devices": {"es": "/etc/passwd"}}, "devices.es is '/etc/passwd'"),
        ({"writer": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}, "writer.base_url is"),
        ({"model": {"name": "/etc"}}, "each end is told its own"),
        ({"model": {"dtype": "float32", "ue_autoencoder": "/etc"}}, "each end is told its own"),
    ],
)
def test_a_request_sends_nobody_to_files_or_servers(table: Tables, said: str) -> None:
    with pytest.raises(SessionError, match=said) as raised:
        parse_request(TABLES | table)
    assert raised.value.code == "request"


@pytest.mark.parametrize(
    ("side", "content", "said"),
    [
        (Side.UE, Packet(payload=b"red"), "has crossed no link"),
        (Side.ES, Delivery(payload=b"red"), "says that it has crossed a link"),
        (Side.ES, Delivery(outcome="withheld"), None),
    ],
)
def test_the_radio_is_the_es(side: Side, content: Packet | Delivery, said: str | None) -> None:
    post = Post(side, lambda edge, sent: None, deadline_s=60)
    post.deliver(
        FeatureArrived(
            key="k", source="ask", to_side=side, kind="prompt", content=content, size_bytes=3
        )
    )
    if said is None:
        post.check()
    else:
        with pytest.raises(SessionError, match=said):
            post.check()


def view(size_px: int = 256, seed: int = 10_700_003) -> np.ndarray:
    garden, seen = draw_view(seed, size_px=size_px)
    return garden.render(seen)


@pytest.mark.parametrize("mechanism", ["ue_to_es", "describe", "sequential"])
def test_what_a_ue_sees_goes_up(mechanism: str, bundle: Bundle) -> None:
    tables: Tables = TABLES | {"plan": {"mechanism": mechanism}}
    node, picture = Node(bundle), view()
    made = node.run(tables, picture=picture)
    assert not node.errors
    assert node.answer is not None
    done = Part(features={"sense": Feature(kind="image", values=picture)})
    simulated = parse_request(tables).scenario.run(bundle, done=done, core_s=core_s)
    assert node.answer.outcome == simulated.outcome == "delivered"
    assert same_machine(node.answer.ledger) == same_machine(simulated.ledger)
    if mechanism == "describe":
        assert made.features["show"].values == simulated.made.values  # type: ignore[union-attr]


@pytest.mark.parametrize("ue_models", [None, OnnxModels()], ids=["torch", "onnx"])
def test_both_copies_of_the_gate_make_the_same(
    ue_models: OnnxModels | None, bundle: Bundle
) -> None:
    tables: Tables = TABLES | {"plan": {"mechanism": "parallel"}, "link": {"snr_db": 12}}
    picture = view()
    before = Feature(kind="image", values=view(seed=10_700_004), age_s=7200.0)
    node = Node(bundle, ue_models=ue_models, remembered=before)
    made = node.run(tables, picture=picture)
    assert not node.errors
    assert node.answer is not None
    assert made.features["agree"].values == "same"
    given = {"sense": Feature(kind="image", values=picture), "remember": before}
    simulated = parse_request(tables).scenario.run(bundle, done=Part(features=given), core_s=core_s)
    assert same_machine(node.answer.ledger) == same_machine(simulated.ledger)
    levels = made.features["decode"].values.astype(int) - simulated.features["decode"].values
    assert np.abs(levels).max() <= (0 if ue_models is None else 1)
    state = state_hash(simulated.features["gate_es"].values)
    assert states_of(made) == {"observe+recall": state}


def test_an_es_that_has_seen_nothing_has_nothing_to_fuse(bundle: Bundle) -> None:
    asked = parse_request(TABLES | {"plan": {"mechanism": "parallel"}})
    post = Post(Side.ES, lambda edge, sent: None, deadline_s=1)
    with pytest.raises(SessionError, match="seen of this UE, and that is nothing yet; send a view"):
        run_part(asked, Side.ES, bundle, post)
    small = Feature(kind="image", values=view(64))
    with pytest.raises(SessionError, match=r"what the ES remembers of this UE is \(64, 64, 3\)"):
        run_part(asked, Side.ES, bundle, post, view=small)


def test_a_ue_without_a_picture_is_told_so(bundle: Bundle) -> None:
    tables: Tables = TABLES | {"plan": {"mechanism": "ue_to_es"}}
    with pytest.raises(SessionError, match="senses, and no picture was given"):
        Node(bundle, wait_s=0.5).run(tables)
    with pytest.raises(SessionError, match=r"the picture is \(64, 64, 3\); give one of 256 x 256"):
        Node(bundle, wait_s=0.5).run(tables, picture=view(64))


def test_where_the_network_is_the_link_nothing_is_lost_or_charged(bundle: Bundle) -> None:
    node = Node(bundle)
    made = node.run(TABLES | {"link": {"channel": "network"}, "codecs": {"seed": "analog"}})
    assert not node.errors
    assert node.answer is not None
    ledger = node.answer.ledger
    assert {c.outcome for c in ledger.crossings} == {"delivered"}
    assert ledger.channel_uses == 0
    assert ledger.crossings[0].bits == 8 * len("red poppies")
    seed = made.arrived["denoise", Side.UE]
    assert seed.noise_power == 0
    assert parse_request(TABLES | {"link": {"channel": "network"}}).network
    with pytest.raises(SessionError, match=r"link.snr_db is of a radio"):
        parse_request(TABLES | {"link": {"channel": "network", "snr_db": 3}})


def test_a_ue_without_torch_makes_the_same_picture(bundle: Bundle) -> None:
    tables: Tables = TABLES | {"codecs": {"seed": "analog"}, "link": {"snr_db": 12}}
    node = Node(bundle, ue_models=OnnxModels())
    made = node.run(tables).features["decode"].values
    assert node.answer is not None
    simulated = parse_request(tables).scenario.run(bundle, core_s=core_s)
    assert same_machine(node.answer.ledger) == same_machine(simulated.ledger)
    assert np.abs(made.astype(int) - simulated.made.values).max() <= 1  # type: ignore[union-attr]


def test_many_ues_are_not_a_request_of_one() -> None:
    with pytest.raises(SessionError, match="ask for one of one UE"):
        parse_request({"request": {"prompt": "a meadow"}, "plan": {"mechanism": "individual"}})
