from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.codecs.image import AnalogImageCodec
from megdt.codecs.prompt import RecipeCodec, TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import CodecError, LinkError, MechanismError
from megdt.link.energy import load_profile
from megdt.link.paper import PaperLink
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import CENTRALIZED, ES_TO_UE, PROMPT_ONLY, UE_TO_ES
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Delivery, Feature, Packet, Part, Request, Side
from tests.plain_models import PlainModels

REQUEST = Request(prompt="red poppies", size_px=256, steps=3)
SHAPE = (4, 32, 32)
LINK = RadioLink(snr_db=10, coding="abstract")
LINKS = {"prompt": LINK, "seed": LINK}
DEVICES = {Side.ES: load_profile("edge_gpu"), Side.UE: load_profile("phone")}


def test_every_stage_and_every_crossing_is_in_the_ledger(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    result = simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES)  # type: ignore[arg-type]
    assert [(c.side, c.stage, c.task) for c in result.ledger.computations] == [
        ("UE", "ask", "run"),
        ("UE", "embed", "encode prompt"),
        ("ES", "embed", "decode prompt"),
        ("ES", "embed", "run"),
        ("ES", "denoise", "run"),
        ("ES", "decode", "encode seed"),
        ("UE", "decode", "decode seed"),
        ("UE", "decode", "run"),
    ]
    assert set(result.ledger.compute_s()) >= {"UE ask", "ES denoise", "ES encode seed", "UE decode"}
    prompt, seed = result.ledger.crossings
    assert (prompt.from_side, prompt.to_side, prompt.bits) == (Side.UE, Side.ES, 8 * 11)
    assert (seed.from_side, seed.to_side, seed.bits) == (Side.ES, Side.UE, 8 * 4096)
    assert seed.paper_bits == 32 * 4096
    assert result.ledger.bits == prompt.bits + seed.bits
    assert result.ledger.channel_uses == prompt.channel_uses + seed.channel_uses
    ledger = result.ledger
    energies = [c.radio_j for c in ledger.crossings] + [c.energy_j for c in ledger.computations]
    assert ledger.energy_j == pytest.approx(sum(energies) + ledger.idle_j)
    assert ledger.energy_j == pytest.approx(sum(ledger.energy_of(side) for side in DEVICES))
    # In a chain one thing follows the other; what a side does not do, it waits.
    spent = sum(c.seconds for c in ledger.computations) + sum(c.latency_s for c in ledger.crossings)
    assert ledger.duration_s == pytest.approx(spent)
    idle_j = 0.0
    for side, device in DEVICES.items():
        busy = sum(c.seconds for c in ledger.computations if c.side == side)
        idle_j += device.compute_idle_j(spent - busy)
        idle_j += device.radio_idle_j(spent - prompt.latency_s - seed.latency_s)
    assert ledger.idle_j == pytest.approx(idle_j)
    assert all(c.radio_j > c.radiated_j > 0 for c in result.ledger.crossings)
    assert result.image.shape == (256, 256, 3)


