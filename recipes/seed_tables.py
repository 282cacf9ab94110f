"""Fit the tables of the progressive seed codec: src/megdt/codecs/seed_tables.json.

1. mixing: how strongly the decoder reacts to each level of the wavelet transform in each direction
   of the latent channels. Scaled by it, a step costs the picture the same everywhere; rotated
   to what is then uncorrelated.
2. logits: seeds are coded without writing, and a logistic model is fitted to the decisions, one
   weight a context; twice, because the order of decisions depends on the weights.
3. centroid: where in its interval a coefficient lies on average.

    python recipes/seed_tables.py --photos FOLDER ...

Reads latents that recipes/denoiser.py encode has written, and as many of photographs, so that these
are not penalised. The tables belong to their autoencoder: run it again after that is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from megdt.codecs import _progressive_kernels as kernels
from megdt.codecs import progressive
from megdt.codecs.progressive import (
    CHANNELS,
    FINEST,
    LEVELS,
    TABLES,
    ProgressiveSeedCodec,
    Tables,
    inverse,
    layout,
    load_tables,
    quantise,
    transform,
)
from megdt.models.bundle import Bundle
from megdt.records import Delivery, Feature

CACHE = Path(__file__).parent / "cache"
LEVEL = layout(32, 32).bands[:, 0]
SMALLEST_GAIN = 0.05
"""Of the decoder in any direction, relative to its largest at the level; less is measuring noise."""

FIRST_PASSES = (0.25, 0.03)
"""Probabilities of significance above which a coefficient is coded before the refinement; there
a bit takes away more error than a refinement bit does."""


def encode_photographs(folders: Sequence[Path], count: int, size_px: int) -> NDArray[np.float32]:
    """Latents of random crops at several scales. [count, 4, size_px / 8, size_px / 8]"""
    rng, bundle = np.random.default_rng(size_px), Bundle()
    paths = sorted(p for folder in folders for p in folder.rglob("*.*") if p.is_file())
    latents: list[NDArray[np.float32]] = []
    while len(latents) < count:
        before = len(latents)
        for path in rng.permutation(np.array(paths, object)):
            try:
                photograph = Image.open(path).convert("RGB")
            except (UnidentifiedImageError, OSError, ValueError):
                continue
            photograph.thumbnail((2560, 2560), Image.Resampling.LANCZOS)
            for scale in (1.0, 0.6, 0.35, 0.2):
                width, height = (round(n * scale) for n in photograph.size)
                if min(width, height) < size_px:
                    break
                small = np.asarray(photograph.resize((width, height), Image.Resampling.LANCZOS))
                top, left = rng.integers(height - size_px + 1), rng.integers(width - size_px + 1)
                crop = small[top : top + size_px, left : left + size_px]
                latents += [bundle.encode(crop[None])[0]]
            if len(latents) >= count:
                break
        if len(latents) == before:
            raise SystemExit(f"no photograph of {size_px} pixels in {', '.join(map(str, folders))}")
    return np.stack(latents[:count])


def measure_mixing(sets: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The matrix of each level, from sets of latents that count alike. [levels + 1, 4, 4]"""
    bundle, rng = Bundle(), np.random.default_rng(0)
    bundle.load("decoder")
    corners = [(a, b) for a in range(CHANNELS) for b in range(a + 1)]
    found = []
    for level in range(LEVELS + 1):
        gain, power = np.zeros((CHANNELS, CHANNELS)), np.zeros((CHANNELS, CHANNELS))
        for latents in sets:
            clean = _decode(bundle, latents)
            shapes = [band.shape[1:] for band in transform(latents[0])]
            members = [n for n in range(len(shapes)) if LEVEL[n] == level]
            share = sum(np.prod(shapes[n]) for n in members) / np.prod(latents.shape[2:])
            for a, b in corners:
                # The gain in direction a + b tells the product of a and b.
                direction = np.eye(CHANNELS)[a] + (a != b) * np.eye(CHANNELS)[b]
                step = 0.4 * (1.0, 1.0, 1.0, 1.0, 1.5, 2.0)[level]
                moved = latents.copy()
                for latent in moved:
                    bands = [
                        direction[:, None, None] * rng.standard_normal(s) * (n in members) * step
                        for n, s in enumerate(shapes)
                    ]
                    latent += inverse(bands)
                change = np.mean((_decode(bundle, moved) - clean) ** 2) / step**2 / share
                gain[a, b] += change / len(sets)
            coefficients = np.concatenate(
                [transform(z)[n].reshape(CHANNELS, -1) for z in latents for n in members], 1
            )
            power += coefficients @ coefficients.T / coefficients.shape[1] / len(sets)
        for a, b in corners:
            if a != b:
                gain[a, b] = gain[b, a] = (gain[a, b] - gain[a, a] - gain[b, b]) / 2
        values, vectors = np.linalg.eigh(gain)
        values = np.maximum(values, SMALLEST_GAIN * values.max())
        root = vectors * np.sqrt(values) @ vectors.T
        _, turn = np.linalg.eigh(root @ power @ root.T)
        found.append((turn.T @ root)[::-1])
        print(f"level {level}: gains {values.round(4)}, variances {power.diagonal().round(2)}")
    return np.round(found, 6)


