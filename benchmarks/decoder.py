"""The UE's decoder against diffusers' architectures on the same latent, runtime and threads.

    pip install diffusers
    python benchmarks/decoder.py [--sizes 256 512] [--repeats 9] [--out benchmarks/decoder.json]

The peers have random weights: time does not depend on them. AutoencoderTiny is TAESD's
architecture, AutoencoderKL that of Stable Diffusion 1.5. All decode the same 4-channel latent in
float32, the peers in both memory layouts, of which the faster counts; the runs take turns, so that
a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from megdt.models.bundle import Bundle


def make_peers() -> dict[str, torch.nn.Module]:
    from diffusers.models import AutoencoderKL, AutoencoderTiny

    return {
        "AutoencoderTiny": AutoencoderTiny(),
        "AutoencoderKL": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        ),
    }


def decode(peer: torch.nn.Module, layout: torch.memory_format, latent: torch.Tensor) -> None:
    peer.decode(latent.contiguous(memory_format=layout))  # type: ignore[operator]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--largest-kl", type=int, default=256, help="AutoencoderKL takes minutes above"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = Bundle()
    rows = []
    for size in arguments.sizes:
        latent = np.random.default_rng(0).standard_normal((1, 4, size // 8, size // 8), np.float32)
        runs: dict[str, Callable[[], object]] = {"megdt": partial(bundle.decode, latent)}
        for name, peer in make_peers().items():
            if name == "AutoencoderKL" and size > arguments.largest_kl:
                continue
            for layout in (torch.contiguous_format, torch.channels_last):
                laid = copy.deepcopy(peer).eval().to(memory_format=layout)
                label = f"{name}, {str(layout).removeprefix('torch.')}"
                runs[label] = partial(decode, laid, layout, torch.from_numpy(latent))
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        with torch.inference_mode():
            for repeat in range(arguments.repeats + 1):
                for name, run in runs.items():
                    started = time.perf_counter()
                    run()
                    if repeat:  # the first round warms up
                        seconds[name].append(time.perf_counter() - started)
        median = {name: float(np.median(s)) for name, s in seconds.items()}
        ours = median["megdt"]
        best: dict[str, float] = {}
        for label, value in median.items():
            name = label.partition(",")[0]
            if name != "megdt":
                best[name] = min(value, best.get(name, value))
        row = {
            "size_px": size,
            "median_s": {n: round(s, 4) for n, s in median.items()},
            "times_faster_than": {n: round(s / ours, 1) for n, s in best.items()},
        }
        rows.append(row)
        print(json.dumps(row))
    machine = f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
