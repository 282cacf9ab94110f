"""Test scenarios from words: whether words become settings, pictures, and strain on a fork of the twin."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replicas import (
    SHAPE,
    VIEW_PX,
    Image,
    Latent,
    World,
    cameras_along,
    pieces,
    replica_of,
    spelled,
    through,
    told,
    views_of,
)

from megdt import watching
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.errors import ScenarioError
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models.bundle import Bundle
from megdt.models.writing import caption
from megdt.records import Feature
from megdt.scenario import override
from megdt.scenario.events import as_settings, read_events
from megdt.scenario.twin import parse_twin_scenario, read_twin_scenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.objects import LABELS
from megdt.twin.store import open_store
from megdt.worlds.captions import Attributes
from megdt.worlds.garden import Garden, draw_view
from megdt.worlds.scene import SKIES, WEATHERS

PHRASES = Path(__file__).parent / "phrases.toml"
GUIDANCE_SCALE = 2.5

Strength = float


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Words to settings, to pictures, and to what a fork goes through.

    Returns:
        What was found, and the claims with their verdicts.
    """
    words = read_phrases()
    probe = WeatherProbe(settings, bundle)
    rows = reimagine(settings, bundle, probe)
    forks = what_if(settings, bundle)
    part = {
        "words": words,
        "weather_probe": probe.accuracy,
        "pictures": rows,
        "what_if": forks,
    }
    return part, claims_of(part)


def read_phrases() -> list[dict[str, Any]]:
    """What becomes of each phrase."""
    rows = []
    tables = tomllib.loads(PHRASES.read_text())
    for phrase, meant in (tables["phrases"] | tables["refused"]).items():
        try:
            told = read_events(phrase)
            found = [e.name if e.amount is None else f"{e.name} {e.amount}" for e in told]
            outcome = "understood" if set(found) == set(meant) else "misread"
        except ScenarioError:
            found, outcome = [], "refused"
        rows.append({"phrase": phrase, "meant": meant, "read": found, "outcome": outcome})
    return rows


