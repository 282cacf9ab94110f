"""Videos: frames in order under a codec that remembers, what a loss does, and how it plays."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from megdt.codecs.observation import ObservationCodec
from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.errors import MechanismError, MissedError, RequestError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.execute import Execution, run_side
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import show
from megdt.mechanisms.stages import Edge, Mechanism, Stage
from megdt.mechanisms.video import Video, play, screen, video_parallel, video_sequential
from megdt.records import Delivery, Feature, Packet, Part, Request, Result, Side
from megdt.scenario import parse_scenario
from megdt.trial import demonstrate
from tests.plain_models import PlainModels

if TYPE_CHECKING:  # torch would take the processes seconds to import
    from megdt.models.bundle import Bundle

ES, UE = Side.ES, Side.UE
REQUEST = Request(prompt="a", steps=2)
LINK = RadioLink(snr_db=20, coding="abstract")
VIEW = np.random.default_rng(1).integers(0, 4, (256, 256, 3), np.uint8)


class Differences:
    """Frames as differences from the one before, whose number each packet names."""

    remembers: ClassVar[bool] = True

    def __init__(self) -> None:
        self.number, self.frame = -1, np.zeros((256, 256, 3), np.uint8)
        self.key = True

    def ask_key(self) -> None:
        self.key = True

    def encode(self, feature: Feature) -> Packet:
        before = np.zeros_like(self.frame) if self.key else self.frame
        head = bytes([255 if self.key else self.number])
        self.number, self.frame, self.key = self.number + 1, feature.values, False
        change = (feature.values - before)[::8, ::8]
        return Packet(payload=bytes([self.number]) + head + change.tobytes())

    def decode(self, delivery: Delivery) -> Feature:
        number, told_by = delivery.payload[:2]
        if told_by not in (255, self.number):
            raise MissedError(f"frame {told_by} did not come; wait for another")
        change = np.frombuffer(delivery.payload[2:], np.uint8).reshape(32, 32, 3)
        before = 0 if told_by == 255 else self.frame
        self.number = number
        self.frame = before + change.repeat(8, 0).repeat(8, 1)
        return Feature(kind="frame", values=self.frame)


class Thorough(PlainModels):
    """Takes so long to make a picture that what is measured here does not count."""

    flops = 0.0

    def decode(self, *given: Any) -> np.ndarray:
        self.flops += 5e12
        return super().decode(*given)


class Loses:
    """A link that loses some of what is sent over it, counted from 1."""

    def __init__(self, lost: Collection[int]) -> None:
        self.lost, self.sent = lost, 0

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        self.sent += 1
        delivery = LINK.send(packet, rng)
        return replace(delivery, outcome="lost") if self.sent in self.lost else delivery


def mechanism(name: str = "parallel", **changes: Any) -> Mechanism:
    build = {"parallel": video_parallel, "sequential": video_sequential}[name]
    return build(Video(**{"frames": 5, "to_prompt": "abcd", **changes}), 256)


def settings(**changes: Any) -> dict[str, Any]:
    links = dict.fromkeys(("prompt", "observation", "frame"), LINK) | changes.pop("links", {})
    seed = QuantisedSeedCodec(shape=(4, 32, 32))
    return {
        "models": PlainModels(),
        "codecs": {
            "prompt": TextCodec(), "observation": ObservationCodec(seed=seed),
            "frame": Differences(),
        },
        "links": links,
        "devices": {ES: load_profile("edge_gpu"), UE: load_profile("phone")},
        **changes,
    }  # fmt: skip


def run(video: Mechanism, *, workers: int = 1, **changes: Any) -> Result:
    done = Part(features={"sense": Feature(kind="image", values=VIEW)})
    return simulate(video, REQUEST, **settings(**changes), done=done, workers=workers)


def made(result: Result, frames: int = 5) -> list[np.ndarray]:
    return [result.features[f"frame_{n}"].values for n in range(1, frames + 1)]


def same(left: Collection[np.ndarray], right: Collection[np.ndarray]) -> bool:
    return all((a == b).all() for a, b in zip(left, right, strict=True))


BOTH = pytest.mark.parametrize("name", ["parallel", "sequential"])
MOTIONS = pytest.mark.parametrize("motion", ["lapse", "track"])


# What the frames are.


@BOTH
@MOTIONS
def test_the_ue_shows_what_the_es_made(name: str, motion: str) -> None:
    result = run(mechanism(name, motion=motion))
    assert same(screen(result), made(result))
    assert result.image is not None
    kinds = [c.kind for c in result.ledger.crossings]
    assert sorted(kinds) == sorted(["prompt", "prompt", "observation", *["frame"] * 5])
    # The wish for the end crosses like any prompt.
    assert [c.bits for c in result.ledger.crossings if c.kind == "prompt"] == [8, 32]


def test_a_time_lapse_goes_from_the_view_to_its_end() -> None:
    result = run(mechanism(change=1.0, frames=6))
    far = [float(np.abs(f.astype(float) - made(result, 6)[-1]).mean()) for f in made(result, 6)]
    assert far == sorted(far, reverse=True)
    assert far[0] > 5
    drawn = np.random.default_rng(0).standard_normal((4, 32, 32)) + 4  # led by the words of the end
    assert np.allclose(result.features["end"].values, drawn, atol=1e-5)


def test_a_camera_moves_over_one_scene() -> None:
    result = run(mechanism(motion="track", pixels_per_frame=24, frames=9))
    frames = made(result, 9)
    # Plain models decode each latent by itself, so what stays in view is moved and nothing else.
    for before, after in pairwise(frames):
        assert (before[:, 24:] == after[:, :-24]).all()
    seen = PlainModels().decode(result.features["begin"].values[None])[0]
    assert (frames[0][:, : 256 - 24 - 32] == seen[:, 24 : 256 - 32]).all()  # but for its edge
    # No more is drawn than the camera comes to.
    parts = [name for name in result.features if name.startswith("extend_")]
    wide = result.features[parts[-1]].values.shape[2]
    assert 256 + 9 * 24 <= 8 * (wide - 4) < 256 + 9 * 24 + 96


def test_what_the_camera_did_not_see_is_drawn() -> None:
    seen = np.ones((32, 32), np.float32)
    seen[:8, :8] = 0
    sensed = Feature(kind="image", values=VIEW, confidence=seen)
    result = simulate(mechanism(), REQUEST, **settings(), done=Part(features={"sense": sensed}))
    began, came = result.features["begin"].values, result.arrived["observe", ES].values
    assert (began[:, 12:, 12:] == came[:, 12:, 12:]).all()
    assert (began[:, :8, :8] == 0).all()  # plain models draw nothing at strength 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion": "zoom"}, "motion is 'zoom', a video has lapse or track"),
        ({"frames": 0}, "frames of the video is 0, it goes from 1 to 240"),
        ({"frames_per_s": float("nan")}, "frames_per_s of the video is nan"),
        ({"pixels_per_frame": 65}, "pixels_per_frame of the video is 65, it goes from 1 to 64"),
        ({"change": 1.5}, "change of the video is 1.5"),
    ],
)
def test_a_video_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Video(**changes)


# In order, wherever it runs.


@BOTH
def test_threads_change_nothing(name: str) -> None:
    plain, threaded = (run(mechanism(name), workers=workers) for workers in (1, 4))
    assert same(screen(plain), screen(threaded))
    bits = [[c.bits for c in r.ledger.crossings] for r in (plain, threaded)]
    assert bits[0] == bits[1]


class Mail:
    """An exchange by queues, one an edge."""

    def __init__(self, queues: Mapping[tuple[str, str], Queue[Delivery]]):
        self.queues = queues

    def post(self, edge: Edge, delivery: Delivery) -> None:
        self.queues[edge.key].put(delivery)

    def take(self, edge: Edge) -> Delivery | None:
        try:
            return self.queues[edge.key].get(timeout=60)
        except queue.Empty:
            return None


class Senses:
    """The view, as a stage that a process of its own can run."""

    def __call__(self, job: Any) -> Feature:
        return Feature(kind="image", values=VIEW)


def live(name: str, side: Side, mail: Mail, out: Queue[Any]) -> None:
    plain = mechanism(name)
    stages = tuple(replace(s, run=Senses()) if s.name == "sense" else s for s in plain.stages)
    video = Mechanism(name=name, stages=stages)
    made = run_side(Execution(mechanism=video, request=REQUEST, **settings()), side, mail)
    out.put({n: f.values for n, f in made.features.items() if n.startswith("show")})


def test_a_process_a_side_changes_nothing() -> None:
    context = multiprocessing.get_context("spawn")
    mail = Mail({edge.key: context.Queue() for edge in mechanism().edges})
    out: Queue[Any] = context.Queue()
    processes = [
        context.Process(target=live, args=("parallel", side, mail, out), daemon=True)
        for side in (UE, ES)
    ]
    for process in processes:
        process.start()
    found: dict[str, np.ndarray] = {}
    for _ in processes:
        found |= out.get(timeout=120)
    for process in processes:
        process.join(30)
    assert same(list(found.values()), screen(run(mechanism())))


def test_ends_are_two_copies_that_each_keep_what_they_have_had() -> None:
    given = Differences()
    video = mechanism()
    codecs = {**settings()["codecs"], "frame": given}
    first = [c.bits for c in run(video, codecs=codecs).ledger.crossings]
    assert (given.number, given.key) == (-1, True)  # neither of them is what was given
    assert [c.bits for c in run(video, codecs=codecs).ledger.crossings] == first


def test_frames_are_made_sent_and_decoded_at_once_and_each_in_order() -> None:
    """On a slow link, and with a codec that takes long at both ends."""

    class Slow(Differences):
        flops = 0.0

        def encode(self, feature: Feature) -> Packet:
            self.flops += 5e11
            return super().encode(feature)

        def decode(self, delivery: Delivery) -> Feature:
            self.flops += 5e11
            return super().decode(delivery)

    result = run(mechanism(), codecs={**settings()["codecs"], "frame": Slow()})
    ledger = result.ledger
    on_air = [c for c in ledger.crossings if c.kind == "frame"]
    encoded, decoded = (
        [c for c in ledger.computations if c.task == f"{way} frame"] for way in ("encode", "decode")
    )
    for before, after in pairwise(range(5)):
        assert encoded[after].start_s >= on_air[before].end_s  # then its loss would be known
        assert decoded[after].start_s >= decoded[before].end_s
    assert encoded[1].start_s < decoded[0].end_s  # the ES does not wait for the UE to decode
    assert ledger.duration_s > 5 * encoded[0].seconds


def test_a_frame_is_on_its_way_before_the_next_is_made() -> None:
    ledger = run(mechanism(), models=Thorough()).ledger
    drawn = {c.stage: c for c in ledger.computations if c.task == "run"}
    sent = {c.source: c.start_s for c in ledger.crossings}
    for number in range(1, 5):
        now, then = drawn[f"frame_{number}"], drawn[f"frame_{number + 1}"]
        assert now.end_s <= sent[f"frame_{number}"] < then.end_s


def test_stages_that_take_frames_in_another_order_are_refused() -> None:
    plain = mechanism("sequential", frames=2)
    order = [s.name for s in plain.stages]
    first, second = order.index("show_1"), order.index("show_2")
    stages = list(plain.stages)
    stages[first] = replace(stages[first], inputs=("send_2", "sense"), optional=("send_2",))
    stages[second] = replace(stages[second], inputs=("send_1", "show_1"), optional=("send_1",))
    with pytest.raises(
        MechanismError, match=r"frame of send_2 \(ES\) is taken before that of send"
    ):
        run(Mechanism(name="m", stages=tuple(stages)))


def test_what_is_told_by_the_one_before_cannot_be_taken_as_sent() -> None:
    plain = mechanism(frames=1)
    again = Stage(
        name="again", side=ES, inputs=("frame_1",), as_sent=("frame_1",), makes="image", run=show
    )
    with pytest.raises(MechanismError, match="tells it by what was sent before; take a codec that"):
        run(Mechanism(name="m", stages=(*plain.stages, again, replace(plain.stages[-1], name="x"))))


# What is lost.


@BOTH
def test_a_lost_frame_leaves_the_one_before_and_the_next_one_needs_no_other(name: str) -> None:
    result = run(mechanism(name), links={"frame": Loses([2])})
    shown, frames = screen(result), made(result)
    assert same(shown, [frames[0], frames[0], *frames[2:]])
    found = play(result, frames_per_s=8)
    assert found.came == (True, False, True, True, True)
    assert (found.lost, result.outcome) == (1, "delivered")


def test_a_receiver_that_cannot_tell_a_frame_waits_for_one_that_needs_no_other() -> None:
    """Where the sender was not told of the loss."""

    class Deaf(Differences):
        def ask_key(self) -> None:
            pass

        def encode(self, feature: Feature) -> Packet:
            self.key = self.key or self.number == 2
            return super().encode(feature)

    codecs = {**settings()["codecs"], "frame": Deaf()}
    result = run(mechanism(), codecs=codecs, links={"frame": Loses([2])})
    frames = made(result)
    assert same(screen(result), [frames[0], frames[0], frames[0], *frames[3:]])
    assert play(result, frames_per_s=8).came == (True, False, False, True, True)


def test_without_any_frame_the_ue_still_shows_its_own_view() -> None:
    result = run(mechanism(), links={"observation": Loses([1])})
    assert same(screen(result), [VIEW] * 5)
    found = play(result, frames_per_s=8)
    assert (found.lost, found.first_s) == (5, float("inf"))


# How it plays.


def test_parallel_shows_its_own_view_at_once_and_the_video_sooner() -> None:
    parallel, sequential = (
        play(run(mechanism(n, frames=12), models=Thorough()), frames_per_s=24)
        for n in ("parallel", "sequential")
    )
    assert parallel.picture_s < parallel.first_s / 4
    assert sequential.picture_s == sequential.first_s > 5 * parallel.first_s
    assert parallel.playable_s < sequential.playable_s


def played(ready: list[float], frames_per_s: float) -> Any:
    """A ledger whose frames are there at these times."""
    result = run(mechanism(frames=len(ready)))
    at = {f"show_{n}": s for n, s in enumerate(ready, 1)}
    computed = tuple(
        replace(c, start_s=at[c.stage], seconds=0.0) if c.stage in at and c.task == "run" else c
        for c in result.ledger.computations
    )
    ledger = replace(result.ledger, computations=computed)
    return play(replace(result, ledger=ledger), frames_per_s=frames_per_s)


def test_the_player_waits_for_what_is_not_there_and_says_when_it_would_not_have_to() -> None:
    smooth = played([1.0, 1.4, 1.9], 2.0)
    assert smooth.shown_s == (1.0, 1.5, 2.0)
    assert (smooth.stalls_s, smooth.waits, smooth.playable_s) == (0.0, 0, 1.0)
    late = played([1.0, 2.0, 2.1, 4.0], 2.0)
    assert late.shown_s == (1.0, 2.0, 2.5, 4.0)
    assert (late.stalls_s, late.waits, late.playable_s) == (1.5, 2, 2.5)
    assert late.first_s == 1.0


def test_what_made_no_video_cannot_be_played() -> None:
    asked = {"ask": Feature(kind="prompt", values="a")}
    nothing = replace(run(mechanism(frames=1)), features=asked)
    with pytest.raises(MechanismError, match="no video was made, only ask; play a result of"):
        play(nothing, frames_per_s=8)


# With the networks.


@pytest.mark.parametrize("codec", ["video", "seeds", "webp"])
def test_a_scenario_makes_a_video(bundle: Bundle, codec: str) -> None:
    scenario = parse_scenario(
        {
            "request": {"prompt": "red poppies at sunset", "steps": 1},
            "plan": {"mechanism": "video_parallel", "image_bits": 6552},
            "codecs": {"frame": codec},
            "link": {"coding": "abstract"},
            "video": {"motion": "track", "frames": 3},
        }
    )
    result = demonstrate(scenario, bundle)[1]
    for shown, frame in zip(screen(result), made(result, 3), strict=True):
        assert np.abs(shown.astype(float) - frame).mean() < 12
    bits = [c.bits for c in result.ledger.crossings if c.kind == "frame"]
    assert (max(bits[1:]) < bits[0] / 3) == (codec == "video")
    coding = [c for c in result.ledger.computations if c.task in ("encode frame", "decode frame")]
    assert all((c.flops > 0) == (codec != "webp") for c in coding)
