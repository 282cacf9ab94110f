"""SEU and PEU: what goes up and what comes down, and what the copies of the gate hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from megdt.codecs import Codec
from megdt.codecs.observation import ObservationCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.codecs.state import StateCodec
from megdt.errors import CodecError, MechanismError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import PARALLEL, SEQUENTIAL
from megdt.mechanisms.stages import Mechanism
from megdt.models.lockstep import state_hash
from megdt.records import Delivery, Feature, Part, Request, Result, Side
from tests.plain_models import PlainModels

SHAPE = (4, 32, 32)
REQUEST = Request(prompt="red poppies", steps=2, strength=0.5)
LINK = RadioLink(snr_db=10, coding="abstract")
DEVICES = {Side.ES: load_profile("edge_gpu"), Side.UE: load_profile("phone")}
INT8 = QuantisedSeedCodec(shape=SHAPE)


def picture(rng_seed: int) -> np.ndarray:
    """Plain models take one pixel in eight for a latent: small numbers, which int8 can hold."""
    return np.random.default_rng(rng_seed).integers(0, 4, (256, 256, 3), np.uint8)


def hidden() -> np.ndarray:
    """The camera does not see the upper left quarter."""
    seen = np.ones((32, 32), np.float32)
    seen[:16, :16] = 0
    return seen


def arrived() -> np.ndarray:
    """What is left of that: the encoder bleeds into a latent's width, and the map has cells of 4."""
    seen = np.ones((32, 32), np.float32)
    seen[:20, :20] = 0
    return seen


SENSED = Feature(kind="image", values=picture(1), confidence=hidden())
REMEMBERED = Feature(kind="image", values=picture(2), age_s=3600.0)


def run(
    mechanism: Mechanism,
    *,
    seed: Codec = INT8,
    up: Any = LINK,
    vouching: Any = LINK,
    workers: int = 1,
) -> Result:
    features = {"sense": SENSED, "remember": REMEMBERED}
    names = {stage.name for stage in mechanism.stages}
    return simulate(
        mechanism,
        REQUEST,
        models=PlainModels(),
        codecs={
            "prompt": TextCodec(),
            "seed": seed,
            "observation": ObservationCodec(seed=seed),
            "state": StateCodec(),
        },
        links={"prompt": LINK, "seed": LINK, "observation": up, "state": vouching},
        devices=DEVICES,
        done=Part(features={n: f for n, f in features.items() if n in names}),
        workers=workers,
    )


def test_what_the_ue_senses_goes_up_and_what_the_es_makes_of_it_comes_down() -> None:
    result = run(SEQUENTIAL, seed=QuantisedSeedCodec(shape=SHAPE, precision="float32"))
    crossed = [(c.kind, c.to_side) for c in result.ledger.crossings]
    assert sorted(crossed) == [("observation", "ES"), ("prompt", "ES"), ("seed", "UE")]
    assert (result.features["replica"].values == result.image).all()
    # The ES knew where the camera had not seen: nothing of that is kept.
    latent = result.features["observe"].values
    anew = result.features["edit"].values - (1 - REQUEST.strength) * latent * arrived()
    drawn = np.random.default_rng(REQUEST.rng_seed).standard_normal(SHAPE) + len(REQUEST.prompt)
    assert np.allclose(anew, REQUEST.strength * drawn, atol=1e-5)


@pytest.mark.parametrize(
    "seed",
    [INT8, ProgressiveSeedCodec(shape=SHAPE, budget_bits=3000)],
    ids=["int8", "progressive"],
)
def test_both_copies_of_the_gate_hold_the_same_bits(seed: Codec) -> None:
    """Though each side had its own features whole, and the other's as they came."""
    result = run(PARALLEL, seed=seed)
    ours, theirs = result.features["gate"], result.features["gate_es"]
    assert state_hash(ours.values) == state_hash(theirs.values)
    assert (ours.values == theirs.values).all()
    assert result.features["agree"].values == "same"
    state = next(c for c in result.ledger.crossings if c.kind == "state")
    assert (state.bits, state.to_side) == (64, Side.UE)
    assert (result.features["replica"].values == result.image).all()
    assert (ours.values != result.features["observe"].values).any()


class Loses:
    """The link in one direction."""

    def __init__(self, to: Side) -> None:
        self.to = to
        self.count = 0

    def send(self, packet: Any, rng: np.random.Generator) -> Delivery:
        # The UE's observation is the first to be sent, the ES's the second.
        self.count += 1
        first = self.count == 1
        delivery = LINK.send(packet, rng)
        return replace(delivery, outcome="lost") if first == (self.to == Side.ES) else delivery


