"""Draw what results.json holds, and one garden as each way of tending leaves it.

python studies/meg_aids_twin/plot.py [--results results.json] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import behaviour
import unseen
from matplotlib import pyplot as plt

from megdt.models.bundle import Bundle
from megdt.worlds.watering import STEP_H, WateredGarden, Weather

HERE = Path(__file__).parent
# Okabe and Ito's colours; a dash each, so that nobody has to tell them by colour alone.
LINES = {
    "expert": ("#000000", "-"), "policy": ("#0072B2", "-"),
    "policy, stale replica": ("#56B4E9", "--"), "policy, no replica": ("#009E73", "-."),
    "patrol": ("#E69F00", "-"), "chance": ("#999999", ":"),
}  # fmt: skip
SHOWN = ("expert", "policy", "patrol", "chance")
HEIGHT_PX = 160


def draw_behaviour(results: dict[str, Any], out: Path) -> None:
    part, settings = results["behaviour"], results["settings"]["behaviour"]
    rows = {row["way"]: row for row in part["rows"]}
    figure = plt.figure(figsize=(11, 8.6), layout="constrained")
    grid = figure.add_gridspec(len(SHOWN) + 1, 2, height_ratios=[3.1, *[1.15] * len(SHOWN)])

    left = figure.add_subplot(grid[0, 0])
    for name, (colour, dash) in LINES.items():
        fresh = rows[name]["fresh_by_hour"]
        left.plot(range(1, len(fresh) + 1), fresh, dash, color=colour, label=name)
    left.set(xlabel="hours", ylabel="fresh flowers, share", ylim=(0.35, 1.0))
    left.set_title(f"Mean of {settings['gardens']} held-out gardens", fontsize=10)
    left.legend(fontsize=7, frameon=False, loc="lower left", ncol=2)

    right = figure.add_subplot(grid[0, 1])
    named = {settings["usual_every_h"]: "policy"} | {
        hours: f"policy, a view every {hours:g} h" for hours in settings["every_h"]
    }
    names = [named[hours] for hours in sorted(named)] + ["policy, stale replica"]
    told = [rows[name]["fresh"] for name in names]
    means = [t["mean"] for t in told]
    ends = [[t["mean"] - t["low"] for t in told], [t["high"] - t["mean"] for t in told]]
    right.errorbar(range(len(names)), means, ends, fmt="o", color="#0072B2", capsize=3)
    for name in ("expert", "patrol", "chance"):
        colour, dash = LINES[name]
        right.axhline(rows[name]["fresh"]["mean"], color=colour, linestyle=dash, lw=1)
        right.annotate(
            name, (0.985, rows[name]["fresh"]["mean"]), xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", fontsize=8, ha="right", color=colour,
        )  # fmt: skip
    right.set_xticks(range(len(names)), [*(f"{h:g} h" for h in sorted(named)), "never"])
    right.set(xlabel="from view to view of the replica", ylabel="fresh flowers, mean over time")
    right.set_title("The policy by how fresh its replica is; intervals of 95 %", fontsize=10)

    ways = behaviour.Ways(settings, Bundle())
    seed = settings["first_garden"] + shown_garden(rows)
    for line, name in enumerate(SHOWN, start=1):
        garden = WateredGarden(seed, length_m=settings["length_m"])
        tally = ways.all()[name](garden)
        garden.weather = Daylight(seed)
        axis = figure.add_subplot(grid[line, :])
        axis.imshow(garden.look().panorama(HEIGHT_PX))
        axis.set(xticks=[], yticks=[])
        axis.set_title(
            f"{name}: after {len(tally.course) * STEP_H:g} h {tally.course[-1]:.0%} fresh, "
            f"{tally.alive_at_end:.0%} alive",
            fontsize=9,
        )  # fmt: skip
    figure.savefig(out / "behaviour.png", dpi=110)


def draw_creation(results: dict[str, Any], out: Path) -> None:
    rows = results["creation"]["rows"]
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for name, colour, dash in (
        ("seed", "#0072B2", "o-"), ("webp", "#E69F00", "s--"), ("avif", "#D55E00", "^-."), ("jxl", "#999999", "d:"),
    ):  # fmt: skip
        kept = [
            r for r in rows
            if r["way"].startswith(name) and r["way"].count(",") == 1 and r["bits_a_view"] > 100
        ]  # fmt: skip
        kept += [r for r in rows if name == "seed" and r["way"] == "int8 seed"]
        kept.sort(key=lambda r: r["bits_a_view"])
        at = [r["bits_a_view"] for r in kept], [r["perceptual"]["mean"] for r in kept]
        axis.plot(*at, dash, color=colour, label={"seed": "seeds"}.get(name, name))
    for name, colour, mark in (
        ("sketch, as it is", "#56B4E9", "P"), ("sketch, drawn", "#009E73", "P"),
        ("words of the UE", "#CC79A7", "*"), ("words of one who knows", "#000000", "*"),
        *((r["way"], "#56B4E9", "v") for r in rows if "anew" in r["way"]),
    ):  # fmt: skip
        row = next(r for r in rows if r["way"] == name)
        axis.plot(
            row["bits_a_view"], row["perceptual"]["mean"], mark, ms=10, color=colour, label=name
        )
    axis.set(xscale="log", xlabel="bits a view", ylabel="ST-LPIPS to the world", ylim=(0, None))
    axis.legend(fontsize=7, frameon=False)
    figure.savefig(out / "creation.png", dpi=110)


def draw_unseen(results: dict[str, Any], out: Path) -> None:
    settings, bundle = results["settings"]["unseen"], Bundle()
    names = (
        "world",
        "left grey",
        "mirrored from beside",
        "drawn, no prompt",
        "drawn as what is beside",
    )
    figure, axes = plt.subplots(len(names), 2, figsize=(9, 7.6), layout="constrained")
    for column in range(2):
        ways = unseen.Gap(settings["first_garden"] + column, bundle, settings).ways()
        for axis, name in zip(axes[:, column], names, strict=True):
            axis.imshow(ways[name]())
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=8)
    figure.savefig(out / "unseen.png", dpi=110)


def draw_validation(results: dict[str, Any], out: Path) -> None:
    part = results["validation"]
    names = [name for name in part if isinstance(part[name], dict) and "points" in part[name]]
    figure, axes = plt.subplots(1, len(names), figsize=(9, 4), sharey=True, layout="constrained")
    colours = plt.get_cmap("tab20")
    for axis, name in zip(axes, names, strict=True):
        for n, case in enumerate(dict.fromkeys(p[0] for p in part[name]["points"])):
            these = [p for p in part[name]["points"] if p[0] == case]
            axis.plot(
                [p[1] for p in these], [p[2] for p in these], "o", color=colours(n), label=case
            )
        axis.axvline(results["settings"]["validation"]["wrong_from"], color="#999999", lw=1)
        axis.set(xlabel="true ST-LPIPS", title=f"{name} seeds")
    axes[0].set_ylabel("the twin's own measure, one camera looks")
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(out / "validation.png", dpi=110)


class Daylight(Weather):
    """A clear sky, so that what is left of each garden can be seen."""

    def sky(self, time_h: float) -> str:
        return "clear"

    def rains(self, time_h: float) -> bool:
        return False


def shown_garden(rows: dict[str, Any]) -> int:
    """The one whose gain of the policy over the patrol is the median: no showpiece."""
    gains = [
        a - b
        for a, b in zip(rows["policy"]["fresh_each"], rows["patrol"]["fresh_each"], strict=True)
    ]
    return sorted(range(len(gains)), key=gains.__getitem__)[len(gains) // 2]


FIGURES = {
    "creation": draw_creation, "unseen": draw_unseen, "validation": draw_validation,
    "behaviour": draw_behaviour,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    for name, draw in FIGURES.items():
        draw(results, arguments.out)
        print(f"figure: {arguments.out / name}.png")


if __name__ == "__main__":
    main()
