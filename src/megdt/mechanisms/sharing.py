"""Who sends what to whom, when many users share what they see.

By need: what a side has and another wants and has not, as far as a budget of bits goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.mechanisms.panorama import Columns, Panorama, meet
from megdt.records import Share, Side

WORTH = 0.05
"""Mean gain over a column, of 1, below which it is not worth being sent."""

HALF_LIFE_S = 86_400.0
"""Age at which an observation is worth half: in the garden skies change from day to day, and flowers
within ten."""


def choose_shares(
    panorama: Panorama,
    confidences: Mapping[Side, NDArray[np.float32]],
    ages_s: Mapping[Side, float],
    *,
    budget_bits: float,
    cost_bits: Callable[[int], float],
    requests: Mapping[Side, NDArray[np.float32]] | None = None,
    held: Mapping[Side, NDArray[np.float32]] | None = None,
) -> tuple[Share, ...]:
    """Who sends what to whom, by need (after Hu et al., Where2comm, arXiv:2209.12836).

    What a source has is worth its confidence, halved with every HALF_LIFE_S of age. What a UE needs
    of it is its request times what that is worth more than what the UE has. Share by share the one
    is chosen that meets most need a bit, of the columns in which it does.

    Args:
        panorama: Who sees what of it.
        confidences: Of the observations, by side; one that is left out has nothing to share. With
            the ES among them, of its memory, [height, panorama], it is a source as well.
            [height, width]
        ages_s: How old each of these is, by side.
        budget_bits: For all shares together.
        cost_bits: What the codec takes for so many columns.
        requests: How much each UE wants to see each position of its extended view, 0 to 1; one that
            is left out wants nothing. Without any, all that have an observation want all.
            [height, window]
        held: What a UE has of its extended view beside its own observation, from earlier shares:
            confidence halved with age likewise, see `worth`. [height, window]

    Returns:
        The same for the same arguments, most needed first.

    Raises:
        MechanismError: If a side has no camera, or a map is of another size.
    """
    needs = _Needs(panorama, confidences, ages_s, requests, held)
    chosen: list[Share] = []
    left = budget_bits
    best = {side: needs.best(side, left, cost_bits) for side in needs.wanted}
    while any(best.values()):
        # The first of those that are alike, in the order of the cameras.
        side = max(best, key=lambda s: 0.0 if (b := best[s]) is None else b[0])
        found = best[side]
        assert found is not None
        _, share = found
        cost = cost_bits(len(share.columns))
        if cost <= left:
            chosen.append(share)
            left -= cost
            needs.meet(share)
        best[side] = needs.best(side, left, cost_bits)
    return tuple(chosen)


def worth(confidence: NDArray[np.float32], age_s: float) -> NDArray[np.float32]:
    """Confidence, halved with every HALF_LIFE_S of age."""
    return np.asarray(confidence * 2.0 ** (-age_s / HALF_LIFE_S), np.float32)


class _Needs:
    """What each UE wants of its extended view, and has of it."""

    def __init__(
        self,
        panorama: Panorama,
        confidences: Mapping[Side, NDArray[np.float32]],
        ages_s: Mapping[Side, float],
        requests: Mapping[Side, NDArray[np.float32]] | None,
        held: Mapping[Side, NDArray[np.float32]] | None,
    ) -> None:
        self.panorama = panorama
        views = {camera.side: camera.view for camera in panorama.cameras}
        windows = {camera.side: panorama.window(camera) for camera in panorama.cameras}
        _check_maps("confidence", confidences, {**views, Side.ES: panorama.columns})
        _check_maps("request", requests or {}, windows)
        _check_maps("held", held or {}, windows)
        self.offers: dict[Side, tuple[range, NDArray[np.float32]]] = {}
        for side, confidence in confidences.items():
            if side not in ages_s:
                raise MechanismError(
                    f"the observation of {side} has no age; give its ages_s, 0 for now"
                )
            columns = views[side] if side.is_ue else panorama.columns
            self.offers[side] = columns, worth(confidence, ages_s[side])
        self.wanted: dict[Side, NDArray[np.float32]] = {}
        self.has: dict[Side, NDArray[np.float32]] = {}
        self.near: dict[Side, list[Side]] = {}
        maps = [*confidences.values(), *(requests or {}).values(), *(held or {}).values()]
        height = max((len(m) for m in maps), default=1)
        if any(len(m) != height for m in maps):
            raise MechanismError(
                f"maps are {min(len(m) for m in maps)} to {height} latents high; give maps of one "
                "panorama"
            )
        for side, window in windows.items():
            if side not in (confidences if requests is None else requests):
                continue
            all_of_it = np.ones((height, len(window)), np.float32)
            self.wanted[side] = all_of_it if requests is None else requests[side]
            has = (
                np.zeros_like(all_of_it) if held is None or side not in held else held[side].copy()
            )
            if side in self.offers:
                at = slice(views[side].start - window.start, views[side].stop - window.start)
                has[:, at] = np.maximum(has[:, at], self.offers[side][1])
            self.has[side] = has
            self.near[side] = [
                s for s, (c, _) in self.offers.items() if s != side and meet(c, window)
            ]

    def best(
        self, side: Side, budget_bits: float, cost_bits: Callable[[int], float]
    ) -> tuple[float, Share] | None:
        """The share that meets most need of a UE a bit; None where none does within the budget."""
        found: tuple[float, Share] | None = None
        for source in self.near[side]:
            columns, here, offered = self._overlap(source, side)
            gain = np.maximum(offered - self.has[side][:, here], 0) * self.wanted[side][:, here]
            by_column = gain.mean(0)
            needed = by_column >= WORTH
            sent = tuple(np.asarray(columns)[needed].tolist())
            if not needed.any() or (cost := cost_bits(len(sent))) > budget_bits:
                continue
            rate = float(by_column[needed].sum()) / cost
            if found is None or rate > found[0]:
                found = rate, Share(source=source, target=side, columns=sent)
        return found

    def meet(self, share: Share) -> None:
        """Note that a UE gets what it needed of a source."""
        columns, here, offered = self._overlap(share.source, share.target)
        has = self.has[share.target][:, here]
        has[:] = np.where(np.isin(columns, share.columns), np.maximum(has, offered), has)
        self.near[share.target].remove(share.source)

    def _overlap(self, source: Side, side: Side) -> tuple[range, slice, NDArray[np.float32]]:
        """What a source sees of an extended view: columns, where they are in it, worth."""
        seen, offered = self.offers[source]
        window = self.panorama.window(self.panorama.by_side[side])
        columns = range(max(seen.start, window.start), min(seen.stop, window.stop))
        here = slice(columns.start - window.start, columns.stop - window.start)
        return columns, here, offered[:, columns.start - seen.start : columns.stop - seen.start]


def _check_maps(
    what: str, maps: Mapping[Side, NDArray[np.float32]], columns: Mapping[Side, Columns]
) -> None:
    for side, found in maps.items():
        if side not in columns:
            raise MechanismError(
                f"a map of {what} is of {side}, and there are {', '.join(columns)}; give maps of "
                "these"
            )
        if found.ndim != 2 or found.shape[1] != len(columns[side]):
            raise MechanismError(
                f"the map of {what} of {side} is {found.shape}; expected [height, "
                f"{len(columns[side])}]: give one number for each latent"
            )


def check_shares(panorama: Panorama, shares: Sequence[Share]) -> None:
    """See that shares are from and to cameras, of what their sources see; see `decentralized`."""
    there = ", ".join(panorama.by_side)
    names: set[str] = set()
    for share in shares:
        what = f"a share is from {share.source} to {share.target}"
        if share.target not in panorama.by_side or share.source not in {*panorama.by_side, "ES"}:
            raise MechanismError(
                f"{what}, and cameras are on {there}; let it go to one of them, from another or "
                "the ES"
            )
        if share.source == share.target:
            raise MechanismError(f"{what}, which has its own view already; leave it out")
        if share.name in names:
            raise MechanismError(f"{what} for the second time; put all its columns in one")
        names.add(share.name)
        seen = _seen_by(panorama, share.source)
        rising = all(a < b for a, b in pairwise(share.columns))
        if not share.columns or not rising or not all(c in seen for c in share.columns):
            raise MechanismError(
                f"{what}, of columns {', '.join(map(str, share.columns)) or 'none'}, and "
                f"{share.source} sees {seen[0]} to {seen[-1]}; share some of these, rising"
            )


def _seen_by(panorama: Panorama, side: Side) -> range:
    return panorama.by_side[side].view if side.is_ue else panorama.columns
