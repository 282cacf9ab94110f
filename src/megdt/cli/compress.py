"""The command that makes a UE's sub-models smaller."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import JsonOption
from megdt.cli.output import print_json, progress_bar


@app.command()
def compress(
    part: Annotated[
        str | None,
        typer.Argument(
            help="Of what a UE runs: decoder, encoder or student. (default: all of them)",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--for", help="Device that is to run it, or a profile's path.")
    ] = "phone",
    max_memory_mb: Annotated[
        float, typer.Option(help="That one call may add to a process, weights and all.")
    ] = 200.0,
    max_latency_s: Annotated[
        float, typer.Option(help="Of one call on the device, by its profile.")
    ] = 0.5,
    size: Annotated[int, typer.Option("--size", help="Of the pictures that both are of.")] = 512,
    method: Annotated[
        str | None,
        typer.Option(
            help="none, prune, low_rank, student or elastic. (default: the first that fits)",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="To teach what is not taken as it is.")] = 5.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="To teach, instead of minutes: the same machine comes to the same model again.",
            min=1,
            show_default=False,
        ),
    ] = None,
    rng_seed: Annotated[int, typer.Option(help="Draws what it is taught.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write, or to add to. (default: DEVICE-models here)"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make what a UE runs small enough for its device: ONNX, manifest and card, for --model.

    Of each sub-model the recipe that keeps most of the picture within both limits is taken: as it is in float16
    or int8, pruned, decomposed, or a smaller one taught by it.
    """
    from megdt.compression.compressor import Compressor
    from megdt.compression.recipes import check_method, parts_of
    from megdt.link.energy import load_profile

    profile = load_profile(device)
    chosen = None if method is None else check_method(method)
    folder = out if out is not None else Path(f"{profile.name}-models")
    cards = {}
    with progress_bar() as progress:
        for name in (part,) if part is not None else parts_of(chosen):
            maker = Compressor(name, device=profile, size_px=size, rng_seed=rng_seed)
            estimate = maker.choose(
                max_memory_mb=max_memory_mb, max_latency_s=max_latency_s, method=chosen
            )
            typer.echo(f"{name}: {estimate.recipe}", err=True)
            told = None if progress is None else partial(progress, name)
            cards[name] = maker.write(estimate, folder, minutes=minutes, steps=steps, progress=told)
    if as_json:
        print_json({"folder": str(folder), "parts": cards})
        return
    for name, card in cards.items():
        quality = card["quality"]
        was = (
            f" (was {quality['psnr_db_of_teacher']:.2f})" if "psnr_db_of_teacher" in quality else ""
        )
        typer.echo(
            f"{name}, {card['recipe']}: {card['megabytes']:.2f} MB (was {card['megabytes_of_teacher']:.2f}), "
            f"{1000 * card['latency_s'][profile.name]:.2g} ms on {profile.name}, {card['memory_mb']:.0f} MB of "
            f"memory, {quality['psnr_db']:.2f} dB{was}"
        )
    typer.echo(f"folder: {folder}")
