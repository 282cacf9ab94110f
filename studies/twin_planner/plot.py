"""Draw the decision map and the regrets from results.json.

python studies/twin_planner/plot.py [--results results.json] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

HERE = Path(__file__).parent
# Okabe and Ito's colours; a letter each, so that nobody has to tell them by colour alone.
FAMILIES = {
    "seed analog": ("A", "#0072B2"), "seed hybrid": ("H", "#4C9BD1"), "seed 0.03": ("1", "#A6D8F0"),
    "seed 0.05": ("5", "#93D0F2"),
    "seed 0.07": ("7", "#88CAEE"), "seed 0.1": ("2", "#7CC4EA"), "seed 0.25": ("3", "#56B4E9"), "seed int8": ("8", "#2C5D7C"),
    "steps 12 int8": ("Q", "#A3527F"), "steps 12 analog": ("R", "#D99CC2"),
    "steps 18 int8": ("S", "#CC79A7"), "steps 18 analog": ("T", "#E5B5D0"), "sketch": ("K", "#F0E442"),
    "webp 0.25": ("w", "#E69F00"), "webp 0.5": ("x", "#CC8800"), "webp 1": ("W", "#B37B00"), "avif 0.25": ("v", "#D55E00"),
    "prompt": ("P", "#009E73"),
}  # fmt: skip
SHOWN = {"planner": "#0072B2", "without the picture": "#56B4E9", "fixed": "#E69F00", "fixed by device and size": "#F0C76B",
         "stale": "#D55E00", "knowing the channel": "#009E73", "random": "#999999"}  # fmt: skip


def draw_map(axis: Axes, rows: list[dict[str, Any]], snr_db: list[float], title: str) -> None:
    for line, row in enumerate(rows):
        for column, (way, broken) in enumerate(zip(row["ways"], row["broken"], strict=True)):
            letter, colour = FAMILIES[way]
            axis.add_patch(plt.Rectangle((column, line), 1, 1, color=colour, lw=0))
            if broken:
                axis.add_patch(
                    plt.Rectangle((column, line), 1, 1, fill=False, hatch="////", lw=0, ec="white")
                )
            axis.text(column + 0.5, line + 0.5, letter, ha="center", va="center", fontsize=7)
    axis.set(xlim=(0, len(snr_db)), ylim=(len(rows), 0), title=title)
    axis.set_xticks(np.arange(len(snr_db)) + 0.5, [f"{snr:g}" for snr in snr_db], fontsize=7)
    axis.set_yticks(
        np.arange(len(rows)) + 0.5, [f"{r['device']}, {r['size_px']} px" for r in rows], fontsize=8
    )
    axis.set_xlabel("SNR (dB)", fontsize=8)
    axis.title.set_fontsize(10)


def draw_maps(results: dict[str, Any], out: Path) -> None:
    found, snr_db = results["map"], results["settings"]["map_snr_db"]
    kinds = sorted(
        {(r["objective"], r["max_distance"]) for r in found}, key=lambda k: (k[0], -k[1])
    )
    columns = len({bound for _, bound in kinds})
    lines = -(-len(kinds) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(7 * columns, 3.6 * lines), layout="constrained", squeeze=False
    )
    words = {"latency": "quickest", "ue_energy": "least energy of the UE"}
    for axis, (objective, bound) in zip(axes.flat, kinds, strict=False):
        rows = [r for r in found if (r["objective"], r["max_distance"]) == (objective, bound)]
        rows.sort(key=lambda r: (r["size_px"], r["device"]))
        draw_map(axis, rows, snr_db, f"{words[objective]}, ST-LPIPS at most {bound:g}")
    used = {way for row in found for way in row["ways"]}
    handles = [
        Patch(color=colour, label=f"{letter}  {way}")
        for way, (letter, colour) in FAMILIES.items()
        if way in used
    ]
    handles.append(Patch(fc="#888888", ec="white", hatch="////", label="none holds: the safest"))
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.savefig(out / "decision_map.png", dpi=80)


def draw_regrets(results: dict[str, Any], out: Path) -> None:
    objectives = results["settings"]["objectives"]
    figure, axes = plt.subplots(
        len(objectives), 1, figsize=(13, 3.6 * len(objectives)), layout="constrained", squeeze=False
    )
    for axis, objective in zip(axes[:, 0], objectives, strict=True):
        cells = [c for c in results["cells"] if c["objective"] == objective]
        for number, (name, colour) in enumerate(SHOWN.items()):
            place = np.arange(len(cells)) + (number - 3) * 0.12
            axis.bar(place, [c[f"regret {name}"] for c in cells], 0.12, color=colour, label=name)
        axis.set_xticks(
            np.arange(len(cells)), [f"{c['scenario']}\n{c['mix']}" for c in cells], fontsize=7
        )
        unit = "s" if objective == "latency" else "J"
        axis.set_ylabel(f"regret in {objective} ({unit})")
        axis.grid(alpha=0.3, axis="y")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(ncols=7, frameon=False, fontsize=8)
    figure.savefig(out / "regret.png", dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, help="(default: beside the results)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    out = arguments.out or arguments.results.parent
    draw_maps(results, out)
    draw_regrets(results, out)


if __name__ == "__main__":
    main()
