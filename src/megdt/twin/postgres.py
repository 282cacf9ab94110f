"""A store in PostgreSQL, for a twin that several processes or machines share.

One writer at a time holds the table of batches, so revisions are in the order of commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from megdt.errors import DamagedError, MissingExtraError, StoreError
from megdt.twin.storage import SCHEMA_VERSION, Batch, Row, chain_digest, row_digest

try:
    import psycopg  # noqa: F401  (the driver that SQLAlchemy loads)
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import insert
except ImportError as error:
    raise MissingExtraError(
        f"a store in PostgreSQL needs {error.name}; pip install 'megdt[postgres]'"
    ) from error

_TABLES = sa.MetaData()
_BATCHES = sa.Table(
    "megdt_batches", _TABLES,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("clock_s", sa.Double, nullable=False, index=True),
    sa.Column("key", sa.Text, unique=True),
    sa.Column("request", sa.LargeBinary),
    sa.Column("chain", sa.LargeBinary, nullable=False),
)  # fmt: skip
# "C": in the order of bytes, as Python and SQLite sort; a checksum runs over rows in that order.
_EVENTS = sa.Table(
    "megdt_events", _TABLES,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
)  # fmt: skip
_ENTITIES = sa.Table(
    "megdt_entities", _TABLES,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)  # fmt: skip
_SCHEMA = sa.Table("megdt_schema", _TABLES, sa.Column("version", sa.Integer, primary_key=True))

_E, _N, _B = _EVENTS.c, _ENTITIES.c, _BATCHES.c
_ROW = (_E.revision, _E.id, _E.kind, _E.at_s, _E.state, _E.digest)
_BATCH = (_B.revision, _B.clock_s, _B.key, _B.request)
_NEWEST = sa.select(*_ROW).join(_ENTITIES, sa.and_(_N.id == _E.id, _N.revision == _E.revision))
_ENDS = sa.select(_E.id, sa.func.max(_E.revision).label("revision")).group_by(_E.id)
_FETCH = {"yield_per": 1000}
"""Rows come in parts, so that a long history does not fill the memory."""


class PostgresStorage:
    """Tables of a database, made where there are none.

    Args:
        url: postgresql://user:password@host/database

    Raises:
        StoreError: If it is of a newer version, or cannot be reached.
        DamagedError: If its entities do not stand at the end of their histories.
    """

    first = 0

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
        except (sa.exc.ArgumentError, ValueError):
            raise StoreError(
                "store's address is no URL; take postgresql://user:password@host/database"
            ) from None
        self._name = parsed.render_as_string(hide_password=True).replace("+psycopg", "")
        # Pre-ping, so that a server that was started again is found again.
        self._engine = sa.create_engine(parsed, pool_pre_ping=True)
        self._writing: sa.Connection | None = None
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    def _prepare(self) -> None:
        with self._in_words("opened"), self._engine.begin() as connection:
            # Two that come at once: the second waits, and finds all there.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x6D656774)))
            if not sa.inspect(connection).has_table(_SCHEMA.name):
                _TABLES.create_all(connection)
                connection.execute(sa.insert(_SCHEMA).values(version=SCHEMA_VERSION))
            version = connection.execute(sa.select(_SCHEMA.c.version)).scalar_one()
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self._name} is of version {version}, this megdt reads up to {SCHEMA_VERSION}; "
                    "install a newer megdt or name another database"
                )
        self._check_newest()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile; all that is added inside is durable once this is left."""
        with self._in_words("written"), self._engine.begin() as connection:
            # A server may be set to answer before its disk has.
            connection.execute(sa.text("SET LOCAL synchronous_commit = on"))
            connection.execute(sa.text("LOCK TABLE megdt_batches IN SHARE ROW EXCLUSIVE MODE"))
            self._writing = connection
            try:
                yield
            finally:
                self._writing = None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """The connection of the transaction that runs, or another."""
        if self._writing is not None:
            yield self._writing
        else:
            with self._in_words("read"), self._engine.connect() as connection:
                yield connection

    def last(self) -> Batch:
        """The newest batch, or the first revision's forerunner."""
        return self._batch(sa.select(*_BATCH).order_by(_B.revision.desc()).limit(1)) or Batch()

    def batch(self, revision: int) -> Batch:
        """The batch of a revision that is in the history, or the first's forerunner."""
        return self._batch(sa.select(*_BATCH).where(_B.revision == revision)) or Batch()

    def keyed(self, key: str) -> Batch | None:
        """The batch that was applied under this key."""
        return self._batch(sa.select(*_BATCH).where(_B.key == key))

    def _batch(self, query: sa.Select[Any]) -> Batch | None:
        with self._reading() as connection:
            found = connection.execute(query).first()
        return None if found is None else Batch(*found)

    def revision_at(self, clock_s: float) -> int:
        """The newest revision at this time of the twin's clock. [s]"""
        with self._reading() as connection:
            query = sa.select(sa.func.max(_B.revision)).where(_B.clock_s <= clock_s)
            return connection.execute(query).scalar_one() or 0

    def newest(self, ids: Collection[str]) -> dict[str, Row]:
        """The newest row of each of these, as far as there are any; removed ones too."""
        # One array, as a statement has at most 65,535 parameters.
        listed = sa.func.any(sa.bindparam("ids", list(ids), sa.ARRAY(sa.Text)))
        return {row.id: row for row in self._rows(_NEWEST.where(_N.id == listed))}

    def row(self, id: str, at: int) -> Row | None:
        """The newest row of one entity up to a revision."""
        query = sa.select(*_ROW).where(_E.id == id, _E.revision <= at)
        return next(iter(self._rows(query.order_by(_E.revision.desc()).limit(1))), None)

    def rows(self, at: int | None = None) -> Iterable[Row]:
        """The newest row of every entity (up to a revision), in the order of their names."""
        if at is None:
            return self._rows(_NEWEST.order_by(_E.id))
        ends = _ENDS.where(_E.revision <= at).subquery()
        joined = sa.select(*_ROW).join(
            ends, sa.and_(ends.c.id == _E.id, ends.c.revision == _E.revision)
        )
        return self._rows(joined.order_by(_E.id))

    def events(self, id: str | None, after: int, until: int) -> Iterable[Row]:
        """Rows (of one entity) of revisions from after + 1 to until, in their order."""
        query = sa.select(*_ROW).where(_E.revision > after, _E.revision <= until)
        if id is not None:
            query = query.where(_E.id == id)
        return self._rows(query.order_by(_E.revision, _E.id))

    def _rows(self, query: sa.Select[Any]) -> Iterator[Row]:
        """Rows as they were written; any other is refused."""
        with self._reading() as connection:
            for *fields, digest in connection.execute(query, execution_options=_FETCH):
                row = Row(*fields)
                if row_digest(row) != digest:
                    raise self._damaged(f"{row.id} at revision {row.revision} has a wrong checksum")
                yield row

    def append(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Add a batch; only inside a transaction."""
        with self._reading() as connection:
            query = sa.select(_B.chain).order_by(_B.revision.desc()).limit(1)
            before = connection.execute(query).scalar() or b""
            rows = sorted(rows, key=lambda row: row.id)
            digests = [row_digest(row) for row in rows]
            chain = chain_digest(before, batch, digests)
            connection.execute(sa.insert(_BATCHES), {**batch._asdict(), "chain": chain})
            if rows:
                added = zip(rows, digests, strict=True)
                connection.execute(
                    sa.insert(_EVENTS), [{**row._asdict(), "digest": d} for row, d in added]
                )
                put = insert(_ENTITIES)
                put = put.on_conflict_do_update(
                    index_elements=[_N.id], set_={"revision": put.excluded.revision}
                )
                connection.execute(put, [{"id": r.id, "revision": r.revision} for r in rows])

    def _check_newest(self) -> None:
        with self._reading() as connection:
            pointers = sa.select(_N.id, _N.revision)
            strayed = (_ENDS.except_(pointers), pointers.except_(_ENDS))
            found = sum(len(connection.execute(query).all()) for query in strayed)
        if found:
            raise self._damaged(f"{found} entities do not stand at the end of their history")
        for _ in self.rows():
            pass

    def verify(self) -> None:
        """Hold the whole history against its checksums.

        Raises:
            DamagedError: If something was changed or has gone.
        """
        self._check_newest()
        before, revision = b"", 0
        with self._reading() as connection:
            # One moment for all of it, whoever writes meanwhile.
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            batches = connection.execute(sa.select(*_BATCH, _B.chain).order_by(_B.revision)).all()
            for *fields, chain in batches:
                batch, revision = Batch(*fields), revision + 1
                query = sa.select(_E.digest).where(_E.revision == revision).order_by(_E.id)
                digests = connection.execute(query).scalars().all()
                if batch.revision != revision or chain != chain_digest(before, batch, digests):
                    raise self._damaged(f"revision {revision} is not as it was written")
                before = chain
            query = sa.select(sa.func.count()).where(_E.revision > revision)
            if beyond := connection.execute(query).scalar_one():
                raise self._damaged(f"{beyond} events come after the last revision, {revision}")
        for _ in self.events(None, 0, revision):
            pass

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def _damaged(self, found: str) -> DamagedError:
        return DamagedError(
            f"{self._name} is damaged: {found}; restore it from the server's backup"
        )

    @contextmanager
    def _in_words(self, done: str) -> Iterator[None]:
        """SQLAlchemy's and the driver's errors as ours, in one line without the password."""
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise StoreError(
                f"{self._name} cannot be {done}: {said}; see that the server runs and has room, and "
                "try again under the same key"
            ) from error