class WeatherProbe:
    """Tells the weather of a picture, which the bundle's classifier does not, by ridge regression on
    its features.
    """

    def __init__(self, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self._bundle = bundle
        first, count = settings["first_probe_view"], settings["probe_views"]
        pictures, labels = self._draw(first, count)
        features = bundle.probe_features(pictures)
        self._mean, self._std = features.mean(0), features.std(0) + 1e-6
        inputs = self._inputs(features)
        square = inputs.T @ inputs + settings["probe_ridge"] * np.eye(inputs.shape[1])
        self._weights = np.linalg.solve(square, inputs.T @ np.eye(len(WEATHERS))[labels])
        test, wanted = self._draw(first + count, count)
        self.accuracy = {
            weather: round(float((self(test)[wanted == n] == n).mean()), 3)
            for n, weather in enumerate(WEATHERS)
        }

    def __call__(self, pictures: Image) -> NDArray[np.int64]:
        """Indices in WEATHERS. [pictures]"""
        scores = self._inputs(self._bundle.probe_features(pictures)) @ self._weights
        found: NDArray[np.int64] = scores.argmax(1)
        return found

    def _inputs(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        scaled = (features - self._mean) / self._std
        return np.concatenate((scaled, np.ones((len(scaled), 1))), 1).astype(np.float64)

    def _draw(self, first: int, count: int) -> tuple[Image, NDArray[np.int64]]:
        """Views of as many gardens, each weather in turn."""
        pictures = []
        for number in range(count):
            garden, view = draw_view(first + number)
            told = replace(garden.conditions, weather=WEATHERS[number % len(WEATHERS)])
            pictures.append(garden.later(0.0, told).render(view))
        return np.stack(pictures), np.arange(count) % len(WEATHERS)


def reimagine(
    settings: Mapping[str, Any], bundle: Bundle, probe: WeatherProbe
) -> list[dict[str, Any]]:
    """Replicas of clear dry days drawn anew as another sky or weather, against that world simulated."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    panorama = cameras_along(settings["length_m"], settings["cameras"])
    for number in range(settings["gardens"]):
        seed = settings["first_garden"] + number
        drawn = Garden(seed, length_m=settings["length_m"])
        garden = drawn.later(0.0, replace(drawn.conditions, sky="clear", weather="dry"))
        latents = seeds_of(garden, settings, bundle)
        replica = replica_of(latents, panorama)
        before = replica.picture(bundle)
        named = bundle.classify(pieces(before))
        for target in settings["targets"]:
            kind = "sky" if target in SKIES else "weather"
            world = World(
                garden.later(0.0, replace(garden.conditions, **{kind: target})),
                bundle,
                settings["judged_px"],
            )
            shown = {
                "the replica as it is": before,
                "a fresh seed": replica_of(
                    seeds_of(world.garden, settings, bundle), panorama
                ).picture(bundle),
                "the world itself": world.picture,
            }
            prompts = [
                caption(
                    Attributes(
                        species=LABELS["species"][named["species"][n]],
                        colour=LABELS["colour"][named["colour"][n]],
                        **{"sky": "clear", kind: target},
                    ),
                    n,
                )
                for n in range(len(named["sky"]))
            ]
            for strength in settings["strengths"]:
                anew = draw_anew(replica.values, prompts, strength, settings, bundle)
                shown[f"drawn anew from {strength:g}"] = anew
            for name, picture in shown.items():
                cut = pieces(picture)
                hit = (
                    bundle.classify(cut)["sky"] == SKIES.index(target)
                    if kind == "sky"
                    else probe(cut) == WEATHERS.index(target)
                )
                judged = world.judge(picture) | {"adherence": float(hit.mean())}
                found.setdefault((target, name), []).append(judged)
        print(f"{number + 1}/{settings['gardens']} gardens re-imagined", flush=True)
    return [
        {
            "scenario": target,
            "way": name,
            **{
                key: told([one[key] for one in got])
                for key in ("perceptual", "adherence", "entity_f1")
            },
        }
        for (target, name), got in found.items()
    ]


def seeds_of(garden: Garden, settings: Mapping[str, Any], bundle: Bundle) -> list[Latent]:
    """Views of a garden as int8 seeds bring them."""
    codec = QuantisedSeedCodec(shape=SHAPE)
    panorama = cameras_along(settings["length_m"], settings["cameras"])
    latents = bundle.encode(views_of(garden.panorama(VIEW_PX), panorama))
    return [through(codec, Feature(kind="seed", values=one))[0].values for one in latents]


def draw_anew(
    values: Latent,
    prompts: Sequence[str],
    strength: Strength,
    settings: Mapping[str, Any],
    bundle: Bundle,
) -> Image:
    """A replica drawn as prompts say, view by view."""
    width = len(prompts) * VIEW_COLUMNS
    views = np.stack(np.split(values[:, :, :width], len(prompts), 2))
    drawn = bundle.edit(
        views, bundle.embed(list(prompts)), range(len(prompts)),
        strength=strength, steps=settings["steps"], guidance_scale=GUIDANCE_SCALE,
    )  # fmt: skip
    picture: Image = bundle.decode(np.concatenate(list(drawn), 2)[None])[0]
    return picture


def what_if(settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """What a fork of one twin goes through, by what is said to happen."""
    chosen = read_twin_scenario("garden_drones", list(settings["live"]))
    rows: list[dict[str, Any]] = []
    with open_store() as store:
        site = SimulatedSite(chosen, bundle)
        watching.follow(open_twin(chosen, site, store, bundle), site, settings["live_rounds"])
        for words in settings["what_if"]:
            said = as_settings(read_events(words), chosen)
            changed = parse_twin_scenario(override(chosen.table(), said), source="if")
            revision = store.revision
            cases = watching.what_if(chosen, changed, store, bundle, rounds=settings["fork_rounds"])
            for name, case in cases.items():
                if name == "if" or not rows:
                    told_of = watching.summarise(*case)
                    row = {
                        "words": words if name == "if" else name,
                        "settings": said if name == "if" else [],
                    }
                    rows.append(row | {"untouched": store.revision == revision} | {
                        key: told_of[key]
                        for key in ("wishes", "delivered", "late", "poor", "latency_s", "ue_energy_j",
                                    "alarms", "quarantined", "replica_error", "verdicts")
                    })  # fmt: skip
            print(f"what if: {words}", flush=True)
    return rows


def claims_of(part: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the numbers say."""
    words = [row for row in part["words"] if row["meant"]]
    others = [row for row in part["words"] if not row["meant"]]
    counts = {
        kind: sum(row["outcome"] == kind for row in words)
        for kind in ("understood", "refused", "misread")
    }
    claims = [
        {
            "claim": "Nine in ten phrases become the settings that they mean",
            "verdict": "holds" if counts["understood"] >= 0.9 * len(words) else "does not hold",
            "found": f"{counts['understood']} of {len(words)}",
        },
        {
            "claim": "What is not understood is refused, never misread",
            "verdict": "holds" if counts["misread"] == 0 else "does not hold",
            "found": f"{counts['refused']} refused, {counts['misread']} misread",
        },
        {
            "claim": "What nothing here can become is refused",
            "verdict": "holds"
            if all(r["outcome"] == "refused" for r in others)
            else "does not hold",
            "found": f"{sum(r['outcome'] == 'refused' for r in others)} of {len(others)}",
        },
    ]
    by = {(row["scenario"], row["way"]): row for row in part["pictures"]}
    for target in dict.fromkeys(scenario for scenario, _ in by):
        ways = [way for scenario, way in by if scenario == target and way.startswith("drawn")]
        best = min(ways, key=lambda way: by[target, way]["perceptual"]["mean"])
        shows = max(by[target, way]["adherence"]["mean"] for way in ways)
        ours, was, fresh = (
            by[target, way]["perceptual"] for way in (best, "the replica as it is", "a fresh seed")
        )
        way = (was["mean"] - ours["mean"]) / (was["mean"] - fresh["mean"])
        claims += [
            {
                "claim": f"{target}: drawn anew, nine views in ten show it",
                "verdict": "holds" if shows >= 0.9 else "does not hold",
                "found": f"{shows:.2f} at best; of the world itself {by[target, 'the world itself']['adherence']['mean']:.2f}",
            },
            {
                "claim": f"{target}: drawn anew, the replica comes half of the way from as it is to a fresh seed "
                "of that world (ST-LPIPS)",
                "verdict": "holds" if way >= 0.5 else "does not hold",
                "found": f"{way:.2f}: {spelled(was)} as it is, {spelled(ours)} {best}, {spelled(fresh)} a fresh "
                "seed",
            },
        ]
    return claims
