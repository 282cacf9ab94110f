"""Expert behaviour: a policy that has imitated an expert in virtual gardens, out in the world."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models import LATENT_CHANNELS
from megdt.models.bundle import Bundle
from megdt.twin.behaviour import GardenTwin, Policy, imitate, rollout
from megdt.twin.flowers import FlowerCounter
from megdt.twin.perceptron import Training
from megdt.worlds.watering import (
    STEP_H,
    Choose,
    Expert,
    Patrol,
    Tally,
    Wanderer,
    WateredGarden,
    tend,
)

WANTED = 0.75
"""Of the way from chance to the expert: our target."""

RESAMPLES = 10_000

Run = Callable[[WateredGarden], Tally]


class Ways:
    """Every way to tend a garden, by the name that it has in the results."""

    def __init__(self, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.settings, self.bundle = settings, bundle
        self.counter, self.policy = FlowerCounter.kept(), Policy.kept()

    @cached_property
    def blind(self) -> Policy:
        """A policy that has learned without any replica."""
        settings = self.settings
        first, count = settings["blind_first_garden"], settings["blind_gardens"]
        seeds = [
            range(first + n * count, first + (n + 1) * count)
            for n in range(settings["blind_rounds"])
        ]
        return imitate(
            lambda garden: GardenTwin(garden, self.bundle.encode, None),
            seeds,
            hours=settings["hours"],
            length_m=settings["length_m"],
            training=Training(steps=settings["blind_steps"]),
        )[-1]

    def all(self) -> dict[str, Run]:
        """Expert, policy, policy without a replica, patrol, chance, then the policy by refresh."""
        usual = self.settings["usual_every_h"]
        found: dict[str, Run] = {
            "expert": lambda garden: self.sees(garden, Expert().choose),
            "policy": lambda garden: self.knows(garden, self.policy, usual),
            "policy, stale replica": lambda garden: self.knows(garden, self.policy, math.inf),
            "policy, no replica": lambda garden: self.knows(garden, self.blind, None),
            "patrol": lambda garden: self.sees(garden, Patrol().choose),
            "chance": lambda garden: self.sees(garden, Wanderer(garden.rng_seed).choose),
        }
        for hours in self.settings["every_h"]:
            found[f"policy, a view every {hours:g} h"] = lambda garden, hours=hours: self.knows(
                garden, self.policy, hours
            )
        return found

    def sees(self, garden: WateredGarden, choose: Choose) -> Tally:
        """Tended by who needs no twin."""
        return tend(garden, choose, hours=self.settings["hours"])

    def knows(self, garden: WateredGarden, policy: Policy, every_h: float | None) -> Tally:
        """Tended by a policy that sees a twin; None is one without a replica."""
        counter = None if every_h is None else self.counter
        twin = GardenTwin(garden, self.bundle.encode, counter, every_h=every_h or math.inf)
        return rollout(garden, twin, policy, hours=self.settings["hours"])[0]


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Tend the same held-out gardens in every way.

    Returns:
        What was found, and the claims with their verdicts.
    """
    ways = Ways(settings, bundle)
    usual, dry = ways.all(), ("expert", "policy", "patrol", "chance")
    found: dict[str, list[Tally]] = {}
    for number in range(settings["gardens"]):
        seed = settings["first_garden"] + number
        for name, run in usual.items():
            garden = WateredGarden(seed, length_m=settings["length_m"])
            found.setdefault(name, []).append(run(garden))
        for name in dry:
            garden = WateredGarden(seed, length_m=settings["length_m"], thirst=settings["thirst"])
            found.setdefault(f"{name}, drier world", []).append(usual[name](garden))
        print(f"{number + 1}/{settings['gardens']} gardens", flush=True)
    fresh = {name: np.array([t.fresh for t in tallies]) for name, tallies in found.items()}
    each_hour = round(1 / STEP_H)
    rows = [
        {
            "way": name,
            "fresh": told(fresh[name]),
            "alive_at_end": told(np.array([t.alive_at_end for t in tallies])),
            "waterings": float(np.mean([t.waterings for t in tallies])),
            "seed_kbit_an_hour": seed_kbit(name, settings),
            "fresh_each": [round(float(f), 4) for f in fresh[name]],
            "fresh_by_hour": [
                round(float(f), 4)
                for f in np.mean([t.course for t in tallies], axis=0)[each_hour - 1 :: each_hour]
            ],
        }
        for name, tallies in found.items()
    ]  # fmt: skip
    way = told_way(fresh, "policy")
    against = {
        name: told(fresh["policy"] - fresh[name])
        for name in ("expert", "patrol", "chance", "policy, stale replica", "policy, no replica")
    }
    drier = told(fresh["policy, drier world"] - fresh["patrol, drier world"])
    part = {
        "rows": rows,
        "policy_less_others": against,
        "policy_less_patrol_drier_world": drier,
        "way_from_chance_to_expert": way,
    }
    return part, claims_of(way, against, drier)


def claims_of(
    way: dict[str, float], against: dict[str, dict[str, float]], drier: dict[str, float]
) -> list[dict[str, str]]:
    """What we say: the target by its mean, what holds by the whole interval of 95 %."""

    def more(name: str, difference: dict[str, float]) -> dict[str, str]:
        return {
            "claim": f"More flowers are fresh than {name}",
            "verdict": "holds" if difference["low"] > 0 else "does not hold",
            "found": f"by {spelled(difference)} of all",
        }

    return [
        {
            "claim": f"The policy goes at least {WANTED} of the way from chance to the expert, who "
            "knows the true state (our target)",
            "verdict": "met" if way["mean"] >= WANTED else "missed",
            "found": spelled(way),
        },
        more("by a patrol to and fro", against["patrol"]),
        more("by chance", against["chance"]),
        more("by the same policy with a replica that is never refreshed",
             against["policy, stale replica"]),
        more("by a policy that has learned without any replica", against["policy, no replica"]),
        more("by a patrol, in a world drier than any virtual garden", drier),
    ]  # fmt: skip


def told(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean over gardens, with a bootstrapped interval of 95 %."""
    drawn = values[resamples(len(values))].mean(1)
    return interval(float(values.mean()), drawn)


def told_way(fresh: dict[str, NDArray[np.float64]], name: str) -> dict[str, float]:
    """How far it is from chance to the expert, as a share."""
    gained, possible = fresh[name] - fresh["chance"], fresh["expert"] - fresh["chance"]
    these = resamples(len(gained))
    drawn = np.divide(
        gained[these].mean(1), possible[these].mean(1),
        out=np.zeros(RESAMPLES), where=possible[these].any(1),
    )  # fmt: skip
    return interval(float(gained.mean() / possible.mean()) if possible.any() else 0.0, drawn)


def resamples(count: int) -> NDArray[np.int64]:
    """Which gardens each resample has. [RESAMPLES, count]"""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def interval(mean: float, drawn: NDArray[np.float64]) -> dict[str, float]:
    """A figure with its interval of 95 %."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"mean": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def spelled(figure: dict[str, float]) -> str:
    """With its interval."""
    return f"{figure['mean']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def seed_kbit(way: str, settings: Mapping[str, Any]) -> float:
    """Of int8 seeds, an hour, without what the link adds."""
    every_h = settings["usual_every_h"]
    if "every" in way:
        every_h = float(way.split()[-2])
    elif not way.startswith("policy") or "replica" in way:
        return 0.0
    return round(8 * LATENT_CHANNELS * VIEW_COLUMNS**2 / 1000 / every_h, 2)