def test_the_same_request_gives_the_same_picture(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    first, second = (
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES
        ).image  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert (first == second).all()


def test_noise_depends_on_the_rng_seed(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    other = Request(prompt="red poppies", size_px=256, steps=3, rng_seed=1)
    done = Part(features={"denoise": Feature(kind="seed", values=np.ones(SHAPE, np.float32))})
    first, second = (
        simulate(
            ES_TO_UE, r, models=models, codecs=codecs, links=LINKS, devices=DEVICES, done=done
        ).image  # type: ignore[arg-type]
        for r in (REQUEST, other)
    )
    assert (first != second).any()


def test_the_decoder_is_told_the_noise_of_the_air(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES)  # type: ignore[arg-type]
    assert models.noise_power is not None
    # Unit-variance latents at 10 dB: about a tenth, by the seed's own power.
    assert models.noise_power[0] == pytest.approx(0.1, rel=0.2)


def test_stages_that_are_done_are_not_run_again_and_keep_their_cost(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    first = simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES)  # type: ignore[arg-type]
    part = first.part({"ask", "embed", "denoise"})
    again = simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES, done=part
    )  # type: ignore[arg-type]
    assert models.denoised == 1
    assert again.ledger.bits == first.ledger.bits
    assert again.ledger.computations[:5] == first.ledger.computations[:5]
    assert len(again.ledger.computations) == len(first.ledger.computations)
    assert (again.image == first.image).all()


def test_a_stage_that_is_done_must_be_there(models: PlainModels) -> None:
    done = Part(features={"paint": Feature(kind="seed", values=np.ones(SHAPE, np.float32))})
    with pytest.raises(MechanismError, match="stage 'paint' is done, but es_to_ue has no such"):
        simulate(ES_TO_UE, REQUEST, models=models, codecs={}, links={}, devices=DEVICES, done=done)


def test_a_side_that_has_a_feature_needs_it_only_once(models: PlainModels) -> None:
    decode = ES_TO_UE.stages[-1]
    twice = Mechanism(name="twice", stages=(
        *ES_TO_UE.stages,
        Stage(name="again", side=Side.UE, inputs=("denoise",), makes="image", run=decode.run),
    ))  # fmt: skip
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    result = simulate(twice, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES)  # type: ignore[arg-type]
    assert [c.kind for c in result.ledger.crossings] == ["prompt", "seed"]
    assert (result.features["again"].values == result.features["decode"].values).all()


def test_a_stage_makes_what_it_says(models: PlainModels) -> None:
    liar = Stage(name="lie", side=Side.UE, makes="image", run=ES_TO_UE.stages[0].run)
    with pytest.raises(MechanismError, match="'lie' of m made a prompt, it says it makes a image"):
        simulate(
            Mechanism(name="m", stages=(liar,)),
            REQUEST,
            models=models,
            codecs={},
            links={},
            devices=DEVICES,
        )


def test_the_simulator_knows_no_mechanism(models: PlainModels) -> None:
    on_device = Mechanism(
        name="on_device",
        stages=tuple(
            Stage(name=s.name, side=Side.UE, inputs=s.inputs, makes=s.makes, run=s.run)
            for s in ES_TO_UE.stages
        ),
    )
    result = simulate(on_device, REQUEST, models=models, codecs={}, links={}, devices=DEVICES)
    assert result.ledger.crossings == ()
    assert result.ledger.channel_uses == 0


def test_a_crossing_without_codec_is_refused(models: PlainModels) -> None:
    with pytest.raises(MechanismError, match=r"seed crosses from denoise \(ES\) to decode \(UE\)"):
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs={"prompt": TextCodec()}, links=LINKS, devices=DEVICES  # type: ignore[arg-type]
        )  # fmt: skip


class Remembering:
    """Sends nothing and remembers the seed instead."""

    kept: Feature | None = None

    def encode(self, feature: Feature) -> Packet:
        self.kept = feature
        return Packet()

    def decode(self, delivery: Delivery) -> Feature:
        del delivery
        if self.kept is None:
            raise CodecError("nothing arrived")
        return self.kept


class Sack(bytes):
    """Bytes with more on them than their bits."""

    feature: Feature


class OnThePayload:
    """Sends one byte, with the seed as an attribute of it."""

    def encode(self, feature: Feature) -> Packet:
        sack = Sack(b"x")
        sack.feature = feature
        return Packet(payload=sack)

    def decode(self, delivery: Delivery) -> Feature:
        try:
            return delivery.payload.feature  # type: ignore[attr-defined,no-any-return]
        except AttributeError as error:
            raise CodecError("nothing arrived") from error


class Cloak(np.ndarray):  # type: ignore[type-arg]
    """Symbols with more on them than their values."""

    feature: Feature


class OnTheSymbols:
    """Sends one symbol, with the seed as an attribute of the array."""

    def encode(self, feature: Feature) -> Packet:
        cloak = np.ones(1, np.complex64).view(Cloak)
        cloak.feature = feature
        return Packet(symbols=cloak)

    def decode(self, delivery: Delivery) -> Feature:
        try:
            return delivery.symbols.feature  # type: ignore[union-attr,no-any-return]
        except AttributeError as error:
            raise CodecError("nothing arrived") from error


class OfItsOwnKind:
    """Says that it is its own copy, and remembers."""

    def __init__(self) -> None:
        self.kept: Feature | None = None

    def __deepcopy__(self, memo: object) -> OfItsOwnKind:
        return self

    def encode(self, feature: Feature) -> Packet:
        self.kept = feature
        return Packet(payload=b"x")

    def decode(self, delivery: Delivery) -> Feature:
        del delivery
        assert self.kept is not None
        return self.kept


class Short(bytes):
    """Many bytes that say they are one."""

    def __len__(self) -> int:
        return 1


