"""Studies are found, run, and made one page; of a small one made for the purpose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megdt.errors import RequestError, StudyError
from megdt.study import find_study, run_study, write_report

RUN = """
import argparse, json
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path)
parser.add_argument("--quick", action="store_true")
arguments = parser.parse_args()
print("1/2 half", flush=True)
print("2/2 all", flush=True)
print("a remark")
found = {
    "settings": {"quick": arguments.quick, "link": {"snr_db": 10}},
    "bundle_sha256": "0" * 64,
    "figures": {"figure": "Nothing to see."},
    "claims": [{"claim": "a < b & c", "verdict": "does not hold", "found": "1 of 2"}],
    "curves": {"garden": [{"snr_db": -5, "kid": 0.25}, {"snr_db": 0, "kid": None}]},
}
arguments.out.write_text(json.dumps(found))
"""
PLOT = """
import argparse
from pathlib import Path
from PIL import Image
parser = argparse.ArgumentParser()
parser.add_argument("--results", type=Path)
parser.add_argument("--out", type=Path)
arguments = parser.parse_args()
assert arguments.results.exists()
Image.new("RGB", (8, 8)).save(arguments.out / "figure.png")
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "run.py").write_text(RUN)
    (folder / "plot.py").write_text(PLOT)
    (folder / "README.md").write_text("# Is it small?\n\n**Claim.** It [is](x.md).\n\nMore.\n")
    return folder


def test_a_study_is_run_drawn_and_reported(study: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    said: list[str] = []
    report = run_study(
        study, tmp_path / "out", quick=True, progress=lambda *t: told.append(t), say=said.append
    )
    assert told == [("small", 1, 2), ("small", 2, 2)]
    assert said == ["a remark"]
    page = report.read_text()
    assert "<h1>Is it small?</h1><p>Claim. It is.</p>" in page
    assert "a &lt; b &amp; c" in page
    assert '<span class="bad">does not hold</span>' in page
    assert "data:image/png;base64," in page
    assert "<figcaption>Nothing to see.</figcaption>" in page
    assert "<th>SNR (dB)</th><th>KID</th>" in page


def test_a_report_asks_for_nothing_outside_itself(study: Path, tmp_path: Path) -> None:
    run_study(study, tmp_path / "out", quick=False, progress=None, say=lambda line: None)
    page = write_report(study, tmp_path / "out").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_a_study_that_fails_says_why_in_one_line(study: Path, tmp_path: Path) -> None:
    (study / "run.py").write_text("raise SystemExit('no pictures here')")
    with pytest.raises(StudyError, match="no pictures here"):
        run_study(study, tmp_path / "out", quick=True, progress=None, say=lambda line: None)


def test_a_model_goes_to_studies_that_take_one(study: Path, tmp_path: Path) -> None:
    told = {"quick": True, "progress": None, "say": lambda line: None}
    with pytest.raises(RequestError, match=r"bundle's own models; --model is of .*fair_baseline"):
        run_study(study, tmp_path / "out", model="mine", **told)
    taking = RUN.replace(
        'parser.add_argument("--quick"',
        'parser.add_argument("--model")\nparser.add_argument("--quick"',
    ).replace('{"quick": arguments.quick,', '{"model": arguments.model,')
    (study / "run.py").write_text(taking)
    run_study(study, tmp_path / "out", model="mine", **told)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["settings"]["model"] == "mine"


def test_an_unknown_study_names_those_that_are_there() -> None:
    with pytest.raises(RequestError, match=r"no study 'fig7' here; there is .*fair_baseline.*fig6"):
        find_study("fig7")


def test_the_command_runs_a_study_into_a_folder_of_its_own(study: Path, tmp_path: Path) -> None:
    place = tmp_path / "studies"
    place.mkdir()
    study.rename(place / "small")
    done = subprocess.run(
        [sys.executable, "-c", "from megdt.cli import main; main()", "study", "small", "--quick"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1/2 half" in done.stderr  # where stderr is no terminal, the lines themselves
    assert json.loads((tmp_path / "small-quick" / "results.json").read_text())["settings"]["quick"]
    assert (tmp_path / "small-quick" / "report.html").exists()
