"""Pictures and recordings that a pipeline of one's own made, and what a stranger's may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

from megdt.cli import app
from megdt.errors import BundleError
from megdt.pictures import read_recall
from megdt.scenario.settings import take_model
from tests.models.tiny_pipelines import write_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pipelines")
    return {name: write_pipeline(name, place) for name in ("sd", "sdxl")}


def call(*asked: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in asked])


def test_a_picture_names_its_model_and_is_made_again_with_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    steps = ("--steps", 2, "--set", "codecs.seed=float16")
    assert (
        call("generate", "a tower", "--model", folders["sd"], *steps, "--out", picture).exit_code
        == 0
    )
    _, data = read_recall(picture)
    assert data["scenario"]["model"] == {"name": "sd", "dtype": "float32"}
    assert str(tmp_path.parent) not in str(data)
    alone = call("recall", picture)
    assert isinstance(alone.exception, BundleError)
    assert "model.name 'sd', which a file may not open by itself" in str(alone.exception)
    again = call("recall", picture, "--model", folders["sd"])
    assert again.exit_code == 0
    assert "identical" in again.stdout
    other = call("recall", picture, "--model", folders["sdxl"])
    assert "fetch the version that made it" in str(other.exception)
    more = call("recall", picture, "--set", "request.steps=3")
    assert "only [model] may be set here" in str(more.exception)


def test_a_recording_names_its_model_and_is_decoded_by_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("sigmf", reason="needs the extra sigmf")
    photo, recording = tmp_path / "photo.png", tmp_path / "air.sigmf-meta"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)).save(photo)
    made = call("transmit", photo, "--model", folders["sd"], "--record", recording)
    assert made.exit_code == 0
    assert str(tmp_path.parent) not in recording.read_text()
    assert "say where it lies by --model" in str(call("receive", recording).exception)
    out = ("--out", tmp_path / "received.png")
    assert call("receive", recording, "--model", folders["sd"], *out).exit_code == 0
    other = call("receive", recording, "--model", folders["sdxl"])
    assert "name the one that it was made with by --model" in str(other.exception)


def test_what_a_file_names_is_neither_fetched_nor_opened(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for told in (
        {"name": "somebody/something"},
        {"name": str(folders["sd"])},
        {"name": "sd", "ue_autoencoder": "somebody/tiny"},
        {"variant": "/tmp"},
    ):
        with pytest.raises(
            BundleError, match="may not open by itself; say where it lies by --model"
        ):
            take_model({"model": told}, {}, "a.png")
    given = {"name": "mine"}
    assert take_model({"model": {"name": "sd", "dtype": "float16"}}, given, "a.png")["model"] == {
        "name": "mine", "dtype": "float16",
    }  # fmt: skip
    with pytest.raises(BundleError, match=r"by --set model\.ue_autoencoder=PLACE"):
        take_model({"model": {"name": "sd", "ue_autoencoder": "somebody/tiny"}}, given, "a.png")
    assert take_model({"request": {}}, {}, "a.png") == {"request": {}}