class OnThePacket:
    """A packet that is more than a packet."""

    @dataclass(frozen=True, kw_only=True)
    class Big(Packet):
        feature: Feature

    def encode(self, feature: Feature) -> Packet:
        return self.Big(payload=b"x", feature=feature)

    def decode(self, delivery: Delivery) -> Feature:
        try:
            return delivery.feature  # type: ignore[attr-defined,no-any-return]
        except AttributeError as error:
            raise CodecError("nothing arrived") from error


@pytest.mark.parametrize("cheat", [Remembering, OnThePayload, OnTheSymbols, OnThePacket])
@pytest.mark.parametrize("coding", ["ldpc", "abstract", "ideal", "paper"])
def test_a_codec_cannot_pass_anything_by_the_link(
    models: PlainModels, cheat: type, coding: str
) -> None:
    link = PaperLink() if coding == "paper" else RadioLink(snr_db=10, coding=coding)  # type: ignore[arg-type]
    # The paper's link takes no complex symbols at all.
    with pytest.raises((CodecError, LinkError), match=r"nothing arrived|symbols are complex"):
        simulate(
            ES_TO_UE,
            REQUEST,
            models=models,
            codecs={"prompt": TextCodec(), "seed": cheat()},
            links={"prompt": link, "seed": link},
            devices=DEVICES,
        )


def test_a_codec_that_is_its_own_copy_is_refused(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": OfItsOwnKind()}
    with pytest.raises(MechanismError, match="is its own copy, so it could pass features by"):
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES  # type: ignore[arg-type]
        )  # fmt: skip


def test_bytes_are_charged_for_what_they_are(models: PlainModels) -> None:
    class Understating:
        def encode(self, feature: Feature) -> Packet:
            return Packet(payload=Short(feature.values.tobytes()))

        def decode(self, delivery: Delivery) -> Feature:
            values = np.frombuffer(delivery.payload, np.float32).reshape(SHAPE)
            return Feature(kind="seed", values=values)

    codecs = {"prompt": TextCodec(), "seed": Understating()}
    for link in (RadioLink(coding="ideal"), PaperLink(), LINK):
        result = simulate(
            ES_TO_UE, REQUEST, models=models, codecs=codecs, devices=DEVICES,  # type: ignore[arg-type]
            links={"prompt": link, "seed": link},
        )  # fmt: skip
        seed = result.ledger.crossings[1]
        assert seed.bits == 32 * 4096
        assert seed.channel_uses > 32 * 4096 / 8


def test_a_codec_cannot_change_what_it_is_judged_by(models: PlainModels) -> None:
    class Erasing(QuantisedSeedCodec):
        def encode(self, feature: Feature) -> Packet:
            feature.values[:] = 0
            return super().encode(feature)

    codecs = {"prompt": TextCodec(), "seed": Erasing(shape=SHAPE)}
    result = simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES  # type: ignore[arg-type]
    )  # fmt: skip
    assert np.std(result.features["denoise"].values) > 0.5


def test_a_payload_hidden_in_power_is_refused(models: PlainModels) -> None:
    class Loud:
        def encode(self, feature: Feature) -> Packet:
            return Packet(symbols=(feature.values.ravel() * 1e6).astype(np.complex64))

        def decode(self, delivery: Delivery) -> Feature:
            raise AssertionError("the link lets it through")

    codecs = {"prompt": TextCodec(), "seed": Loud()}
    with pytest.raises(LinkError, match="the link takes at most 1"):
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES  # type: ignore[arg-type]
        )  # fmt: skip


def test_all_that_a_crossing_took_is_in_its_line(models: PlainModels) -> None:
    link = RadioLink(snr_db=4, channel="rayleigh")
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    links = {"prompt": link, "seed": link}
    result = simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=links, devices=DEVICES  # type: ignore[arg-type]
    )  # fmt: skip
    prompt, seed = result.ledger.crossings
    assert prompt.uses.pilots > 0
    assert prompt.uses.control > 0
    assert prompt.uses.feedback > 0
    assert prompt.header_bits == 64 + 16 * prompt.blocks
    assert (seed.bits, seed.blocks) == (0, 0)
    assert seed.uses.data > 2048
    assert seed.channel_uses == seed.uses.total
    assert seed.latency_s > seed.airtime_s > 0
    assert result.ledger.duration_s > prompt.latency_s + seed.latency_s


