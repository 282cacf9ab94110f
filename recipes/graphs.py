"""Write what a UE runs without torch: ONNX graphs beside the weights, in float32, float16 and int8.

python recipes/graphs.py [--out src/megdt/models/bundle]

The steps of int8 are fitted to held-out garden views. What each graph loses against torch, and how
long it takes on this machine, is written into manifest.json with the floating point operations that a
ledger charges.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.manifest import describe_graph, graph_name, write_manifest
from megdt.models.onnx_export import Inputs, export
from megdt.models.onnx_models import EXPORTED, OUTPUTS, OnnxModels
from megdt.models.quality import psnr_db
from megdt.records import Precision
from megdt.worlds.garden import draw_view

CALIBRATION, HELD_OUT = range(10_500_000, 10_500_024), range(10_600_000, 10_600_016)
"""Seeds of views."""


def draw(seeds: range) -> NDArray[np.uint8]:
    """[views, 256, 256, 3]"""
    views = [draw_view(seed, size_px=256) for seed in seeds]
    return np.stack([garden.render(view) for garden, view in views])


def calibrate(bundle: Bundle, name: str) -> Iterator[Inputs]:
    """Inputs as the model meets them: with the noise of the air, or of the steps before."""
    rng = np.random.default_rng(0)
    pictures = draw(CALIBRATION)
    latents = bundle.encode(pictures)
    for picture, latent in zip(pictures, latents, strict=True):
        noise = rng.standard_normal(latent.shape).astype(np.float32)
        if name == "encoder":
            yield {"pictures": picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1}
        elif name == "decoder":
            power = np.float32(rng.choice([0.0, 0.0, 0.1, 1.0]))
            yield {"latents": (latent + power**0.5 * noise)[None], "noise_power": power[None]}
        else:
            sigma = np.float32(rng.uniform(0.05, 0.7))
            yield {"latents": ((1 - sigma) * latent + sigma * noise)[None], "sigma": sigma[None]}


def count(bundle: Bundle, name: str) -> dict[str, float]:
    """Operations by the size of what is worked on, as `Bundle.flops` counts them."""

    def flops(cells: tuple[int, int]) -> float:
        before = bundle.flops
        if name == "decoder":
            bundle.decode(np.zeros((1, 4, *cells), np.float32), np.zeros(1, np.float32))
        elif name == "encoder":
            bundle.encode(np.zeros((1, 8 * cells[0], 8 * cells[1], 3), np.uint8))
        else:
            bundle.finish(
                np.zeros((1, 4, *cells), np.float32), [""], [0], noise_power=0.0, steps=1,
                handoff_step=0, guidance_scale=1.0,
            )  # fmt: skip
        return bundle.flops - before

    if name == "student":  # it knows one grid alone, and attention grows with its square
        return {"flops_per_cell": 0.0, "flops_per_item": flops((32, 32))}
    small, large = flops((32, 32)), flops((64, 32))
    slope = (large - small) / 1024
    return {"flops_per_cell": slope, "flops_per_item": small - 1024 * slope}


def fit_preview(bundle: Bundle, pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """The colour of a latent by itself, by least squares: a rough picture before it is decoded."""
    views, size = pictures.shape[:2]
    cells = pictures.reshape(views, size // 8, 8, size // 8, 8, 3).mean((2, 4)).reshape(-1, 3)
    latents = bundle.encode(pictures).transpose(0, 2, 3, 1).reshape(-1, 4)
    told = np.concatenate((latents, np.ones((len(latents), 1))), 1)
    solved = np.linalg.lstsq(told, cells, rcond=None)[0].T.round(3)
    return {"matrix": solved[:, :4].tolist(), "offset": solved[:, 4].tolist()}


def mean_psnr_db(made: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> float:
    return round(float(np.mean([psnr_db(m, p) for m, p in zip(made, pictures, strict=True)])), 2)


def measure(
    bundle: Bundle, ours: OnnxModels, name: str, pictures: NDArray[np.uint8]
) -> dict[str, Any]:
    """Against torch: what differs, and how long each takes."""
    latents = bundle.encode(pictures)
    if name == "student":
        noise = np.random.default_rng(0).standard_normal(latents.shape).astype(np.float32)
        told: dict[str, Any] = {
            "noise_power": 0.0,
            "steps": 24,
            "handoff_step": 18,
            "guidance_scale": 1.0,
        }
        handed = (0.67 * latents + 0.33 * noise) / np.hypot(0.67, 0.33).astype(np.float32)
        calls: list[Callable[[int], Any]] = [
            lambda i, m=models: m.finish(handed[i : i + 1], [""], [0], **told)[0]
            for models in (ours, bundle)
        ]
    elif name == "encoder":
        calls = [lambda i, m=models: m.encode(pictures[i : i + 1]) for models in (ours, bundle)]
    else:
        calls = [lambda i, m=models: m.decode(latents[i : i + 1]) for models in (ours, bundle)]
    times: list[list[float]] = [[], []]
    outputs: list[list[Any]] = [[], []]
    for index in range(-2, len(pictures)):
        for which, call in enumerate(calls):
            started = time.perf_counter()
            made = call(max(index, 0))
            if index >= 0:
                times[which].append(time.perf_counter() - started)
                outputs[which].append(made)
    found, wanted = (np.concatenate(made) for made in outputs)
    facts: dict[str, Any] = {
        "times_torch": round(statistics.median(times[0]) / statistics.median(times[1]), 2)
    }
    if name == "decoder":
        facts["largest_difference_levels"] = int(np.abs(found.astype(int) - wanted).max())
        facts["psnr_db"] = mean_psnr_db(found, pictures)
        facts["psnr_db_of_torch"] = mean_psnr_db(wanted, pictures)
    else:
        error = found - wanted
        facts["largest_difference"] = float(f"{np.abs(error).max():.2g}")
        facts["noise_power"] = float(f"{np.mean(error**2):.2g}")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=BUNDLE, help="the folder of the weights")
    arguments = parser.parse_args()
    bundle, pictures = Bundle(arguments.out), draw(HELD_OUT)
    content: dict[str, Any] = {"preview": fit_preview(bundle, pictures), "models": {}}
    for name in EXPORTED:
        weights = {"file": f"{name}.safetensors", "sha256": bundle.card(name)["sha256"]}
        graphs: dict[str, Any] = {}
        content["models"][name] = {
            "inputs": EXPORTED[name], "output": OUTPUTS[name], **count(bundle, name),
            "weights": weights, "graphs": graphs,
        }  # fmt: skip
        for precision in get_args(Precision):
            fitted = calibrate(bundle, name) if precision == "int8" else None
            path = arguments.out / graph_name(name, precision)
            path.write_bytes(export(bundle, name, precision, calibration=fitted))
            graphs[precision] = describe_graph(path)
            write_manifest(arguments.out, content)
            ours = OnnxModels(arguments.out, precision=precision)
            graphs[precision] |= measure(bundle, ours, name, pictures)
            print(name, precision, graphs[precision], flush=True)
    write_manifest(arguments.out, content)


if __name__ == "__main__":
    main()
