"""A damaged file rebuilt from its history: python -m megdt.twin.repair FILE

Every event holds the whole state of its entity and its own checksum, so those that are as they were
written are kept and nothing is made up. The damaged file stays beside the new one.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megdt.errors import MegdtError, StoreError
from megdt.twin.sqlite import SqliteStorage, check_header
from megdt.twin.storage import Batch, Row, chain_digest, row_digest


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair has kept, and what it could not."""

    path: Path
    damaged: Path
    """Where the damaged file is now."""
    events: int
    """Kept, each as it was written."""
    doubtful: tuple[int, ...]
    """Revisions that are not whole: events, their time or their key are gone or may be wrong."""
    stale: tuple[str, ...]
    """Entities whose newest state is gone, as far as the file still tells: an earlier one stands."""


def repair(path: Path) -> Repair:
    """Write what is intact of a twin's file into a new one, and put that in its place.

    No other process may have it open.

    Raises:
        StoreError: If it is of a newer version, no twin's, in use, or nothing of it can be read.
    """
    new, damaged = (path.with_name(f"{path.name}.{end}") for end in ("repairing", "damaged"))
    if not path.is_file():
        raise StoreError(f"{path} is not there; name the damaged file")
    if damaged.exists():
        raise StoreError(f"{damaged} is there from an earlier repair; move it away first")
    found = _read(path)
    if not found.rows:
        raise StoreError(f"{path} has no event that can be read; restore it from a copy")
    for end in _FILES:
        Path(f"{new}{end}").unlink(missing_ok=True)
    doubtful = _write(found, new)
    newest = {row.id: row.revision for _, kept in sorted(found.rows.items()) for row in kept}
    # The log goes with its file: beside another it would be taken for that one's.
    for end in _FILES:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{damaged}{end}")
    new.rename(path)
    return Repair(
        path=path,
        damaged=damaged,
        events=sum(map(len, found.rows.values())),
        doubtful=tuple(doubtful),
        stale=tuple(sorted(id for id, end in found.ends.items() if newest.get(id, 0) < end)),
    )


_FILES = ("-wal", "-shm", "")
_MOST_FAILED = 10_000
"""Rows one after the other that cannot be read, until the rest is given up: more than hang on one
inner page."""


class _Found(NamedTuple):
    batches: dict[int, tuple[Batch, bytes]]
    """With their checksums, by revision."""
    rows: dict[int, list[Row]]
    """Those that are as they were written."""
    ends: dict[str, int]
    """Newest revision by entity, where that can be read."""


def _read(path: Path) -> _Found:
    batches: dict[int, tuple[Batch, bytes]] = {}
    rows: defaultdict[int, list[Row]] = defaultdict(list)
    ends: dict[str, int] = {}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as database:
        try:
            check_header(database, path)
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY":
                raise StoreError(f"{path} is in use; close it everywhere first") from error
        for revision, clock_s, key, request, chain in _scan(
            database, "batches", "revision, clock_s, key, request, chain"
        ):
            if isinstance(clock_s, float) and math.isfinite(clock_s) and isinstance(chain, bytes):
                batches[revision] = Batch(revision, clock_s, key, request), chain
        for *fields, digest in _scan(database, "events", "revision, id, kind, at_s, state, digest"):
            row = Row(*fields)
            if row_digest(row) == digest:
                rows[row.revision].append(row)
        with contextlib.suppress(sqlite3.DatabaseError):
            ends.update(database.execute("SELECT id, revision FROM entities"))
    return _Found(batches, rows, ends)


def _scan(database: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Every row of a table that can be read."""
    query = f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"
    last = failed = 0
    while failed < _MOST_FAILED:
        try:
            for rowid, *fields in database.execute(query, (last,)):
                last, failed = rowid, 0
                yield tuple(fields)
            return
        except sqlite3.DatabaseError:
            last, failed = last + 1, failed + 1


def _write(found: _Found, new: Path) -> list[int]:
    """Write a file of what was found; the revisions that are not as they were written."""
    storage = SqliteStorage(new)
    doubtful: list[int] = []
    keys: set[str | None] = set()
    clock_s, before, revision, top = 0.0, b"", 0, max(found.rows)
    with contextlib.closing(storage), storage.transaction():
        while True:
            revision += 1
            rows = sorted(found.rows.get(revision, []), key=lambda row: row.id)
            batch, chain = found.batches.get(revision, (Batch(revision, clock_s), b""))
            whole = chain == chain_digest(before, batch, map(row_digest, rows))
            before = chain
            if not whole:
                if revision > top:
                    return doubtful
                doubtful.append(revision)
                key = batch.key if isinstance(batch.key, str) and batch.key not in keys else None
                batch = Batch(revision, max(clock_s, batch.clock_s), key, batch.request)
            clock_s = batch.clock_s
            keys.add(batch.key)
            storage.append(batch, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Repair the file that is named and say what was kept."""
    parser = argparse.ArgumentParser(prog="python -m megdt.twin.repair", description=__doc__)
    parser.add_argument("file", type=Path)
    try:
        done = repair(parser.parse_args(arguments).file)
    except MegdtError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{done.path} holds {done.events} events again; the damaged file is {done.damaged}")
    if done.doubtful:
        print(f"not whole: revisions {', '.join(map(str, done.doubtful))}")
    if done.stale:
        print(f"an earlier state than the last stands for {', '.join(done.stale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
