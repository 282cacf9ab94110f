"""From what was measured picture by picture to curves, differences, gains, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from distances import jackknife_interval, kid_jackknife, mean_interval
from measure import COSTS, USES, Key
from numpy.typing import NDArray
from schemes import (
    AVIF,
    DIGITAL,
    HYBRID,
    HYBRID_HALF,
    JSCC,
    JSCC_HALF,
    SPLIT,
)

from megdt.models.quality import frechet_distance, frechet_distance_unbiased

Table = Mapping[Key, dict[str, NDArray[Any]]]
"""What was measured, a row a picture; "number" says which."""
Point = dict[str, Any]

PAIRED = ("psnr_db", "ms_ssim", "perceptual")
METRICS = (*PAIRED, "kid")
HIGHER = {"psnr_db": True, "ms_ssim": True, "perceptual": False, "kid": False}
# Between the SNRs that were measured, each metric goes about straight in this.
STRAIGHT = {
    "psnr_db": lambda x: x,
    "ms_ssim": lambda x: -np.log(np.maximum(1 - x, 1e-6)),
    "perceptual": lambda x: -np.log(np.maximum(x, 1e-4)),
    "kid": lambda x: -np.log(np.maximum(x, 1e-6)),
}
FEWEST = 4
"""Pictures for a distance between sets."""


def tidy(value: float | None) -> float | None:
    """Six digits; None for what is not a number."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.6g}")


class Judge:
    """The rows of one set.

    Args:
        table: Of the set.
        unbiased: Whether to extrapolate the Frechet distance, which takes seconds a point.
    """

    def __init__(self, table: Table, *, unbiased: bool) -> None:
        self.table = table
        self.unbiased = unbiased
        reference = table["reference", 0.0, USES]
        self.reference = dict(zip(reference["number"].tolist(), reference["features"], strict=True))
        self.replicates: dict[Key, NDArray[np.float64]] = {}

    def keys(self, equal: str) -> list[Key]:
        return sorted(k for k in self.table if k[2] == equal and k[0] != "reference")

    def kid(self, key: Key) -> NDArray[np.float64] | None:
        """KID and its jackknife replicates, or None with too few pictures."""
        rows = self.table[key]
        if len(rows["number"]) < FEWEST:
            return None
        if key not in self.replicates:
            reference = np.stack([self.reference[n] for n in rows["number"].tolist()])
            self.replicates[key] = kid_jackknife(rows["features"], reference)
        return self.replicates[key]

    def _kid_on(self, key: Key, numbers: NDArray[Any]) -> NDArray[np.float64] | None:
        """KID over some of the pictures: two schemes are compared on what both have."""
        rows = self.table[key]
        if len(numbers) == len(rows["number"]):
            return self.kid(key)
        if len(numbers) < FEWEST:
            return None
        features = rows["features"][np.isin(rows["number"], numbers)]
        reference = np.stack([self.reference[n] for n in numbers.tolist()])
        return kid_jackknife(features, reference)

    def point(self, key: Key) -> Point:
        """Means with intervals, distances between sets, costs."""
        rows = self.table[key]
        found: Point = {"snr_db": key[1], "n": len(rows["number"])}
        for name in PAIRED:
            there = rows[name][np.isfinite(rows[name])]
            if len(there):
                mean, half = mean_interval(there)
                found |= {name: tidy(mean), f"{name}_95": tidy(half)}
        replicates = self.kid(key)
        if replicates is not None:
            value, half = jackknife_interval(replicates)
            reference = np.stack([self.reference[n] for n in rows["number"].tolist()])
            found |= {"kid": tidy(value), "kid_95": tidy(half)}
            found["frechet"] = tidy(frechet_distance(rows["features"], reference))
            if self.unbiased and len(reference) > reference.shape[1]:
                unbiased = frechet_distance_unbiased(rows["features"], reference)
                found["frechet_unbiased"] = tidy(unbiased)
        return found | {name: tidy(float(np.mean(rows[name]))) for name in COSTS}

    def minus(self, key: Key, other: Key) -> Point | None:
        """One scheme minus another, picture by picture where both have it."""
        if key not in self.table or other not in self.table:
            return None
        ours, theirs = self.table[key], self.table[other]
        both, here, there = np.intersect1d(ours["number"], theirs["number"], return_indices=True)
        if not len(both):
            return None
        found: Point = {"snr_db": key[1], "n": len(both)}
        for name in PAIRED:
            pairs = ours[name][here] - theirs[name][there]
            pairs = pairs[np.isfinite(pairs)]
            if len(pairs):
                mean, half = mean_interval(pairs)
                found |= {name: tidy(mean), f"{name}_95": tidy(half)}
        a, b = (self._kid_on(k, both) for k in (key, other))
        if a is not None and b is not None:
            value, half = jackknife_interval(a - b)
            found |= {"kid": tidy(value), "kid_95": tidy(half)}
        return found


