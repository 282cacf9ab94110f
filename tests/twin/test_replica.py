"""The replica: what was seen where and when, and what it was at any past time."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import TwinError
from megdt.records import Feature, Side
from megdt.twin.replica import TILE_COLUMNS, Replica
from megdt.twin.store import open_store

UE1, UE2 = Side.ue(1), Side.ue(2)


def seen(number: float, width: int = 32, **about: object) -> Feature:
    values = np.full((4, 32, width), number, np.float32)
    return Feature(kind="observation", values=values, **about)  # type: ignore[arg-type]


def test_what_is_seen_is_kept_with_its_time_and_source() -> None:
    with open_store() as store:
        replica = Replica.blank(32, 64)
        assert np.isinf(replica.tile_ages_s(0)).all()
        tiles = replica.refresh(
            seen(1.0, age_s=5.0), range(8, 40), source=UE1, now_s=100, store=store
        )
        assert tiles == (1, 2, 3, 4)
        assert replica.sources[1:5] == [UE1] * 4
        assert replica.tile_ages_s(110)[1:5] == pytest.approx(15.0)
        assert (replica.values[:, :, 8:40] == 1.0).all()
        assert replica.sources[0] is None


def test_older_sights_and_hidden_places_change_nothing() -> None:
    with open_store() as store:
        replica = Replica.blank(32, 64)
        replica.refresh(seen(1.0), range(32), source=UE1, now_s=100, store=store)
        assert (
            replica.refresh(seen(2.0, age_s=50), range(32), source=UE2, now_s=101, store=store)
            == ()
        )
        confidence = np.ones((32, 32), np.float32)
        confidence[:, :16] = 0
        fresh = seen(2.0, confidence=confidence)
        assert replica.refresh(fresh, range(32), source=UE2, now_s=102, store=store) == (2, 3)
        assert set(replica.values[0, 0, :32].tolist()) == {1.0, 2.0}
        assert replica.sources[:4] == [UE1, UE1, UE2, UE2]


def test_the_replica_of_any_past_revision_can_be_read_back() -> None:
    rng = np.random.default_rng(0)
    with open_store() as store:
        replica = Replica.blank(32, 64)
        past = []
        for step in range(4):
            values = rng.standard_normal((4, 32, 32)).astype(np.float32)
            replica.refresh(
                Feature(kind="observation", values=values), range(8 * step, 8 * step + 32),
                source=UE1, now_s=step, store=store,
            )  # fmt: skip
            past.append((replica.revision, replica.values.copy(), replica.seen_s.copy()))
        for revision, kept, seen_s in past:
            found = Replica.read(store, 32, 64, at=revision)
            assert (found.values == kept).all()
            assert (found.seen_s == seen_s).all()
            assert found.revision == revision
        assert np.abs(past[0][1][:, :, :8] - past[3][1][:, :, :8]).max() == 0


def test_what_is_recalled_says_what_nobody_has_seen() -> None:
    with open_store() as store:
        replica = Replica.blank(32, 64)
        replica.refresh(seen(1.0), range(16, 48), source=UE1, now_s=10, store=store)
        recalled = replica.recall(range(8, 24), now_s=70)
    assert recalled.values.shape == (4, 32, 16)
    assert recalled.confidence is not None
    assert (recalled.confidence == ([0.0] * 8 + [1.0] * 8)).all()
    assert recalled.age_s == 60.0


def test_what_does_not_fit_is_told() -> None:
    with open_store() as store:
        with pytest.raises(
            TwinError, match=r"32 x 60 latents; a replica has tiles of 8 columns: .* 64"
        ):
            Replica.blank(32, 60)
        replica = Replica.blank(32, 64)
        with pytest.raises(TwinError, match=r"columns 40 to 71, the replica has 0 to 63"):
            replica.refresh(seen(1.0), range(40, 72), source=UE1, now_s=0, store=store)
        with pytest.raises(TwinError, match=r"\(4, 32, 16\), the replica takes \(4, 32, 32\)"):
            replica.refresh(seen(1.0, 16), range(32), source=UE1, now_s=0, store=store)
        replica.refresh(seen(1.0), range(32, 64), source=UE1, now_s=0, store=store)
        with pytest.raises(
            TwinError, match="the store has tile/4 of 32 rows, the replica has 4 tiles"
        ):
            Replica.read(store, 32, 4 * TILE_COLUMNS)
