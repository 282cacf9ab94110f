"""Draw the figures from results.json.

python studies/fig6/plot.py [--results results.json] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

HERE = Path(__file__).parent
# Okabe and Ito's colours, and a marker each, so that nobody has to tell them by colour alone.
STYLES: dict[str, dict[str, Any]] = {
    "split, analog": {"color": "#000000", "marker": "o", "lw": 2},
    "split, digital": {"color": "#56B4E9", "marker": "s"},
    "JSCC": {"color": "#0072B2", "marker": "D"},
    "JSCC, half the uses": {"color": "#0072B2", "marker": "D", "ls": "--", "mfc": "white"},
    "hybrid": {"color": "#009E73", "marker": "p", "lw": 2.4, "ms": 6},
    "hybrid, half the uses": {
        "color": "#009E73", "marker": "p", "ls": "--", "mfc": "white", "lw": 2, "ms": 6,
    },
    "AVIF + LDPC": {"color": "#D55E00", "marker": "v"},
    "WebP + LDPC": {"color": "#E69F00", "marker": "^"},
    "raw pixels": {"color": "#888888", "marker": "+", "ls": ":"},
    "seed, int8": {"color": "#56B4E9", "marker": "s"},
    "MEG-DT, paper mode": {"color": "#000000", "marker": "o", "lw": 2},
    "centralized, paper mode": {"color": "#D55E00", "marker": "v"},
    "prompt only": {"color": "#CC79A7", "marker": "P", "ls": "-."},
    "sketch, layout": {"color": "#CC79A7", "marker": "1", "ls": "none", "ms": 9},
    "sketch, thumbnail": {"color": "#CC79A7", "marker": "*", "ls": "none", "ms": 9},
}  # fmt: skip
LABELS = {
    "psnr_db": "PSNR (dB), higher is better",
    "ms_ssim": "MS-SSIM, higher is better",
    "perceptual": "ST-LPIPS, lower is better",
    "kid": "KID, probe features, lower is better",
    "frechet": "Fréchet distance, probe features",
}
CAPTIONS = {
    "quality": "Garden scenes in the split's channel uses, half of them for the dashed curves; raw pixels take 46 times as many, sketches their own (40 times as many at -10 dB). Bands: 95 % intervals. Kinks at the ends of curves are other pictures: 32 scenes there, 1,000 elsewhere.",
    "gains": "At which SNR the analog split is as good, less the scheme's own SNR. Above 0: ahead of the split. The dotted line is the project's aim for hybrid, in equal uses.",
    "no_harm": "In half of the channel uses, minus the split in all of them, picture by picture, with 95 % intervals.",
    "pictures": "One scene, as in the paper's Fig. 6(a). Plain colours: no file fits, or nothing arrives.",
    "paper": "The paper's own convention: real noise on raw values, generated pictures, published FID beside ours. Features and pictures differ, so only shapes compare.",
    "energy": "At equal radiated energy: a scheme with fewer channel uses sends them louder, raw pixels 16.6 dB fainter.",
    "photographs": "Photographs, which no model ever saw, in the split's channel uses.",
    "rates": "Quantised seeds against AVIF without a channel, means over scenes.",
}
"""What the figures show, in the order of a report."""
OWN_CAPTIONS = {
    "own_model": "Generated pictures in fair mode, AVIF in the channel uses of the split's analog seed; pixels and prompt take their own.",
    "own_model_paper": "The paper's own convention: real noise on raw values.",
}
"""The same with a model of one's own."""
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
Image = NDArray[np.uint8]


def draw_line(axis: Axes, points: Sequence[Mapping[str, Any]], metric: str, label: str) -> None:
    """A scheme's curve with its 95 % interval."""
    there = [p for p in points if p.get(metric) is not None]
    if not there:
        return
    style = {"ms": 5, "lw": 1.4, **STYLES.get(label, {})}
    snr, values = [p["snr_db"] for p in there], np.array([p[metric] for p in there])
    halves = np.array([p.get(f"{metric}_95") or 0.0 for p in there])
    if metric == "kid":  # at high SNR the estimate is 0 within its noise, or below
        low, high, values = (
            np.maximum(v, 1e-5) for v in (values - halves, values + halves, values)
        )
    else:
        low, high = values - halves, values + halves
    axis.plot(snr, values, label=label, **style)
    if style.get("ls") != "none":
        axis.fill_between(snr, low, high, color=style["color"], alpha=0.12, lw=0)


def finish(figure: Any, axes: Sequence[Axes], path: Path, *, x: str = "SNR (dB)") -> None:
    for axis in axes:
        axis.set_xlabel(x)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def share_legend(figure: Any, axes: Sequence[Axes], ncols: int = 6) -> None:
    entries: dict[str, Any] = {}
    for axis in axes:
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    names = [n for n in STYLES if n in entries] + [n for n in entries if n not in STYLES]
    figure.legend(
        [entries[n] for n in names], names, loc="outside lower center", ncols=ncols, frameon=False
    )