def curves(judge: Judge, equal: str) -> dict[str, list[Point]]:
    """Points by scheme, in the order of SNR."""
    found: dict[str, list[Point]] = {}
    for key in judge.keys(equal):
        found.setdefault(key[0], []).append(judge.point(key))
    return found


def differences(judge: Judge, equal: str) -> dict[str, list[Point]]:
    """Every scheme minus the split at the same SNR."""
    found: dict[str, list[Point]] = {}
    for key in judge.keys(equal):
        point = judge.minus(key, (SPLIT, key[1], USES))
        if key[0] != SPLIT and point is not None:
            found.setdefault(key[0], []).append(point)
    return found


def verdict(difference: float, half: float | None, metric: str) -> str:
    """Better, worse, or level: the interval holds 0."""
    signed = difference if HIGHER[metric] else -difference
    if abs(signed) <= (half or 0.0):
        return "level"
    return "better" if signed > 0 else "worse"


def verdicts(minus: Sequence[Point]) -> list[Point]:
    """A row an SNR and metric."""
    return [
        {
            "snr_db": point["snr_db"],
            "metric": metric,
            "difference": point[metric],
            "interval_95": point[f"{metric}_95"],
            "verdict": verdict(point[metric], point[f"{metric}_95"], metric),
        }
        for point in minus
        for metric in METRICS
        if point.get(metric) is not None
    ]


def gains(found: Sequence[Point], split: Sequence[Point], minus: Sequence[Point]) -> list[Point]:
    """By how many dB of SNR a scheme is ahead of the split, with the interval of the pairs.

    Where the split never reaches what the scheme has, or is never that bad, the gain is a bound:
    to the end of the SNRs measured, with "at_least" or "at_most" set.
    """
    rows = []
    own = {point["snr_db"]: point for point in found}
    for metric in METRICS:
        line = [(p["snr_db"], p[metric]) for p in split if p.get(metric) is not None]
        for point in minus:
            snr_db = point["snr_db"]
            if point.get(metric) is None or len(line) < 2 or own[snr_db].get(metric) is None:
                continue
            base = dict(line)[snr_db]
            half = point[f"{metric}_95"] or 0.0
            low, middle, high = sorted(
                _reach(line, base + point[metric] + step, metric) - snr_db
                for step in (-half, 0, half)
            )
            top, bottom = line[-1][0] - snr_db, line[0][0] - snr_db
            rows.append(
                {
                    "snr_db": snr_db,
                    "metric": metric,
                    "gain_db": tidy(middle),
                    "gain_low_db": tidy(low),
                    "gain_high_db": tidy(high),
                    "bound": "at least" if middle >= top else "at most" if middle <= bottom else "",
                }
            )
    return rows


