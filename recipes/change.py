"""How much garden views change with age and sky: the curves of `twin/content.py`.

python recipes/change.py [--quick] [--out src/megdt/twin/change.json]

Needs the network weights in stlpips-pytorch. Four minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from megdt.models.quality import PerceptualReference
from megdt.twin.content import MATTERS, fit_clouds
from megdt.worlds.days import Days
from megdt.worlds.garden import draw_view
from megdt.worlds.scene import SKIES

OUT = Path(__file__).parent.parent / "src" / "megdt" / "twin" / "change.json"
FIRST_SCENE = 5_000_000
# A garden repeats itself after 18 days, to the pixel: no world does, so the curve ends half way.
AGES_DAYS = {
    "same_sky": (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 9.0),
    "other_sky": (0.0, 1.0, 3.0, 6.0, 9.0),
}
LEVEL = 0.9


def measure_scene(rng_seed: int) -> dict[str, list[float]]:
    """Distances of one view from itself at each age, under the same sky and under another."""
    garden, view = draw_view(rng_seed)
    now = garden.conditions
    reference = PerceptualReference(garden.render(view)[None])
    rng = np.random.default_rng((rng_seed, 7))
    others = [sky for sky in SKIES if sky != now.sky]
    found = {}
    for name, ages in AGES_DAYS.items():
        found[name] = []
        for age in ages:
            sky = now.sky if name == "same_sky" else str(rng.choice(others))
            image = garden.later(age, replace(now, sky=sky)).render(view)
            found[name].append(float(reference.distance(image[None])[0]))
    return found


def fit_curve(distances: np.ndarray) -> dict[str, list[float]]:
    """Mean, interval and what matters at each age. Distances: [scenes, ages]"""
    scenes = len(distances)
    # Ends such that a new scene lies outside each with half of what the interval may miss.
    outside = max(1, math.floor((scenes + 1) * (1 - LEVEL) / 2))
    ordered = np.sort(distances, axis=0)
    parts = {
        "mean": distances.mean(0),
        "low": ordered[outside - 1],
        "high": ordered[-outside],
        "matters": (distances > MATTERS).mean(0),
    }
    # What is older has not changed less.
    return {
        name: [round(float(v), 4) for v in np.maximum.accumulate(part)]
        for name, part in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    scenes = 3 if arguments.quick else 60
    measured = []
    for number in range(scenes):
        measured.append(measure_scene(FIRST_SCENE + number))
        print(f"{number + 1}/{scenes} scenes", flush=True)
    curves = {
        name: {"age_days": list(ages), **fit_curve(np.array([m[name] for m in measured]))}
        for name, ages in AGES_DAYS.items()
    }
    step = 0.02
    record = Days(FIRST_SCENE, length_days=2000.0)
    clear, change = fit_clouds([record.sky(step * n) for n in range(round(2000 / step))], step)
    kept = {
        "command": "python recipes/change.py",
        "metric": "ST-LPIPS, AlexNet, of views of 256 pixels",
        "scenes": scenes,
        "first_scene": FIRST_SCENE,
        "matters_above": MATTERS,
        "level": LEVEL,
        "curves": {
            **curves,
            "clouds": {"clear_share": [round(clear, 4)], "change_days": [round(change, 4)]},
        },
    }
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"curves: {arguments.out}")


if __name__ == "__main__":
    main()