def draw_paper(results: Mapping[str, Any], path: Path) -> None:
    """Our paper mode beside the published curves: as they are, and each by its largest value."""
    found, published = results["curves"]["generated"], results["published"]
    ours = {
        "centralized": ("centralized, paper mode", "#D55E00"),
        "MEG-DT": ("MEG-DT, paper mode", "#0072B2"),
        "E2E-MEG-DT": ("JSCC, half the uses", "#009E73"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    other = axes[0].twinx()
    for name, (scheme, colour) in ours.items():
        theirs = published["curves"][name]
        axes[0].plot(
            published["snr_db"], theirs, "--", color=colour, label=f"{name}, published FID"
        )
        shown = theirs / np.max(theirs)
        axes[1].plot(published["snr_db"], shown, "--", color=colour, label=f"{name}, published")
        if scheme not in found:
            continue
        snr = [p["snr_db"] for p in found[scheme]]
        values = np.maximum([p["frechet"] or 0 for p in found[scheme]], 1e-4)
        note = f"{name}, ours" + (" (fair mode)" if "JSCC" in scheme else "")
        other.plot(snr, values, "o-", ms=4, color=colour, label=note)
        axes[1].plot(snr, values / values[0], "o-", ms=4, color=colour, label=note)
        axes[2].plot(
            snr, [p["psnr_db"] for p in found[scheme]], "o-", ms=4, color=colour, label=note
        )
    axes[0].set(title="as published (dashed), and ours on its own axis", yscale="log")
    axes[0].set_ylabel("published FID, 6 images, 64 features (dashed)")
    other.set(yscale="log", ylabel=f"ours: {LABELS['frechet']}")
    other.spines["top"].set_visible(False)
    axes[1].set(
        title="the shape: each over its value at the lowest SNR", yscale="log", ylim=(1e-3, 2)
    )
    axes[1].set_ylabel("relative distance")
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    axes[2].set(title="ours: PSNR to the error-free picture", ylabel="PSNR (dB)")
    axes[2].legend(frameon=False, fontsize=8)
    finish(figure, axes, path)


def draw_quality(curves: Curves, title: str, path: Path, metrics: Sequence[str]) -> None:
    """Every scheme by SNR, a metric a panel."""
    shape = (2, 2) if len(metrics) == 4 else (1, len(metrics))
    figure, axes = plt.subplots(
        *shape, figsize=(6.5 * shape[1], 4.4 * shape[0] + 0.8), layout="constrained", squeeze=False
    )
    for axis, metric in zip(axes.flat, metrics, strict=True):
        for name in STYLES:
            if name in curves:
                draw_line(axis, curves[name], metric, name)
        axis.set_ylabel(LABELS[metric])
        if metric == "kid":
            axis.set_yscale("log")
    figure.suptitle(title, fontsize=12)
    share_legend(figure, axes.flat)
    finish(figure, axes.flat, path)


def draw_gains(results: Mapping[str, Any], path: Path) -> None:
    """By how many dB of SNR each code is ahead of the split."""
    metrics = ("kid", "perceptual", "psnr_db")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained", sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        for name, rows in results["gains"].items():
            there = [r for r in rows if r["metric"] == metric]
            if not there:
                continue
            snr, gain = [r["snr_db"] for r in there], np.array([r["gain_db"] for r in there])
            low, high = (np.array([r[f"gain_{n}_db"] for r in there]) for n in ("low", "high"))
            style = {"ms": 5, "lw": 1.4, **STYLES[name]}
            axis.plot(snr, gain, label=name, **style)
            axis.fill_between(snr, low, high, color=style["color"], alpha=0.12, lw=0)
        axis.axhline(0, color="black", lw=0.8)
        axis.plot(
            [-20, -5, -5, 10],
            [6, 6, 3, 3],
            color="#CC79A7",
            lw=1,
            ls=":",
            label="aim in equal uses",
        )
        axis.set_title(LABELS[metric].partition(",")[0])
    axes[0].set_ylabel("dB of SNR ahead of the split (analog)")
    axes[0].set_ylim(-20, 25)
    share_legend(figure, axes)
    finish(figure, axes, path)


def draw_no_harm(results: Mapping[str, Any], path: Path) -> None:
    """Hybrid in half of the uses minus the split, pair by pair."""
    metrics = ("kid", "perceptual", "psnr_db")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for axis, metric in zip(axes, metrics, strict=True):
        for name in ("hybrid, half the uses", "JSCC, half the uses"):
            rows = [r for r in results["no_harm"].get(name, []) if r["metric"] == metric]
            if rows:
                axis.errorbar(
                    [r["snr_db"] for r in rows], [r["difference"] for r in rows],
                    [r["interval_95"] or 0 for r in rows], capsize=3, label=name,
                    **{"ms": 5, **STYLES[name]},
                )  # fmt: skip
        axis.axhline(0, color="black", lw=0.8)
        better = "above 0" if metric == "psnr_db" else "below 0"
        axis.set_title(f"{LABELS[metric].partition(',')[0]}: {better} is better than the split")
        if metric == "kid":
            axis.set_yscale("symlog", linthresh=1e-3)
    axes[0].set_ylabel("half the uses minus split")
    share_legend(figure, axes)
    finish(figure, axes, path)


def draw_rates(results: Mapping[str, Any], path: Path) -> None:
    """Perceptual distance by bits, without a channel."""
    every = results["rates_measured"]
    figure, axes = plt.subplots(
        1, len(every), figsize=(5.2 * len(every), 4.4), layout="constrained", squeeze=False
    )
    for axis, (name, scenes) in zip(axes.flat, every.items(), strict=True):
        for what, label, colour in (
            ("seed", "progressive seed", "#0072B2"),
            ("avif", "AVIF", "#D55E00"),
        ):
            lines = [[(p["bits"], p["perceptual"]) for p in scene[what]] for scene in scenes]
            bits, distance = np.array(lines).mean(0).T
            there = bits > 100  # fewer are no file but a plain colour
            bits, distance = bits[there], distance[there]
            axis.plot(bits / 1000, distance, "o-", ms=4, color=colour, label=label)
        exact = float(np.mean([scene["float32"] for scene in scenes]))
        axis.axhline(exact, color="#0072B2", ls=":", label="float32 seed")
        axis.set(title=name, xscale="log", ylabel=LABELS["perceptual"])
        axis.legend(frameon=False, fontsize=9)
    finish(figure, axes.flat, path, x="kbit")


def draw_pictures(
    pictures: Mapping[str, Sequence[Image]], snrs: Sequence[float], path: Path
) -> None:
    """The grid of Fig. 6(a): a scheme a row, an SNR a column."""
    names = [n for n in pictures if n != "original"]
    size, left, top = 1.4, 1.2, 0.3  # inches
    width, height = left + size * (len(snrs) + 1), top + size * len(names)
    figure, axes = plt.subplots(
        len(names), len(snrs) + 1, figsize=(width, height), squeeze=False,
        gridspec_kw={
            "left": left / width, "right": 1, "bottom": 0, "top": 1 - top / height,
            "wspace": 0.03, "hspace": 0.03,
        },
    )  # fmt: skip
    for row, name in enumerate(names):
        axes[row, 0].imshow(pictures["original"][0])
        axes[row, 0].set_ylabel(
            name.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=9
        )
        for column, image in enumerate(pictures[name], 1):
            axes[row, column].imshow(image)
    for column, title in enumerate(["original", *[f"{s:g} dB" for s in snrs]]):
        axes[0, column].set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)


def draw_own(curves: Curves, out: Path) -> None:
    """Both conventions, with a model of one's own."""
    paper = {name: curve for name, curve in curves.items() if name.endswith("paper mode")}
    fair = {name: curve for name, curve in curves.items() if name not in paper}
    metrics = ("perceptual", "psnr_db")
    draw_quality(fair, "generated pictures", out / "own_model.png", metrics)
    draw_quality(paper, "the paper's convention", out / "own_model_paper.png", metrics)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, help="(default: beside the results)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    out = arguments.out or arguments.results.parent
    if "model_sha256" in results:
        draw_own(results["curves"], out)
        return
    draw_paper(results, out / "paper.png")
    garden = results["curves"]["garden"]
    metrics = ("kid", "perceptual", "psnr_db", "ms_ssim")
    draw_quality(
        garden,
        "garden scenes; files, digital and hybrid in the split's channel uses",
        out / "quality.png",
        metrics,
    )
    energy = dict(results["equal_energy"]["curves"])
    same = {n: c for n, c in garden.items() if n not in energy and not n.startswith("sketch")}
    energy = {n: c for n, c in energy.items() if not n.startswith("sketch")}
    draw_quality(
        same | energy, "garden scenes, at the split's radiated energy", out / "energy.png",
        ("perceptual", "psnr_db", "ms_ssim"),
    )  # fmt: skip
    draw_quality(
        results["curves"]["photographs"], "photographs, in the split's channel uses",
        out / "photographs.png", ("perceptual", "psnr_db", "ms_ssim"),
    )  # fmt: skip
    draw_gains(results, out / "gains.png")
    draw_no_harm(results, out / "no_harm.png")
    draw_rates(results, out / "rates.png")


if __name__ == "__main__":
    main()
