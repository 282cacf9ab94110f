"""What no UE has seen: left blank, filled plainly, or drawn by generation to go on from what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replicas import (
    RESAMPLES,
    VIEW_PX,
    Image,
    pieces,
    spelled,
    told,
)

from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference, extract_features, kid
from megdt.records import Feature, Side
from megdt.twin.flowers import FlowerCounter
from megdt.twin.imagining import describe, imagine
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.twin.validation import entity_f1
from megdt.worlds.garden import Garden

LENGTH_M = 12.0
GAP = slice(VIEW_COLUMNS, 2 * VIEW_COLUMNS)
"""Columns that nobody has seen: the middle view of three."""

_GREY = 128

Fill = Callable[[], Image]


class Gap:
    """A garden of which the twin has seen all but its middle view."""

    def __init__(self, rng_seed: int, bundle: Bundle, settings: Mapping[str, Any]) -> None:
        self.rng_seed, self.bundle, self.settings = rng_seed, bundle, settings
        self.garden = Garden(rng_seed, length_m=LENGTH_M)
        self.picture = self.garden.panorama(VIEW_PX)
        self.whole = bundle.encode(self.picture[None])[0]
        self.replica = Replica.blank(VIEW_COLUMNS, self.whole.shape[2])
        with open_store() as store:
            for columns in (range(GAP.start), range(GAP.stop, self.replica.width)):
                part = self.whole[:, :, columns.start : columns.stop]
                seen = Feature(kind="observation", values=part)
                self.replica.refresh(seen, columns, source=Side.ue(1), now_s=0, store=store)

    def ways(self) -> dict[str, Fill]:
        """Pictures of the replica, by what is put where nobody has seen."""
        steps, repeats = self.settings["steps"], self.settings["repeats"]
        values, sky = self.replica.values, self.garden.conditions.sky
        words = describe(self.replica, self.bundle)

        def filled(with_what: NDArray[np.float32]) -> Image:
            there = values.copy()
            there[:, :, GAP] = with_what
            return self.decode(there)

        def drawn(**how: Any) -> Image:
            how = {"steps": steps, "repeats": repeats} | how
            there = imagine(self.replica, self.bundle, rng_seed=self.rng_seed, **how)
            return self.decode(there.values)

        def grey() -> Image:
            picture = self.decode(values)
            picture[:, 8 * GAP.start : 8 * GAP.stop] = _GREY
            return picture

        seen = np.delete(values, np.arange(GAP.start, GAP.stop), 2)
        half = VIEW_COLUMNS // 2
        beside = np.concatenate(
            (values[:, :, GAP.start - half : GAP.start][:, :, ::-1],
             values[:, :, GAP.stop : GAP.stop + half][:, :, ::-1]), 2,
        )  # fmt: skip
        return {
            "world": lambda: self.picture,
            "left grey": grey,
            "mean of each row": lambda: filled(np.repeat(seen.mean(2, keepdims=True), VIEW_COLUMNS, 2)),
            "mirrored from beside": lambda: filled(beside),
            "drawn, no prompt": lambda: drawn(prompts=["" for _ in words], guidance_scale=1.0),
            "drawn, the sky that is told": lambda: drawn(prompts=[f"a meadow, {sky} sky" for _ in words]),
            "drawn as what is beside, each step once": lambda: drawn(prompts=words, steps=2 * steps, repeats=1),
            "drawn as what is beside": lambda: drawn(prompts=words),
            "seen after all": lambda: self.decode(self.whole),
        }  # fmt: skip

    def decode(self, values: NDArray[np.float32]) -> Image:
        picture: Image = self.bundle.decode(values[None])[0]
        return picture

    def flowers(self, picture: Image) -> float:
        """Counted in the gap, as the policy of the part on behaviour counts them."""
        latent = self.bundle.encode(picture[None])[0][:, :, GAP]
        return float(FlowerCounter.kept().count(latent).sum())


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Fill the same gaps in every way.

    Returns:
        What was found, and the claims with their verdicts.
    """
    px = settings["judged_px"]
    shown: dict[str, list[Image]] = {}
    figures: dict[str, list[dict[str, float]]] = {}
    for number in range(settings["gardens"]):
        gap = Gap(settings["first_garden"] + number, bundle, settings)
        flowers = gap.flowers(gap.picture)
        for name, fill in gap.ways().items():
            picture = fill()
            shown.setdefault(name, []).append(pieces(picture, px)[1])
            count = gap.flowers(picture)
            figures.setdefault(name, []).append(
                {
                    "entity_f1": entity_f1(picture, gap.garden, bundle, pieces=[1]),
                    "flowers": count,
                    "flowers_off": abs(count - flowers),
                    "seam": seam(picture),
                }
            )
        print(f"{number + 1}/{settings['gardens']} gaps", flush=True)
    reference = PerceptualReference(np.stack(shown["world"]))
    features = {name: extract_features(np.stack(found)) for name, found in shown.items()}
    beyond = settings["first_garden"] + settings["gardens"]
    others = [
        pieces(Garden(beyond + n, length_m=LENGTH_M).panorama(VIEW_PX), px)[1]
        for n in range(settings["gardens"])
    ]
    features["other gardens"] = extract_features(np.stack(others))
    kids = {name: kid_told(f, features["world"]) for name, f in features.items() if name != "world"}
    rows = [
        {
            "way": name,
            "kid": kids[name],
            "perceptual": told(reference.distance(np.stack(shown[name])).tolist()),
            **{
                key: told([one[key] for one in figures[name]])
                for key in ("entity_f1", "flowers", "flowers_off", "seam")
            },
        }
        for name in figures
        if name != "world"
    ]
    part = {
        "rows": rows,
        "world_flowers": told([one["flowers"] for one in figures["world"]]),
        "world_entity_f1": told([one["entity_f1"] for one in figures["world"]]),
        "kid_of_other_gardens": kids["other gardens"],
        "kid_less": {
            name: kid_less(features["drawn as what is beside"], features[name], features["world"])
            for name in features
            if name not in ("world", "other gardens", "drawn as what is beside")
        },
    }
    return part, claims_of(part)