def _decode(bundle: Bundle, latents: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return bundle._decoder(torch.from_numpy(latents)).numpy()


def trace(sets: Sequence[NDArray[np.float32]], tables: Tables) -> NDArray[np.int16]:
    """Contexts and outcome of every decision about these latents. [decisions, CONTEXTS + 1]"""
    parts = []
    for latent in (latent for latents in sets for latent in latents):
        room = np.zeros((kernels.PLANES * (2 * latent.size + 1), kernels.CONTEXTS + 1), np.int16)
        cells = quantise(latent, tables)
        count, _ = cells.code(kernels.TRACE, tables, np.zeros(0, np.uint8), room)
        parts.append(room[:count].copy())
    return np.concatenate(parts)


@njit
def descend(
    decisions: NDArray[Any], order: NDArray[Any], weights: NDArray[Any], rate: float
) -> float:
    """One pass of Adagrad over the decisions in this order; bits that they took."""
    squares, bits = np.zeros(weights.size), 0.0
    for t in order:
        row, logit = decisions[t], 0.0
        for k in range(kernels.CONTEXTS):
            logit += weights[row[k]]
        bit = row[kernels.CONTEXTS]
        one = 1 / (1 + np.exp(-logit))
        bits -= np.log2(max(one if bit else 1 - one, 1e-6))
        for k in range(kernels.CONTEXTS):
            if row[k]:
                squares[row[k]] += (bit - one) ** 2
                step = bit - one - 1e-5 * weights[row[k]]
                weights[row[k]] += rate * step / np.sqrt(squares[row[k]] + 1e-3)
    return bits


def fit(decisions: NDArray[np.int16], weights: NDArray[np.float64], rates: Sequence[float]) -> None:
    """Fit the weights in place, a pass a rate."""
    rng = np.random.default_rng(0)
    for rate in rates:
        bits = descend(decisions, rng.permutation(len(decisions)), weights, rate)
        print(f"{len(decisions)} decisions of {bits / len(decisions):.4f} bit", flush=True)


def measure_centroid(
    sets: Sequence[NDArray[np.float32]], mixing: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Where coefficients lie, by planes that have refined them. [levels + 1, 3], in 1 / 256"""
    total, count = np.zeros((LEVELS + 1, 3)), np.full((LEVELS + 1, 3), 1e-9)
    for latent in (latent for latents in sets for latent in latents):
        for level, band in zip(LEVEL, transform(latent), strict=True):
            size = np.abs(np.tensordot(mixing[level], band, 1)) / FINEST
            first = np.floor(np.log2(np.maximum(size, 1))).astype(int)
            for refined in range(3):
                plane = first - refined
                inside = (size >= 1) & (plane >= 2) & (plane <= 6)  # where most packets end
                total[level, refined] += np.modf(size / 2.0**plane)[0][inside].sum()
                count[level, refined] += inside.sum()
    return np.rint(256 * total / count).astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=240, help="latents of each kind (default 240)")
    parser.add_argument("--out", type=Path, default=TABLES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def garden(size_px: int, count: int) -> NDArray[np.float32]:
        latents = np.load(arguments.cache / f"latents_{size_px}.npy", mmap_mode="r")
        return latents[:: max(1, len(latents) // count)][:count].astype(np.float32)

    count = arguments.count
    small = [garden(256, count), encode_photographs(arguments.photos, count, 256)]
    large = [
        garden(512, count // 24),
        encode_photographs(arguments.photos, count // 24, 512),
        garden(1024, count // 80),
    ]
    mixing = measure_mixing([latents[:16] for latents in small])
    centroid = measure_centroid(small, mixing)
    thresholds = np.rint(256 * np.log([p / (1 - p) for p in FIRST_PASSES])).astype(int)
    weights = np.zeros(kernels.ENTRIES)
    tables = Tables(
        mixing=mixing,
        logits=np.zeros(kernels.ENTRIES, np.int64),
        thresholds=thresholds,
        centroid=centroid,
        checksum=0,
    )
    for rates in ((0.3, 0.1), (0.2, 0.07, 0.03, 0.01)):
        fit(trace([*small, *large], tables), weights, rates)
        logits = np.rint(256 * weights).astype(np.int64)
        tables = Tables(
            mixing=mixing,
            logits=logits,
            thresholds=thresholds,
            centroid=centroid,
            checksum=0,
        )
    names = ("mixing", "thresholds", "centroid", "logits")
    lines = [f'"{name}": {json.dumps(getattr(tables, name).tolist())}' for name in names]
    arguments.out.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"tables: {arguments.out}, {arguments.out.stat().st_size} bytes")
    progressive.load_tables = lambda: load_tables(arguments.out)  # the figures are the new tables'
    for name, latents in (("garden", small[0]), ("photographs", small[1])):
        for bits in (500, 1000, 2000, 4000, 8000, 16000):
            codec = ProgressiveSeedCodec(shape=(CHANNELS, 32, 32), budget_bits=bits)
            errors = []
            for latent in latents[:50]:
                packet = codec.encode(Feature(kind="seed", values=latent))
                again = codec.decode(Delivery(payload=packet.payload)).values
                errors.append(np.mean((again - latent) ** 2))
            print(f"{name}, {bits} bits: mean square error {np.mean(errors):.4f}")


if __name__ == "__main__":
    main()
