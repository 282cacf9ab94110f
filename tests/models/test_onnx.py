from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from megdt.errors import BundleError, RequestError
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.manifest import FILE, Manifest, describe_graph, graph_name, write_manifest
from megdt.models.onnx_models import EXPORTED, OUTPUTS, OnnxModels
from megdt.records import Precision
from megdt.worlds.garden import draw_view

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def torches() -> Bundle:
    return Bundle()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    views = [draw_view(seed, size_px=128) for seed in (10_700_001, 10_700_002)]
    return np.stack([garden.render(view) for garden, view in views])


@pytest.mark.parametrize(("precision", "power"), [("fp32", 1e-12), ("fp16", 1e-6), ("int8", 2e-3)])
def test_pictures_are_encoded_as_torch_encodes_them(
    torches: Bundle, pictures: np.ndarray, precision: Precision, power: float
) -> None:
    error = OnnxModels(precision=precision).encode(pictures) - torches.encode(pictures)
    assert np.mean(error**2) < power
    if precision == "fp32":
        assert np.abs(error).max() < 1e-4


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("fp16", 1), ("int8", 30)])
def test_pictures_are_decoded_as_torch_decodes_them(
    torches: Bundle, pictures: np.ndarray, precision: Precision, levels: int
) -> None:
    latents, power = torches.encode(pictures), np.array([0.0, 0.3], np.float32)
    wanted = torches.decode(latents, power).astype(int)
    found = OnnxModels(precision=precision).decode(latents, power)
    assert found.dtype == np.uint8
    assert found.shape == pictures.shape
    assert np.abs(found - wanted).max() <= levels
    assert np.mean((found - wanted) ** 2) < 0.01 * levels**2


def test_left_out_noise_is_none(torches: Bundle, pictures: np.ndarray) -> None:
    ours, latents = OnnxModels(), torches.encode(pictures)
    assert np.array_equal(ours.decode(latents), ours.decode(latents, np.zeros(2, np.float32)))


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("fp16", 0.01), ("int8", 0.5)])
@pytest.mark.parametrize("noise_power", [0.0, 0.2])
def test_the_last_steps_are_torchs(
    torches: Bundle, precision: Precision, largest: float, noise_power: float
) -> None:
    handed = np.random.default_rng(0).standard_normal((1, 4, 32, 32)).astype(np.float32)
    told: list[tuple[int, int]] = []
    found, level = OnnxModels(precision=precision).finish(
        handed, [""], [0], noise_power=noise_power, steps=24, handoff_step=18, guidance_scale=1.0,
        progress=lambda step, steps: told.append((step, steps)),
    )  # fmt: skip
    wanted, wanted_level = torches.finish(
        handed, [""], [0], noise_power=noise_power, steps=24, handoff_step=18, guidance_scale=1.0
    )
    assert level == pytest.approx(wanted_level, abs=1e-6)
    assert np.abs(found - wanted).max() < largest
    assert told == [(step + 1, told[0][1]) for step in range(told[0][1])]
    if noise_power:
        assert len(told) > 6  # the noise of the air has undone some


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_a_gate_without_torch_makes_the_same_bits(
    torches: Bundle, pictures: np.ndarray, sources: int
) -> None:
    rng = np.random.default_rng(sources)
    latents = np.stack([torches.encode(pictures)[:1, :, :, :12]] * sources, 1)
    latents += 0.3 * rng.standard_normal(latents.shape).astype(np.float32)
    seen = rng.integers(0, 2, (1, sources, 16, 12)).astype(np.float32)
    age_s = rng.uniform(0, 1e6, (1, sources)).astype(np.float32)
    power = rng.uniform(0, 0.5, (1, sources)).astype(np.float32)
    # Whatever the precision of the rest.
    found = OnnxModels(precision="int8").fuse(latents, seen, age_s, power)
    np.testing.assert_array_equal(found, torches.fuse(latents, seen, age_s, power))