def kid_told(ours: NDArray[np.float32], world: NDArray[np.float32]) -> dict[str, float]:
    """KID, with an interval of 95 % over gardens."""
    low, high = np.quantile(_kids(ours, world), (0.025, 0.975))
    return {"mean": round(kid(ours, world), 5), "low": round(low, 5), "high": round(high, 5)}


def kid_less(
    one: NDArray[np.float32], other: NDArray[np.float32], world: NDArray[np.float32]
) -> dict[str, float]:
    """How much nearer one is to the world than another, over the same gardens."""
    low, high = np.quantile(_kids(other, world) - _kids(one, world), (0.025, 0.975))
    mean = kid(other, world) - kid(one, world)
    return {"mean": round(mean, 5), "low": round(low, 5), "high": round(high, 5)}


def _kids(ours: NDArray[np.float32], world: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of subsets without repeats, since a garden against itself biases KID; as wide as of all.

    References:
        Politis and Romano, subsampling, Annals of Statistics 22, 1994.
    """
    count, draws = len(world), RESAMPLES // 10
    half = max(2, count // 2)
    rng = np.random.default_rng(0)
    these = [rng.permutation(count)[:half] for _ in range(draws)]
    found = np.array([kid(ours[t], world[t]) for t in these])
    # Half of the gardens, drawn from all: the spread among such halves is that of the mean of all.
    return found - found.mean() + kid(ours, world)


def seam(picture: Image) -> float:
    """How much more pixels differ across the borders of the gap than between columns elsewhere."""
    steps = np.abs(np.diff(picture.astype(float), axis=1)).mean((0, 2))
    borders = steps[[8 * GAP.start - 1, 8 * GAP.stop - 1]].mean()
    seen = np.delete(steps, np.arange(8 * GAP.start - 1, 8 * GAP.stop))
    return float(borders / seen.mean())


def claims_of(part: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the numbers say."""
    by = {row["way"]: row for row in part["rows"]}
    ours = by["drawn as what is beside"]
    claims = [
        {
            "claim": f"Drawn as what is beside it, what nobody saw is nearer to the world in distribution (KID) than {named}",
            "verdict": "holds" if part["kid_less"][name]["low"] > 0 else "does not hold",
            "found": f"by {spelled(part['kid_less'][name], 4)}",
        }
        for name, named in (
            ("left grey", "left grey"),
            ("mean of each row", "the mean of what was seen"),
            ("mirrored from beside", "mirrored from beside"),
            ("drawn, no prompt", "drawn without a prompt"),
        )
    ]  # fmt: skip
    world, count = part["world_flowers"], ours["flowers"]
    claims += [
        {
            "claim": "As many flowers are counted in it as in the world, within a fifth",
            "verdict": "holds" if abs(count["mean"] / max(world["mean"], 1e-9) - 1) <= 0.2 else "does not hold",
            "found": f"{count['mean']:.1f} and {world['mean']:.1f} a view",
        },
        {
            "claim": "It is a guess: perceptually no nearer to what really stands there than the mirrored neighbour",
            "verdict": "holds" if ours["perceptual"]["mean"] >= by["mirrored from beside"]["perceptual"]["mean"] else "does not hold",
            "found": f"ST-LPIPS {ours['perceptual']['mean']:.3f} and {by['mirrored from beside']['perceptual']['mean']:.3f}; "
            f"seen after all {by['seen after all']['perceptual']['mean']:.3f}",
        },
    ]  # fmt: skip
    return claims
