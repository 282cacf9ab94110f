"""Validation: whether what the twin sees of itself in spot checks tells how far it is from the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replicas import (
    DAY_S,
    SHAPE,
    VIEW_PX,
    Latent,
    World,
    cameras_along,
    replica_of,
    through,
    views_of,
)

from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.mechanisms.panorama import Panorama
from megdt.models.bundle import Bundle
from megdt.records import Feature
from megdt.twin.disagreement import Sight, compare
from megdt.twin.replica import NEVER, Replica
from megdt.twin.validation import Validity, assess_replica
from megdt.worlds.garden import Garden
from megdt.worlds.scene import SKIES, WEATHERS

HOUR_S = 3600.0
SHIFTED = 8
"""Columns, a metre, by which a replica is off whose UEs told a wrong place."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A replica, and the world that it is to be of.

    Args:
        name: What is the matter.
        latents: That the replica holds.
        age_s: Since it was seen.
        world: As it is now.
    """

    name: str
    latents: Latent
    age_s: float
    world: World


class Bench:
    """One garden with replicas of it, right and wrong."""

    def __init__(self, rng_seed: int, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.settings, self.bundle = settings, bundle
        length_m = settings["length_m"]
        self.panorama: Panorama = cameras_along(length_m, settings["cameras"])
        self.garden = Garden(rng_seed, length_m=length_m)
        self.other = Garden(rng_seed + settings["gardens"], length_m=length_m)

    def cases(self, bits: int | None) -> list[Case]:
        """Replicas made of seeds of so many bits, int8 if None."""
        now, px = self.garden, self.settings["judged_px"]
        made, other = (self.replica(garden, bits) for garden in (now, self.other))
        part = made.copy()
        third = made.shape[2] // 3
        part[:, :, third : 2 * third] = other[:, :, third : 2 * third]
        present = World(now, self.bundle, px)
        cases = [
            Case(name="as it is", latents=made, age_s=HOUR_S, world=present),
            Case(
                name="a metre off",
                latents=np.roll(made, SHIFTED, 2),
                age_s=HOUR_S,
                world=present,
            ),
            Case(name="a third of another garden", latents=part, age_s=HOUR_S, world=present),
            Case(name="another garden", latents=other, age_s=HOUR_S, world=present),
        ]
        for name, told in (("sky", _next(SKIES, now)), ("weather", _next(WEATHERS, now))):
            changed = now.later(0.0, replace(now.conditions, **{name: told}))
            world = World(changed, self.bundle, px)
            cases.append(Case(name=f"another {name}", latents=made, age_s=HOUR_S, world=world))
        for days in self.settings["age_days"]:
            world = World(now.later(days), self.bundle, px)
            cases.append(
                Case(name=f"{days:g} days old", latents=made, age_s=days * DAY_S, world=world)
            )
        return cases

    def replica(self, garden: Garden, bits: int | None) -> Latent:
        """Of all views of a garden."""
        return replica_of(self.seeds(garden, bits), self.panorama).values

    def seeds(self, garden: Garden, bits: int | None) -> list[Latent]:
        """Views as they come to the ES."""
        codec = (
            QuantisedSeedCodec(shape=SHAPE)
            if bits is None
            else ProgressiveSeedCodec(shape=SHAPE, budget_bits=bits)
        )
        latents = self.bundle.encode(views_of(garden.panorama(VIEW_PX), self.panorama))
        return [through(codec, Feature(kind="seed", values=one))[0].values for one in latents]

    def run(self, case: Case, bits: int | None) -> dict[str, Any]:
        """How far a replica truly is, and what the twin says after each number of spot checks."""
        height, width = case.latents.shape[1:]
        replica = Replica.blank(height, width)
        replica.values[:] = case.latents
        replica.seen_s[:] = 0.0
        checks = self.sights(case, self.seeds(case.world.garden, bits))
        judged = case.world.judge(replica.picture(self.bundle))
        rng = np.random.default_rng(0)
        count = len(checks)
        own, verdicts = {}, {}
        for some in self.settings["checks"]:
            draws = [rng.permutation(count)[:some] for _ in range(count if some < count else 1)]
            own[some] = [self.own(replica, [checks[n] for n in draw], case) for draw in draws]
            verdicts[some] = [
                self.verdict(replica, [checks[n] for n in draw], case).verdict for draw in draws
            ]
        return {"case": case.name, "age_s": case.age_s, **judged, "own": own, "verdicts": verdicts}

    def sights(self, case: Case, seeds: Sequence[Latent]) -> list[Sight]:
        """What each camera has just seen, but for the edges of its view."""
        found = []
        for camera, latent in zip(self.panorama.cameras, seeds, strict=True):
            seen = self.panorama.doubt_edges(Feature(kind="observation", values=latent), camera)
            sure = np.ones(latent.shape[1:]) if seen.confidence is None else seen.confidence
            when = np.where(sure >= 1, case.age_s, NEVER)
            found.append(Sight(values=latent, seen_s=when, columns=camera.view, source=camera.side))
        return found

    def own(self, replica: Replica, checks: Sequence[Sight], case: Case) -> float:
        """The twin's own measure: mean squared difference of latents in boxes, each up to 1."""
        whole = Sight.of_replica(replica)
        boxes = [compare(check, whole, now_s=case.age_s).squared for check in checks]
        known = np.concatenate([b[np.isfinite(b)] for b in boxes])
        return float(np.minimum(known, 1).mean())

    def verdict(self, replica: Replica, checks: Sequence[Sight], case: Case) -> Validity:
        """What the twin would say in service."""
        return assess_replica(replica, now_s=case.age_s, spot_checks=checks)


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Validate replicas that are right and wrong.

    Returns:
        What was found, and the claims with their verdicts.
    """
    part: dict[str, Any] = {}
    claims: list[dict[str, str]] = []
    kinds = {"int8": None, f"{settings['bits_a_view']} bits": settings["bits_a_view"]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for number in range(settings["gardens"]):
        bench = Bench(settings["first_garden"] + number, settings, bundle)
        for name, bits in kinds.items():
            found[name] += [bench.run(case, bits) for case in bench.cases(bits)]
        print(f"{number + 1}/{settings['gardens']} gardens validated", flush=True)
    for name, runs in found.items():
        part[name] = summary(runs, settings)
        claims += claims_of(name, part[name], settings)
    return part, claims


def summary(runs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of replicas and checks of one kind of seed."""
    wrong = np.array([run["perceptual"] > settings["wrong_from"] for run in runs])
    true = np.array([run["perceptual"] for run in runs])
    missing = np.array([1 - run["entity_f1"] for run in runs])
    aged = np.array(["old" in run["case"] or run["case"] == "as it is" for run in runs])
    young = np.array([run["age_s"] <= DAY_S for run in runs])  # what is older is stale by its age
    by_checks = []
    for some in settings["checks"]:
        own = np.array([run["own"][some][0] for run in runs])
        flags = [np.array([v != "fresh" for v in run["verdicts"][some]]) for run in runs]
        by_checks.append(
            {
                "checks": some,
                "rank_correlation": rank_correlation(own, true),
                "rank_correlation_f1": rank_correlation(own, missing),
                "rank_correlation_by_age_alone": rank_correlation(own[aged], true[aged]),
                "auc": area(own, wrong),
                "wrong_flagged": _mean([f for f, w in zip(flags, wrong, strict=True) if w]),
                "right_flagged": _mean([f for f, w in zip(flags, wrong, strict=True) if not w]),
                "wrong_flagged_young": _mean(
                    [f for f, w, y in zip(flags, wrong, young, strict=True) if w and y]
                ),
                "right_flagged_young": _mean(
                    [f for f, w, y in zip(flags, wrong, young, strict=True) if y and not w]
                ),
            }
        )
    few = settings["checks"][0]
    cases = []
    for case in dict.fromkeys(run["case"] for run in runs):
        these = [run for run in runs if run["case"] == case]
        said = [v for run in these for v in run["verdicts"][few]]
        cases.append(
            {
                "case": case,
                "perceptual": round(float(np.mean([r["perceptual"] for r in these])), 4),
                "entity_f1": round(float(np.mean([r["entity_f1"] for r in these])), 4),
                "own": round(float(np.mean([np.mean(r["own"][few]) for r in these])), 4),
                **{v: round(said.count(v) / len(said), 3) for v in ("fresh", "stale", "wrong")},
            }
        )
    points = [
        [run["case"], round(run["perceptual"], 4), round(run["own"][few][0], 4)] for run in runs
    ]
    return {"wrong": int(wrong.sum()), "right": int((~wrong).sum()), "by_checks": by_checks,
            "cases": cases, "points": points}  # fmt: skip


