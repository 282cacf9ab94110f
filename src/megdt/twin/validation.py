"""Validation: how far the replica is from the world, whether predictions hold, and whether to plan by
the twin at all.

In a study the world can be looked at, so the replica is held against it: by pixels, by perceptual
distance, by the flowers that a classifier finds. In service there are only spot checks (what UEs have
just seen), ages, and measurements that were predicted; `assess_replica` and `assess_predictions` make a
verdict each of those. A planner plans by predictions; where they are other than "fresh" it has to do
without them and to say so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megdt.errors import MeasurementError, TwinError
from megdt.models import FACTOR
from megdt.records import Side
from megdt.twin.disagreement import Sight, compare
from megdt.twin.entities import Update
from megdt.twin.objects import LABELS
from megdt.twin.replica import TILE_COLUMNS, Replica
from megdt.twin.store import Store
from megdt.worlds.garden import Garden, View
from megdt.worlds.scene import VIEW_EXTENT_M

Verdict = Literal["fresh", "stale", "wrong"]

MAIN_SHARE = 0.25
"""Of a view's flower area, from which on flowers of a kind have to be found in it."""

CLASSIFIED_PX = 256
"""Height of what the classifier takes."""


class Observer(Protocol):
    """Names and measures pictures; the bundle is one."""

    def classify(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Species, colour and sky, as indices. [batch]"""
        ...

    def probe_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[batch, features]"""
        ...


def tile_errors(picture: NDArray[np.uint8], world: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean squared error of each tile, in grey levels. [tiles]

    Args:
        picture: Of the replica. RGB [8 * height, 8 * panorama, 3]
        world: As it is, of that size.

    Raises:
        TwinError: If the two differ in size, or are no whole number of tiles.
    """
    _check_pictures(picture, world)
    squared = (picture.astype(np.float64) - world) ** 2
    tiles = squared.reshape(squared.shape[0], -1, TILE_COLUMNS * FACTOR, 3)
    errors: NDArray[np.float64] = np.sqrt(tiles.mean((0, 2, 3)))
    return errors


def piece_distances(picture: NDArray[np.uint8], world: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Perceptual distance (ST-LPIPS) of each square piece, from the left. [pieces]

    Raises:
        MissingExtraError: If the weights in stlpips_pytorch are not installed.
        TwinError: As `tile_errors`.
    """
    from megdt.models.quality import perceptual_distance  # torch, and weights that may be missing

    _check_pictures(picture, world)
    return perceptual_distance(_pieces(picture), _pieces(world))


def kernel_distance(
    pictures: Sequence[NDArray[np.uint8]], worlds: Sequence[NDArray[np.uint8]], observer: Observer
) -> float:
    """KID between the pieces of many replicas and of their worlds, on the classifier's features.

    Args:
        pictures: Of replicas, CLASSIFIED_PX high.
        worlds: As they were.
        observer: The bundle.

    Raises:
        RequestError: If there is one piece alone.
    """
    from megdt.models.quality import kid  # torch

    ours, theirs = (
        observer.probe_features(np.concatenate([_pieces(p) for p in given]))
        for given in (pictures, worlds)
    )
    return kid(ours, theirs)


def entity_f1(
    picture: NDArray[np.uint8],
    garden: Garden,
    observer: Observer,
    *,
    pieces: Sequence[int] | None = None,
) -> float:
    """How well species, colour and sky that are found in the replica are those of the world, 0 to 1.

    In each piece the classifier names one of each, and what is there are the kinds of flowers with
    MAIN_SHARE of the area or more, the largest in any case, and the sky. F1 is 2 hits / (named + there)
    over all pieces.

    Args:
        picture: Of the replica, CLASSIFIED_PX high. RGB
        garden: The world as it is.
        observer: The bundle.
        pieces: Those that count, from the left; all when left out.

    Raises:
        TwinError: If the picture is of another height.
    """
    if picture.shape[0] != CLASSIFIED_PX:
        raise TwinError(
            f"the picture is {picture.shape[0]} pixels high, the classifier takes {CLASSIFIED_PX}; "
            "decode a replica of 32 rows"
        )
    named = observer.classify(_pieces(picture))
    hits = named_count = there_count = 0
    for index, left_px in enumerate(_lefts(picture)):
        if pieces is not None and index not in pieces:
            continue
        position_m = (left_px / CLASSIFIED_PX + 0.5) * VIEW_EXTENT_M
        truth = garden.truth(View(position_m=position_m))
        main = [g for n, g in enumerate(truth.groups) if n == 0 or g.share >= MAIN_SHARE]
        there = {("sky", truth.conditions.sky)}
        there |= {("species", g.species) for g in main} | {("colour", g.colour) for g in main}
        found = {(what, names[int(named[what][index])]) for what, names in LABELS.items()}
        hits += len(found & there)
        named_count += len(found)
        there_count += len(there)
    return 2 * hits / (named_count + there_count)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many measurements lay inside the intervals that were predicted for them.

    Args:
        wanted: Share that should.
        found: Share that did.
        low: Of the 95 % interval of that share (Wilson, JASA 22, 1927).
        high: Likewise.
        count: Measurements.
    """

    wanted: float
    found: float
    low: float
    high: float
    count: int

    @property
    def holds(self) -> bool:
        """Whether the share wanted may be the true one."""
        return self.low <= self.wanted <= self.high


def coverage(
    means: ArrayLike, stds: ArrayLike, measured: ArrayLike, *, wanted: float = 0.9
) -> Coverage:
    """Hold measurements against Gaussian predictions.

    Args:
        means: Predicted. [measurements]
        stds: Predicted standard deviations. [measurements]
        measured: What came. [measurements]
        wanted: Share that the intervals are for.

    Raises:
        MeasurementError: If there is none, or numbers are missing or not finite.
    """
    mean, std, found = (np.asarray(a, float) for a in (means, stds, measured))
    if not mean.shape == std.shape == found.shape or mean.ndim != 1 or mean.size == 0:
        raise MeasurementError(
            f"predictions are {mean.shape} and {std.shape}, measurements {found.shape}; give one mean "
            "and one deviation for each measurement"
        )
    if not (np.isfinite(mean + std + found).all() and (std > 0).all()):
        raise MeasurementError(
            "a prediction or a measurement is not finite, or a deviation not above 0; leave it out"
        )
    half = NormalDist().inv_cdf(0.5 + wanted / 2) * std
    count, share = mean.size, float(np.mean(np.abs(found - mean) <= half))
    z = NormalDist().inv_cdf(0.975)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = (
        z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    )
    return Coverage(
        wanted=wanted, found=share, low=middle - spread, high=middle + spread, count=count
    )  # fmt: skip


@dataclass(kw_only=True)
class DriftAlarm:
    """Tells when residuals no longer lie around 0: two cumulative sums, one for each direction.

    Args:
        tolerance: Standard deviations that a mean may be off without adding up.
        limit: That a sum may reach. At 8 and a tolerance of 0.5, independent Gaussian residuals
            raise an alarm once in some 10,000, and a mean off by one deviation after about 17.

    References:
        Page, Continuous Inspection Schemes, Biometrika 41, 1954.
    """

    tolerance: float = 0.5
    limit: float = 8.0
    above: float = 0.0
    below: float = 0.0

    def update(self, residual: float) -> bool:
        """Take one measurement minus its prediction, in the prediction's deviations.

        Returns:
            Whether there is drift. Sums stay as they are, so an alarm lasts until the residuals have
            come back for as long.
        """
        self.above = min(max(0.0, self.above + residual - self.tolerance), 2 * self.limit)
        self.below = min(max(0.0, self.below - residual - self.tolerance), 2 * self.limit)
        return max(self.above, self.below) > self.limit


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a twin may be like to be believed.

    Args:
        age_s: From which on a tile is stale.
        stale_share: Of tiles that may be.
        squared: Mean squared difference from which on a box of a spot check is wrong: noise makes
            0.002, another scene 1.1.
        wrong_share: Of boxes that may be.
        silence_s: Without a measurement, from which on predictions are stale.
    """

    age_s: float = 86_400.0
    stale_share: float = 0.25
    squared: float = 0.25
    wrong_share: float = 0.1
    silence_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Validity:
    """Whether to believe the twin, in something.

    Args:
        verdict: "fresh"; "stale" where too much is old; "wrong" where it contradicts what was seen or
            measured.
        reasons: Why, a sentence each.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()

    @property
    def fresh(self) -> bool:
        """Whether to believe it."""
        return self.verdict == "fresh"


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Of a twin: what it shows and what it predicts go wrong apart from each other."""

    replica: Validity
    predictions: Validity

    @property
    def verdict(self) -> Verdict:
        """The worse of the two."""
        verdicts = get_args(Verdict)
        found: Verdict = max(self.replica.verdict, self.predictions.verdict, key=verdicts.index)
        return found

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of both."""
        return self.replica.reasons + self.predictions.reasons


def assess_predictions(
    *,
    silence_s: float,
    coverages: Mapping[str, Coverage] | None = None,
    drifting: Sequence[str] = (),
    tolerance: Tolerance | None = None,
) -> Validity:
    """Make a verdict on predictions, of what was measured since they were made.

    Args:
        silence_s: Since the newest measurement.
        coverages: Of intervals, by what was predicted.
        drifting: What has drift alarms.
        tolerance: What is still fresh.
    """
    allowed = Tolerance() if tolerance is None else tolerance
    wrong = [f"{name} drifts from its predictions" for name in drifting]
    for name, held in (coverages or {}).items():
        if held.high < held.wanted:
            wrong.append(
                f"{held.found:.0%} of {held.count} measurements of {name} lie in the intervals for "
                f"{held.wanted:.0%}"
            )
    stale = []
    if silence_s > allowed.silence_s:
        stale.append(f"nothing was measured for {silence_s:.0f} s")
    verdict: Verdict = "wrong" if wrong else "stale" if stale else "fresh"
    return Validity(verdict=verdict, reasons=(*wrong, *stale))


def assess_replica(
    replica: Replica,
    *,
    now_s: float,
    spot_checks: Sequence[Sight] = (),
    doubted: Collection[Side] = (),
    tolerance: Tolerance | None = None,
) -> Validity:
    """Make a verdict on what a replica shows, of what is known in service.

    Args:
        replica: As it was when the spot checks came, before it took them.
        now_s: On the twin's clock.
        spot_checks: What trusted UEs have just seen.
        doubted: Sources that are kept out: what they have put in counts as never seen.
        tolerance: What is still fresh.
    """
    allowed = Tolerance() if tolerance is None else tolerance
    wrong = []
    # Where the replica is old it is stale, and only where it is not can it be wrong.
    boxes = [compare(check, _whole(replica), now_s=now_s) for check in spot_checks]
    checked = [b.squared[np.isfinite(b.squared) & (b.age_s <= allowed.age_s)] for b in boxes]
    seen = np.concatenate(checked) if checked else np.zeros(0)
    if seen.size and (share := float(np.mean(seen > allowed.squared))) > allowed.wrong_share:
        wrong.append(f"{share:.0%} of what UEs have just seen is not as the replica has it")
    old = replica.tile_ages_s(now_s, doubted) > allowed.age_s
    stale = []
    if old.mean() > allowed.stale_share:
        stale.append(
            f"{int(old.sum())} of {old.size} tiles are older than {allowed.age_s:.0f} s or were never seen"
            + (" by who is trusted" if doubted else "")
        )
    verdict: Verdict = "wrong" if wrong else "stale" if stale else "fresh"
    return Validity(verdict=verdict, reasons=(*wrong, *stale))


def flag(
    store: Store,
    found: Assessment,
    *,
    server: str = "es/1",
    now_s: float,
    expected: int | None = None,
) -> int:
    """Write verdicts as reported state of the ES that holds the twin; returns the revision.

    Raises:
        ConflictError: If the ES is not at the revision that is expected.
    """
    state = {
        "twin": {
            "verdict": found.verdict, "reasons": list(found.reasons),
            "replica": found.replica.verdict, "predictions": found.predictions.verdict,
        }
    }  # fmt: skip
    update = Update(id=server, kind="es", reported=state, expected=expected)
    return store.apply([update], now_s=now_s)


def _whole(replica: Replica) -> Sight:
    return Sight(values=replica.values, seen_s=replica.seen_s, columns=range(replica.width))


def _lefts(picture: NDArray[np.uint8]) -> list[int]:
    """Where square pieces begin; the last ends where the picture does."""
    height, width = picture.shape[:2]
    return [*range(0, width - height, height), width - height]


def _pieces(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = picture.shape[0]
    return np.stack([picture[:, left : left + size] for left in _lefts(picture)])


def _check_pictures(picture: NDArray[np.uint8], world: NDArray[np.uint8]) -> None:
    if picture.shape != world.shape or picture.shape[1] % (TILE_COLUMNS * FACTOR):
        raise TwinError(
            f"the replica's picture is {picture.shape}, the world's {world.shape}; expected one size, and "
            f"whole tiles of {TILE_COLUMNS * FACTOR} pixels: render the world as high as the replica"
        )
