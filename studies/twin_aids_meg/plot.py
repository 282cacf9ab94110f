"""Draw what results.json holds.

python studies/twin_aids_meg/plot.py [--results results.json] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
# Okabe and Ito's colours; a marker each, so that nobody has to tell them by colour alone.
SHOWN = {
    "told the true SNR": ("#000000", "|"), "twin": ("#0072B2", "o"),
    "the round before": ("#D55E00", "v"), "formula": ("#CC79A7", "s"),
    "best fixed": ("#E69F00", "D"), "chance": ("#999999", "x"),
}  # fmt: skip


def draw(results: dict[str, Any]) -> plt.Figure:
    sites = results["steering"]["sites"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.4), width_ratios=(3, 2), layout="constrained"
    )
    for name, (colour, marker) in SHOWN.items():
        values = []
        for site in sites:
            paid = {row["strategy"]: row["paid"] for row in site["rows"]}
            values.append(paid[site["best_fixed"] if name == "best fixed" else name] / site["best"])
        left.scatter(
            values, range(len(sites)), 90 if marker == "|" else 45, colour, marker=marker, label=name,
            zorder=3,
        )  # fmt: skip
    left.set_yticks(range(len(sites)), [site["site"] for site in sites])
    left.invert_yaxis()
    left.set(xscale="log", xlabel="what a wish costs, failures priced; 1 is the best of all plans")
    left.set_xticks([1, 2, 3, 5, 10], ["1", "2", "3", "5", "10"])
    left.minorticks_off()
    left.grid(axis="both", color="#dddddd", lw=0.6)
    left.set_title("Whose plans cost least", fontsize=10)
    left.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))

    rows = results["attacks"]["rows"]
    names = list(dict.fromkeys(row["attack"] for row in rows))
    for guarded, colour, offset, label in (
        (False, "#D55E00", 0.18, "without a monitor"), (True, "#0072B2", -0.18, "with it"),
    ):  # fmt: skip
        worst = [
            next(r["worst_distance"] for r in rows if (r["attack"], r["monitor"]) == (n, guarded))
            for n in names
        ]
        right.bar([x + offset for x in range(len(names))], worst, 0.34, color=colour, label=label)
    right.set_xticks(range(len(names)), names)
    right.set(ylabel="ST-LPIPS of the worst piece to the world")
    right.set_title("What the twin shows while one UE is attacked", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    draw(json.loads(arguments.results.read_text())).savefig(arguments.out / "loop.png", dpi=130)


if __name__ == "__main__":
    main()