def _reach(line: Sequence[tuple[float, float]], value: float, metric: str) -> float:
    """The SNR at which a curve has a value; its ends for what lies beyond them."""
    snr, height = np.array(line).T
    straight = STRAIGHT[metric]
    rising = np.maximum.accumulate(straight(height))
    # Equal heights have no inverse: the first SNR that reaches one is meant.
    keep = np.r_[True, np.diff(rising) > 0]
    return float(np.interp(straight(np.float64(value)), rising[keep], snr[keep]))


def rate_ratios(scenes: Sequence[dict[str, Any]]) -> list[Point]:
    """AVIF's bits over the seed's at equal perceptual distance, at each rate of the seed."""

    def means(name: str) -> NDArray[np.float64]:
        lines = [[(p["bits"], p["perceptual"]) for p in scene[name]] for scene in scenes]
        return np.array(lines).mean(0)

    avif = means("avif")
    order = np.argsort(avif[:, 1])
    distance, bits = avif[order, 1], np.log(avif[order, 0])
    rows = []
    for rate, (seed_bits, reached) in zip(
        (p["rate"] for p in scenes[0]["seed"]), means("seed"), strict=True
    ):
        needed = float(np.exp(np.interp(reached, distance, bits)))
        bound = ""
        if reached < distance[0]:
            bound = "at least"  # AVIF at the ladder's top is not as good
        elif reached > distance[-1]:
            bound = "at most"
        rows.append(
            {
                "bits_per_pixel": rate,
                "seed_bits": tidy(seed_bits),
                "perceptual": tidy(reached),
                "avif_bits": tidy(needed),
                "ratio": tidy(needed / seed_bits),
                "bound": bound,
            }
        )
    return rows


def smallest_rate(scenes: Sequence[dict[str, Any]], *, within: float = 1.1) -> Point:
    """The fewest bits whose mean distance is within 10 % of the float32 seed's, on the ladder."""
    target = within * float(np.mean([scene["float32"] for scene in scenes]))
    for number, line in enumerate(scenes[0]["seed"]):
        found = float(np.mean([scene["seed"][number]["perceptual"] for scene in scenes]))
        bits = float(np.mean([scene["seed"][number]["bits"] for scene in scenes]))
        if found <= target:
            return {
                "float32_perceptual": tidy(target / within),
                "bits_per_pixel": line["rate"],
                "kbit": tidy(bits / 1000),
                "perceptual": tidy(found),
            }
    return {"float32_perceptual": tidy(target / within), "bits_per_pixel": None, "kbit": None}


def beats(judge: Judge, names: Sequence[str], other: str, metric: str) -> list[Point]:
    """At each SNR the best of some schemes minus another."""
    rows = []
    for snr_db in sorted({key[1] for key in judge.keys(USES)}):
        each = []
        for name in names:
            point = judge.minus((name, snr_db, USES), (other, snr_db, USES))
            if point is not None and point.get(metric) is not None:
                each.append((point[metric], point[f"{metric}_95"], name))
        if each:
            choose = max if HIGHER[metric] else min
            value, half, name = choose(each)
            rows.append(
                {
                    "snr_db": snr_db,
                    "metric": metric,
                    "scheme": name,
                    "difference": value,
                    "interval_95": half,
                    "verdict": verdict(value, half, metric),
                }
            )
    return rows


def judge_garden(judge: Judge) -> dict[str, Any]:
    """What is asked of the adaptive code: no harm at half the uses, gains, and against AVIF."""
    found = curves(judge, USES)
    minus = differences(judge, USES)
    ours = [n for n in (JSCC, JSCC_HALF, HYBRID, HYBRID_HALF, DIGITAL) if n in found]
    return {
        "gains": {n: gains(found[n], found[SPLIT], minus[n]) for n in ours},
        "no_harm": {n: verdicts(minus[n]) for n in ours},
        "against_avif": [
            row
            for metric in METRICS
            for row in beats(judge, [n for n in (JSCC, HYBRID) if n in found], AVIF, metric)
        ],
    }
