"""A ray-traced map of a city against the distance formula of TR 38.901, with truth from more rays.

python studies/twin_prediction/city.py [--quick] [--out city.json]

Needs the extra `rt` and Debian's libllvm15.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from megdt import __version__
from megdt.twin.radio_map import RadioMap, distance_law, traced_law
from megdt.worlds.city import City, TracedMap
from megdt.worlds.radio_field import RadioField, expected_loss_db, path_loss_db

HERE = Path(__file__).parent
FREQUENCY_HZ = 3.5e9
# At 23 dBm, over 1 MHz and with a noise figure of 7 dB.
BUDGET_DB = RadioField(rng_seed=0).budget_db
LEAST_SNR_DB = 0.0
MEASUREMENTS, NOISE_DB = 150, 1.0
# What the twin knows: the houses, and that they are of concrete, which they are not.
TWINS: dict[str, dict[str, Any]] = {
    "the houses, all of concrete": {"material": "concrete", "max_depth": 5, "rays": 2_000_000},
    "the same, fewer rays and three bounces": {
        "material": "concrete", "max_depth": 3, "rays": 1_000_000,
    },
    "the houses and their materials": {"material": None, "max_depth": 5, "rays": 2_000_000},
}  # fmt: skip


def rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def learned_db(law: Any, places: Any, truth: Any, rng: Any) -> tuple[float, float]:
    """Error of a map that has learned from some places, at all others; and of its law alone."""
    some = np.zeros(len(places), bool)
    some[rng.choice(len(places), min(MEASUREMENTS, len(places) // 2), replace=False)] = True
    made = RadioMap(law, noise_db=NOISE_DB)
    noisy = truth[some] + NOISE_DB * rng.standard_normal(some.sum())
    made.observe(0.0, places[some], np.clip(noisy, -40, 60), now_s=0.0)
    mean, _ = made.predict(places[~some])
    fitted = made.offset_db + made.slope * law(places[~some])
    return rms(mean - truth[~some]), rms(fitted - truth[~some])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rays, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "city.json")
    arguments = parser.parse_args()
    few: dict[str, Any] = {"rays": 100_000, "max_depth": 2} if arguments.quick else {}
    true: TracedMap = City().trace(**{"rays": 4_000_000, "max_depth": 5, "rng_seed": 1} | few)
    snr = (true.gain_db + BUDGET_DB).ravel()
    heard = snr >= LEAST_SNR_DB  # nan, where no ray came, is not
    places, truth = true.centres_m.reshape(-1, 2)[heard], snr[heard]
    ground = np.linalg.norm(places - true.station_m, axis=1)
    formulas = {
        "UMi, out of sight": path_loss_db(ground, FREQUENCY_HZ, line_of_sight=False),
        "UMi, by the share in sight": expected_loss_db(ground, FREQUENCY_HZ),
    }
    errors = {name: rms(BUDGET_DB - loss - truth) for name, loss in formulas.items()}
    best = min(errors.values())
    rows = []
    for name, twin in TWINS.items():
        settings = {k: v for k, v in twin.items() if k != "material"} | few
        traced = City(material=twin["material"]).trace(rng_seed=2, **settings)
        law = traced_law(traced, FREQUENCY_HZ)
        error = rms(BUDGET_DB + law(places) - truth)
        rows.append(
            {
                "knows": name, "error_db": error, "of_the_formula": error / best,
                "cells_with_rays": float(np.isfinite(traced.gain_at_db(places)).mean()),
                "after_measurements_db": learned_db(
                    law, places, truth, np.random.default_rng(3)
                )[0],
            }
        )  # fmt: skip
        print(f"{len(rows)}/{len(TWINS)} maps", flush=True)
    by_distance = learned_db(distance_law(true.station_m), places, truth, np.random.default_rng(3))
    results = {
        "command": "python studies/twin_prediction/city.py",
        "machine": f"{platform.machine()}, numpy {np.__version__}, megdt {__version__}",
        "scene": "munich",
        "cells_judged": int(heard.sum()),
        "formula_error_db": errors,
        "traced": rows,
        "distance_law_after_measurements_db": by_distance[0],
        "fitted_distance_law_error_db": by_distance[1],
        "measurements": MEASUREMENTS,
        "claims": [
            {
                "claim": "Error of a ray-traced map is at most half of the 3GPP distance formula's",
                "verdict": "met" if rows[0]["error_db"] <= 0.5 * best else "missed",
                "found": f"{rows[0]['error_db']:.1f} dB against {best:.1f} dB, {rows[0]['error_db'] / best:.2f} of it",
            }
        ],
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
