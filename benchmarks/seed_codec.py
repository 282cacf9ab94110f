"""The progressive seed codec's time on one core, against AVIF's in the same run.

    python benchmarks/seed_codec.py [--quick] [--out benchmarks/seed_codec.json]

Each codes the same held-out view of 256 pixels: ours its seed, entropy coding and checks included,
AVIF the picture, at about the same bits, with the encoder's settings of `megdt.codecs.image` and no
search for the quality. What takes a seed from and to pixels is the autoencoder, timed beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image

from megdt.codecs.image import FileImageCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.models.bundle import Bundle
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view

SIZE_PX = 256
HELD_OUT = 10_000_000
BITS_PER_PIXEL = (0.03, 0.1, 0.25)
WANTED_MS = 20


def milliseconds(task: Callable[[], Any], repeats: int) -> float:
    """Median of so many runs, in processor time: what else runs on the machine counts less."""
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        task()
        spent.append(1000 * (time.process_time() - started))
    return float(np.median(spent))


def time_rate(rate: float, view: np.ndarray, seed: np.ndarray, repeats: int) -> dict[str, float]:
    """One rate: ours, and AVIF at the quality whose file is nearest to it."""
    budget = int(rate * SIZE_PX**2)
    codec = ProgressiveSeedCodec(shape=seed.shape, budget_bits=budget)
    feature = Feature(kind="seed", values=seed)
    packet = codec.encode(feature)  # compiles

    qualities = {q: _avif(view, q) for q in range(0, 101, 5)}
    quality = min(qualities, key=lambda q: abs(8 * len(qualities[q]) - packet.bits))
    reader = FileImageCodec(size_px=SIZE_PX, file_format="avif")
    ours = {
        "encode": lambda: codec.encode(feature),
        "decode": lambda: codec.decode(Delivery(payload=packet.payload)),
    }
    theirs = {
        "encode": lambda: _avif(view, quality),
        "decode": lambda: reader.decode(Delivery(payload=qualities[quality])),
    }
    ours["decode"](), theirs["decode"]()
    found = {f"seed {name} ms": milliseconds(task, repeats) for name, task in ours.items()}
    found |= {f"AVIF {name} ms": milliseconds(task, repeats) for name, task in theirs.items()}
    both, other = (sum(found[f"{who} {n} ms"] for n in ours) for who in ("seed", "AVIF"))
    return {
        "bits_per_pixel": rate,
        "seed bits": packet.bits,
        "AVIF bits": 8 * len(qualities[quality]),
        **{name: round(value, 3) for name, value in found.items()},
        "seed ms": round(both, 3),
        "faster than AVIF": round(other / both, 2),
    }


def _avif(view: np.ndarray, quality: int) -> bytes:
    from megdt.codecs.image import _write

    return _write(Image.fromarray(view), "avif", quality)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few runs, for a test")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 3 if arguments.quick else 30
    garden, view = draw_view(HELD_OUT, size_px=SIZE_PX)
    picture, bundle = garden.render(view), Bundle()
    seed = bundle.encode(picture[None])[0]
    bundle.decode(seed[None])
    rows = [time_rate(rate, picture, seed, repeats) for rate in BITS_PER_PIXEL]
    for row in rows:
        print(json.dumps(row), flush=True)
    found = {
        "machine": f"{platform.machine()}, one core, torch {torch.__version__}",
        "wanted_ms": WANTED_MS,
        "rates": rows,
        "autoencoder_ms": {
            "encode": round(milliseconds(lambda: bundle.encode(picture[None]), repeats), 3),
            "decode": round(milliseconds(lambda: bundle.decode(seed[None]), repeats), 3),
        },
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
