"""What making a UE's sub-models smaller costs the picture, and what it saves the UE.

python studies/compression/run.py [--quick] [--out results.json] [--work FOLDER]

Models that are made stay in the work folder, and a run that is started again goes on from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from megdt import __version__
from megdt.compression.compressor import Compressor
from megdt.compression.graph_cost import measure_graphs
from megdt.compression.recipes import RECIPES, Recipe
from megdt.link.energy import load_profile
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.manifest import Manifest

HERE = Path(__file__).parent


def list_recipes(settings: Mapping[str, Any], part: str) -> Iterator[Recipe]:
    """Every way of making a sub-model smaller, and the model as it is in each precision."""
    for precision in settings["precisions"]:
        yield Recipe(precision=precision)
    for recipe in RECIPES[part]:
        if recipe.method != "none":
            yield recipe


def make(maker: Compressor, recipe: Recipe, settings: Mapping[str, Any], work: Path) -> Path:
    """The folder of a recipe's model, made now or before."""
    folder = work / f"{maker.part} {recipe}".replace(" ", "-").replace(",", "")
    if not (folder / "README.md").is_file():
        for left in folder.glob("*"):
            left.unlink()
        maker.write(
            maker.estimate(recipe), folder,
            minutes=choose_minutes(settings["minutes"][maker.part], recipe),
        )  # fmt: skip
    return folder


def choose_minutes(minutes: Mapping[str, float], recipe: Recipe) -> float:
    """Those of the recipe itself, or of its method."""
    name = str(recipe).split(",")[0]
    return minutes.get(name, minutes.get(recipe.method, 0.0))


def share_time(maker: Compressor, folder: Path, repeats: int) -> float:
    """Of a call here, against the bundle's float32 graph: in turns, so that other work slows both."""
    told = Manifest(folder).model(maker.part)
    (precision,) = told["graphs"]
    graphs = (
        Manifest(folder).graph(maker.part, precision),
        Manifest(BUNDLE).graph(maker.part, "fp32"),
    )
    shapes = maker.shapes
    times = [[measure_graphs([path], shapes).seconds for path in graphs] for _ in range(repeats)]
    return statistics.median(ours / whole for ours, whole in times)


def tell(card: Mapping[str, Any], part: str, recipe: Recipe, devices: list[str]) -> dict[str, Any]:
    """A row of the results."""
    row: dict[str, Any] = {
        "part": part, "recipe": str(recipe), "method": recipe.method, "precision": recipe.precision,
        "megabytes": card["megabytes"], "size_share": card["megabytes"] / card["megabytes_of_teacher"],
        "flops_share": card["gigaflops"] / card["gigaflops_of_teacher"],
        "memory_mb": card["memory_mb"],
        **card["quality"], **{key: card["trained"][key] for key in ("steps", "seconds")},
    }  # fmt: skip
    for name in devices:
        device = load_profile(name)
        latency_s = device.compute_s(1e9 * card["gigaflops"])
        row[f"latency_ms_{name}"] = 1000 * latency_s
        row[f"energy_mj_{name}"] = 1000 * device.compute_j(latency_s)
    return row


def find_front(rows: list[dict[str, Any]]) -> list[str]:
    """Recipes that no other one beats in perceptual distance and operations and size at once."""
    told = [row for row in rows if "perceptual_distance" in row]

    def beats(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        keys = ("perceptual_distance", "flops_share", "megabytes")
        return all(a[k] <= b[k] for k in keys) and any(a[k] < b[k] for k in keys)

    return [row["recipe"] for row in told if not any(beats(other, row) for other in told)]


def list_claims(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    claims = []
    by = {(row["part"], row["recipe"]): row for row in rows}
    if (int8 := by.get(("decoder", "as it is, int8"))) is not None:
        lost = int8["psnr_db_of_teacher"] - int8["psnr_db"]
        met = int8["size_share"] <= 0.35 and int8["time_share_here"] <= 0.6 and lost < 0.5
        claims.append(
            {
                "claim": "An int8 decoder takes at most 0.35 of float32's size and 0.6 of its time on a CPU, and loses less than 0.5 dB (ours)",
                "verdict": "met" if met else "missed",
                "found": f"{int8['size_share']:.2f} of the size, {int8['time_share_here']:.2f} of the time, "
                f"{lost:.2f} dB",
            }
        )
    quarter = [r for r in rows if r["part"] == "decoder" and r["flops_share"] <= 0.25]
    if quarter and "perceptual_distance" in quarter[0]:
        best = min(quarter, key=lambda r: r["perceptual_distance"])
        worse = best["perceptual_distance"] / best["perceptual_distance_of_teacher"] - 1
        claims.append(
            {
                "claim": "A decoder of a quarter of the operations has a perceptual distance within 10 % of the whole one's (ours)",
                "verdict": "met" if worse <= 0.1 else "missed",
                "found": f"{best['recipe']}: {worse:+.0%} at {best['flops_share']:.2f} of the operations, "
                f"{best['psnr_db_of_teacher'] - best['psnr_db']:.2f} dB lost",
            }
        )
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--work", type=Path, help="where models are kept (default: nowhere)")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    settings |= quick if arguments.quick else {}
    bundle = Bundle()
    rows: list[dict[str, Any]] = []
    todo = [(part, r) for part in settings["parts"] for r in list_recipes(settings, part)]
    with tempfile.TemporaryDirectory() as nowhere:
        work = arguments.work or Path(nowhere)
        makers: dict[str, Compressor] = {}
        folders: list[Path] = []
        for number, (part, recipe) in enumerate(todo):
            if part not in makers:
                makers[part] = Compressor(
                    part, device=load_profile(settings["devices"][0]), bundle=bundle,
                    size_px=settings["size_px"], rng_seed=settings["rng_seed"],
                )  # fmt: skip
            folders.append(make(makers[part], recipe, settings, work))
            print(f"{number + 1}/{len(todo)} models", flush=True)
        # All at once, when nothing is trained any more.
        for (part, recipe), folder in zip(todo, folders, strict=True):
            card = Manifest(folder).model(part)["card"]
            share = share_time(makers[part], folder, settings["timed"])
            row = tell(card, part, recipe, settings["devices"])
            rows.append({**row, "time_share_here": share})
    results = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "figures": {"front": "What each way of making the decoder smaller costs and saves"},
        "models": rows,
        "front": {p: find_front([r for r in rows if r["part"] == p]) for p in settings["parts"]},
        "claims": list_claims(rows),
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
