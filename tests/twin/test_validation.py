"""Validation: the replica against the world, predictions against measurements, and the verdict."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from megdt.errors import MeasurementError, TwinError
from megdt.models.bundle import Bundle
from megdt.records import Feature, Side
from megdt.twin.disagreement import Sight
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.twin.validation import (
    Assessment,
    DriftAlarm,
    Validity,
    assess_predictions,
    assess_replica,
    coverage,
    entity_f1,
    flag,
    kernel_distance,
    piece_distances,
    tile_errors,
)
from megdt.worlds.garden import Garden
from megdt.worlds.scene import Plot

needs_stlpips = pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None,
    reason="its weights are not installed: pip install --no-deps stlpips-pytorch",
)
TULIPS, DAISIES = (
    Garden(5, length_m=8.0, plots=(Plot(species=species, colour=colour),))
    for species, colour in (("tulip", "red"), ("daisy", "white"))
)


def test_errors_are_told_by_tile() -> None:
    world = np.full((256, 256, 3), 100, np.uint8)
    picture = world.copy()
    picture[:, 64:128] += 7
    assert tile_errors(picture, world).tolist() == [0, 7, 0, 0]
    with pytest.raises(TwinError, match=r"\(256, 256, 3\), the world's \(256, 192, 3\)"):
        tile_errors(picture, world[:, :192])


@needs_stlpips
def test_distances_are_told_by_piece() -> None:
    world = TULIPS.panorama(256)
    picture = world.copy()
    picture[:, 300:] = DAISIES.panorama(256)[:, 300:]
    distances = piece_distances(picture, world)
    assert distances.shape == (2,)
    assert distances[0] == 0
    assert distances[1] > 0.1


def test_flowers_are_found_where_they_are(bundle: Bundle) -> None:
    picture = TULIPS.panorama(256)
    assert entity_f1(picture, TULIPS, bundle) > 0.8
    # Of another kind in another colour; the sky is the same.
    assert entity_f1(picture, DAISIES, bundle) < 0.5
    with pytest.raises(TwinError, match="128 pixels high, the classifier takes 256"):
        entity_f1(TULIPS.panorama(128), TULIPS, bundle)


def test_many_replicas_are_compared_with_their_worlds(bundle: Bundle) -> None:
    worlds = [Garden(seed, length_m=8.0).panorama(256) for seed in range(3)]
    grey = [np.full_like(world, 128) for world in worlds]
    assert kernel_distance(worlds, worlds, bundle) < kernel_distance(grey, worlds, bundle)


def test_intervals_are_counted() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(10, 5, 500)
    right = coverage(means, np.full(500, 2.0), means + rng.normal(0, 2, 500))
    assert right.holds
    assert right.low < right.found < right.high
    tight = coverage(means, np.full(500, 1.0), means + rng.normal(0, 2, 500))
    assert not tight.holds
    assert tight.high < 0.9
    for bad in ([], [float("nan")]):
        with pytest.raises(MeasurementError):
            coverage(bad, np.ones(len(bad)), bad)


@pytest.mark.parametrize("off", [1.0, -1.0])
def test_drift_is_found_either_way_and_seldom_where_there_is_none(off: float) -> None:
    residuals = np.random.default_rng(0).standard_normal(1000)
    still, moved = DriftAlarm(), DriftAlarm()
    assert not any(still.update(r) for r in residuals)
    first = next(n for n, r in enumerate(residuals) if moved.update(r + off))
    assert 5 < first < 60


def seen(number: float, now_s: float = 0.0, columns: range = range(32)) -> Sight:
    return Sight(
        values=np.full((4, 32, len(columns)), number, np.float32),
        seen_s=np.full((32, len(columns)), now_s), columns=columns,
    )  # fmt: skip


def replica_of(number: float) -> Replica:
    replica = Replica.blank(32, 32)
    with open_store() as store:
        feature = Feature(kind="observation", values=seen(number).values)
        replica.refresh(feature, range(32), source=Side.ue(1), now_s=0, store=store)
    return replica


def test_a_twin_that_agrees_is_fresh() -> None:
    validity = assess_replica(replica_of(1.0), now_s=60, spot_checks=[seen(1.0, 60)])
    assert validity == Validity(verdict="fresh")
    right = coverage(np.zeros(1000), np.ones(1000), np.random.default_rng(0).normal(size=1000))
    assert assess_predictions(silence_s=1.0, coverages={"SNR": right}).fresh


def test_an_old_twin_is_stale_and_not_called_wrong_for_it() -> None:
    validity = assess_replica(replica_of(1.0), now_s=200_000, spot_checks=[seen(2.0, 200_000)])
    assert validity.verdict == "stale"
    assert not validity.fresh
    assert "4 of 4 tiles are older than 86400 s" in validity.reasons[0]
    assert assess_replica(Replica.blank(32, 32), now_s=0).verdict == "stale"
    silent = assess_predictions(silence_s=60.0)
    assert silent == Validity(verdict="stale", reasons=("nothing was measured for 60 s",))


def test_a_twin_that_is_contradicted_is_wrong_and_says_why() -> None:
    held = coverage(np.zeros(100), np.ones(100), np.full(100, 5.0))
    for validity, reason in (
        (
            assess_replica(replica_of(1.0), now_s=60, spot_checks=[seen(2.0, 60)]),
            "100% of what UEs have just seen",
        ),
        (
            assess_predictions(silence_s=0.0, coverages={"SNR": held}),
            "0% of 100 measurements of SNR",
        ),
        (assess_predictions(silence_s=60.0, drifting=["SNR"]), "SNR drifts"),
    ):
        assert validity.verdict == "wrong"
        assert reason in validity.reasons[0]


def test_the_verdict_is_kept_with_the_server() -> None:
    with open_store() as store:
        old, drifts = (
            Validity(verdict="stale", reasons=("old",)),
            Validity(verdict="wrong", reasons=("SNR drifts",)),
        )
        flag(store, Assessment(replica=old, predictions=drifts), now_s=5)
        assert store.get("es/1").reported["twin"] == {
            "verdict": "wrong", "reasons": ["old", "SNR drifts"],
            "replica": "stale", "predictions": "wrong",
        }  # fmt: skip
        fresh = Validity(verdict="fresh")
        flag(store, Assessment(replica=fresh, predictions=fresh), now_s=6)
        assert store.get("es/1").reported["twin"]["verdict"] == "fresh"
