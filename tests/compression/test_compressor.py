"""Sub-models made smaller: what they keep, what they cost, and the folder that comes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torch_pruning", reason="needs the extra compress")
pytest.importorskip("tensorly", reason="needs the extra compress")
pytest.importorskip("onnxscript", reason="needs the extra compress")

from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from megdt.cli import app
from megdt.compression import compressor, quality_check
from megdt.compression.compressor import Compressor, Estimate
from megdt.compression.distillation import train
from megdt.compression.quality_check import QualityCheck
from megdt.compression.recipes import ELASTIC, RECIPES, Method, Recipe, check_method
from megdt.compression.shrinking import decompose, inherit, prune
from megdt.errors import BundleError, MissingExtraError, RequestError, ScenarioError
from megdt.link.energy import load_profile
from megdt.models.autoencoder import Decoder, _ResidualBlock
from megdt.models.bundle import Bundle
from megdt.models.elastic import SIZES, Size
from megdt.models.manifest import FILE, Manifest
from megdt.models.onnx_models import OnnxModels
from megdt.models.variant import VariantModels
from megdt.records import Side
from megdt.scenario import parse_scenario
from megdt.twin.variants import read_variant

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

INT8 = Recipe()


def _check_few(*given: Any, count: int = 3, size_px: int = 256) -> QualityCheck:
    return QualityCheck(*given, count=min(count, 3), size_px=size_px)


@pytest.fixture(scope="module", autouse=True)
def _few_views() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("_VIEWS", 6),
            ("_CALIBRATION_VIEWS", 4),
            ("_LARGE_VIEWS", 1),
            ("QualityCheck", _check_few),
        ):
            patch.setattr(compressor, name, value)
        yield


@pytest.fixture(scope="module")
def maker() -> Compressor:
    return Compressor("decoder", device=load_profile("phone"), size_px=256)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory, maker: Compressor) -> Path:
    folder = tmp_path_factory.mktemp("variant")
    maker.write(maker.estimate(INT8), folder)
    return folder


def test_pruned_it_has_fewer_operations_and_the_same_ends(maker: Compressor) -> None:
    whole = maker.estimate(INT8).flops
    for keep, share in ((0.75, 0.86), (0.5, 0.7), (0.25, 0.55)):
        pruned = maker.build(Recipe(method="prune", keep=keep))
        latent, told = torch.zeros(2, 4, 16, 24), torch.zeros(2)
        assert pruned(latent, told).shape == (2, 3, 128, 192)
        assert maker._flops(pruned, maker._shapes(256)) == pytest.approx(share * whole, rel=0.1)
    wide = [block.first.out_channels for block in pruned.low]  # type: ignore[union-attr]
    assert all(width % 8 == 0 and 16 <= width <= 128 for width in wide)


def test_an_encoder_is_pruned_and_learns() -> None:
    maker = Compressor("encoder", device=load_profile("phone"), size_px=256)
    shapes = maker._shapes(256)
    for recipe in (
        Recipe(method="prune", keep=0.25),
        Recipe(method="low_rank", keep=0.25),
    ):
        smaller = maker.build(recipe)
        assert maker._flops(smaller, shapes) < 0.7 * maker._flops(maker._teacher, shapes)
        before = {name: values.clone() for name, values in smaller.named_parameters()}
        maker.train(smaller, recipe.method, minutes=0.0, steps=1)
        assert all((values != before[name]).any() for name, values in smaller.named_parameters())


def test_channels_that_say_nothing_go_first(maker: Compressor) -> None:
    model = copy.deepcopy(maker._teacher)
    blocks = [block for block in model.modules() if isinstance(block, _ResidualBlock)]
    with torch.no_grad():
        for block in blocks:
            for values in block.first.parameters():
                values[::2] = 0.0
    batches = maker._views.draw_batches(np.random.default_rng(1))
    inputs = [maker._inputs(next(batches)) for _ in range(2)]
    half, third = (prune(model, inputs, keep) for keep in (0.5, 0.33))
    given = maker._inputs(next(batches))
    with torch.no_grad():
        wanted, same, other = (each(*given) for each in (model, half, third))
    torch.testing.assert_close(same, wanted, atol=1e-4, rtol=0.0)
    assert (other - wanted).abs().max() > 0.01


def test_of_full_rank_it_is_the_same_network(maker: Compressor) -> None:
    latent, told = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1),
    )
    with torch.no_grad():
        wanted = maker._teacher(latent, told)
        same, coarse = (decompose(maker._teacher, keep)(latent, told) for keep in (1.0, 0.5))
    assert (same - wanted).abs().max() < 1e-3
    assert 0.01 < (coarse - wanted).abs().mean() < (wanted - wanted.mean()).abs().mean()
    with pytest.raises(RequestError, match=r"keep is 0\.0, a share of the channels"):
        decompose(maker._teacher, 0.0)


def test_a_student_begins_with_what_carries_most(maker: Compressor) -> None:
    batches = maker._views.draw_batches(np.random.default_rng(1))
    inputs = [maker._inputs(next(batches)) for _ in range(2)]
    batch = next(batches)
    teacher = maker._teacher
    assert isinstance(teacher, Decoder)
    same, half = Size(width=64, blocks=3).make(), Size(width=32, blocks=2).make()
    fresh = float(maker._loss(half, batch).detach())
    for student in (same, half):
        inherit(student, teacher, inputs)
    with torch.no_grad():
        torch.testing.assert_close(
            same(*maker._inputs(batch)), teacher(*maker._inputs(batch)), atol=1e-4, rtol=0.0
        )
    assert float(maker._loss(half, batch).detach()) < 0.8 * fresh
    assert all(values.requires_grad for values in half.parameters())


def test_a_student_learns_what_the_teacher_shows(maker: Compressor) -> None:
    student = maker.build(Recipe(method="distill", size=SIZES[0]))
    batches = maker._views.draw_batches(np.random.default_rng(0))
    batch = next(batches)
    before = float(maker._loss(student, batch).detach())
    told: list[int] = []
    student = copy.deepcopy(student)
    steps = train(
        student, maker._loss, batches, seconds=0.0, rate=2e-3, steps=20,
        progress=lambda done, _: told.append(done),
    )  # fmt: skip
    assert steps == 20
    assert told == sorted(told)
    assert float(maker._loss(student, batch).detach()) < 0.85 * before


def test_trained_in_steps_it_comes_out_the_same(maker: Compressor) -> None:
    trained = []
    for _ in range(2):
        model = copy.deepcopy(maker.build(Recipe(method="distill", size=SIZES[0])))
        assert maker.train(model, "distill", minutes=0.0, steps=2)["steps"] == 2
        trained.append(model.state_dict())
    assert all((trained[0][name] == values).all() for name, values in trained[1].items())
    with pytest.raises(RequestError, match="minutes is nan, training takes a number above 0"):
        maker.train(model, "distill", minutes=float("nan"))


def test_the_first_recipe_that_keeps_both_limits_is_taken(
    maker: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = RECIPES["decoder"]
    estimates = {
        recipe: Estimate(
            recipe=recipe, flops=1.0, latency_s=1 / (1 + number),
            cost=compressor.GraphCost(seconds=0.1, memory_mb=100.0 - number),
        )
        for number, recipe in enumerate(recipes)
    }  # fmt: skip
    monkeypatch.setattr(maker, "estimate", estimates.__getitem__)
    assert maker.choose(max_memory_mb=200.0, max_latency_s=5.0).recipe == recipes[0]
    assert maker.choose(max_memory_mb=97.5, max_latency_s=5.0).recipe == recipes[3]
    assert maker.choose(max_memory_mb=200.0, max_latency_s=0.21).recipe == recipes[4]
    student = maker.choose(max_memory_mb=200.0, max_latency_s=5.0, method="distill").recipe
    assert student == Recipe(method="distill", size=SIZES[-1])
    for memory_mb, latency_s, told in (
        (50.0, 5.0, "keeps 50 MB and 5 s: the nearest, distilled 16"),
        (50.0, None, "keeps 50 MB: the nearest, distilled 16"),
        (None, 0.01, r"keeps 0\.01 s: the nearest, distilled 16"),
    ):
        with pytest.raises(RequestError, match=told):
            maker.choose(max_memory_mb=memory_mb, max_latency_s=latency_s)
    assert maker.choose().recipe == recipes[0]
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(RequestError, match=r"max_latency_s is .*, a limit is a number above 0"):
            maker.choose(max_latency_s=limit)


def test_int8_takes_a_third_of_the_room_and_shows_almost_the_same(
    variant: Path, maker: Compressor
) -> None:
    card = Manifest(variant).model("decoder")["card"]
    assert card["megabytes"] <= 0.35 * card["megabytes_of_teacher"]
    assert card["quality"]["psnr_db"] > card["quality"]["psnr_db_of_teacher"] - 0.5
    assert card["memory_mb"] > 1
    assert card["parameters"] == card["parameters_of_teacher"]
    page = (variant / "README.md").read_text()
    assert "## decoder: as it is, int8" in page
    assert "Not trained again." in page


def test_a_variant_says_what_the_planner_reads(
    variant: Path, maker: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = read_variant(variant).models
    assert model.part == "decoder"
    assert model.memory_mb < 2
    assert model.flops(256) == pytest.approx(maker.estimate(INT8).flops, rel=1e-3)
    found = dict(model.distances)
    assert [len(found[size]) for size in (256, 512)] == [3, 1]
    assert 0 < min(map(min, found.values())) <= max(map(max, found.values())) < 0.02
    # A student knows one grid; a smaller one of the whole part's numbers is as far as nothing.
    check = QualityCheck(Bundle(), "student", count=1)
    assert check.distances(Bundle()) == [pytest.approx(0, abs=1e-6)]

    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("no stlpips_pytorch")

    monkeypatch.setattr(quality_check, "perceptual_distance", missing)
    assert check.distances(Bundle()) is None


def test_a_ue_takes_what_the_variant_has_and_the_rest_of_the_bundle(variant: Path) -> None:
    bundle, ue = Bundle(), OnnxModels(variant=variant)
    models = VariantModels(variant, bundle)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 16)).astype(np.float32)
    smaller = ue.decode(latents)
    np.testing.assert_array_equal(models.at(Side.UE).decode(latents), smaller)
    np.testing.assert_array_equal(models.at(Side.ES).decode(latents), bundle.decode(latents))
    assert 0 < np.abs(smaller.astype(int) - bundle.decode(latents)).max() < 60
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(models.at(Side.UE).encode(picture), bundle.encode(picture))
    assert models.checksum != bundle.checksum == ue.checksum
    before = models.flops, ue.flops
    models.at(Side.UE).decode(latents)
    ue.decode(latents)
    assert models.flops - before[0] == ue.flops - before[1] > 0


def test_one_set_of_weights_is_run_at_the_size_that_keeps_the_limit(
    maker: Compressor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (SIZES[0], SIZES[-1])
    monkeypatch.setattr(compressor, "SIZES", sizes)
    estimate = maker.choose(max_memory_mb=500.0, max_latency_s=1.0, method="elastic")
    assert estimate.recipe == ELASTIC
    card = maker.write(estimate, tmp_path, model=maker.build(ELASTIC))
    told = Manifest(tmp_path).model("decoder")
    assert [size["size"] for size in told["sizes"]] == [str(size) for size in sizes]
    assert all(size["graphs"]["int8"]["bytes"] < 100_000 for size in told["sizes"])
    assert card["megabytes"] < 2
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)

    def spent(models: OnnxModels) -> float:
        before = models.flops
        models.decode(latents)
        return models.flops - before

    largest, smallest = (
        spent(OnnxModels(variant=tmp_path, max_latency_s=limit)) for limit in (None, 1e-9)
    )
    assert largest > 8 * smallest
    busy = OnnxModels(variant=tmp_path, max_latency_s=2.0)
    clock = iter(np.cumsum([0, 0.1, 0, 0.1, 0, 60, 0, 60]).tolist())  # a load comes
    monkeypatch.setattr("time.perf_counter", lambda: next(clock, 1000.0))
    shares = [spent(busy) for _ in range(4)]
    assert shares[0] == shares[3] == smallest
    assert shares[1] > smallest
    monkeypatch.undo()
    ready = OnnxModels(variant=tmp_path, max_latency_s=100.0)
    ready.load("decoder")
    assert spent(ready) == largest  # from the first call on
    weights = tmp_path / "decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"decoder\.safetensors is missing or is not the one"):
        OnnxModels(variant=tmp_path).decode(latents)


def test_a_scenario_names_a_variant(variant: Path) -> None:
    tables = {
        "request": {"prompt": "tulips", "steps": 2}, "link": {"coding": "ideal"},
        "model": {"variant": str(variant)},
    }  # fmt: skip
    scenario = parse_scenario(tables)
    small = scenario.run(scenario.model.load())
    whole = parse_scenario({**tables, "model": {}})
    other = whole.run(whole.model.load())
    assert small.image is not None
    assert other.image is not None
    assert (small.image != other.image).any()
    with pytest.raises(ScenarioError, match="set one of them"):
        parse_scenario({**tables, "model": {"variant": str(variant), "name": "a/b"}})


def test_on_the_command_line_a_part_is_added_and_used(tmp_path: Path) -> None:
    runner, folder = CliRunner(), tmp_path / "small"
    asked = ["compress", "student", "--out", str(folder), "--max-memory-mb", "100"]
    told = runner.invoke(app, [*asked, "--max-latency-s", "1"], catch_exceptions=False)
    assert told.exit_code == 0
    card = Manifest(folder).model("student")["card"]
    assert f"student, {card['recipe']}: {card['megabytes']:.2f} MB (was" in told.stdout
    assert card["recipe"] == "as it is, int8"
    assert list(Manifest(folder).content["models"]) == ["student"]
    picture = tmp_path / "picture.png"
    made = runner.invoke(
        app,
        ["generate", "tulips", "--model", str(folder), "--out", str(picture), "--set", "request.steps=2"],
    )  # fmt: skip
    assert made.exit_code == 0
    assert picture.exists()
    told = runner.invoke(app, ["compress", "student", "--max-latency-s", "1e-9"])
    assert isinstance(told.exception, RequestError)
    assert "no recipe for the student keeps 1e-09 s: the nearest" in str(told.exception)


def test_what_cannot_be_is_said_in_one_line(
    variant: Path, maker: Compressor, tmp_path: Path
) -> None:
    phone = load_profile("phone")
    with pytest.raises(RequestError, match="part is 'denoiser', what a UE runs is decoder"):
        Compressor("denoiser", device=phone)
    with pytest.raises(RequestError, match="size_px is 100, it is a multiple of 8"):
        Compressor("decoder", device=phone, size_px=100)
    with pytest.raises(RequestError, match="for the student there are none; take"):
        Compressor("student", device=phone).recipes("prune")
    with pytest.raises(RequestError, match="method is 'magic', take one of none, prune"):
        check_method("magic")
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(RequestError, match="has something else in it than smaller models"):
        maker.write(maker.estimate(INT8), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    content = json.loads((variant / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, "bundle_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="was made of bundle 000000000000, this installation has"):
        OnnxModels(variant=tmp_path)
    (tmp_path / FILE).write_text(json.dumps(content))  # without the graph
    with pytest.raises(BundleError, match=r"decoder\.int8\.onnx is missing or is not the one"):
        OnnxModels(variant=tmp_path).decode(np.zeros((1, 4, 8, 8), np.float32))
    content["models"]["decoder"]["graphs"]["int8"]["file"] = f"../{variant.name}/decoder.int8.onnx"
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"no readable manifest\.json"):
        OnnxModels(variant=tmp_path).decode(np.zeros((1, 4, 8, 8), np.float32))


@pytest.mark.parametrize("part", ["decoder", "encoder"])
@pytest.mark.parametrize("method", ["none", "prune", "low_rank"])
def test_operations_are_those_that_torch_counts(part: str, method: Method) -> None:
    """By which `OnnxModels` charges a call of any size."""
    maker = Compressor(part, device=load_profile("phone"), size_px=256)
    model = maker.build(Recipe(method=method, keep=0.5))
    rates = maker._rates(model)
    shapes = {"decoder": ((1, 4, 40, 24), (1,)), "encoder": ((1, 3, 320, 192),)}[part]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*(torch.zeros(shape) for shape in shapes))
    charged = rates["flops_per_cell"] * 40 * 24 + rates["flops_per_item"]
    assert charged == pytest.approx(counter.get_total_flops(), rel=1e-6)
