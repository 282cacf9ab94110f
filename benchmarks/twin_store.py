"""The twin's store: updates a second, time to open, and what is left when its writer is killed.

python benchmarks/twin_store.py [--rounds 5] [--out benchmarks/twin_store.json]
python benchmarks/twin_store.py --kills 200 [--out benchmarks/twin_store_kills.json]

Updates are made beforehand. Durable means that each batch is on the disk before it is answered. The
peer is the floor under any store on SQLite: the same states, packed beforehand, put into one table
without an index, by the same driver with the same guarantee. Both take turns in one run, on the same
disk. A busy machine gives less by the clock; seconds of the processor are given beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from megdt.twin.entities import Update
from megdt.twin.storage import pack
from megdt.twin.store import Store, open_store

UES = 10_000
BATCH = 1_000
BATCHES = 20
"""Of a round."""
A_BATCH, ENTITIES = 5, 50
"""Of the writer that is killed: entities that a batch changes, and all of them."""
RUNS_A_FILE = 10
"""So that files are made, and grow, under kills."""


def state(ue: int, turn: int) -> dict[str, Any]:
    return {
        "snr_db": 5.0 + (ue + turn) % 20, "position_m": [float(ue), float(turn), 1.5],
        "battery_j": 40_000.0 - turn, "load": 0.5, "codec": "int8", "cell": f"cell/{ue % 19}",
    }  # fmt: skip


def updates(batch: int) -> list[Update]:
    """A batch of UEs that follow each other."""
    ues = (n % UES for n in range(batch * BATCH, (batch + 1) * BATCH))
    return [Update(id=f"ue/{ue}", kind="ue", reported=state(ue, batch)) for ue in ues]


def rates_of_store(store: Store, batches: range) -> tuple[float, float]:
    """Updates a second by the clock, and a second of the processor."""
    made = [(batch, updates(batch)) for batch in batches]
    started, worked = time.perf_counter(), time.process_time()
    for batch, told in made:
        store.apply(told, now_s=batch)
    done = len(batches) * BATCH
    return done / (time.perf_counter() - started), done / (time.process_time() - worked)


def rate_of_floor(database: sqlite3.Connection, batches: range) -> float:
    """The same states as rows of plain SQLite."""
    rows = [[(f"ue/{ue}", pack(state(ue, batch))) for ue in range(BATCH)] for batch in batches]
    started = time.perf_counter()
    for batch in rows:
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO states VALUES (?, ?)", batch)
        database.execute("COMMIT")
    return len(batches) * BATCH / (time.perf_counter() - started)


def take_turns(where: str, peer: str, rounds: int) -> dict[str, Any]:
    """A store of all UEs and plain SQLite at the same kind of place, round by round."""
    with (
        open_store(where) as store,
        contextlib.closing(sqlite3.connect(peer, isolation_level=None)) as floor,
    ):
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            floor.execute(f"PRAGMA {pragma}")
        floor.execute("CREATE TABLE states (id TEXT, state BLOB)")
        for batch in range(UES // BATCH):
            store.apply(updates(batch))
        ours, rows = [], []
        for turn in range(1, rounds + 1):
            batches = range(turn * BATCHES, (turn + 1) * BATCHES)
            ours.append(rates_of_store(store, batches))
            rows.append(rate_of_floor(floor, batches))
    by_clock, by_processor = zip(*ours, strict=True)
    return {
        "updates_a_second": round(median(by_clock)),
        "slowest_round": round(min(by_clock)),
        "updates_a_processor_second": round(median(by_processor)),
        "plain_sqlite_rows_a_second": round(median(rows)),
        "to_plain_sqlite": round(median(by_clock) / median(rows), 2),
    }


def measure(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "twin.db"
        memory = take_turns(":memory:", ":memory:", rounds)
        durable = take_turns(str(path), str(Path(folder) / "floor.db"), rounds)
        singles = []
        with open_store(path) as store:
            for turn in range(200):
                started = time.perf_counter()
                store.apply([Update(id="ue/0", reported=state(0, turn))])
                singles.append(time.perf_counter() - started)
        opened = []
        for _ in range(rounds):
            started = time.perf_counter()
            with open_store(path) as store:
                entities = len(store.entities())
            opened.append(time.perf_counter() - started)
    return {
        "updates_a_batch": BATCH,
        "memory": memory,
        "durable": durable,
        "one_durable_update_ms": round(1e3 * median(singles), 2),
        "entities": entities,
        "events": UES + rounds * BATCHES * BATCH + len(singles),
        "open_and_read_all_s": round(median(opened), 3),
        "wanted": {"durable": 3_000, "memory": 50_000, "open_s": 2},
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def ids_of(n: int) -> list[str]:
    """The entities that a batch changes."""
    return [f"ue/{(7 * n + i) % ENTITIES}" for i in range(A_BATCH)]


def write(path: Path, first: int) -> None:
    """The writer that is killed: counts on, and says each batch that was acknowledged."""
    with open_store(path) as store:
        # From before the last answer, as one who has not got it would.
        for n in count(max(1, first - 2)):
            batch = [Update(id=id, kind="ue", reported={"n": n}) for id in ids_of(n)]
            store.apply(batch, now_s=n, key=f"batch/{n}")
            os.write(1, b"%d\n" % n)


def kill(runs: int, rng_seed: int) -> dict[str, Any]:
    """Kill writers at random moments, and look each time at what is there."""
    rng = random.Random(rng_seed)
    found: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            if run % RUNS_A_FILE == 0:
                path, last = Path(folder) / f"{run}.db", 0
            asked = [sys.executable, __file__, "--write", str(path), "--first", str(last + 1)]
            with subprocess.Popen(asked, stdout=subprocess.PIPE) as writer:
                # One in four while it starts and opens, the others while it writes.
                assert writer.stdout is not None
                said = b"" if rng.random() < 0.25 else writer.stdout.readline()
                time.sleep(rng.uniform(0, 0.3))
                ended = writer.poll()
                writer.kill()
                said += writer.stdout.read()
            found["ended_by_itself"] += ended is not None
            told = [int(line) for line in said.split(b"\n")[:-1]]
            found["acknowledged"] += sum(n > last for n in told)
            last = max([last, *told])
            started = time.perf_counter()
            with open_store(path) as store:
                slowest = max(slowest, time.perf_counter() - started)
                store.verify()
                times = Counter(event.reported["n"] for event in store.history())
                # Batches are applied in order, so all up to the last are there, each once, and at
                # most one that was not answered any more.
                found["lost"] += sum(times[n] < A_BATCH for n in range(1, last + 1))
                found["doubled"] += sum(times[n] > A_BATCH for n in times)
                found["torn"] += sum(times[n] < A_BATCH for n in times if n > last)
                found["unanswered"] += sum(n > last for n in times)
                newest = {id: n for n in sorted(times) for id in ids_of(n)}
                read = {entity.id: entity.reported["n"] for entity in store.entities()}
                found["misread"] += read != newest
                last = max(times, default=0)  # what was there once has to stay
    return {
        "runs": runs,
        "rng_seed": rng_seed,
        **{
            name: found[name]
            for name in (
                "acknowledged", "unanswered", "lost", "doubled", "torn", "misread", "ended_by_itself",
            )
        },
        "updates_a_batch": A_BATCH,
        "slowest_open_s": round(slowest, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, help="kill so many writers instead")
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.first)
    kills = arguments.kills
    found = kill(kills, arguments.rng_seed) if kills else measure(arguments.rounds)
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    wrong = ("lost", "doubled", "torn", "misread", "ended_by_itself")
    sys.exit(any(found.get(name) for name in wrong))


if __name__ == "__main__":
    main()