@pytest.mark.parametrize(
    ("settings", "outcome"), [({"snr_db": -30}, "lost"), ({"deadline_s": 1e-4}, "late")]
)
def test_what_does_not_get_across_is_an_outcome_and_no_picture(
    models: PlainModels, settings: dict[str, float], outcome: str
) -> None:
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    links = {"prompt": LINK, "seed": RadioLink(**settings)}  # type: ignore[arg-type]
    result = simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=links, devices=DEVICES  # type: ignore[arg-type]
    )  # fmt: skip
    assert (result.outcome, result.image) == (outcome, None)
    assert [c.outcome for c in result.ledger.crossings] == ["delivered", outcome]
    assert set(result.features) == {"ask", "embed", "denoise"}
    # Encoding was done and is charged; decoding was not.
    tasks = [c.task for c in result.ledger.computations]
    assert "encode seed" in tasks
    assert "decode seed" not in tasks


def test_schemes_that_are_compared_meet_the_same_channel(models: PlainModels) -> None:
    """The first packet from ES to UE draws the same fading, be it a seed or a picture."""
    link = RadioLink(snr_db=10, channel="rayleigh", csi="perfect")
    request = REQUEST
    gains = []
    for mechanism, kind, codec in (
        (ES_TO_UE, "seed", AnalogSeedCodec(shape=SHAPE)),
        (CENTRALIZED, "image", AnalogImageCodec(size_px=256)),
    ):

        class Spy:
            def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
                delivery = link.send(packet, rng)
                gains.append(np.asarray(delivery.noise_power)[0])
                return delivery

        simulate(
            mechanism,
            request,
            models=models,
            codecs={"prompt": TextCodec(), kind: codec},  # type: ignore[dict-item]
            links={"prompt": LINK, kind: Spy()},  # type: ignore[dict-item]
            devices=DEVICES,
        )
    assert gains[0] == gains[1]


def test_devices_price_time_and_energy(models: PlainModels) -> None:
    class Counting(PlainModels):
        flops = 0.0

        def decode(
            self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
        ) -> NDArray[np.uint8]:
            self.flops += 1.6e12
            return super().decode(latents, noise_power)

    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    result = simulate(
        ES_TO_UE, REQUEST, models=Counting(), codecs=codecs, links=LINKS, devices=DEVICES  # type: ignore[arg-type]
    )  # fmt: skip
    decode = result.ledger.computations[-1]
    phone = DEVICES[Side.UE]
    assert decode.flops == 1.6e12
    assert decode.seconds == pytest.approx(1.6e12 / phone.flops_per_s)
    assert decode.energy_j == pytest.approx(decode.seconds * phone.compute_power_w)
    assert decode.measured_s < 0.5 < decode.seconds
    # Who counts nothing pays for the time it took.
    for line in result.ledger.computations[:-1]:
        assert line.seconds == line.measured_s
        assert line.energy_j == pytest.approx(line.seconds * DEVICES[line.side].core_power_w)


def test_a_recipe_is_all_that_a_whole_model_needs(models: PlainModels) -> None:
    codecs = {"recipe": RecipeCodec()}
    result = simulate(
        PROMPT_ONLY, REQUEST, models=models, codecs=codecs, links={"recipe": LINK}, devices=DEVICES  # type: ignore[arg-type]
    )  # fmt: skip
    (crossing,) = result.ledger.crossings
    assert crossing.bits == 32 + 8 * 11
    whole = simulate(
        ES_TO_UE,
        REQUEST,
        models=models,
        codecs={
            "prompt": TextCodec(),
            "seed": QuantisedSeedCodec(shape=SHAPE, precision="float32"),
        },
        links=LINKS,  # type: ignore[arg-type]
        devices=DEVICES,
    )
    assert (result.image == whole.image).all()


def test_a_picture_that_is_there_is_sent_as_its_seed(models: PlainModels) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    done = Part(features={"sense": Feature(kind="image", values=picture)})
    codecs = {"seed": QuantisedSeedCodec(shape=SHAPE, precision="float32")}
    result = simulate(
        UE_TO_ES, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES, done=done  # type: ignore[arg-type]
    )  # fmt: skip
    assert [c.from_side for c in result.ledger.crossings] == [Side.UE]
    assert (result.features["encode"].values == models.encode(picture[None])[0]).all()
    with pytest.raises(MechanismError, match="no picture was given to send"):
        simulate(UE_TO_ES, REQUEST, models=models, codecs={}, links={}, devices=DEVICES)


def test_progress_names_the_stage(models: PlainModels) -> None:
    told: list[tuple[str, int, int]] = []
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES,  # type: ignore[arg-type]
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )  # fmt: skip
    assert told == [("denoise", 3, 3)]
