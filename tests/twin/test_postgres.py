"""What only a server can do: be shared, be started again, be out of reach."""

from __future__ import annotations

import threading

import pytest

from megdt.errors import ConflictError, DamagedError, StoreError
from megdt.twin.entities import Update
from megdt.twin.store import open_store
from tests.twin.conftest import Server


def change(url: str, statement: str) -> None:
    import psycopg  # of an extra

    with psycopg.connect(url) as connection:
        connection.execute(statement)


def test_several_writers_share_one_order(url: str) -> None:
    with open_store(url) as store:
        store.apply([Update(id="ue/1", kind="ue", reported={"n": 0})])
        told = store.subscribe()

    revisions: list[int] = []

    def count(number: int) -> None:
        with open_store(url) as mine:
            for turn in range(8):
                while True:
                    seen = mine.get("ue/1")
                    more = {"n": seen.reported["n"] + 1}
                    update = Update(id="ue/1", reported=more, expected=seen.revision)
                    try:
                        revisions.append(mine.apply([update], key=f"{number}/{turn}"))
                        break
                    except ConflictError:
                        pass

    writers = [threading.Thread(target=count, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(revisions) == list(range(2, 26))
    with open_store(url) as store:
        told = store.subscribe(after=1)
        assert [e.reported["n"] for e in told.read()] == list(range(1, 25))
        store.verify()


def test_a_subscription_hears_of_another_process_connection(url: str) -> None:
    with open_store(url) as one, open_store(url) as other:
        told = other.subscribe()
        one.apply([Update(id="ue/1", kind="ue")])
        assert [e.id for e in told.read(timeout_s=5)] == ["ue/1"]


def test_a_server_that_was_killed_and_started_again_has_all_that_was_acknowledged(
    server: Server, url: str
) -> None:
    with open_store(url) as store:
        store.apply([Update(id="ue/1", kind="ue", reported={"n": 1})], key="a")
        server.control("-m", "immediate", "stop")
        with pytest.raises(StoreError, match=r"127\.0\.0\.1.*see that the server runs"):
            store.apply([Update(id="ue/1", reported={"n": 2})], key="b")
        server.start()
        assert store.apply([Update(id="ue/1", reported={"n": 2})], key="b") == 2
        assert [e.reported for e in store.history("ue/1")] == [{"n": 1}, {"n": 2}]


def test_a_newer_version_is_refused_without_the_password(url: str) -> None:
    open_store(url).close()
    change(url, "UPDATE megdt_schema SET version = 7")
    with pytest.raises(StoreError, match="is of version 7, this megdt reads up to 1") as caught:
        open_store(url.replace("megdt@", "megdt:secret@"))
    assert "secret" not in str(caught.value)


def test_what_was_changed_is_refused(url: str) -> None:
    with open_store(url) as store:
        for n in range(3):
            store.apply([Update(id="ue/1", kind="ue", reported={"n": n})])
        change(url, "UPDATE megdt_batches SET clock_s = 5 WHERE revision = 2")
        with pytest.raises(DamagedError, match="revision 2 is not as it was written"):
            store.verify()
        change(url, "UPDATE megdt_events SET at_s = -1 WHERE revision = 3")
        with pytest.raises(DamagedError, match="ue/1 at revision 3 has a wrong checksum"):
            store.get("ue/1")
    change(url, "UPDATE megdt_entities SET revision = 2")
    with pytest.raises(DamagedError, match="do not stand at the end"):
        open_store(url)


def test_a_server_out_of_reach_is_named_in_one_line() -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("sqlalchemy")
    with pytest.raises(
        StoreError, match=r"//megdt:\*\*\*@127\.0\.0\.1:1/twin cannot be opened"
    ) as e:
        open_store("postgresql://megdt:secret@127.0.0.1:1/twin")
    assert "secret" not in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(StoreError, match="is no URL"):
        open_store("postgresql://host:port:7/x")