def test_both_count_the_same_operations(torches: Bundle) -> None:
    ours = OnnxModels()
    for call in (
        lambda models: models.decode(np.zeros((2, 4, 40, 24), np.float32)),
        lambda models: models.encode(np.zeros((1, 64, 136, 3), np.uint8)),
        lambda models: models.fuse(
            np.zeros((2, 3, 4, 8, 16), np.float32),
            np.ones((2, 3, 8, 16), np.float32),
            *np.zeros((2, 2, 3), np.float32),
        ),
        lambda models: models.finish(
            np.zeros((1, 4, 32, 32), np.float32),
            [""],
            [0],
            noise_power=0.1,
            steps=8,
            handoff_step=5,
            guidance_scale=1.0,
        ),
    ):
        before = ours.flops, torches.flops
        call(ours), call(torches)
        assert ours.flops - before[0] == torches.flops - before[1] > 0


def test_graphs_hold_no_weights_and_belong_to_those_beside_them() -> None:
    manifest = Manifest(BUNDLE)
    for name in EXPORTED:
        told = manifest.model(name)
        assert told["weights"]["sha256"] == Bundle().card(name)["sha256"]
        for precision in PRECISIONS:
            size = manifest.graph(name, precision).stat().st_size
            assert size == told["graphs"][precision]["bytes"] < 150_000


def test_the_manifest_says_what_goes_in_and_out() -> None:
    onnx = pytest.importorskip("onnx", reason="reading a graph needs onnx")
    for name in EXPORTED:
        told = Manifest(BUNDLE).model(name)
        assert tuple(told["output"]) == OUTPUTS[name]
        assert {key: tuple(axes) for key, axes in told["inputs"].items()} == EXPORTED[name]
        for precision in PRECISIONS:
            path = BUNDLE / graph_name(name, precision)
            graph = onnx.load(path, load_external_data=False).graph
            assert [entry.name for entry in graph.input] == list(EXPORTED[name])
            for entry in graph.input:
                sizes = [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
                axes = told["inputs"][entry.name]
                assert sizes == [axis if isinstance(axis, int) else 0 for axis in axes]


def test_a_graph_exported_anew_decodes_alike(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs onnx and onnxscript")
    from megdt.models.onnx_export import export

    for path in BUNDLE.iterdir():
        if path.name.startswith(("decoder", "manifest")):
            shutil.copy(path, tmp_path)
    graph = tmp_path / graph_name("decoder", "fp16")
    graph.write_bytes(export(Bundle(), "decoder", "fp16"))
    content = Manifest(tmp_path).content
    content["models"]["decoder"]["graphs"]["fp16"] = describe_graph(graph)
    write_manifest(tmp_path, content)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    again = OnnxModels(tmp_path, precision="fp16").decode(latents)
    assert np.array_equal(again, OnnxModels(precision="fp16").decode(latents))


def test_int8_is_fitted_to_what_the_model_meets() -> None:
    pytest.importorskip("onnxscript", reason="exporting needs onnx and onnxscript")
    from megdt.models.onnx_export import export

    with pytest.raises(BundleError, match="needs calibration"):
        export(Bundle(), "decoder", "int8")


def test_what_a_ue_has_not_is_refused() -> None:
    models = OnnxModels()
    for call in (lambda: models.embed(["tulips"]), lambda: models.write("tulips", rng_seed=1)):
        with pytest.raises(BundleError, match="leaves the rest to the ES"):
            call()
    with pytest.raises(RequestError, match="multiples of 8"):
        models.encode(np.zeros((1, 60, 64, 3), np.uint8))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for path in BUNDLE.iterdir():
        if path.name.startswith(("encoder", "manifest")):
            shutil.copy(path, tmp_path)
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    content = json.loads((tmp_path / FILE).read_text())
    good, content["models"]["encoder"]["weights"]["sha256"] = json.dumps(content), "0" * 64
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"encoder\.safetensors is missing or is not the one"):
        OnnxModels(tmp_path).encode(picture)
    for damaged in ("{", "[]", '{"models": {"encoder": 1}}', good.replace("encoder", "other")):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(BundleError, match=r"manifest\.json"):
            OnnxModels(tmp_path).encode(picture)
    (tmp_path / FILE).write_text(good)
    weights = bytearray((tmp_path / "encoder.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "encoder.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match=r"encoder\.safetensors is missing or is not the one"):
        OnnxModels(tmp_path).encode(picture)
    # Weights that are their manifest's, and not their card's.
    content = json.loads(good)
    content["models"]["encoder"]["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="made of other weights"):
        OnnxModels(tmp_path).encode(picture)
