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
from matplotlib.ticker import NullFormatter, ScalarFormatter

HERE = Path(__file__).parent
# Okabe and Ito's colours; a shape each, so that nobody has to tell them by colour alone.
METHODS = {
    "none": ("as it is", "o", "#0072B2"), "prune": ("pruned", "s", "#D55E00"),
    "low_rank": ("low rank", "D", "#009E73"), "distill": ("distilled", "^", "#CC79A7"),
}  # fmt: skip
AXES = {
    "flops_share": "operations, share of the whole model's",
    "megabytes": "file (MB)",
    "time_share_here": "time here, share of the whole model's in float32",
}


TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def draw(axis: Axes, rows: list[dict[str, Any]], key: str) -> None:
    """One share or size by perceptual distance."""
    for method, (label, marker, colour) in METHODS.items():
        chosen = [row for row in rows if row["method"] == method]
        if not chosen:
            continue
        x, y = ([row[name] for row in chosen] for name in (key, "perceptual_distance"))
        axis.plot(x, y, marker, color=colour, ms=7, label=label)
        for row, at, far in zip(chosen, x, y, strict=True):
            if method == "none" and key == "flops_share":
                continue  # all precisions are one point
            below = method in ("none", "low_rank")
            axis.annotate(
                name(row), (at, far), (0, -6 if below else 6), textcoords="offset points",
                ha="center", va="top" if below else "bottom", fontsize=7, color=colour,
            )  # fmt: skip
    whole = rows[0]["perceptual_distance_of_teacher"]
    axis.axhline(whole, color="#888888", lw=0.8, label="the whole one")
    axis.axhline(1.1 * whole, color="#888888", lw=0.8, ls=":", label="10 % more")
    values = [row[key] for row in rows]
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 1.3, max(values) * 1.3)
    axis.set_xticks([tick for tick in TICKS if min(values) / 1.3 <= tick <= max(values) * 1.3])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(AXES[key], fontsize=9)
    axis.margins(y=0.12)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def name(row: dict[str, Any]) -> str:
    """What tells it from others of its method."""
    if row["method"] == "none":
        return str(row["precision"])
    words = row["recipe"].split(",")[0]
    return str(
        words.removeprefix("distilled ") if row["method"] == "distill" else words.split()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, help="(default: beside the results)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    out = arguments.out or arguments.results.parent
    told = [row for row in results["models"] if "perceptual_distance_of_teacher" in row]
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
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(out / "front.png", dpi=80)


if __name__ == "__main__":
    main()
