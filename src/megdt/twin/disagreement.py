"""How far what a UE sent is from what the twin knows: in numbers that are larger the worse it fits.

All compare latents at the same columns. Views of one place by two cameras differ by some 0.05 in the
root mean square (noise of the cameras, eight bits a latent, what lies beside the view); one column
further along, or another scene, by 0.9 to 1.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from megdt.records import Side
from megdt.twin.replica import SURE, TILE_COLUMNS, Replica

BOX = 4
"""Latents a side of the boxes that are compared one by one: 32 pixels, half a metre."""

STRIDE = 2
"""From one box to the next, in latents."""

AGE_BINS_S = (180.0, 480.0, 1_800.0, 10_800.0, 86_400.0, float("inf"))
"""What has been seen up to so long before is compared by one limit: flowers change meanwhile."""

BIN_NAMES = ("3 min", "8 min", "30 min", "3 h", "1 day", "older")

FEWEST_BOXES = 75
"""For a word about the scene as a whole: five columns of them. One flower that has opened is most of
what fewer show."""

SAME_SCENE, SAME_PATCH = 0.1**2, 0.15**2
"""Mean squared differences of the median and of the worst box up to which two views are the same: how
much of that a place gives is its own, and no more likely a lie each time."""

_FLOOR = 1e-6  # equal latents have a logarithm too


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Part of the panorama as somebody saw it.

    Args:
        values: Of the columns. [latent_channels, height, columns]
        seen_s: When each latent was seen, -infinity where it was not. [height, columns]
        columns: Of the panorama.
        source: Who saw it; None for the replica, which is of many.
    """

    values: NDArray[np.float32]
    seen_s: NDArray[np.float64]
    columns: range
    source: Side | None = None

    @classmethod
    def of_replica(cls, replica: Replica) -> Sight:
        """The replica as it is now; it may be refreshed afterwards."""
        return cls(
            values=replica.values.copy(), seen_s=replica.seen_s.copy(), columns=range(replica.width)
        )


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A sight held against another, box by box.

    Args:
        squared: Mean squared difference; infinity where one of both did not see all of it.
            [rows, columns]
        age_s: Mean age of the other's latents; infinity likewise. [rows, columns]
        left: The column of the panorama at which each begins. [columns]
        own: Where the other is what the same UE has seen before, and nobody else lately.
            [rows, columns]
    """

    squared: NDArray[np.float64]
    age_s: NDArray[np.float64]
    left: NDArray[np.int64]
    own: NDArray[np.bool_]

    @property
    def bins(self) -> NDArray[np.int64]:
        """Index of each box in AGE_BINS_S; beyond the last where there is nothing to compare."""
        found: NDArray[np.int64] = np.searchsorted(AGE_BINS_S, self.age_s)
        return np.where(np.isfinite(self.squared), found, len(AGE_BINS_S))

    def of(self, *, own: bool) -> Boxes:
        """Those alone that are held against its own, or against others'."""
        return replace(self, squared=np.where(self.own == own, self.squared, np.inf))


def compare(sight: Sight, other: Sight, *, now_s: float) -> Boxes:
    """Hold a sight against another, wherever both have seen.

    Args:
        sight: What is judged; its boxes are counted from its own left end.
        other: What is known.
        now_s: On the twin's clock.
    """
    height, width = sight.seen_s.shape
    squared = np.full((height, width), np.inf)
    age = np.full((height, width), np.inf)
    start = max(sight.columns.start, other.columns.start)
    stop = min(sight.columns.stop, other.columns.stop)
    if start < stop:
        ours = slice(start - sight.columns.start, stop - sight.columns.start)
        theirs = slice(start - other.columns.start, stop - other.columns.start)
        both = np.isfinite(sight.seen_s[:, ours]) & np.isfinite(other.seen_s[:, theirs])
        difference = sight.values[:, :, ours] - other.values[:, :, theirs]
        squared[:, ours] = np.where(both, (difference**2).mean(0), np.inf)
        # Two moments apart, whichever came first.
        age[:, ours] = np.where(both, np.maximum(now_s - other.seen_s[:, theirs], 0), np.inf)
    means = _box_means(squared)
    return Boxes(
        squared=means, age_s=_box_means(age), own=np.zeros(means.shape, bool),
        left=sight.columns.start + np.arange(0, width - BOX + 1, STRIDE),
    )  # fmt: skip


