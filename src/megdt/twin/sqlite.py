"""The embedded store: one SQLite file in WAL mode, in which a commit waits for the disk.

Kept on the standard library's driver, so that the default needs no package.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from megdt.errors import DamagedError, StoreError
from megdt.twin.storage import SCHEMA_VERSION, Batch, Row, chain_digest, row_digest

APPLICATION_ID = 0x6D656774
"""In the file's header, so that another program's database is never written to: "megt"."""

CHECKED_AT_OPEN = 16
"""Batches at the end of the history whose checksums are checked when a file is opened."""

_SCHEMA = f"""
CREATE TABLE batches (revision INTEGER PRIMARY KEY, clock_s REAL NOT NULL, key TEXT UNIQUE,
                      request BLOB, chain BLOB NOT NULL);
CREATE TABLE events (id TEXT NOT NULL, revision INTEGER NOT NULL, kind TEXT NOT NULL,
                     at_s REAL NOT NULL, state BLOB NOT NULL, digest BLOB NOT NULL,
                     PRIMARY KEY (id, revision));
CREATE INDEX events_by_revision ON events (revision);
CREATE INDEX batches_by_clock ON batches (clock_s, revision);
CREATE TABLE entities (id TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_ROW = "e.revision, e.id, e.kind, e.at_s, e.state, e.digest"
_BATCH = "revision, clock_s, key, request"
_NEWEST = f"SELECT {_ROW} FROM entities n JOIN events e ON e.id = n.id AND e.revision = n.revision"
# Both come out of indexes alone, without the states.
_ENDS = "SELECT id, max(revision) FROM events GROUP BY id"
_POINTERS = "SELECT id, revision FROM entities"
_STRAYED = f"""
SELECT (SELECT count(*) FROM (SELECT * FROM ({_ENDS}) EXCEPT {_POINTERS}))
     + (SELECT count(*) FROM ({_POINTERS} EXCEPT SELECT * FROM ({_ENDS})))
"""
_MAGIC = b"SQLite format 3"
_DAMAGE = {"SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_SEQUENCE", "SQLITE_NOTADB"}


def check_header(database: sqlite3.Connection, path: Path) -> bool:
    """Whether it is a twin's; False for an empty file.

    Raises:
        StoreError: If it is another program's, or of a newer version.
    """
    run = database.execute
    (application,), (version,) = (
        run(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID:
        if run("SELECT count(*) FROM sqlite_master").fetchone()[0] or application or version:
            raise StoreError(
                f"{path} is another program's database, not a twin's; name another file"
            )
        return False
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} is of version {version}, this megdt reads up to {SCHEMA_VERSION}; "
            "install a newer megdt or name another file"
        )
    return True


class SqliteStorage:
    """A file, made where there is none.

    Args:
        path: Of the file; its folder exists.

    Raises:
        StoreError: If it is not a twin's, of a newer version, or cannot be opened.
        DamagedError: If it does not hold what was written.
    """

    first = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._in_words("opened"):
            # The store holds its own lock, so threads may take turns.
            self._database = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
        try:
            with self._in_words("opened"):
                self._prepare()
                with self._moment():
                    self._check_newest()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA synchronous = FULL")  # in WAL mode: fsync at every commit
        run("PRAGMA fullfsync = ON")  # where fsync alone leaves it in the drive's cache
        if not check_header(self._database, self._path):
            run("PRAGMA journal_mode = WAL")
            run("BEGIN EXCLUSIVE")
            if not check_header(self._database, self._path):  # or another process was faster
                for statement in _SCHEMA.split(";"):
                    run(statement)
            run("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile; all that is added inside is durable once this is left."""
        with self._in_words("written"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                # Some errors have ended it already; and what the disk refuses now, it refused before.
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """All that is read inside is of one moment, whoever writes meanwhile."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def last(self) -> Batch:
        """The newest batch, or the first revision's forerunner."""
        return self._batch("ORDER BY revision DESC LIMIT 1") or Batch()

    def batch(self, revision: int) -> Batch:
        """The batch of a revision that is in the history, or the first's forerunner."""
        return self._batch("WHERE revision = ?", revision) or Batch()

    def keyed(self, key: str) -> Batch | None:
        """The batch that was applied under this key."""
        return self._batch("WHERE key = ?", key)

    def _batch(self, where: str, *values: object) -> Batch | None:
        with self._in_words("read"):
            found = self._database.execute(f"SELECT {_BATCH} FROM batches {where}", values)
            row = found.fetchone()
        return None if row is None else Batch(*row)

    def revision_at(self, clock_s: float) -> int:
        """The newest revision at this time of the twin's clock. [s]"""
        batch = self._batch(
            "WHERE clock_s <= ? ORDER BY clock_s DESC, revision DESC LIMIT 1", clock_s
        )
        return 0 if batch is None else batch.revision

    def newest(self, ids: Collection[str]) -> dict[str, Row]:
        """The newest row of each of these, as far as there are any; removed ones too."""
        listed = msgspec.json.encode(list(ids)).decode()
        query = f"{_NEWEST} WHERE n.id IN (SELECT value FROM json_each(?))"
        return {row.id: row for row in self._rows(query, listed)}

    def row(self, id: str, at: int) -> Row | None:
        """The newest row of one entity up to a revision."""
        query = f"SELECT {_ROW} FROM events e WHERE id = ? AND revision <= ? ORDER BY revision DESC LIMIT 1"
        return next(iter(self._rows(query, id, at)), None)

    def rows(self, at: int | None = None) -> Iterable[Row]:
        """The newest row of every entity (up to a revision), in the order of their names."""
        if at is None:
            return self._rows(f"{_NEWEST} ORDER BY n.id")
        return self._rows(
            f"SELECT {_ROW} FROM (SELECT id, max(revision) AS revision FROM events WHERE revision <= ?"
            " GROUP BY id) n JOIN events e ON e.id = n.id AND e.revision = n.revision ORDER BY e.id",
            at,
        )

    def events(self, id: str | None, after: int, until: int) -> Iterable[Row]:
        """Rows (of one entity) of revisions from after + 1 to until, in their order."""
        only, values = ("", ()) if id is None else ("AND id = ?", (id,))
        return self._rows(
            f"SELECT {_ROW} FROM events e WHERE revision > ? AND revision <= ? {only} ORDER BY revision, id",
            after, until, *values,
        )  # fmt: skip

    def _rows(self, query: str, *values: object) -> Iterator[Row]:
        """Rows as they were written; any other is refused."""
        with self._in_words("read"):
            for *fields, digest in self._database.execute(query, values):
                row = Row(*fields)
                if row_digest(row) != digest:
                    raise self._damaged(f"{row.id} at revision {row.revision} has a wrong checksum")
                yield row

    def append(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Add a batch; only inside a transaction."""
        run = self._database
        found = run.execute("SELECT chain FROM batches ORDER BY revision DESC LIMIT 1").fetchone()
        rows = sorted(rows, key=lambda row: row.id)
        digests = [row_digest(row) for row in rows]
        chain = chain_digest(found[0] if found else b"", batch, digests)
        run.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", (*batch, chain))
        run.executemany(
            "INSERT INTO events (revision, id, kind, at_s, state, digest) VALUES (?, ?, ?, ?, ?, ?)",
            [(*row, digest) for row, digest in zip(rows, digests, strict=True)],
        )
        run.executemany(
            "INSERT INTO entities VALUES (?, ?) ON CONFLICT DO UPDATE SET revision = excluded.revision",
            [(row.id, row.revision) for row in rows],
        )

    def _check_newest(self) -> None:
        """What is served from here on: the entities' rows, and the end of the history."""
        run = self._database.execute
        if strayed := run(_STRAYED).fetchone()[0]:
            raise self._damaged(f"{strayed} entities do not stand at the end of their history")
        for _ in self.rows():
            pass
        (newest,) = run("SELECT max(revision) FROM batches").fetchone()
        self._check_chain((newest or 0) - CHECKED_AT_OPEN)

    def verify(self) -> None:
        """Hold the whole file against its checksums.

        Raises:
            DamagedError: If something was changed or has gone.
        """
        with self._in_words("read"), self._moment():
            found = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self._damaged(" ".join(found.split()))
            self._check_newest()
            self._check_chain(0)

    def _check_chain(self, after: int) -> None:
        run = self._database.execute
        where = (
            "SELECT chain, revision FROM batches WHERE revision <= ? ORDER BY revision DESC LIMIT 1"
        )
        before, revision = run(where, (after,)).fetchone() or (b"", 0)
        query = f"SELECT {_BATCH}, chain FROM batches WHERE revision > ? ORDER BY revision"
        for *fields, chain in run(query, (revision,)):
            batch, revision = Batch(*fields), revision + 1
            found = run("SELECT digest FROM events WHERE revision = ? ORDER BY id", (revision,))
            if batch.revision != revision or chain != chain_digest(
                before, batch, (digest for (digest,) in found)
            ):
                raise self._damaged(f"revision {revision} is not as it was written")
            before = chain
        for _ in self.events(None, after, revision):
            pass
        (beyond,) = run("SELECT count(*) FROM events WHERE revision > ?", (revision,)).fetchone()
        if beyond:
            raise self._damaged(f"{beyond} events come after the last revision, {revision}")

    def close(self) -> None:
        """Let go of the file."""
        with self._in_words("closed"):
            self._database.close()

    def _damaged(self, found: str) -> DamagedError:
        return DamagedError(
            f"{self._path} is damaged: {found}; `python -m megdt.twin.repair {self._path}` rebuilds it from its history"
        )

    @contextmanager
    def _in_words(self, done: str) -> Iterator[None]:
        """SQLite's errors as ours, in one line with the file's name."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_NOTADB" and not self._path.read_bytes()[:64].startswith(_MAGIC):
                raise StoreError(
                    f"{self._path} is no database and so no twin's; name another file, or if it was one, "
                    "take a copy of it from before"
                ) from error
            # Text that is none comes as an error of the driver's own, without a name.
            if name in _DAMAGE or (isinstance(error, sqlite3.OperationalError) and not name):
                raise self._damaged(str(error)) from error
            said = str(error).rstrip(".")
            if name.startswith("SQLITE_BUSY"):
                do = "another program writes to it; wait for it"
            else:
                do = "see that it can be reached and that there is room"
            again = ", and try again under the same key" if done == "written" else ", and try again"
            raise StoreError(f"{self._path} cannot be {done}: {said}; {do}{again}") from error
