"""Draw the figure from results.json.

python studies/fair_baseline/plot.py [--results results.json] [--out FOLDER]
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
# Okabe and Ito's colours, and a marker each, so that nobody has to tell them by colour alone.
STYLES: dict[str, dict[str, Any]] = {
    "analog seed": {"color": "#0072B2", "marker": "o", "lw": 2.2},
    "int8 seed": {"color": "#56B4E9", "marker": "s", "lw": 2.2},
    "float16 seed": {"color": "#56B4E9", "marker": "x", "lw": 1, "ls": ":"},
    "learned symbols (all)": {"color": "#009E73", "marker": "D", "lw": 2.2},
    "learned symbols (1/4)": {"color": "#009E73", "marker": "d", "lw": 1.2, "ls": "--"},
    "learned symbols (1/8)": {"color": "#009E73", "marker": "P", "lw": 1.2, "ls": ":"},
    "WebP": {"color": "#E69F00", "marker": "^"},
    "AVIF": {"color": "#D55E00", "marker": "v"},
    "JPEG XL": {"color": "#CC79A7", "marker": "D"},
    "best codec, ideal code": {"color": "black", "marker": "*", "ls": "--", "ms": 8},
    "raw pixels": {"color": "#777777", "marker": "+", "ls": ":"},
    "prompt only": {"color": "#009E73", "marker": "P", "ls": "-."},
}
CODECS = ("WebP", "AVIF", "JPEG XL")
NAMES = {
    "psnr_db": "PSNR (dB), higher is better",
    "ms_ssim": "MS-SSIM, higher is better",
    "perceptual": "ST-LPIPS, lower is better",
    "uses": "complex channel uses",
}
LIMITS = {"psnr_db": (5, 62), "ms_ssim": (0, 1.03), "perceptual": (-0.03, 1.3)}
SETS = {"garden": "generated pictures", "photographs": "photographs"}

Curves = dict[str, list[dict[str, Any]]]


def draw(axis: Axes, points: list[dict[str, Any]], metric: str, label: str) -> None:
    snr, means = [p["snr_db"] for p in points], [p[metric] for p in points]
    style = {"ms": 5, "lw": 1.5, **STYLES[label]}
    axis.plot(snr, means, label=label, **style)
    halves = [p.get(f"{metric}_95") or 0.0 for p in points]
    low = [m - h for m, h in zip(means, halves, strict=True)]
    high = [m + h for m, h in zip(means, halves, strict=True)]
    axis.fill_between(snr, low, high, color=style["color"], alpha=0.13, lw=0)


def find_best(curves: Curves, budget: str, metric: str) -> list[dict[str, Any]]:
    """At each SNR the codec with the best mean, under an ideal code."""
    every = [curves[f"{codec} in the {budget}'s uses, ideal code"] for codec in CODECS]
    choose = min if metric == "perceptual" else max
    return [choose(points, key=lambda p: p[metric]) for points in zip(*every, strict=True)]


def draw_budget(axis: Axes, curves: Curves, budget: str, metric: str) -> None:
    draw(axis, curves[budget], metric, budget)
    for codec in CODECS:
        if f"{codec} in the {budget}'s uses" in curves:
            draw(axis, curves[f"{codec} in the {budget}'s uses"], metric, codec)
    axis.set(ylabel=NAMES[metric], ylim=LIMITS[metric])


def draw_differences(axis: Axes, differences: dict[str, Curves]) -> None:
    """Perceptual distance of the analog seed minus that of the codec that is best at each SNR."""
    for colour, (name, title) in zip(("#0072B2", "#D55E00"), SETS.items(), strict=True):
        for tail, style, note in (("", "o-", "LDPC"), (", ideal code", "*--", "ideal code")):
            every = [
                differences[name][f"{codec} in the analog seed's uses{tail}"] for codec in CODECS
            ]
            # The best picture leaves the seed the least advantage.
            points = [max(each, key=lambda p: p["perceptual"]) for each in zip(*every, strict=True)]
            snr, means = [p["snr_db"] for p in points], [p["perceptual"] for p in points]
            halves = [p["perceptual_95"] or 0.0 for p in points]
            axis.errorbar(
                snr, means, halves, fmt=style, color=colour, capsize=2, lw=1.4, ms=6,
                label=f"{title}, {note}",
            )  # fmt: skip
    axis.axhline(0, color="black", lw=0.8)
    axis.set(ylabel="ST-LPIPS, seed minus picture (< 0: seed wins)")
    axis.legend(frameon=False, fontsize=8)


def draw_own(found: Curves, path: Path) -> None:
    """Photographs by an autoencoder of one's own, and by a code trained for it where there is one."""
    limits = {"psnr_db": (10, 46), "ms_ssim": (0.35, 1.02), "perceptual": (-0.02, 0.7)}
    metrics = [name for name in limits if name in found["analog seed"][0]]
    learned = [name for name in found if name.startswith("learned symbols")]
    budgets = ["analog seed", *[n for n in learned if f"{CODECS[0]} in the {n}'s uses" in found]]
    figure, axes = plt.subplots(
        len(budgets), len(metrics), figsize=(4.7 * len(metrics), 4.4 * len(budgets)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, budget in zip(axes, budgets, strict=True):
        beside = ["int8 seed", *learned] if budget == "analog seed" else []
        for axis, metric in zip(row, metrics, strict=True):
            draw_budget(axis, found, budget, metric)
            for name in beside:
                draw(axis, found[name], metric, name)
            axis.set(xlabel="SNR (dB)", ylim=limits[metric])
            axis.set_title(f"pictures in the uses of: {budget}", fontsize=10)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=10)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, help="(default: beside the results)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    out = arguments.out or arguments.results.parent
    curves = results["curves"]
    if "garden" not in curves["awgn"]:
        draw_own(curves["awgn"]["photographs"], out / "figure.png")
        return
    figure, axes = plt.subplots(4, 3, figsize=(14, 17), layout="constrained")
    for row, (name, title) in enumerate(SETS.items()):
        found = curves["awgn"][name]
        for axis, metric in zip(axes[row], ("psnr_db", "ms_ssim", "perceptual"), strict=True):
            draw_budget(axis, found, "analog seed", metric)
            best = find_best(found, "analog seed", metric)
            draw(axis, best, metric, "best codec, ideal code")
            draw(axis, found["raw pixels"], metric, "raw pixels")
            if "prompt only" in found:
                draw(axis, found["prompt only"], metric, "prompt only")
            axis.set_title(f"{title}, AWGN, in the analog seed's uses", fontsize=10)
        draw_budget(axes[2, row], found, "int8 seed", "psnr_db")
        axes[2, row].set_title(f"{title}, AWGN, in the int8 seed's uses", fontsize=10)
        found = curves["rayleigh"][name]
        draw_budget(axes[3, row], found, "analog seed", "perceptual")
        draw(axes[3, row], found["int8 seed"], "perceptual", "int8 seed")
        if "prompt only" in found:
            draw(axes[3, row], found["prompt only"], "perceptual", "prompt only")
        axes[3, row].set_title(f"{title}, Rayleigh, in the analog seed's uses", fontsize=10)
    found = curves["awgn"]["garden"]
    for label in ("analog seed", "int8 seed", "float16 seed", "raw pixels", "prompt only"):
        # What is lost takes uses too, but they bring nothing that could be compared.
        there = [p for p in found[label] if p["lost"] == 0]
        draw(axes[2, 2], there, "uses", label)
    axes[2, 2].set(ylabel=NAMES["uses"], yscale="log")
    axes[2, 2].set_title("what a generated picture takes, AWGN, where all arrive", fontsize=10)
    draw_differences(axes[3, 2], results["seed_minus_picture"]["awgn"])
    axes[3, 2].set_title("analog seed against the best codec, pair by pair, AWGN", fontsize=10)
    for axis in axes.flat:
        axis.set_xlabel("SNR (dB)")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    entries = {}
    for axis in axes.flat:
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    shown = [label for label in STYLES if label in entries]
    figure.legend(
        [entries[label] for label in shown], shown,
        loc="outside upper center", ncols=len(shown), frameon=False, fontsize=10,
    )  # fmt: skip
    figure.savefig(out / "figure.png", dpi=80)


if __name__ == "__main__":
    main()