def test_a_side_that_hears_nothing_goes_on_with_what_it_has() -> None:
    result = run(PARALLEL, up=Loses(Side.ES))
    recalled = result.features["recall"].values
    assert np.allclose(result.features["gate_es"].values, recalled, atol=0.02)
    # The UE has both, so the copies have diverged, and their hashes say so.
    ours, theirs = (state_hash(result.features[n].values) for n in ("gate", "gate_es"))
    assert ours != theirs
    assert result.features["agree"].values == "differs"
    result = run(PARALLEL, up=Loses(Side.UE))
    assert result.outcome == "delivered"
    seen = result.features["gate"].values[:, arrived() == 1]
    assert np.allclose(seen, result.features["observe"].values[:, arrived() == 1], atol=0.02)


def test_the_ues_own_view_is_shown_before_the_other_comes() -> None:
    result = run(PARALLEL)
    at = {c.stage: c.end_s for c in result.ledger.computations if c.task == "run"}
    assert at["first"] < at["decode"]
    down = next(c for c in result.ledger.crossings if c.to_side == Side.UE)
    assert at["first"] < down.end_s


def test_up_and_down_are_on_the_air_at_once() -> None:
    both = run(PARALLEL).ledger.crossings
    up, down = (c for c in both if c.kind == "observation")
    assert up.start_s < down.end_s
    assert down.start_s < up.end_s
    by_turns = run(SEQUENTIAL).ledger.crossings
    up, down = (c for c in by_turns if c.kind != "prompt")
    assert up.end_s <= down.start_s


def test_threads_change_nothing() -> None:
    plain, threaded = (run(PARALLEL, workers=n) for n in (1, 4))
    for name, feature in plain.features.items():
        assert np.array_equal(feature.values, threaded.features[name].values)


def test_symbols_cannot_be_taken_as_sent() -> None:
    class Symbols(AnalogSeedCodec):
        def decode(self, delivery: Delivery) -> Feature:
            return replace(super().decode(delivery), kind="observation")

    codec = Symbols(shape=SHAPE)
    with pytest.raises(MechanismError, match="sends symbols, which arrive as the air leaves them"):
        simulate(
            PARALLEL,
            REQUEST,
            models=PlainModels(),
            codecs={"observation": codec},
            links={"observation": LINK},
            devices=DEVICES,
            done=Part(features={"sense": SENSED, "remember": REMEMBERED}),
        )
    with pytest.raises(CodecError, match="an observation is bits; take a seed codec of bits"):
        run(PARALLEL, seed=AnalogSeedCodec(shape=SHAPE))


def test_observations_of_two_shapes_are_refused_with_the_side() -> None:
    small = replace(REMEMBERED, values=picture(2)[:128, :128])
    with pytest.raises(
        MechanismError, match=r"the gate on ES was given \(4, 32, 32\), \(4, 16, 16"
    ):
        simulate(
            PARALLEL,
            REQUEST,
            models=PlainModels(),
            codecs={"observation": Free()},
            links={"observation": LINK},
            devices=DEVICES,
            done=Part(features={"sense": SENSED, "remember": small}),
        )


class Free:
    """Seeds of any shape."""

    def encode(self, feature: Feature) -> Any:
        shape = feature.values.shape
        return QuantisedSeedCodec(shape=shape, precision="float32").encode(
            replace(feature, kind="seed")
        )

    def decode(self, delivery: Delivery) -> Feature:
        side = round((len(delivery.payload) / 16) ** 0.5)
        seed = QuantisedSeedCodec(shape=(4, side, side), precision="float32").decode(delivery)
        return replace(seed, kind="observation")


def test_the_es_must_remember_something() -> None:
    with pytest.raises(MechanismError, match="the ES was given nothing to remember"):
        simulate(
            PARALLEL,
            REQUEST,
            models=PlainModels(),
            codecs={},
            links={},
            devices=DEVICES,
            done=Part(features={"sense": SENSED}),
        )


def test_copies_that_hear_nothing_of_each_other_are_not_said_to_agree() -> None:
    deaf = replace(LINK, snr_db=-40.0)
    result = run(PARALLEL, vouching=deaf)
    assert result.features["agree"].values == "unknown"
    assert result.outcome == "delivered"


def test_the_name_of_a_state_has_eight_bytes() -> None:
    with pytest.raises(CodecError, match="the name of a state has 7 bytes; expected 8"):
        StateCodec().decode(Delivery(payload=b"seven.."))
