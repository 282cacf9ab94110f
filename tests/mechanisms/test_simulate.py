from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import CodecError, MechanismError
from megdt.link.ideal import IdealLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import ES_TO_UE
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Delivery, Feature, Packet, Request, Side
from tests.conftest import PlainModels

REQUEST = Request(prompt="red poppies", size_px=64, steps=3)
SHAPE = (4, 8, 8)
LINK = IdealLink(snr_db=10)
LINKS = {"prompt": LINK, "seed": LINK}


def test_every_stage_and_every_crossing_is_in_the_ledger(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    result = simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS)  # type: ignore[arg-type]
    assert [c.stage for c in result.ledger.computations] == ["ask", "embed", "denoise", "decode"]
    prompt, seed = result.ledger.crossings
    assert (prompt.from_side, prompt.to_side, prompt.bits) == (Side.UE, Side.ES, 8 * 11)
    assert (seed.from_side, seed.to_side, seed.bits) == (Side.ES, Side.UE, 8 * 256)
    assert seed.paper_bits == 32 * 256
    assert result.ledger.bits == prompt.bits + seed.bits
    assert result.ledger.channel_uses == prompt.channel_uses + seed.channel_uses
    energies = [line.energy_j for line in (*result.ledger.crossings, *result.ledger.computations)]
    assert result.ledger.energy_j == pytest.approx(sum(energies))
    assert result.image.shape == (64, 64, 3)


def test_the_same_request_gives_the_same_picture(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    first, second = (
        simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS).image  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert (first == second).all()


def test_noise_depends_on_the_rng_seed(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    other = Request(prompt="red poppies", size_px=64, steps=3, rng_seed=1)
    known = {"denoise": Feature(kind="seed", values=np.zeros(SHAPE, np.float32) + 1)}
    first, second = (
        simulate(ES_TO_UE, r, models=models, codecs=codecs, links=LINKS, known=known).image  # type: ignore[arg-type]
        for r in (REQUEST, other)
    )
    assert (first != second).any()


def test_the_decoder_is_told_the_noise_of_the_air(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS)  # type: ignore[arg-type]
    assert models.noise_power is not None
    # Unit-variance latents at 10 dB: about a tenth, by the seed's own power.
    assert models.noise_power[0] == pytest.approx(0.1, rel=0.2)


def test_known_stages_are_neither_run_nor_charged_again(models: PlainModels) -> None:
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    first = simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS)  # type: ignore[arg-type]
    known = {k: f for k, f in first.features.items() if k != "decode"}
    again = simulate(ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS, known=known)  # type: ignore[arg-type]
    assert models.denoised == 1
    assert [c.stage for c in again.ledger.computations] == ["decode"]
    assert [c.kind for c in again.ledger.crossings] == ["seed"]
    assert (again.image == first.image).all()


def test_the_simulator_knows_no_mechanism(models: PlainModels) -> None:
    on_device = Mechanism(
        name="on_device",
        stages=tuple(
            Stage(name=s.name, side=Side.UE, inputs=s.inputs, makes=s.makes, run=s.run)
            for s in ES_TO_UE.stages
        ),
    )
    result = simulate(on_device, REQUEST, models=models, codecs={}, links={})
    assert result.ledger.crossings == ()
    assert result.ledger.channel_uses == 0


def test_a_crossing_without_codec_is_refused(models: PlainModels) -> None:
    with pytest.raises(MechanismError, match=r"seed crosses from denoise \(ES\) to decode \(UE\)"):
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs={"prompt": TextCodec()}, links=LINKS  # type: ignore[arg-type]
        )  # fmt: skip


def test_a_codec_cannot_pass_anything_by_the_link(models: PlainModels) -> None:
    """Whatever decode returns can only depend on what send delivered."""

    @dataclass(frozen=True)
    class DeafLink:
        def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
            return Delivery()

    codecs = {"prompt": TextCodec(), "seed": AnalogSeedCodec(shape=SHAPE)}
    with pytest.raises(CodecError, match="0 analog symbols arrived"):
        simulate(
            ES_TO_UE, REQUEST, models=models, codecs=codecs, links={"prompt": LINK, "seed": DeafLink()}  # type: ignore[arg-type]
        )  # fmt: skip


def test_progress_names_the_stage(models: PlainModels) -> None:
    told: list[tuple[str, int, int]] = []
    codecs = {"prompt": TextCodec(), "seed": QuantisedSeedCodec(shape=SHAPE)}
    simulate(
        ES_TO_UE, REQUEST, models=models, codecs=codecs, links=LINKS,  # type: ignore[arg-type]
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )  # fmt: skip
    assert told == [("denoise", 3, 3)]
