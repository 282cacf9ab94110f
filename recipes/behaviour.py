"""The policy of `twin/behaviour.py`, learned from the expert in virtual gardens, and its counter.

python recipes/behaviour.py [--quick] [--out src/megdt/twin/behaviour.json]

First views of many virtual gardens, whose flowers are known, teach a small network to count fresh
and wilting flowers in latents. Then the policy is learned in rounds: the expert tends other virtual
gardens, then the policy does and the expert says what it would have done (DAgger). After each round
the policy is measured in gardens that none of that has seen. Thirteen minutes on a busy core.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from megdt.models.bundle import Bundle
from megdt.twin.behaviour import GardenTwin, imitate, rollout
from megdt.twin.flowers import FlowerCounter, draw_views, learn_to_count
from megdt.twin.perceptron import Training
from megdt.worlds.watering import WateredGarden

OUT = Path(__file__).parent.parent / "src" / "megdt" / "twin" / "behaviour.json"
FIRST_VIEWS, FIRST_GARDEN, FIRST_TEST = 6_000_000, 6_100_000, 6_200_000
HOURS = 72.0
EVERY_H = (1.0, 2.0, 4.0, 12.0)
"""From view to view, garden by garden: the policy meets replicas of any age."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    scenes, gardens, rounds, tested = (8, 1, 2, 1) if quick else (1500, 16, 4, 8)
    hours = 12.0 if quick else HOURS
    bundle = Bundle()

    drawn = []
    for number in range(scenes):
        drawn.append(draw_views(FIRST_VIEWS + number, bundle.encode))
        if number % 50 == 0:
            print(f"{number}/{scenes} gardens looked at", flush=True)
    latents, counts = (np.concatenate(part) for part in zip(*drawn, strict=True))
    held = len(latents) // 8
    counting = Training(hidden=(64, 16), decay=0.1, steps=20 if quick else 3000)
    counter = learn_to_count(latents[held:], counts[held:], rng_seed=0, training=counting)
    counter = FlowerCounter(network=type(counter.network).unpacked(counter.network.packed()))
    counted = np.stack([counter.count(view) for view in latents[:held]])
    error = ((counted - counts[:held]) ** 2).mean((0, 1))
    explained = [round(float(r), 3) for r in 1 - error / counts[:held].var((0, 1))]
    print(f"counts explained, fresh and wilting: {explained}", flush=True)

    cadence = itertools.cycle(EVERY_H)
    seeds = [
        range(FIRST_GARDEN + n * gardens, FIRST_GARDEN + (n + 1) * gardens) for n in range(rounds)
    ]
    policies = imitate(
        lambda garden: GardenTwin(garden, bundle.encode, counter, every_h=next(cadence)),
        seeds,
        hours=hours,
        training=Training(steps=20 if quick else 3000),
    )
    fresh = []
    for policy in policies:
        tallies = []
        for number in range(tested):
            garden = WateredGarden(FIRST_TEST + number)
            twin = GardenTwin(garden, bundle.encode, counter)
            tallies.append(rollout(garden, twin, policy, hours=hours)[0].fresh)
        fresh.append(round(float(np.mean(tallies)), 4))
        print(f"fresh flowers after round {len(fresh)}: {fresh[-1]}", flush=True)
    kept = {
        "command": "python recipes/behaviour.py",
        "bundle_sha256": bundle.checksum,
        "views": len(latents) - held,
        "first_views_garden": FIRST_VIEWS,
        "gardens_a_round": gardens,
        "first_garden": FIRST_GARDEN,
        "hours": hours,
        "counts_explained": {"fresh": explained[0], "wilting": explained[1]},
        "fresh_after_round": fresh,
        "counter": counter.network.packed(),
        "policy": policies[-1].network.packed(),
    }
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"networks: {arguments.out}")


if __name__ == "__main__":
    main()
