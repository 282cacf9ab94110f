"""Draw the figure from results.json, beside the curve that the paper published.

python studies/split_or_picture/plot.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
# arXiv 2407.02804, Fig. 6(b): FID in 64 Inception features over six pictures.
PUBLISHED_SNR_DB = [-20, -15, -10, -5, 0, 5, 10, 15, 20]
PUBLISHED = {
    "centralized": [293.5, 279.6, 258.5, 218.6, 155.2, 87.9, 41.3, 16.3, 4.86],
    "split": [197.7, 187.5, 41.4, 3.47, 5.93, 3.99, 2.63, 1.82, 1.48],
}
COLOURS = {"split": "#2166ac", "centralized": "#d6604d"}


def main() -> None:
    curves = json.loads((HERE / "results.json").read_text())["curves"]
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
    for name, points in curves.items():
        snr, colour = [p["snr_db"] for p in points], COLOURS[name]
        # Without any error the distance is 0, which a logarithmic axis cannot show.
        distance = [max(p["frechet"], 1e-2) for p in points]
        axes[0].plot(snr, distance, "o-", ms=4, color=colour, label=name)
        published = PUBLISHED[name]
        axes[0].plot(
            PUBLISHED_SNR_DB, published, "--", color=colour, label=f"{name}, published FID"
        )
        axes[1].plot(snr, [p["psnr_db"] for p in points], "o-", ms=4, color=colour, label=name)
    axes[0].set(title="paper mode: distance between sets", ylabel="Fréchet distance", yscale="log")
    axes[1].set(title="paper mode: PSNR to the error-free picture", ylabel="PSNR (dB)")
    for axis in axes:
        axis.set_xlabel("SNR (dB)")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "figure.png", dpi=110)


if __name__ == "__main__":
    main()