def claims_of(
    name: str, part: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What the numbers of one kind of seed say, after the fewest checks."""
    few = part["by_checks"][0]
    return [
        {
            "claim": f"{name} seeds, {few['checks']} spot checks: the twin's own measure ranks replicas as their "
            "true distance (ST-LPIPS) does, with a correlation of 0.8 or more",
            "verdict": "holds" if few["rank_correlation"] >= 0.8 else "does not hold",
            "found": f"{few['rank_correlation']:.2f}; with 1 - F1 {few['rank_correlation_f1']:.2f}; among those "
            f"that only grew older {few['rank_correlation_by_age_alone']:.2f}",
        },
        {
            "claim": f"{name} seeds, {few['checks']} spot checks: of replicas that are wrong (ST-LPIPS above "
            f"{settings['wrong_from']}) nine in ten are flagged",
            "verdict": "holds" if few["wrong_flagged"] >= 0.9 else "does not hold",
            "found": f"{few['wrong_flagged']:.0%}; of those seen within the last day "
            f"{few['wrong_flagged_young']:.0%}",
        },
        {
            "claim": f"{name} seeds, {few['checks']} spot checks: of replicas that are right one in ten at most is "
            "flagged",
            "verdict": "holds" if few["right_flagged"] <= 0.1 else "does not hold",
            "found": f"{few['right_flagged']:.0%}; of those seen within the last day "
            f"{few['right_flagged_young']:.0%}",
        },
    ]


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 4)


def area(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Share of pairs of a wrong and a right one in which the wrong one scores higher; 1 if there are none."""
    bad, good = scores[wrong], scores[~wrong]
    if not (bad.size and good.size):
        return 1.0
    return round(float((bad[:, None] > good).mean() + (bad[:, None] == good).mean() / 2), 4)


def _mean(flags: Sequence[NDArray[np.bool_]]) -> float:
    """Share that is flagged; 0 where there is nobody."""
    return round(float(np.concatenate(flags).mean()), 4) if flags else 0.0


def _next(names: tuple[str, ...], garden: Garden) -> str:
    """Another one than the garden has."""
    now = garden.conditions.sky if names is SKIES else garden.conditions.weather
    return names[(names.index(now) + 1) % len(names)]
