"""The state of the twin: what each entity has reported, what is desired of it, and its history.

An update is a patch, a batch of updates is a revision, and a revision that `apply` has returned is
durable. Revisions are the order of everything; the twin's clock is told, never read, and only grows.

>>> with open_store() as store:
...     made = store.apply([Update(id="ue/1", kind="ue", reported={"snr_db": 7.5})], now_s=1)
...     told = store.apply([Update(id="ue/1", desired={"codec": "int8"}, expected=made)], now_s=2)
...     store.get("ue/1").desired, store.get("ue/1", at=made).desired
({'codec': 'int8'}, {})
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from megdt.errors import (
    MeasurementError,
    StoreError,
    TwinError,
    UnknownEntityError,
)
from megdt.twin.entities import NAME, RANGES, Entity, Update, check, entity_of, next_row
from megdt.twin.sqlite import SqliteStorage
from megdt.twin.storage import Batch, EntityKind, MemoryStorage, Storage, pack


class Store:
    """Entities and their history over one storage; `open_store` makes it. Threads may share it."""

    def __init__(
        self, storage: Storage, ranges: Mapping[str, tuple[float, float]] = RANGES
    ) -> None:
        self._storage, self._ranges = storage, ranges
        self._lock = threading.RLock()
        self._written = threading.Condition(self._lock)

    @property
    def revision(self) -> int:
        """The newest; 0 before the first."""
        with self._lock:
            return self._storage.last().revision

    @property
    def now_s(self) -> float:
        """The twin's clock: the latest time that a batch has told."""
        with self._lock:
            return self._storage.last().clock_s

    def apply(
        self, updates: Iterable[Update], *, now_s: float | None = None, key: str | None = None
    ) -> int:
        """Apply a batch, all of it or nothing; once this returns, it is durable.

        Args:
            updates: At most one an entity.
            now_s: Puts the twin's clock forward; an earlier time leaves it where it is.
            key: Names the batch. One that is applied again under its key, because its answer was
                lost, changes nothing and gets the revision that it had.

        Returns:
            The revision that the batch has become.

        Raises:
            ConflictError: If an entity is not at the revision that its update expects.
            UnknownEntityError: If there is no such entity, and its update names no kind.
            MeasurementError: If a state is out of range, or its time is later than the clock.
            StoreError: If it cannot be written; nothing of it was, then.
            TwinError: If the batch itself makes no sense.
        """
        listed = tuple(updates)
        batch = {update.id: update for update in listed}
        if len(batch) < len(listed):
            twice = next(u.id for u in listed if batch[u.id] is not u)
            raise TwinError(
                f"batch has two updates of {twice!r}; it is one moment, so merge them or apply two"
            )
        if now_s is not None and not math.isfinite(now_s):
            raise MeasurementError(f"now_s is {now_s}; tell the twin's clock in seconds")
        for update in listed:
            check(update, self._ranges)
        request = None if key is None else _digest(batch, key)
        with self._lock:
            with self._storage.transaction():
                if key is not None and (earlier := self._storage.keyed(key)) is not None:
                    if earlier.request != request:
                        raise TwinError(
                            f"key {key!r} names another batch, revision {earlier.revision}; "
                            "give each batch a key of its own"
                        )
                    return earlier.revision
                last = self._storage.last()
                clock_s = last.clock_s if now_s is None else max(last.clock_s, float(now_s))
                revision = last.revision + 1
                before = self._storage.newest(batch.keys())
                rows = [next_row(u, before.get(u.id), revision, clock_s) for u in listed]
                self._storage.append(Batch(revision, clock_s, key, request), rows)
            self._written.notify_all()
        return revision

    def get(self, id: str, *, at: int | None = None) -> Entity:
        """One entity, now or as it was known at a revision.

        Raises:
            UnknownEntityError: If there is, or was, none.
            TwinError: If the revision is not in the history.
        """
        with self._lock:
            if at is None:
                row = self._storage.newest([id]).get(id)
            else:
                self._check_revision(at)
                row = self._storage.row(id, at)
        if row is None:
            raise UnknownEntityError(
                f"{id!r} is not known{_then(at)}; an update with a kind makes it"
            )
        if not row.state:
            raise UnknownEntityError(
                f"{id!r} is not known{_then(at)}: it was removed by revision {row.revision}; "
                "ask for an earlier one"
            )
        return entity_of(row)

    def entities(self, kind: EntityKind | None = None, *, at: int | None = None) -> list[Entity]:
        """All entities (of a kind) in the order of their ids, now or as known at a revision.

        Raises:
            TwinError: If the revision is not in the history.
        """
        with self._lock:
            if at is not None:
                self._check_revision(at)
            rows = [r for r in self._storage.rows(at) if r.state and kind in (None, r.kind)]
        return [entity_of(row) for row in rows]

    def history(
        self, id: str | None = None, *, since: int = 0, until: int | None = None
    ) -> list[Entity]:
        """What came after a revision, of one entity or of all, in the order of revisions.

        Args:
            id: An entity; all where left out.
            since: The revision after which to begin.
            until: The last revision to tell; the newest where left out.
        """
        with self._lock:
            last = self._storage.last().revision if until is None else until
            rows = list(self._storage.events(id, since, last))
        return [entity_of(row) for row in rows]

    def revision_at(self, time_s: float) -> int:
        """The newest revision at a time of the twin's clock, for `at`; 0 before the first."""
        with self._lock:
            return self._storage.revision_at(time_s)

    def subscribe(self, *, after: int | None = None) -> Subscription:
        """Be told of all that comes after a revision; after the newest where left out."""
        return Subscription(self, self.revision if after is None else after)

    def _wait(self, timeout_s: float) -> None:
        """Until something is applied through this store, or the time is up."""
        with self._written:
            self._written.wait(timeout_s)

    def fork(self, *, at: int | None = None) -> Store:
        """A copy in memory, to ask what if: nothing that is applied to it reaches this store.

        It goes on from the newest or an earlier revision and knows no history before that.

        Raises:
            TwinError: If the revision is not in the history.
        """
        with self._lock:
            at = self._storage.last().revision if at is None else at
            self._check_revision(at)
            storage = MemoryStorage(self._storage.batch(at), self._storage.rows(at))
        return Store(storage, self._ranges)

    def verify(self) -> None:
        """Hold the whole history against its checksums; what is served is checked anyway.

        Raises:
            DamagedError: If something was changed or has gone.
        """
        with self._lock:
            self._storage.verify()

    def close(self) -> None:
        """Let go of files and connections."""
        with self._lock:
            self._storage.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_revision(self, at: int) -> None:
        last = self._storage.last().revision
        if not self._storage.first <= at <= last:
            raise TwinError(
                f"revision {at} is not here; the history goes from {self._storage.first} to {last}"
            )


