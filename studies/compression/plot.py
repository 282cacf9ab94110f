"""Draw what each way of making a sub-model smaller costs and saves, from results.json.

python studies/compression/plot.py [--results results.json] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
# Okabe and Ito's colours; a shape each, so that nobody has to tell them by colour alone.
METHODS = {
    "none": ("as it is", "o", "#0072B2"), "prune": ("pruned", "s", "#D55E00"),
    "low_rank": ("low rank", "D", "#009E73"), "student": ("student", "^", "#CC79A7"),
}  # fmt: skip
AXES = {
    "flops_share": "operations, share of the whole model's",
    "megabytes": "file (MB)",
    "time_share_here": "time here, share of the whole model's in float32",
}


def draw(axis: Axes, rows: list[dict[str, Any]], key: str) -> None:
    for method, (label, marker, colour) in METHODS.items():
        chosen = [row for row in rows if row["method"] == method]
        if not chosen:
            continue
        y = [row["perceptual_distance"] for row in chosen]
        axis.plot([row[key] for row in chosen], y, marker, color=colour, ms=7, label=label)
        for row, far in zip(chosen, y, strict=True):
            word = row["precision"] if method == "none" else row["recipe"].split(",")[0].split()[-1]
            if method == "student":
                word = row["recipe"].split(",")[0].removeprefix("student ")
            axis.annotate(word, (row[key], far), (5, 4), textcoords="offset points", fontsize=7)
    whole = rows[0].get("perceptual_distance_of_teacher")
    if whole is not None:
        axis.axhline(whole, color="#888888", lw=0.8)
        axis.axhline(1.1 * whole, color="#888888", lw=0.8, ls=":")
    axis.set_xscale("log")
    axis.set_xlabel(AXES[key], fontsize=9)
    axis.grid(alpha=0.3, which="both")
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, help="(default: beside the results)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    out = arguments.out or arguments.results.parent
    told = [row for row in results["models"] if "perceptual_distance" in row]
    parts = [part for part in results["settings"]["parts"] if any(r["part"] == part for r in told)]
    if not parts:
        print("no perceptual distances: nothing to draw")
        return
    figure, axes = plt.subplots(
        len(parts), len(AXES), figsize=(14, 3.8 * len(parts)), layout="constrained", squeeze=False
    )
    for line, part in zip(axes, parts, strict=True):
        for axis, key in zip(line, AXES, strict=True):
            draw(axis, [row for row in told if row["part"] == part], key)
        line[0].set_ylabel(f"{part}: ST-LPIPS, less is better", fontsize=9)
    axes[0, -1].legend(frameon=False, fontsize=8)
    figure.savefig(out / "front.png", dpi=80)


if __name__ == "__main__":
    main()
