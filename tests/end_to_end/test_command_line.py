"""The installed command, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdt.pictures import read_recall, save_picture

PROMPT = "a field of red poppies at sunset"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from megdt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("generated")
    done = run(
        "generate", PROMPT, "--steps", "6", "--compare", "--json", "--out", "a.png", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, json.loads(done.stdout)


def test_generate_writes_a_picture_and_accounts_for_it(
    generated: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = generated
    with Image.open(folder / "a.png") as picture:
        assert picture.size == (256, 256)
    assert found["latent_shape"] == [4, 32, 32]
    seed = next(c for c in found["ledger"]["crossings"] if c["kind"] == "seed")
    assert seed["bits"] == 8 * 4096
    assert found["bits"] == 8 * 4096 + 8 * len(PROMPT)
    assert set(found["compute_s"]) >= {"UE ask", "ES embed", "ES denoise", "UE decode"}
    assert found["psnr_db"] > 30
    assert found["energy_j"] > 0
    assert found["outcome"] == "delivered"
    assert seed["uses"]["pilots"] > 0
    assert found["duration_s"] > found["airtime_s"] > found["channel_uses"] / 840 * 1e-3 * 0.99


def test_compare_writes_a_labelled_figure(generated: tuple[Path, dict[str, Any]]) -> None:
    folder, found = generated
    with Image.open(folder / "a-compare.png") as figure:
        assert figure.width > 3 * 256
    # About equal channel uses, and the same ledger of what both do.
    other = found["baseline"]
    assert other["mechanism"] == "centralized"
    assert other["channel_uses"] == pytest.approx(found["channel_uses"], rel=0.3)
    both = [{c["kind"]: c for c in x["ledger"]["crossings"]} for x in (found, other)]
    assert both[0]["prompt"] == both[1]["prompt"]
    assert other["compute_s"]["ES denoise"] == found["compute_s"]["ES denoise"]


def test_recall_makes_the_same_picture_bit_for_bit(generated: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = generated
    done = run("recall", "a.png", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"file": "a-recalled.png", "identical": True}
    first, again = (np.asarray(Image.open(folder / n)) for n in ("a.png", "a-recalled.png"))
    assert (first == again).all()


def test_paper_mode_sends_the_seed_as_raw_analog_values(tmp_path: Path) -> None:
    done = run(
        "generate", PROMPT, "--mode", "paper", "--snr-db", "0", "--steps", "1", "--json", "--out", "p.png", cwd=tmp_path,
    )  # fmt: skip
    seed = json.loads(done.stdout)["ledger"]["crossings"][1]
    assert seed["codec"].startswith("AnalogSeedCodec")
    assert (seed["bits"], seed["paper_bits"]) == (0, 32 * 4096)


def test_every_codec_of_the_command_line_sends_a_picture(tmp_path: Path) -> None:
    """A few bits, a sketch that is written as a picture, and symbols by the SNR."""
    for codec, rate in (("seed", "0.05"), ("sketch", "0.02"), ("hybrid", "0.5"), ("jscc", "1")):
        done = run(
            "generate", PROMPT, "--codec", codec, "--rate", rate, "--snr-db", "0", "--steps", "1", "--json", "--out", f"{codec}.png", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        sent = found["ledger"]["crossings"][-1]
        assert sent["kind"] == ("sketch" if codec == "sketch" else "seed")
        if codec in ("seed", "sketch"):
            assert 0.5 * float(rate) < sent["bits"] / 256**2 <= float(rate)
        else:
            assert found["redrawn_from"] == pytest.approx(0.4)  # at 0 dB learned symbols are mended
            assert sum(sent["uses"].values()) <= 1.03 * float(rate) * 2520
        if codec == "sketch":
            assert found["beside"] == {"sketch": "sketch-sketch.png"}
    with Image.open(tmp_path / "sketch-sketch.png") as picture:
        assert picture.size == (256, 256)


def test_a_preview_is_written_beside_the_picture(tmp_path: Path) -> None:
    done = run(
        "generate", PROMPT, "--set", "plan.mechanism=preview_then_seed", "--steps", "1", "--out", "a.png", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a-sketch.png", "a-preview.png"}
    assert "preview" in done.stdout


def test_the_summary_says_where_the_picture_is(tmp_path: Path) -> None:
    done = run("generate", "one blue lily", "--steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"picture: {tmp_path / 'one-blue-lily.png'}" in done.stdout
    assert "seed to UE" in done.stdout
    assert "awgn at 10 dB SNR, ldpc: PSNR" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", " "), "prompt is empty"),
        (("generate",), "prompt is empty"),
        (("generate", "x", "--size", "300"), "needs a multiple of 8; take 296 or 304"),
        (("generate", "x", "--size", "4096"), "size_px is 4096, it goes from 256 to 1024"),
        (("generate", "x", "--snr-db", "loud"), "Invalid value for '--snr-db'"),
        (("generate", "x", "--snr-db", "nan"), "snr_db is nan"),
        (("generate", "x", "--codec", "jpeg"), "codec is 'jpeg', known: seed, sketch, float32"),
        (("generate", "x", "--set", "link.bandwith_hz=1"), "has no key 'bandwith_hz'"),
        (("generate", "x", "--scenario", "none.toml"), "cannot read scenario none.toml"),
        (("generate", "x", "--out", "none/a.png"), "output folder none does not exist"),
        (("generate", "x", "--out", "/proc/a.png"), "cannot write /proc/a.png"),
        (("generate", "x", "--out", "a" * 300 + ".png"), "File name too long"),
        (("generate", "x", "--set", "link.tx_power_dbm=4000"), "tx_power_dbm is 4000"),
        (("generate", "x", "--set", "link.snr_db=1" + 400 * "0"), "snr_db is inf"),
        (("generate", "x", "--mechanism", "centralized", "--compare"), "is a baseline itself"),
        (("generate", "x", "--baseline", "jpeg"), "baseline is 'jpeg', known: webp, avif"),
        (("generate", "x", "--channel", "fog"), "channel is 'fog', known: awgn"),
        (("generate", "x", "--channel", "umi", "--snr-db", "3"), "leave snr_db out"),
        (("generate", "x", "--channel", "trace:none.csv"), "cannot read trace none.csv"),
        (("generate", "x", "--coding", "turbo"), "coding is 'turbo', known: ldpc"),
        (("generate", "x", "--speed-m-s", "-1"), "speed_m_s is -1, this link takes 0 to 300"),
        (("generate", "x", "--bandwidth-hz", "1"), "bandwidth_hz is 1, with 15 kHz"),
        (("generate", "x", "--carrier-frequency-hz", "1"), "carrier_frequency_hz is 1,"),
        (("generate", "x", "--tx-power-dbm", "4000"), "tx_power_dbm is 4000"),
        (("generate", "x", "--set", "devices.ue=fridge"), "device is 'fridge', known: edge_gpu"),
        (("generate", "x", "--mode", "paper", "--coding", "ldpc"), "has no key 'coding'"),
        (("transmit", "none.png"), "cannot read none.png (No such file or directory)"),
        (("transmit", "x", "--set", "plan.mechanism=es_to_ue"), "draws a picture of its own"),
        (("transmit", "x", "--record", "r.sigmf-meta", "--compare"), "--record only writes what"),
        (("generate", "x", "--set", "link.deadline_s=inf"), "deadline_s is inf"),
        (("generate", "x", "--set", "link.snr_db=" + 5000 * "["), "snr_db is "),
        (("generate", "x", "--set", "link.coherence_time_s=inf"), "coherence_time_s is inf"),
        (("receive", "none.sigmf-meta"), "cannot read none.sigmf-meta"),
        (("profile", "--base", "fridge"), "device is 'fridge'"),
        (("generate", "x", "--colour"), "No such option"),
        (("recall", "none.png"), "cannot read none.png (No such file or directory)"),
        (("paint",), "No such command 'paint'"),
        (("run", "paint"), "no task 'paint'; known: text, text-to-image"),
        (("run", "text-to-image"), "prompt is empty"),
        (("run", "text-to-image", "x", "--mechanism", "parallel"), "which does not do text-to-ima"),
        (("run", "shared-scene", "--ues", "65"), "[world] ues is 65, it goes from 1 to 64"),
        (("run", "image-to-video", "--out", "a.mp4"), "a.mp4 ends in neither .png nor .webp"),
        (("run", "image-to-image", "--picture", "none.jpg"), "cannot read none.jpg"),
        (("run", "image-to-video", "--set", "video.frames=0"), "frames of the video is 0"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_models_lists_checked_cards(tmp_path: Path) -> None:
    done = run("models", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    names = {model["name"] for model in found["models"]}
    assert {"text_encoder", "denoiser", "encoder", "decoder"} <= names
    for model in found["models"]:
        assert {"data", "steps", "seconds", "metrics", "sha256", "recipe"} <= model.keys(), model[
            "name"
        ]


def test_doctor_finds_a_healthy_installation(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["healthy"] is True


def test_help_shows_every_command(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    for command in ("generate", "transmit", "receive", "recall", "profile", "models", "doctor"):
        assert command in done.stdout


def test_a_prompt_that_nobody_can_read_is_said_so_on_stderr(tmp_path: Path) -> None:
    done = run("generate", "???", "--steps", "1", "--json", "--out", "a.png", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("note: the prompt has no word")
    assert json.loads(done.stdout)["file"] == "a.png"


def test_a_prompt_of_two_lines_can_be_compared(tmp_path: Path) -> None:
    done = run(
        "generate",
        "red lilies\nat night",
        "--steps",
        "1",
        "--compare",
        "--out",
        "a.png",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-compare.png", "a.png"]


def test_a_large_picture_is_the_size_asked_for(tmp_path: Path) -> None:
    done = run("generate", PROMPT, "--size", "520", "--steps", "1", "--out", "a.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (520, 520)


def test_a_picture_of_other_models_is_not_recalled(
    tmp_path: Path, generated: tuple[Path, dict[str, Any]]
) -> None:
    pixels, data = read_recall(generated[0] / "a.png")
    save_picture(tmp_path / "b.png", pixels, data | {"bundle_sha256": "0" * 64})
    done = run("recall", "b.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "was made with bundle 000000000000" in done.stderr


def test_a_picture_that_differs_is_said_to_differ(
    tmp_path: Path, generated: tuple[Path, dict[str, Any]]
) -> None:
    pixels, data = read_recall(generated[0] / "a.png")
    save_picture(tmp_path / "b.png", 255 - pixels, data)
    done = run("recall", "b.png", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["identical"] is False


def test_a_seed_that_is_lost_is_said_so_with_its_cost_and_exit_code_1(tmp_path: Path) -> None:
    done = run(
        "generate", "one lily", "--steps", "1", "--snr-db", "-30", "--json", "--out", "a.png", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["outcome"], found["file"], found["psnr_db"]) == ("lost", None, None)
    assert found["channel_uses"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_photograph_crosses_as_a_seed_and_as_a_recording(tmp_path: Path) -> None:
    pytest.importorskip("sigmf", reason="recordings need the package sigmf")
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 16, 3), np.uint8))
    small.resize((640, 360)).save(tmp_path / "photo.jpg")
    done = run("transmit", "photo.jpg", "--compare", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"] == "photo-received.png"
    assert found["baseline"]["mechanism"] == "send_picture"
    with Image.open(tmp_path / "photo-received.png") as picture:
        assert picture.size == (256, 256)
    assert (tmp_path / "photo-received-compare.png").exists()

    done = run("transmit", "photo.jpg", "--record", "p.sigmf-meta", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sample_rate_hz"] == 1.92e6
    done = run("receive", "p.sigmf-meta", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "picture: p-received.png\n"
    first, again = (
        np.asarray(Image.open(tmp_path / name)) for name in ("photo-received.png", "p-received.png")
    )
    assert (first == again).all()


def test_this_machine_can_be_measured_and_used_as_a_device(tmp_path: Path) -> None:
    done = run("profile", "--name", "here", "--out", "here.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "here.toml\n"
    done = run(
        "generate", "one lily", "--steps", "1", "--set", "devices.ue=./here.toml", "--json", "--out", "a.png", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    decode = json.loads(done.stdout)["ledger"]["computations"][-1]
    assert decode["flops"] > 1e9
    assert decode["seconds"] > 1e-3


def test_run_lists_the_tasks_and_runs_one(tmp_path: Path) -> None:
    listed = run("run", cwd=tmp_path)
    assert listed.returncode == 0
    for task in ("text", "text-to-image", "image-to-video", "interactive-scene", "shared-scene"):
        assert f"{task}:" in listed.stdout
    done = run(
        "run", "shared-scene", "--ues", "2", "--coding", "abstract", "--json", cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mechanism"] == "decentralized"
    for shown in found["shown"]:
        with Image.open(tmp_path / shown["file"]) as picture:
            assert picture.size[1] == 256
    assert (tmp_path / "shared-scene.png").exists()
