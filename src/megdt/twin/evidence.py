"""What speaks against an arrival: statistics, the limits that clean runs have set them, evidence.

References:
    Conformal p-values: Vovk et al., Algorithmic Learning in a Random World, 2005.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from megdt.errors import TwinError

AttackKind = Literal["jammed", "replayed", "forged", "poisoned", "spoofed"]
Group = Literal["link", "position", "content", "single"]

TESTS: Mapping[str, tuple[AttackKind, Group]] = {
    "elsewhere": ("spoofed", "single"),
    "sequence": ("replayed", "single"),
    "sameness": ("replayed", "single"),
    "scene": ("forged", "content"),
    "own scene": ("forged", "content"),
    "anchor scene": ("forged", "single"),
    "patch": ("poisoned", "content"),
    "own patch": ("poisoned", "content"),
    "anchor patch": ("poisoned", "single"),
    "position": ("spoofed", "position"),
    "noise": ("jammed", "link"),
    "pulses": ("jammed", "link"),
    "snr": ("jammed", "link"),
    "blocks": ("jammed", "link"),
}
"""What each speaks for, the most telling first."""

SUMS: Mapping[Group, AttackKind] = {
    "content": "poisoned", "position": "spoofed", "link": "jammed",
}  # fmt: skip
"""Of which groups arrivals add up. Not of single ones: a camera that stands still always sends much the
same, and some gardens look alike wherever one stands, so these say little more the second time."""

LEVELS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001, 0.0005)
"""Of clean arrivals that score as high: where limits keep the scores."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One statistic of an arrival.

    Args:
        test: One of TESTS.
        age: Name of the age at which latents were compared; empty for other tests.
        value: The larger, the worse it fits.
        compared: What with what, in words.
        column: Of the panorama, where it is worst; None where that has no place.
    """

    test: str
    value: float
    compared: str
    age: str = ""
    column: int | None = None

    @property
    def key(self) -> str:
        """By which limits are kept."""
        return f"{self.test}, {self.age}" if self.age else self.test


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Why an arrival is not believed.

    Args:
        kind: What it speaks for.
        test: The statistic: a score's key, or "sum of" a group.
        statistic: Its value.
        limit: That it is above.
        p_value: Share of clean arrivals that score as high, at least.
        compared: What with what, in words.
        column: Of the panorama, where it is worst; None where that has no place.
    """

    kind: AttackKind
    test: str
    statistic: float
    limit: float
    p_value: float
    compared: str
    column: int | None = None

    def __str__(self) -> str:
        where = "" if self.column is None else f" at column {self.column}"
        return (
            f"{self.kind}: {self.test} is {self.statistic:.2f}, at most {self.limit:.2f} in clean runs "
            f"({self.compared}{where})"
        )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What clean runs score.

    Args:
        scores: By score, those that shares LEVELS of clean arrivals reach, rising.
        counts: By score, how many clean arrivals that is from.
        alarms: By score, what is still believed.
        sums: By group, what sums are still believed.
    """

    scores: Mapping[str, Sequence[float]]
    counts: Mapping[str, int]
    alarms: Mapping[str, float]
    sums: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> Limits:
        """As `recipes/monitor.py` has written them.

        Raises:
            TwinError: If the file holds something else.
        """
        try:
            kept = json.loads(path.read_text())
            return cls(**{name: kept[name] for name in ("scores", "counts", "alarms", "sums")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TwinError(
                f"{path} holds no limits of the monitor ({error!r}); write them with recipes/monitor.py"
            ) from error

    def surprise(self, score: Score) -> float:
        """Minus the logarithm of the share of clean arrivals that score as high; 0 if unknown."""
        if score.key not in self.scores:
            return 0.0
        # Of clean arrivals that score the same, all score as high.
        reached, first = np.unique(self.scores[score.key], return_index=True)
        found = float(np.interp(score.value, reached, -np.log(LEVELS)[first]))
        return min(found, math.log(self.counts[score.key] + 1))


@cache
def bundled_limits() -> Limits:
    """Those that come with the package: of eight cameras on 12 metres of garden."""
    return Limits.read(Path(__file__).parent / "monitor.json")


def surprises(limits: Limits, scores: Iterable[Score]) -> dict[Group, float]:
    """How unlikely an arrival is by each group: minus the logarithm of its least p-value, times how
    many of the group were looked at (Bonferroni).
    """
    by: dict[Group, list[float]] = {}
    for score in scores:
        if (group := TESTS[score.test][1]) in SUMS:
            by.setdefault(group, []).append(limits.surprise(score))
    return {
        group: max(0.0, max(found) - math.log(len(found))) for group, found in by.items()
    }  # fmt: skip
