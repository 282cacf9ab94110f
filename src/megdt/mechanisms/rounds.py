"""Rounds of decentralized generation, one after the other, in which only some UEs have looked anew.

What came in an earlier round stays where it came to, older than it was, until its source has looked
anew. So nothing is sent twice, and nobody waits for anybody. A UE that has joined looks anew; what a
UE that has left had sent is dropped with it. One that leaves in the middle of a round is silent: what
it would have sent is late or lost, and those who wanted it go on without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.mechanisms.panorama import Columns, Panorama, aged, place
from megdt.mechanisms.sharing import choose_shares, worth
from megdt.records import Feature, Part, Result, Share, Side


class Rounds:
    """What is left of earlier rounds.

    Args:
        memory: The ES's observation of the whole panorama, as old as it is when the first round
            begins. [latent_channels, height, panorama]
    """

    def __init__(self, memory: Feature) -> None:
        self.memory = memory
        self._shares: tuple[Share, ...] = ()
        self._before: Result | None = None

    def begin(
        self,
        panorama: Panorama,
        renewed: Mapping[Side, Feature],
        *,
        passed_s: float,
        budget_bits: float,
        cost_bits: Callable[[int], float],
    ) -> tuple[tuple[Share, ...], Part]:
        """Choose what is shared in this round.

        Args:
            panorama: Who is there now.
            renewed: What those that have looked anew report: needs or observations, with their
                confidence and age. Cameras that were not there in the round before are among them.
            passed_s: Since that round.
            budget_bits: For what is sent now.
            cost_bits: What the codec takes for so many columns.

        Returns:
            All shares, for `decentralized`: those that are there still, then the new ones. And what
            is done before the round begins, for `simulate`; who has looked anew adds its picture.

        Raises:
            MechanismError: If a UE that has not looked anew has nothing from before.
        """
        old = {} if self._before is None else self._before.features
        for side, camera in panorama.by_side.items():
            if side not in renewed and f"observe_{camera.number}" not in old:
                raise MechanismError(
                    f"{side} has not looked anew, and nothing is left of what it saw before; let it "
                    "look when it joins"
                )
        if self._before is not None:
            self.memory = aged(self.memory, passed_s)
        staying = {s for s in panorama.by_side if s not in renewed} | {Side.ES}
        kept = self._kept(panorama, staying)
        part = self._part(panorama, staying, kept, passed_s)
        height = self.memory.values.shape[1]
        new = choose_shares(
            panorama,
            {
                Side.ES: _seen(self.memory, (height, panorama.width)),
                **{
                    side: _seen(report, (height, panorama.by_side[side].width))
                    for side, report in renewed.items()
                },
            },
            {Side.ES: self.memory.age_s, **{side: f.age_s for side, f in renewed.items()}},
            budget_bits=budget_bits,
            cost_bits=cost_bits,
            requests={
                c.side: np.ones((height, len(panorama.window(c))), np.float32)
                for c in panorama.cameras
            },
            held=self._held(panorama, staying, kept, part),
        )
        there = {share.name for share in kept}
        # What the ES has told once it does not tell again.
        self._shares = (*kept, *(share for share in new if share.name not in there))
        return self._shares, part

    def end(self, result: Result) -> None:
        """Keep what a round has given."""
        self._before = result

    def _kept(self, panorama: Panorama, staying: set[Side]) -> tuple[Share, ...]:
        """Shares that have come and whose source has looked at nothing since."""
        came = {} if self._before is None else self._before.arrived
        return tuple(
            share
            for share in self._shares
            if share.source in staying
            and share.target in panorama.by_side
            and (share.name, share.target) in came
        )

    def _part(
        self, panorama: Panorama, staying: set[Side], kept: tuple[Share, ...], passed_s: float
    ) -> Part:
        """What is not done again."""
        features, arrived = {"remember": self.memory}, {}
        if self._before is not None:
            numbers = [panorama.by_side[side].number for side in staying if side.is_ue]
            names = {f"{what}_{n}" for n in numbers for what in ("sense", "observe", "report")}
            names |= {share.name for share in kept}
            for name in names & self._before.features.keys():
                features[name] = aged(self._before.features[name], passed_s)
            for (name, side), feature in self._before.arrived.items():
                if name in names and (side in panorama.by_side or side == Side.ES):
                    arrived[name, side] = aged(feature, passed_s)
        return Part(features=features, arrived=arrived)

    def _held(
        self, panorama: Panorama, staying: set[Side], kept: tuple[Share, ...], part: Part
    ) -> dict[Side, NDArray[np.float32]]:
        """What each UE has of its extended view from before."""
        held: dict[Side, NDArray[np.float32]] = {}
        sources: list[tuple[Side, Feature, Columns]] = [
            (side, part.features[f"observe_{c.number}"], c.view)
            for side, c in panorama.by_side.items()
            if side in staying
        ]
        sources += [
            (share.target, part.arrived[share.name, share.target], share.columns) for share in kept
        ]
        for side, feature, columns in sources:
            window = panorama.window(panorama.by_side[side])
            placed = place(feature, columns, window).confidence
            assert placed is not None
            value = worth(placed, feature.age_s)
            held[side] = np.maximum(held.get(side, value), value)
        return held


def _seen(feature: Feature, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.ones(shape, np.float32) if feature.confidence is None else feature.confidence