def compare_with_others(
    sight: Sight,
    replica: Replica,
    trusted: Iterable[Sight],
    doubted: Iterable[Sight] = (),
    *,
    now_s: float,
    quarantined: Collection[Side] = (),
) -> Boxes:
    """Hold a sight against whom it agrees with best, of the replica and those who looked there last.

    What the sender itself has put into the replica counts where no other has looked as lately. So one
    liar alone can neither make an honest neighbour look like one nor vouch for itself; two that lie
    alike can. What sources in quarantine have put into the replica is held against themselves alone.

    Args:
        sight: What is judged.
        replica: The replica.
        trusted: The newest of each other source.
        doubted: Likewise, of sources in quarantine: they can be agreed with, and no more.
        now_s: On the twin's clock.
        quarantined: All sources that are.
    """
    others = [side for side in quarantined if side != sight.source]
    known = Sight(
        values=replica.values, seen_s=replica.believed_s(others), columns=range(replica.width)
    )
    boxes = compare(sight, known, now_s=now_s)
    squared, age, bins, left = boxes.squared, boxes.age_s, boxes.bins, boxes.left
    own = np.array([replica.sources[c // TILE_COLUMNS] == sight.source for c in left])
    own = np.broadcast_to(own, squared.shape)
    for other, may_lead in [(o, True) for o in trusted] + [(o, False) for o in doubted]:
        if other.columns.start >= sight.columns.stop or sight.columns.start >= other.columns.stop:
            continue
        boxes = compare(sight, other, now_s=now_s)
        leads = may_lead & ((boxes.bins < bins) | ((boxes.bins == bins) & own))
        agrees = (boxes.bins <= bins) & (boxes.squared < squared) & np.isfinite(squared)
        take = np.isfinite(boxes.squared) & (leads | agrees)
        squared, age = np.where(take, boxes.squared, squared), np.where(take, boxes.age_s, age)
        bins, own = np.where(take, boxes.bins, bins), own & ~take
    return Boxes(squared=squared, age_s=age, left=left, own=own)


def agree(boxes: Boxes, earlier: Boxes) -> Boxes:
    """Take what a UE in quarantine has seen itself, where nobody else has looked as lately and it fits
    better: what the replica would have by now, had it been believed.
    """
    lately = boxes.own | (earlier.bins < boxes.bins)
    take = lately & (earlier.bins <= boxes.bins) & (earlier.squared < boxes.squared)
    return replace(
        boxes,
        squared=np.where(take, earlier.squared, boxes.squared),
        age_s=np.where(take, earlier.age_s, boxes.age_s),
        own=boxes.own | take,
    )


def scene_scores(boxes: Boxes) -> dict[str, float]:
    """Logarithm of the median box by age: flowers that changed do not move it, another scene does."""
    found = {}
    bins = boxes.bins
    for index, name in enumerate(BIN_NAMES):
        inside = boxes.squared[bins == index]
        if inside.size >= FEWEST_BOXES:
            found[name] = float(np.log(max(np.median(inside), SAME_SCENE)))
    return found


def patch_scores(boxes: Boxes) -> dict[str, tuple[float, int, int]]:
    """Logarithm of the worst box by age, with its first row and column of the panorama."""
    found = {}
    bins = boxes.bins
    for index, name in enumerate(BIN_NAMES):
        inside = np.where(bins == index, boxes.squared, -1.0)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        if inside[row, column] >= 0:
            score = float(np.log(max(inside[row, column], SAME_PATCH)))
            found[name] = (score, int(row) * STRIDE, int(boxes.left[column]))
    return found


def best_elsewhere(
    sight: Sight, replica: Replica, *, now_s: float
) -> tuple[str, float, int] | None:
    """How much better a sight fits the replica at other columns than at those that it claims.

    Returns:
        Name of the age of what the replica has at the claimed columns, logarithm of the ratio of both
        mean squared differences, and the first column of the best other place; None where the replica
        knows too little. Each latent counts up to 1, so that some changed flowers do not decide.
    """
    width = sight.values.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(replica.values, width, 2)
    seen_s = np.lib.stride_tricks.sliding_window_view(replica.seen_s, width, 1)
    both = np.isfinite(seen_s) & np.isfinite(sight.seen_s)[:, None]
    squared = ((windows - sight.values[:, :, None]) ** 2).mean(0)
    counted = both.sum((0, 2))
    fits = (np.minimum(squared, 1) * both).sum((0, 2)) / np.maximum(counted, 1) + _FLOOR
    claimed = sight.columns.start
    # A place of which little is known fits by chance.
    enough = counted >= max(counted.max() / 2, 1)
    elsewhere = np.where(enough, fits, np.inf)
    elsewhere[claimed] = np.inf
    best = int(elsewhere.argmin())
    if not enough[claimed] or not np.isfinite(elsewhere[best]):
        return None
    age_s = now_s - float(seen_s[:, claimed][both[:, claimed]].mean())
    age = BIN_NAMES[int(np.searchsorted(AGE_BINS_S, max(age_s, 0.0)))]
    return age, float(np.log(fits[claimed] / elsewhere[best])), best


def signature(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every sixteenth latent, by which a copy is known. [latents / 16]"""
    return values.reshape(-1)[::16].copy()


def sameness(values: NDArray[np.float32], history: Sequence[NDArray[np.float32]]) -> float | None:
    """How much a view is like one of those before: minus the logarithm of the least mean squared
    difference, whatever columns they claim; None without any.

    Two pictures of one thing differ by their cameras' noise, a copy does not.

    Args:
        values: [latent_channels, height, columns]
        history: Signatures of views; those of another size are left out.
    """
    own = signature(values)
    alike = [earlier for earlier in history if earlier.shape == own.shape]
    if not alike:
        return None
    differences = (np.stack(alike) - own) ** 2
    return float(-np.log(differences.mean(1).min() + _FLOOR))


def surely_seen(
    confidence: NDArray[np.float32] | None, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Where something was seen for sure. [height, columns]"""
    if confidence is None:
        return np.ones(shape, bool)
    sure: NDArray[np.bool_] = confidence >= SURE
    return sure


def _box_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    windows = np.lib.stride_tricks.sliding_window_view(values, (BOX, BOX))
    means: NDArray[np.float64] = windows[::STRIDE, ::STRIDE].mean((2, 3))
    return means
