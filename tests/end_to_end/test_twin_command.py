"""`megdt twin` as a user runs it: a twin in a file, asked what if, looked back at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from megdt.cli.app import app
from megdt.models.bundle import Bundle
from megdt.scenario import override
from megdt.scenario.twin import parse_twin_scenario, read_twin_scenario
from megdt.twin.entities import Update
from megdt.twin.store import open_store
from megdt.watching import keep_scenario, kept_scenario, what_if

SMALL = ("--set", "scene.length_m=8", "--set", "ues.count=2", "--set", "requests.each_round=1")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from megdt.cli import main; main()", "twin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("twin")
    done = run("run", "garden_drones", *SMALL, "--rounds", "2", "--db", "t.db", "--json", cwd=made)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (made / "run.json").write_text(done.stdout)
    return made


def test_a_run_tells_its_rounds_and_draws_the_replica(folder: Path) -> None:
    found = json.loads((folder / "run.json").read_text())
    assert [r["round"] for r in found["rounds"]] == [0, 1]
    assert found["summary"]["wishes"] == found["summary"]["delivered"] == 2
    assert found["scenario"]["scene"]["length_m"] == 8
    with Image.open(folder / found["file"]) as picture:
        assert picture.width >= 512


def test_what_if_leaves_the_twin_alone(folder: Path) -> None:
    before = (folder / "t.db").read_bytes()
    done = run(
        "whatif", "--db", "t.db", "--prompt", "a cell outage at night", "--rounds", "1", "--json",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changed"]["scene"]["sky"] == "night"
    assert found["scenario"]["scene"]["length_m"] == 8  # the database's, not the default
    (answer,) = found["rounds"]["if"][0]["answers"]
    assert answer["station"] == 2
    assert (folder / "t.db").read_bytes() == before


def test_the_past_is_there(folder: Path) -> None:
    done = run("replay", "t.db", "--at", "700", "--json", "--out", "then.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rounds"] == 1
    assert set(found["ues"]) == {"ue/1", "ue/2"}
    now = json.loads(run("replay", "t.db", "--json", cwd=folder).stdout)
    assert now["rounds"] == 2
    assert now["time_s"] == 1200
    for at, said in (
        ("-1", "knew nothing at -1 s"),
        ("1300", "goes to 1200 s"),
        ("nan", "is nan s"),
    ):
        done = run("replay", "t.db", f"--at={at}", cwd=folder)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_twin_goes_on_where_it_was(folder: Path) -> None:
    copied = folder / "more.db"
    copied.write_bytes((folder / "t.db").read_bytes())
    done = run("run", *SMALL, "--rounds", "1", "--db", "more.db", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1800 s" in done.stdout
    done = run("run", "--rounds", "1", "--db", "more.db", cwd=folder)
    assert done.returncode == 2
    assert "the twin of another scenario: its scene.length_m is 8" in done.stderr


def test_what_makes_no_other_place_is_kept_anew(folder: Path) -> None:
    again = ("--set", "requests.deadline_s=inf", "--set", "twin.interval_s=300")
    with open_store(folder / "t.db") as live, live.fork() as store:
        known = kept_scenario(store)
        assert known is not None
        changed = read_twin_scenario("garden_drones", [*SMALL[1::2], *again[1::2]])
        assert changed != known
        keep_scenario(store, changed)
        assert kept_scenario(store) == changed
        assert store.revision == live.revision + 1
        keep_scenario(store, changed)
        assert store.revision == live.revision + 1


def test_cases_begin_at_the_last_whole_round_and_a_week_later_a_week_later(folder: Path) -> None:
    with open_store(folder / "t.db") as live, live.fork() as store:
        scenario = kept_scenario(store)
        assert scenario is not None
        store.apply(
            [Update(id="ue/1", kind="ue", reported={"level": 1})], now_s=1_250
        )  # a round begins
        changed = parse_twin_scenario(override(scenario.table(), ["scene.age_days=7"]), source="if")
        cases = what_if(scenario, changed, store, Bundle(), rounds=1)
        assert store.revision == live.revision + 1
    (now,), (later,) = (case[2] for case in cases.values())
    assert "level" not in cases["as it is"][0].store.get("ue/1").reported
    assert later.now_s - now.now_s == 7 * 86_400
    assert now.validity.replica.verdict == "fresh"
    assert later.validity.replica.verdict == "stale"


def test_a_database_is_asked_for_what_it_has(folder: Path, tmp_path: Path) -> None:
    done = run("whatif", "photos", "--db", "t.db", "--prompt", "night", cwd=folder)
    assert done.returncode == 2
    assert "leave the scenario out" in done.stderr
    with open_store(tmp_path / "empty.db"):
        pass
    before = (tmp_path / "empty.db").read_bytes()
    done = run("whatif", "--db", "empty.db", "--prompt", "night", cwd=tmp_path)
    assert done.returncode == 2
    assert "empty.db has no twin yet" in done.stderr
    assert (tmp_path / "empty.db").read_bytes() == before


def test_who_stops_a_run_is_told_what_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    (folder / "stop.db").write_bytes((folder / "t.db").read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.setattr("megdt.watching.follow", stop)
    done = CliRunner().invoke(app, ["twin", "run", *SMALL, "--db", "stop.db"])
    assert done.exit_code == 130
    assert "stopped after 2 rounds; stop.db keeps them" in done.stderr


def test_photos_are_a_scene(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        soft = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((64, 64, 1))).astype(np.uint8)
        Image.fromarray(soft).save(photos / f"{number}.png")
    done = run(
        "run", "photos", "--set", "scene.folder=photos", "--rounds", "1",
        "--set", "requests.each_round=0", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary["replica_seen"] > 0.4
    assert summary["wishes"] == 0
    assert summary["late"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere"), "no scenario 'nowhere'"),
        (("run", "photos"), "--set scene.folder=Pictures"),
        (("run", "photos", "--set", "scene.folder=none"), "has 0 pictures"),
        (("run", "--rounds", "0"), "rounds is 0"),
        (("whatif",), "nothing happens"),
        (("whatif", "--prompt", "unicorns"), "'unicorns'"),
        (("whatif", "--db", "none.db", "--prompt", "night"), "there is no twin at none.db"),
        (("whatif", "--set", "scene.length_m=8"), "is another place"),
        (
            ("whatif", "--set", "attack.kind=forged", "--set", "attack.from_round=99"),
            "is 99, the rounds",
        ),
        (("whatif", "--set", "twin.rounds=0"), "rounds"),
        (("replay", "none.db"), "there is no twin at none.db"),
        (("run", "photos", "--db", "new.db", "--set", "scene.folder=none"), "has 0 pictures"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
