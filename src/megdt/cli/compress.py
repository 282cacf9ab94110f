"""The command that makes a UE's sub-models smaller."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megdt.cli.app import app
from megdt.cli.options import JsonOption
from megdt.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from megdt.compression.compressor import Compressor, Estimate


@app.command()
def compress(
    part: Annotated[
        str | None,
        typer.Argument(
            help="decoder, encoder or student: what a UE runs. (default: all of them)",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--for", help="Device that is to run it, or a profile's path.")
    ] = "phone",
    max_memory_mb: Annotated[
        float | None,
        typer.Option(
            help="Memory that a model may add to a process, weights and all. (default: no limit)",
            show_default=False,
        ),
    ] = None,
    max_latency_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds that one call may take on the device, by its profile. (default: no limit)",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", help="Height and width of the pictures, for both limits.")
    ] = 512,
    method: Annotated[
        str | None,
        typer.Option(
            help="none, prune, low_rank, distill or elastic. (default: whichever fits and keeps most)",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="int8, fp16 or fp32. (default: int8)", show_default=False),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Training of each model that is not taken as it is.")
    ] = 5.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Training steps instead of minutes: the same machine comes to the same model again.",
            min=1,
            show_default=False,
        ),
    ] = None,
    rng_seed: Annotated[int, typer.Option(help="Draws what is learnt from.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write, or to add to. (default: DEVICE-models here)",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make what a UE runs small enough for its device: a folder for --model.

    Of each sub-model the recipe is taken that keeps most of the picture
    within the limits: as it is in int8, pruned, decomposed, or a smaller one
    trained on what it makes. The folder holds ONNX files, a manifest, and a
    page on what each costs and saves.
    """
    from megdt.compression.compressor import Compressor
    from megdt.compression.folder import check_folder
    from megdt.compression.recipes import check_method, parts_of
    from megdt.errors import RequestError
    from megdt.link.energy import load_profile
    from megdt.models.cards import Cards
    from megdt.models.onnx_models import check_precision

    profile = load_profile(device)
    chosen = None if method is None else check_method(method)
    computed = None if precision is None else check_precision(precision)
    if not 0 < minutes < math.inf:
        raise RequestError(f"--minutes is {minutes:g}, training takes a number above 0")
    named = re.sub(r"[^\w.-]+", "-", profile.name).strip(".-")
    folder = out if out is not None else Path(f"{named}-models")
    check_folder(folder, Cards().checksum)
    plan: list[tuple[str, Compressor, Estimate]] = []
    for name in (part,) if part is not None else parts_of(chosen):
        maker = Compressor(name, device=profile, size_px=size, rng_seed=rng_seed)
        found = maker.choose(
            max_memory_mb=max_memory_mb, max_latency_s=max_latency_s, method=chosen,
            precision=computed,
        )  # fmt: skip
        typer.echo(f"{name}: {found.recipe}", err=True)
        plan.append((name, maker, found))
    cards = {}
    with progress_bar() as progress:
        for name, maker, found in plan:
            told = None if progress is None else partial(progress, name)
            cards[name] = maker.write(found, folder, minutes=minutes, steps=steps, progress=told)
    if as_json:
        print_json({"folder": str(folder), "parts": cards})
        return
    for name, card in cards.items():
        typer.echo(_describe(name, card, profile.name))
    typer.echo(f"use it: megdt generate PROMPT --model {folder}")


def _describe(name: str, card: dict[str, Any], device: str) -> str:
    quality = card["quality"]
    was = quality.get("psnr_db_of_teacher")
    shown = f"{quality['psnr_db']:.2f} dB" + (
        " from what the whole one finishes" if was is None else f" (was {was:.2f})"
    )
    return (
        f"{name}, {card['recipe']}: {card['megabytes']:.2f} MB (was {card['megabytes_of_teacher']:.2f}), "
        f"{1000 * card['latency_s'][device]:.2g} ms on {device} "
        f"(was {1000 * card['latency_s'][device] * card['gigaflops_of_teacher'] / card['gigaflops']:.2g}), "
        f"{card['memory_mb']:.0f} MB of memory (was {card['memory_mb_of_teacher']:.0f}), {shown}"
    )
