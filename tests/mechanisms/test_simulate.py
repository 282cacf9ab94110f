from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import CodecError, MechanismError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import ES_TO_UE
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Delivery, Feature, Packet, Part, Request, Side
from tests.conftest import PlainModels

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
    energies = [c.radio_j for c in result.ledger.crossings]
    energies += [c.energy_j for c in result.ledger.computations]
    assert result.ledger.energy_j == pytest.approx(sum(energies))
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


def test_a_codec_cannot_pass_anything_by_the_link(models: PlainModels) -> None:
    class CheatingCodec:
        """Sends nothing and remembers the seed instead."""

        kept: Feature | None = None

        def encode(self, feature: Feature) -> Packet:
            self.kept = feature
            return Packet()

        def decode(self, delivery: Delivery) -> Feature:
            if self.kept is None:
                raise CodecError("nothing arrived")
            return self.kept

    codecs = {"prompt": TextCodec(), "seed": CheatingCodec()}
    with pytest.raises(CodecError, match="nothing arrived"):
        simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES)  # type: ignore[arg-type]


def test_progress_names_the_stage(models: PlainModels) -> None:
    told: list[tuple[str, int, int]] = []
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, devices=DEVICES,  # type: ignore[arg-type]
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )  # fmt: skip
    assert told == [("denoise", 3, 3)]
