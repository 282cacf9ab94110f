"""The mechanisms by which a sketch crosses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.codecs.sketch import SketchCodec
from megdt.errors import MechanismError
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import (
    ES_TO_UE_SKETCH,
    PREVIEW_THEN_SEED,
    SKETCH_FIRST,
    UE_TO_ES_SKETCH,
)
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Delivery, Feature, Kind, Part, Request, Result, Side
from megdt.scenario import parse_scenario
from tests.plain_models import PlainModels

REQUEST = Request(prompt="red poppies", size_px=256, steps=3)
LINK = RadioLink(snr_db=10, coding="abstract")
DEVICES = {Side.ES: load_profile("edge_gpu"), Side.UE: load_profile("phone")}
CODECS = {
    "prompt": TextCodec(),
    "seed": QuantisedSeedCodec(shape=(4, 32, 32)),
    "sketch": SketchCodec(size_px=256, style="layout"),
}


def run(
    mechanism: Mechanism,
    models: PlainModels,
    *,
    done: Part | None = None,
    links: dict[Kind, RadioLink] | None = None,
) -> Result:
    return simulate(
        mechanism,
        REQUEST,
        models=models,
        codecs=CODECS,  # type: ignore[arg-type]
        links=dict.fromkeys(CODECS, LINK) | (links or {}),  # type: ignore[arg-type]
        devices=DEVICES,
        done=done,
    )


def test_a_sketch_crosses_and_is_drawn_again_with_the_prompt(models: PlainModels) -> None:
    result = run(ES_TO_UE_SKETCH, models)
    prompt, sketch = result.ledger.crossings
    assert (prompt.kind, prompt.to_side) == ("prompt", Side.ES)
    assert (sketch.kind, sketch.from_side, sketch.to_side) == ("sketch", Side.ES, Side.UE)
    assert 8 * 4 < sketch.bits <= 0.03 * 256**2
    assert models.redrawn is not None
    style, told = models.redrawn
    assert style == "layout"
    assert (told == models.embed([REQUEST.prompt])).all()  # type: ignore[union-attr]
    assert result.image is not None
    assert result.image.shape == (256, 256, 3)
    # The UE has what the codec left of the picture, the ES still the whole of it.
    assert (result.features["sketch"].values == result.features["picture"].values).all()
    codec = SketchCodec(size_px=256, style="layout")
    packet = codec.encode(result.features["sketch"])
    arrived = codec.decode(Delivery(payload=packet.payload)).values
    assert (result.features["redraw"].values == models.encode(arrived[None])[0] / 64).all()


def test_a_picture_that_is_there_is_sent_as_its_sketch_alone(models: PlainModels) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    done = Part(features={"sense": Feature(kind="image", values=picture)})
    result = run(UE_TO_ES_SKETCH, models, done=done)
    (crossing,) = result.ledger.crossings
    assert (crossing.from_side, crossing.kind) == (Side.UE, "sketch")
    assert models.redrawn == ("layout", None)
    with pytest.raises(MechanismError, match="no picture was given to send"):
        run(UE_TO_ES_SKETCH, models)


def test_the_sketch_previews_what_the_seed_refines(models: PlainModels) -> None:
    result = run(PREVIEW_THEN_SEED, models)
    assert [c.kind for c in result.ledger.crossings] == ["prompt", "sketch", "seed"]
    _, sketch, seed = result.ledger.crossings
    assert 10 * sketch.bits < seed.bits
    assert sketch.latency_s < seed.latency_s
    preview, picture = result.features["preview"], result.features["decode"]
    assert preview.kind == picture.kind == "image"
    assert result.image is picture.values
    # The final picture is the seed's, as near as int8 brings it.
    whole = models.decode(result.features["denoise"].values[None])[0]
    assert np.abs(picture.values.astype(int) - whole).max() <= 1
    assert (preview.values != picture.values).any()


def test_where_the_seed_is_lost_the_preview_is_there(models: PlainModels) -> None:
    result = run(PREVIEW_THEN_SEED, models, links={"seed": RadioLink(snr_db=-30)})
    assert (result.outcome, result.image) == ("lost", None)
    assert result.features["preview"].values.shape == (256, 256, 3)
    assert [c.outcome for c in result.ledger.crossings] == ["delivered", "delivered", "lost"]


def sketched_first(models: PlainModels, *, size_px: int) -> Result:
    tables = {
        "request": {"prompt": "lilies", "size_px": size_px},
        "plan": {"mechanism": "sketch_first"},
        "link": {"coding": "ideal"},
    }
    return parse_scenario(tables).run(models)


@pytest.mark.parametrize("size_px", [256, 512])
def test_the_sketch_of_the_first_grid_is_shown_while_the_es_goes_on(
    models: PlainModels, size_px: int
) -> None:
    result = sketched_first(models, size_px=size_px)
    assert [c.kind for c in result.ledger.crossings] == ["prompt", "sketch", "seed"]
    # Small and as it came: nothing is drawn again.
    preview = result.features["preview"].values
    assert preview.shape == (256, 256, 3)
    assert models.redrawn is None
    assert (preview == result.arrived["rough", Side.UE].values).all()
    rough = models.decode(result.features["first"].values[None])[0]
    assert (result.features["rough"].values == rough).all()
    # The picture is of the same scene, at its own size.
    assert result.image is not None
    assert result.image.shape == (size_px, size_px, 3)
    whole = models.decode(result.features["enlarge"].values[None])[0]
    assert np.abs(result.image.astype(int) - whole).max() <= 1


def test_the_sketch_is_coded_before_the_finer_grids_and_crosses_during_them(
    models: PlainModels,
) -> None:
    class Slow(PlainModels):
        """Counts operations, so that the clock has no chance in it."""

        flops = 0.0

        def enlarge(self, *arguments: object, **settings: object) -> NDArray[np.float32]:
            self.flops += 8.6e12  # a second on this ES
            return super().enlarge(*arguments, **settings)  # type: ignore[arg-type]

    ledger = sketched_first(Slow(), size_px=512).ledger
    begun = {(c.stage, c.task): c for c in ledger.computations}
    sketch = next(c for c in ledger.crossings if c.kind == "sketch")
    finer = begun["enlarge", "run"]
    assert begun["preview", "encode sketch"].end_s <= finer.start_s
    assert finer.start_s <= sketch.start_s < sketch.end_s < finer.end_s
    assert begun["preview", "run"].end_s < finer.end_s - 0.5
    seed = next(c for c in ledger.crossings if c.kind == "seed")
    assert finer.end_s <= seed.start_s


def test_where_the_seed_comes_too_late_the_sketch_of_the_first_grid_is_there(
    models: PlainModels,
) -> None:
    tables = {
        "request": {"prompt": "lilies"},
        "plan": {"mechanism": "sketch_first", "sketch_bits": 600},
        "link": {"coding": "ideal", "snr_db": 0, "deadline_s": 0.02},
    }
    result = parse_scenario(tables).run(models)
    assert [c.outcome for c in result.ledger.crossings] == ["delivered", "delivered", "late"]
    assert (result.outcome, result.image) == ("late", None)
    assert result.features["preview"].values.shape == (256, 256, 3)


def test_a_sketch_has_to_cross_before_it_is_drawn_again(models: PlainModels) -> None:
    on_device = Mechanism(
        name="on_device",
        stages=tuple(
            Stage(name=s.name, side=Side.UE, inputs=s.inputs, makes=s.makes, run=s.run)
            for s in ES_TO_UE_SKETCH.stages
        ),
    )
    with pytest.raises(MechanismError, match="the picture to redraw was not sketched"):
        run(on_device, models)


@pytest.mark.parametrize("mechanism", [ES_TO_UE_SKETCH, PREVIEW_THEN_SEED, SKETCH_FIRST])
@pytest.mark.parametrize("mode", ["fair", "paper"])
def test_scenarios_reach_sketches(models: PlainModels, mechanism: Mechanism, mode: str) -> None:
    tables = {
        "request": {"prompt": "lilies", "steps": 1},
        "plan": {"mechanism": mechanism.name, "mode": mode, "sketch_bits": 1000},
        "codecs": {"sketch": "edges"},
    }
    scenario = parse_scenario(tables)
    assert parse_scenario(scenario.table()) == scenario
    result = scenario.run(models)
    bits = next(c.bits for c in result.ledger.crossings if c.kind == "sketch")
    assert 500 < bits <= 1000
    if mechanism is not SKETCH_FIRST:
        assert models.redrawn is not None
        assert models.redrawn[0] == "edges"