class Subscription:
    """A place in the history that moves on as it is read. It holds nothing back, so a slow reader
    costs nothing, and one that comes again with its `revision` misses nothing.
    """

    BATCHES = 1000
    """That one reading takes at most."""

    def __init__(self, store: Store, after: int) -> None:
        self._store = store
        self.revision = after
        """Up to which it has been read."""

    def read(self, timeout_s: float = 0.0) -> list[Entity]:
        """What came since the last reading, whole batches in the order of revisions.

        Waits for it up to a time, also for what other processes write; empty when that is up.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            until = min(self._store.revision, self.revision + self.BATCHES)
            found = self._store.history(since=self.revision, until=until)
            self.revision = max(self.revision, until)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            self._store._wait(min(left, 0.05))


def open_store(
    where: str | Path = ":memory:", *, ranges: Mapping[str, tuple[float, float]] = RANGES
) -> Store:
    """Open a twin's store, made where there is none.

    Args:
        where: ":memory:"; the path of an SQLite file; or "postgresql://user:password@host/database",
            which needs the extra `postgres`.
        ranges: Lowest and highest of what is measured, by its key.

    Raises:
        StoreError: If it is not a twin's, of a newer version, or cannot be reached.
        DamagedError: If it does not hold what was written to it.
        MissingExtraError: If the extra is not installed.
    """
    storage: Storage
    if where == ":memory:":
        storage = MemoryStorage(Batch())
    elif "://" not in str(where):
        storage = SqliteStorage(Path(where))
    elif str(where).startswith("postgresql://"):
        from megdt.twin.postgres import PostgresStorage  # needs an extra

        storage = PostgresStorage(str(where))
    else:
        scheme = str(where).partition("://")[0]
        raise StoreError(
            f"store is at {scheme}://, known are postgresql://, the path of a file and :memory:"
        )
    return Store(storage, ranges)


def _digest(batch: Mapping[str, Update], key: str) -> bytes:
    if not NAME.fullmatch(key):
        raise TwinError(f"key is {key!r}; take up to 200 letters, digits and ._:/@-")
    try:
        return hashlib.blake2b(pack(list(batch.values())), digest_size=16).digest()
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise MeasurementError(f"batch {key} cannot be kept: {error}; change that value") from None


def _then(at: int | None) -> str:
    return "" if at is None else f" at revision {at}"
