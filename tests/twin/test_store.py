"""What every store does, in memory, in a file and in PostgreSQL alike."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megdt.errors import (
    ConflictError,
    MeasurementError,
    MissingExtraError,
    StoreError,
    TwinError,
    UnknownEntityError,
)
from megdt.twin.entities import Update
from megdt.twin.store import Store, open_store


def ue(number: int = 1, **reported: Any) -> Update:
    return Update(id=f"ue/{number}", kind="ue", reported=reported)


def test_a_batch_is_one_revision_and_reads_back(store: Store) -> None:
    latents = bytes(range(256))
    first = store.apply(
        [
            Update(id="es/1", kind="es", desired={"model": "denoiser"}),
            Update(id="tile/3", kind="tile", reported={"latents": latents, "at": [1, 2.5, None]}),
        ],
        now_s=4,
    )
    assert (first, store.revision, store.now_s) == (1, 1, 4.0)
    tile = store.get("tile/3")
    assert (tile.kind, tile.revision, tile.at_s) == ("tile", 1, 4.0)
    assert tile.reported == {"latents": latents, "at": [1, 2.5, None]}
    assert tile.desired == {}
    assert store.get("es/1").desired == {"model": "denoiser"}


def test_a_patch_keeps_what_it_leaves_out_and_takes_away_what_is_none(store: Store) -> None:
    store.apply([ue(snr_db=3, place={"x_m": 1, "y_m": 2}, codec="int8")])
    store.apply([Update(id="ue/1", reported={"snr_db": 5, "place": {"y_m": None}, "codec": None})])
    assert store.get("ue/1").reported == {"snr_db": 5, "place": {"x_m": 1}}


def test_what_is_read_and_what_was_given_can_be_changed_without_the_store_noticing(
    store: Store,
) -> None:
    given = {"list": [1]}
    store.apply([Update(id="ue/1", kind="ue", reported=given)])
    given["list"].append(2)
    store.get("ue/1").reported["list"].append(3)
    assert store.get("ue/1").reported == {"list": [1]}


def test_the_past_reads_as_it_was_known_then(store: Store) -> None:
    store.apply([ue(1, n=1), ue(2, n=1)], now_s=10)
    store.apply([ue(1, n=2)], now_s=20)
    store.apply([], now_s=30)
    store.apply([Update(id="ue/2", remove=True), ue(3, n=1)], now_s=30)
    assert store.get("ue/1", at=1).reported == {"n": 1}
    assert store.get("ue/1", at=3).revision == 2
    assert [e.id for e in store.entities("ue")] == ["ue/1", "ue/3"]
    assert [e.id for e in store.entities(at=3)] == ["ue/1", "ue/2"]
    assert store.entities("cell") == store.entities(at=0) == []
    assert [store.revision_at(t) for t in (9.9, 10, 25, 30, 99)] == [0, 1, 2, 4, 4]
    with pytest.raises(UnknownEntityError, match="removed by revision 4"):
        store.get("ue/2")
    with pytest.raises(UnknownEntityError, match="not known at revision 2"):
        store.get("ue/3", at=2)
    with pytest.raises(TwinError, match="revision 5 is not here; the history goes from 0 to 4"):
        store.get("ue/1", at=5)


def test_the_history_tells_all_that_came(store: Store) -> None:
    store.apply([ue(1, n=1)])
    store.apply([ue(2, n=1), ue(1, n=2)])
    store.apply([Update(id="ue/1", remove=True)])
    store.apply([ue(1, other=1)])
    told = [(e.id, e.revision, e.reported, e.removed) for e in store.history("ue/1")]
    assert told == [
        ("ue/1", 1, {"n": 1}, False),
        ("ue/1", 2, {"n": 2}, False),
        ("ue/1", 3, {}, True),
        ("ue/1", 4, {"other": 1}, False),
    ]
    assert [(e.id, e.revision) for e in store.history(since=1, until=2)] == [
        ("ue/1", 2),
        ("ue/2", 2),
    ]
    assert store.history("ue/9") == []


def test_a_conflict_names_both_revisions_and_changes_nothing(store: Store) -> None:
    store.apply([ue(1, n=1), ue(2, n=1)])
    store.apply([ue(1, n=2)])
    stale = [ue(2, n=3), Update(id="ue/1", reported={"n": 3}, expected=1)]
    with pytest.raises(ConflictError, match="at revision 2, the update expects 1") as caught:
        store.apply(stale, now_s=9)
    assert (caught.value.found, caught.value.expected) == (2, 1)
    assert (store.revision, store.now_s, store.get("ue/2").reported) == (2, 0, {"n": 1})
    assert store.apply([Update(id="ue/1", reported={"n": 3}, expected=2)]) == 3
    with pytest.raises(ConflictError, match="at revision 3, the update expects 0"):
        store.apply([Update(id="ue/1", kind="ue", expected=0)])


def test_a_batch_sent_again_under_its_key_is_applied_once(store: Store) -> None:
    first = store.apply([ue(1, n=1)], key="a")
    store.apply([ue(1, n=2)], key="b")
    assert store.apply([ue(1, n=1)], key="a") == first
    assert store.revision == 2
    assert store.get("ue/1").reported == {"n": 2}
    with pytest.raises(TwinError, match="key 'a' names another batch, revision 1"):
        store.apply([ue(1, n=3)], key="a")


@pytest.mark.parametrize(
    ("update", "error", "says"),
    [
        (Update(id="ue/9", reported={"n": 1}), UnknownEntityError, "'ue/9' is not known"),
        (Update(id="ue/9", kind="ue", remove=True), UnknownEntityError, "'ue/9' is not known"),
        (Update(id="ue/1", kind="cell"), TwinError, "is a ue, the update says cell"),
        (Update(id="ue/1", kind="car"), TwinError, "known are ue, es, cell"),  # type: ignore[arg-type]
        (Update(id="ue/1", remove=True, desired={}), TwinError, "take one of both"),
        (Update(id="ue 1", kind="ue"), TwinError, "id is 'ue 1'"),
        (ue(snr_db=101), MeasurementError, r"ue/1: snr_db is 101, it goes from -100.0 to 100.0"),
        (ue(link={"bler": [0.1, 1.5]}), MeasurementError, "bler is 1.5"),
        (ue(load="high"), MeasurementError, "load is a str; take a number"),
        (ue(x_m=float("nan")), MeasurementError, "x_m is nan"),
        (ue(x_m=[float("inf")]), MeasurementError, "x_m is inf"),
        (ue(x_m={1: 2}), MeasurementError, "x_m has the key 1"),
        (ue(x_m={1, 2}), MeasurementError, "x_m is a set; take JSON's values and bytes"),
        (ue(n=2**64), MeasurementError, "ue/1: state cannot be kept"),
        (ue(name="\ud800"), MeasurementError, "ue/1: state cannot be kept"),
        (ue(tile=bytes(2**24)), MeasurementError, "at most 16777216 are kept"),
        (
            Update(id="ue/1", at_s=5.5),
            MeasurementError,
            "measured at 5.5 s, the twin's clock is at 5.0 s",
        ),
        (Update(id="ue/1", at_s=float("nan")), MeasurementError, "measured at nan s"),
    ],
)
def test_bad_updates_are_refused_in_one_line_and_nothing_changes(
    update: Update, error: type[TwinError], says: str
) -> None:
    with open_store() as store:
        store.apply([ue(1, n=1)], now_s=5)
        with pytest.raises(error, match=says) as caught:
            store.apply([ue(2), update])
        assert "\n" not in str(caught.value)
        assert (store.revision, len(store.entities())) == (1, 1)


def test_bad_batches_are_refused() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(5000):
        inner["in"] = inner = {}
    with open_store() as store:
        with pytest.raises(MeasurementError, match="nested too deep"):
            store.apply([ue(deep=deep)])
        with pytest.raises(TwinError, match="two updates of 'ue/1'"):
            store.apply([ue(1, n=1), ue(1, n=2)])
        with pytest.raises(MeasurementError, match="now_s is nan"):
            store.apply([], now_s=float("nan"))
        with pytest.raises(TwinError, match="key is ''"):
            store.apply([ue(1)], key="")
        assert store.revision == 0


def test_the_clock_never_goes_back_and_late_measurements_keep_their_time(store: Store) -> None:
    store.apply([ue(1, n=1)], now_s=10)
    store.apply([Update(id="ue/1", reported={"n": 2}, at_s=7)], now_s=8)
    assert store.now_s == 10
    assert store.get("ue/1").at_s == 7


def test_ranges_are_the_callers_to_set() -> None:
    with open_store(ranges={"height_m": (0, 3)}) as store:
        store.apply([ue(snr_db=1000)])
        with pytest.raises(MeasurementError, match="height_m is 4, it goes from 0 to 3"):
            store.apply([ue(height_m=4)])


def test_a_subscription_misses_nothing_and_goes_on_where_it_was(store: Store) -> None:
    store.apply([ue(1, n=0)])
    late, early = store.subscribe(), store.subscribe(after=0)
    assert [e.revision for e in early.read()] == [1]
    store.apply([ue(1, n=1), ue(2, n=1)])
    store.apply([ue(1, n=2)])
    for subscription in (late, early):
        assert [(e.id, e.revision) for e in subscription.read()] == [
            ("ue/1", 2), ("ue/2", 2), ("ue/1", 3),
        ]  # fmt: skip
        assert subscription.read() == []
    assert [e.revision for e in store.subscribe(after=2).read()] == [3]


def test_a_subscription_is_woken_by_another_thread(store: Store) -> None:
    subscription = store.subscribe()
    writer = threading.Timer(0.05, lambda: store.apply([ue(1, n=1)]))
    writer.start()
    assert [e.id for e in subscription.read(timeout_s=10)] == ["ue/1"]
    writer.join()
    assert subscription.read(timeout_s=0.01) == []


def test_a_fork_goes_its_own_way(store: Store) -> None:
    store.apply([ue(1, n=1), ue(2, n=1)], now_s=1)
    store.apply([ue(1, n=2), Update(id="ue/2", remove=True)], now_s=2)
    with store.fork() as now, store.fork(at=1) as then:
        assert now.apply([Update(id="ue/1", reported={"n": 9}, expected=2)], now_s=50) == 3
        assert [e.revision for e in now.history()] == [3]
        assert now.get("ue/1", at=2).reported == {"n": 2}
        assert [e.id for e in now.entities()] == ["ue/1"]
        with pytest.raises(TwinError, match="history goes from 2 to 3"):
            now.get("ue/1", at=1)
        assert (then.revision, then.now_s, len(then.entities())) == (1, 1, 2)
    assert (store.revision, store.now_s, store.get("ue/1").reported) == (2, 2, {"n": 2})


def test_threads_that_count_by_expected_revisions_lose_nothing(store: Store) -> None:
    store.apply([ue(1, n=0)])

    def count() -> None:
        for _ in range(10):
            while True:
                seen = store.get("ue/1")
                more = {"n": seen.reported["n"] + 1}
                try:
                    store.apply([Update(id="ue/1", reported=more, expected=seen.revision)])
                    break
                except ConflictError:
                    pass

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("ue/1").reported == {"n": 30}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\0"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
STATES = st.dictionaries(st.text("abcé", max_size=2), VALUES, max_size=3)


def merged(state: Any, patch: Any) -> Any:
    """RFC 7396's own pseudo-code."""
    if not isinstance(patch, dict):
        return patch
    state = dict(state) if isinstance(state, dict) else {}
    for key, value in patch.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = merged(state.get(key), value)
    return state


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(1, 3), STATES, STATES), max_size=6))
def test_any_states_come_back_as_the_rfc_merges_them(
    store: Store, patches: list[tuple[int, dict[str, Any], dict[str, Any]]]
) -> None:
    expected: dict[str, tuple[Any, Any]] = {}
    start = store.revision
    for entity in store.entities():
        store.apply([Update(id=entity.id, remove=True)])
    for number, reported, desired in patches:
        id = f"ue/{number}"
        store.apply([Update(id=id, kind="ue", reported=reported, desired=desired)])
        before = expected.get(id, ({}, {}))
        expected[id] = merged(before[0], reported), merged(before[1], desired)
    found = {e.id: (e.reported, e.desired) for e in store.entities()}
    assert found == expected
    assert {
        e.id: (e.reported, e.desired) for e in store.history(since=start) if not e.removed
    } == expected
    store.verify()


@pytest.mark.parametrize("where", ["sqlite", "postgres"], indirect=True)
def test_a_store_is_found_again_as_it_was(where: str) -> None:
    with open_store(where) as store:
        store.apply([ue(1, snr_db=-0.0), Update(id="Ue/2", kind="ue")], now_s=-0.0, key="a")
        store.apply([Update(id="ue/1", desired={"codec": "int8"})], now_s=2.5)
        before = store.entities(), store.history()
    with open_store(where) as store:
        assert (store.entities(), store.history()) == before
        assert (store.revision, store.now_s) == (2, 2.5)
        assert store.apply([ue(1, snr_db=-0.0), Update(id="Ue/2", kind="ue")], key="a") == 1
        store.verify()


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(StoreError, match="store is at mysql://, known are postgresql://"):
        open_store("mysql://user:secret@host/twin")


def test_without_its_extra_postgresql_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "megdt.twin.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"needs psycopg; pip install 'megdt\[postgres\]'"):
        open_store("postgresql://megdt@127.0.0.1/twin")
