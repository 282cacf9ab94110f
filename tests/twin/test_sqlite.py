"""Files: what was acknowledged is there, what is damaged is refused by name, and can be repaired."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from megdt.errors import DamagedError, StoreError, UnknownEntityError
from megdt.twin.entities import Update
from megdt.twin.repair import main, repair
from megdt.twin.store import open_store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 30 revisions: ue/1 tells 1 to 30, ue/2 and a tile are there from the first on."""
    path = tmp_path / "twin.db"
    with open_store(path) as store:
        first = [
            Update(id="ue/2", kind="ue", reported={"name": "evergreen"}),
            Update(id="tile/1", kind="tile", reported={"latents": bytes(20_000)}),
        ]
        for n in range(1, 31):
            mine = Update(id="ue/1", kind="ue", reported={"name": f"number-{n:02}"})
            store.apply([mine, *first], now_s=n, key=f"key/{n}")
            first = []
    return path


def spoil(path: Path, text: bytes) -> None:
    """Change one byte of a text in the file."""
    found = path.read_bytes()
    assert found.count(text) == 1
    path.write_bytes(found.replace(text, text[:-1] + b"X"))


def change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()


def test_an_answer_waits_for_the_disk(path: Path) -> None:
    with open_store(path) as store:
        run = store._storage._database.execute  # type: ignore[attr-defined]
        assert run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert run("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_killed_writers_lose_and_double_nothing() -> None:
    asked = [sys.executable, "benchmarks/twin_store.py", "--kills", "8"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["runs"], found["lost"], found["doubled"]) == (8, 0, 0)
    assert found["acknowledged"] > 0
    assert found["slowest_open_s"] < 2


FULL = """
import resource, sys
from megdt.errors import StoreError
from megdt.twin.store import Update, open_store
with open_store(sys.argv[1]) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    told, refused = [], 0
    for n in range(40):
        try:
            update = Update(id=f"tile/{n}", kind="tile", reported={"latents": bytes(20_000)})
            store.apply([update], key=f"key/{n}")
            told.append(f"tile/{n}")
        except StoreError as error:
            refused += 1
            assert sys.argv[1] in str(error), error
    assert refused and told, (refused, told)
    assert sorted(told) == [e.id for e in store.entities()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.apply([update], key="key/39")
    assert len(store.entities()) == len(told) + 1
    store.verify()
with open_store(sys.argv[1]) as store:
    assert len(store.history()) == len(told) + 1
    store.verify()
"""


def test_a_full_disk_is_refused_before_the_answer_and_the_store_goes_on(tmp_path: Path) -> None:
    asked = [sys.executable, "-c", FULL, str(tmp_path / "full.db")]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_old_event_that_was_changed_is_never_served(path: Path) -> None:
    spoil(path, b"number-03")
    with open_store(path) as store:
        assert store.get("ue/1").reported == {"name": "number-30"}
        for read in (
            lambda: store.get("ue/1", at=3),
            lambda: store.history("ue/1"),
            lambda: store.fork(at=3),
            store.verify,
        ):
            with pytest.raises(DamagedError, match=r"twin\.db is damaged: ue/1 at revision 3"):
                read()


def test_a_state_that_was_changed_is_refused_at_the_door_and_repaired_from_what_is_intact(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(path, b"number-30")
    with pytest.raises(DamagedError, match=r"twin\.db is damaged.*python -m megdt\.twin\.repair"):
        open_store(path)
    assert main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "31 events" in said
    assert "not whole: revisions 30" in said
    assert "an earlier state than the last stands for ue/1" in said
    assert path.with_name("twin.db.damaged").exists()
    with open_store(path) as store:
        store.verify()
        assert store.get("ue/1").reported == {"name": "number-29"}
        assert store.get("ue/2").reported == {"name": "evergreen"}
        assert store.revision == 30
        again = Update(id="ue/1", kind="ue", reported={"name": "number-07"})
        assert store.apply([again], key="key/7") == 7


def test_entities_that_stray_from_their_history_are_refused_and_put_right(path: Path) -> None:
    change(path, "UPDATE entities SET revision = 12 WHERE id = 'ue/1'")
    with pytest.raises(DamagedError, match="2 entities do not stand at the end"):
        open_store(path)
    done = repair(path)
    assert (done.events, done.doubtful, done.stale) == (32, (), ())
    with open_store(path) as store:
        assert store.get("ue/1").revision == 30
    change(path, "DELETE FROM entities WHERE id = 'ue/2'")
    with pytest.raises(DamagedError, match="1 entities do not stand"):
        open_store(path)
    with pytest.raises(StoreError, match=r"twin\.db\.damaged is there from an earlier repair"):
        repair(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE revision = 5",
        "DELETE FROM batches WHERE revision = 5",
        "UPDATE batches SET clock_s = 2.0 WHERE revision = 5",
        "UPDATE batches SET key = 'other' WHERE revision = 5",
        "DELETE FROM batches WHERE revision = 30",
    ],
)
def test_a_history_with_a_hole_does_not_verify_and_is_repaired_around_it(
    path: Path, statement: str
) -> None:
    change(path, statement)
    with pytest.raises(DamagedError, match=r"twin\.db is damaged"), open_store(path) as store:
        store.verify()
    done = repair(path)
    assert done.doubtful
    with open_store(path) as store:
        store.verify()
        assert store.get("ue/1").reported == {"name": "number-30"}


def test_pages_that_were_overwritten_are_refused_and_the_rest_is_rescued(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 8192)
        file.write(b"\xa5" * 4096)
    with pytest.raises(DamagedError, match=r"twin\.db is damaged"), open_store(path) as store:
        store.verify()
    done = repair(path)
    with open_store(path) as store:
        store.verify()
        assert len(store.history()) == done.events


def test_a_file_that_is_no_database_is_refused_and_cannot_be_repaired(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    with pytest.raises(StoreError, match=r"twin\.db is no database"):
        open_store(path)
    with pytest.raises(StoreError, match="no event that can be read"):
        repair(path)
    assert main([str(path)]) == 2


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(DamagedError, match=r"twin\.db is damaged"):
        open_store(path)


def test_a_newer_version_is_refused_by_name(path: Path) -> None:
    change(path, "PRAGMA user_version = 7")
    for use in (open_store, repair):
        with pytest.raises(StoreError, match=r"twin\.db is of version 7, this megdt reads up to 1"):
            use(path)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"other\.db is another program's database"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "twin.db"):
        with pytest.raises(StoreError, match="cannot be opened"):
            open_store(path)


def test_two_openers_share_a_file(path: Path) -> None:
    with open_store(path) as one, open_store(path) as other:
        told = other.subscribe()
        revision = one.apply([Update(id="ue/3", kind="ue")])
        assert [e.id for e in told.read(timeout_s=5)] == ["ue/3"]
        assert other.apply([Update(id="ue/3", reported={"n": 1}, expected=revision)]) == 32
        assert one.get("ue/3").reported == {"n": 1}


def test_a_file_that_is_written_meanwhile_is_not_taken_for_damaged(path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        with open_store(path) as mine:
            while not done.is_set():
                mine.apply([Update(id=f"ue/{n}", kind="ue") for n in range(20)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            with open_store(path) as store:
                store.verify()
                with store.fork() as fork:
                    assert {e.revision for e in fork.entities()} <= set(range(fork.revision + 1))
    finally:
        done.set()
        writer.join()


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get("ue/1")


def test_ten_thousand_ues_open_and_read_soon(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with open_store(path) as store:
        store.apply(
            Update(id=f"ue/{n}", kind="ue", reported={"snr_db": n % 40}) for n in range(10_000)
        )
    with open_store(path) as store, store.fork() as fork:
        assert len(fork.entities("ue")) == 10_000
        with pytest.raises(UnknownEntityError):
            fork.get("ue/10000")
