"""What a store writes its rows to, and the one that keeps them in memory.

A revision is a batch: all its rows came to be at once. Rows are only ever added, each with the whole
state of its entity, so what was known at a revision is the last row of each entity up to there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple, Protocol

import msgspec

SCHEMA_VERSION = 1
"""Of the tables; goes up with every change that older programs cannot read."""

EntityKind = Literal["ue", "es", "cell", "link", "object", "tile"]
"""User equipment, edge server, radio cell, radio link, object of the scene, tile of the replica."""

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


class Row(NamedTuple):
    """An entity as one revision has left it."""

    revision: int
    id: str
    kind: EntityKind
    at_s: float
    state: bytes
    """Packed (reported, desired); empty where the entity was removed."""


class Batch(NamedTuple):
    """A revision: when it came, and what names it for whoever sends it again."""

    revision: int = 0
    clock_s: float = 0.0
    key: str | None = None
    request: bytes | None = None
    """Digest of the updates as they were asked for under the key."""


class Storage(Protocol):
    """Rows and batches, in memory or in a database; one thread at a time."""

    first: int
    """The revision at which its history begins."""

    def transaction(self) -> AbstractContextManager[None]:
        """Nobody else writes meanwhile; all that is added inside is durable once this is left.

        Raises:
            StoreError: If it is not; then nothing of it stays.
        """

    def last(self) -> Batch:
        """The newest batch, or where the history begins."""

    def batch(self, revision: int) -> Batch:
        """The batch of a revision that is in the history, or where that begins."""

    def keyed(self, key: str) -> Batch | None:
        """The batch that was applied under this key."""

    def revision_at(self, clock_s: float) -> int:
        """The newest revision at this time of the twin's clock. [s]"""

    def newest(self, ids: Collection[str]) -> dict[str, Row]:
        """The newest row of each of these, as far as there are any; removed ones too."""

    def row(self, id: str, at: int) -> Row | None:
        """The newest row of one entity up to a revision."""

    def rows(self, at: int | None = None) -> Iterable[Row]:
        """The newest row of every entity (up to a revision), in the order of their names."""

    def events(self, id: str | None, after: int, until: int) -> Iterable[Row]:
        """Rows (of one entity) of revisions from after + 1 to until, in their order."""

    def append(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Add a batch; only inside a transaction."""

    def verify(self) -> None:
        """Hold the whole history against its checksums.

        Raises:
            DamagedError: If something was changed or has gone.
        """

    def close(self) -> None:
        """Let go of files and connections."""


def row_digest(row: Row) -> bytes:
    """Checksum of a row, kept beside it. [16 bytes]"""
    return hashlib.blake2b(pack(row), digest_size=16).digest()


def chain_digest(before: bytes, batch: Batch, digests: Iterable[bytes]) -> bytes:
    """Checksum of a batch, its rows' in the order of their names, and all batches before it."""
    return hashlib.blake2b(before + pack(batch) + b"".join(digests), digest_size=16).digest()


class MemoryStorage:
    """In this process only: for short runs and for forks.

    Args:
        start: Where its history begins.
        rows: The newest of each entity by then.
    """

    def __init__(self, start: Batch, rows: Iterable[Row] = ()) -> None:
        self.first = start.revision
        self._batches = [start]
        self._keys: dict[str, Batch] = {}
        self._events: list[Row] = []
        self._newest = {row.id: row for row in rows}
        self._of: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self._newest.values():
            self._of[row.id].append(row)

    def transaction(self) -> AbstractContextManager[None]:
        """Nothing to begin or to undo: an append is the last thing that is done in one."""
        return nullcontext()

    def last(self) -> Batch:
        """The newest batch, or where the history begins."""
        return self._batches[-1]

    def batch(self, revision: int) -> Batch:
        """The batch of a revision that is in the history, or where that begins."""
        return self._batches[revision - self.first]

    def keyed(self, key: str) -> Batch | None:
        """The batch that was applied under this key."""
        return self._keys.get(key)

    def revision_at(self, clock_s: float) -> int:
        """The newest revision at this time of the twin's clock. [s]"""
        found = bisect_right(self._batches, clock_s, key=lambda batch: batch.clock_s)
        return self._batches[found - 1].revision if found else 0

    def newest(self, ids: Collection[str]) -> dict[str, Row]:
        """The newest row of each of these, as far as there are any; removed ones too."""
        return {id: row for id in ids if (row := self._newest.get(id)) is not None}

    def row(self, id: str, at: int) -> Row | None:
        """The newest row of one entity up to a revision."""
        rows = self._of.get(id, [])
        found = bisect_right(rows, at, key=_revision)
        return rows[found - 1] if found else None

    def rows(self, at: int | None = None) -> Iterator[Row]:
        """The newest row of every entity (up to a revision), in the order of their names."""
        for id, row in sorted(self._newest.items()):
            found = row if at is None else self.row(id, at)
            if found is not None:
                yield found

    def events(self, id: str | None, after: int, until: int) -> Sequence[Row]:
        """Rows (of one entity) of revisions from after + 1 to until, in their order."""
        rows = self._events if id is None else self._of.get(id, [])
        after = max(after, self.first)  # rows given at the start are no events
        first, end = (bisect_right(rows, revision, key=_revision) for revision in (after, until))
        return rows[first:end]

    def append(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Add a batch."""
        self._batches.append(batch)
        if batch.key is not None:
            self._keys[batch.key] = batch
        self._events += sorted(rows, key=lambda row: row.id)
        for row in rows:
            self._newest[row.id] = row
            self._of[row.id].append(row)

    def verify(self) -> None:
        """Nothing to hold it against."""

    def close(self) -> None:
        """Nothing to let go of."""


def _revision(row: Row) -> int:
    return row.revision
