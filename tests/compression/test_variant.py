"""A folder of smaller sub-models: who takes what of it, and what is said where it is not right."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra export")

from megdt import trial
from megdt.cli.options import name_model
from megdt.compression.folder import check_folder, publish, staging
from megdt.compression.graph_cost import measure_graphs
from megdt.compression.recipes import RECIPES
from megdt.errors import BundleError, RequestError, ScenarioError
from megdt.mechanisms.stages import models_at
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE, Cards
from megdt.models.manifest import FILE, Manifest, is_variant, list_files, write_manifest
from megdt.models.onnx_models import OnnxModels
from megdt.models.size_control import SizeController
from megdt.models.variant import VariantModels
from megdt.models.writing import ServedModels, ServerWriter
from megdt.records import Side
from megdt.scenario import parse_scenario
from megdt.study import find_study, run_study
from tests.small_models import write_variant

RESULTS = Path(__file__).parent.parent.parent / "studies" / "compression" / "results.json"


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    return write_variant(tmp_path / "small")


def test_recipes_are_tried_in_the_order_of_what_they_leave_of_the_picture() -> None:
    rows = json.loads(RESULTS.read_text())["models"]
    for part, recipes in RECIPES.items():
        measured = {row["recipe"]: row for row in rows if row["part"] == part}
        assert recipes[0].method == "none"
        far = [measured[str(recipe)]["perceptual_distance"] for recipe in recipes[1:]]
        assert far == sorted(far), part


def test_a_recording_is_encoded_by_the_ue_and_decoded_by_the_es(
    variant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sigmf", reason="recordings need the package sigmf")
    tables = {
        "request": {"prompt": "a photograph"}, "link": {"snr_db": 20.0},
        "plan": {"mechanism": "ue_to_es"}, "codecs": {"seed": "int8"},
        "model": {"variant": str(variant)},
    }  # fmt: skip
    scenario = parse_scenario(tables)
    models = scenario.model.load()
    sides = []

    def watched(models: VariantModels, side: Side) -> object:
        sides.append(side)
        return VariantModels.at(models, side)

    monkeypatch.setattr(trial, "models_at", watched)
    path = tmp_path / "seed.sigmf-meta"
    trial.record(scenario, np.zeros((256, 256, 3), np.uint8), models, path)  # type: ignore[arg-type]
    assert sides == [Side.UE]
    assert trial.receive(path)[0] == "delivered"
    with pytest.raises(RequestError, match="a recording is decoded by the ES; leave it out"):
        trial.receive(path, {"variant": str(variant)})


def test_who_has_texts_written_keeps_each_sides_models(variant: Path) -> None:
    server = ServerWriter(base_url="http://127.0.0.1:1/v1")
    bundle = Bundle()
    served = ServedModels(VariantModels(variant, bundle), server)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    ue, es = (models_at(served, side) for side in (Side.UE, Side.ES))  # type: ignore[arg-type]
    assert isinstance(ue, ServedModels)
    assert isinstance(es, ServedModels)
    np.testing.assert_array_equal(es.decode(latents), bundle.decode(latents))
    assert (ue.decode(latents) != es.decode(latents)).any()
    alone = ServedModels(bundle, server)
    assert models_at(alone, Side.UE) is alone  # type: ignore[arg-type, comparison-overlap]


def test_a_limit_of_time_needs_a_model_of_several_sizes(variant: Path) -> None:
    for given in (None, variant):
        with pytest.raises(RequestError, match="max_latency_s is of models of several sizes"):
            OnnxModels(variant=given, max_latency_s=0.1)
    with pytest.raises(RequestError, match="max_latency_s is 0, a limit is a number above 0"):
        OnnxModels(variant=variant, max_latency_s=0.0)


def test_the_size_follows_the_load() -> None:
    controller, flops = SizeController(0.1), [1e9, 2e9, 4e9]
    assert controller.pick(flops) == 0
    for seconds, wanted in ((0.02, 2), (0.08, 1), (0.4, 0), (0.02, 0)):
        controller.update(1e9, seconds)
        assert controller.pick(flops) == wanted
    assert SizeController(None).pick(flops) == 2


def test_the_model_of_the_command_line_takes_the_place_of_a_files(variant: Path) -> None:
    table = {"name": "a/b", "dtype": "bfloat16"}
    assert name_model(table, str(variant)) == {"dtype": "bfloat16", "variant": str(variant)}
    assert name_model({"variant": "x"}, "a/b") == {"name": "a/b"}
    assert is_variant(variant)
    for other in ("{}", "[", "3", "[" * 100_000):  # a file of that name may be anybody's
        (variant / FILE).write_text(other)
        assert not is_variant(variant)
    for name in ("~nosuchuser/x", "a" * 300):
        with pytest.raises(BundleError, match="is no place of a folder"):
            name_model({}, name)


def test_every_file_counts_for_the_checksum(variant: Path) -> None:
    before = VariantModels(variant).checksum
    content = Manifest(variant).content
    content["models"]["encoder"]["weights"]["sha256"] = "0" * 64
    write_manifest(variant, content)
    assert VariantModels(variant).checksum != before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.update(flops_per_cell="12"),
        lambda told: told.update(flops_per_cell=float("nan")),
        lambda told: told.update(flops_per_cell=0, flops_per_item=0),
        lambda told: told.update(sizes=[]),
        lambda told: told.update(sizes={}),
        lambda told: told["graphs"]["int8"].update(file="encoder.int8.onnx"),
        lambda told: told["graphs"]["int8"].update(file="decoder./../../other"),
        lambda told: told.update(graphs={}),
        lambda told: told["graphs"]["int8"].pop("sha256"),
        lambda told: told["graphs"]["int8"].update(file=3),
        lambda told: told.update(weights="decoder.safetensors"),
        lambda told: told.update(sizes=[{}]),
    ],
)
def test_a_manifest_that_cannot_be_gone_by_is_refused(
    variant: Path, spoil: Callable[[dict[str, object]], object]
) -> None:
    content = Manifest(variant).content
    spoil(content["models"]["decoder"])
    write_manifest(variant, content)
    with pytest.raises(BundleError, match=rf"no readable {FILE} in"):
        OnnxModels(variant=variant)


def test_a_graph_that_is_none_is_one_clear_line(variant: Path) -> None:
    graph = variant / "decoder.int8.onnx"
    graph.write_bytes(b"no graph")
    content = Manifest(variant).content
    told = content["models"]["decoder"]["graphs"]["int8"]
    told["sha256"] = hashlib.sha256(b"no graph").hexdigest()
    write_manifest(variant, content)
    with pytest.raises(BundleError, match=r"decoder\.int8\.onnx cannot be opened \("):
        OnnxModels(variant=variant).decode(np.zeros((1, 4, 8, 8), np.float32))
    other = (BUNDLE / "encoder.int8.onnx").read_bytes()
    graph.write_bytes(other)
    shutil.copy(BUNDLE / "encoder.safetensors", variant)
    told["sha256"] = hashlib.sha256(other).hexdigest()
    write_manifest(variant, content)
    with pytest.raises(BundleError, match="takes pictures, a decoder takes latents, noise_power"):
        OnnxModels(variant=variant).decode(np.zeros((1, 4, 8, 8), np.float32))
    # Some installers link files instead of copying them: what counts is what is in them.
    graph.unlink()
    (variant.parent / "elsewhere").write_bytes(other)
    graph.symlink_to(variant.parent / "elsewhere")
    assert Manifest(variant).graph("decoder", "int8") == graph
    (variant.parent / "elsewhere").write_bytes(b"another")
    with pytest.raises(BundleError, match="is missing or is not the one"):
        Manifest(variant).graph("decoder", "int8")


def test_what_is_there_stays_until_all_is_done(variant: Path) -> None:
    checksum = Cards().checksum
    content = Manifest(variant).content
    with pytest.raises(RequestError, match="has no card of decoder, encoder"):
        check_folder(variant, checksum)
    for told in content["models"].values():
        told["card"] = {}
    write_manifest(variant, content)
    before = {path.name: path.read_bytes() for path in variant.iterdir()}

    def fail() -> None:
        with staging(variant, checksum) as new:
            (new / "decoder.fp16.onnx").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path.name: path.read_bytes() for path in variant.iterdir()} == before
    link = variant.parent / "link"
    link.symlink_to(variant)
    with staging(link, checksum) as new:
        (new / "decoder.fp16.onnx").write_text("half")
        gone = list_files(content["models"].pop("decoder"))
        publish(new, link, content, "a page", replaced=gone)
    assert link.is_symlink()
    kept = {"decoder.fp16.onnx", "encoder.int8.onnx", "encoder.safetensors", "README.md", FILE}
    assert {path.name for path in variant.iterdir()} == kept
    assert list(Manifest(variant).content["models"]) == ["encoder"]


def test_where_nothing_can_be_written_is_said_before_anything_is_done(
    variant: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "child", Path("/proc/small")):
        with pytest.raises(RequestError, match="choose another by --out"):
            check_folder(place, Cards().checksum)
    with pytest.raises(RequestError, match=r"was made of bundle .*; take a new folder"):
        check_folder(variant, "0" * 64)
    new = tmp_path / "not" / "yet"
    with staging(new, Cards().checksum):
        assert new.is_dir()
    assert not new.exists()


def test_studies_take_whole_models(variant: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is of megdt compress, and studies take whole models"):
        run_study(
            find_study("fair_baseline"), tmp_path / "out", quick=True, model=str(variant),
            progress=None, say=print,
        )  # fmt: skip


def test_int8_weights_keep_to_seven_bits() -> None:
    """Those of eight overflow on processors that add two products in 16 bits."""
    onnx = pytest.importorskip("onnx", reason="reading a graph needs onnx")
    from onnx import numpy_helper
    from safetensors.numpy import load_file

    for name in ("decoder", "encoder", "student"):
        stored = load_file(BUNDLE / f"{name}.safetensors")
        graph = onnx.load(BUNDLE / f"{name}.int8.onnx", load_external_data=False).graph
        steps = {t.name: t for t in graph.initializer if t.name.endswith("_scale")}
        checked = 0
        for node in graph.node:
            origin = node.output[0].removesuffix("_quantized")
            if node.op_type != "QuantizeLinear" or origin not in stored:
                continue
            weights = stored[origin].astype(np.float32)
            step = numpy_helper.to_array(steps[node.input[1]]).reshape(
                -1, *[1] * (weights.ndim - 1)
            )
            assert np.abs(np.rint(weights / step)).max() <= 64
            checked += 1
        assert checked > 3


def test_both_ends_of_a_video_have_the_same_decoder(variant: Path) -> None:
    tables = {
        "request": {"prompt": ""}, "plan": {"mechanism": "video_sequential"},
        "model": {"variant": str(variant)},
    }  # fmt: skip
    with pytest.raises(ScenarioError, match="both ends of a video decode by the same autoencoder"):
        parse_scenario(tables)


def test_a_graph_is_measured_whatever_lies_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a=1"
    folder.mkdir()
    for file in ("decoder.int8.onnx", "decoder.safetensors"):
        shutil.copy(BUNDLE / file, folder)
    (folder / "numpy.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(folder)
    inputs = {"latents": (1, 4, 8, 8), "noise_power": (1,)}
    cost = measure_graphs([Path("decoder.int8.onnx")], inputs)
    assert cost.seconds > 0
    assert cost.memory_mb > 1
    with pytest.raises(BundleError, match=r"does not run \(.*\); write it again"):
        measure_graphs([Path("numpy.py")], inputs)
