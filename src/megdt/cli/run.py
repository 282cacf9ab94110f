"""The command that runs a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import (
    FILES,
    BandwidthOption,
    ChannelOption,
    CodecOption,
    CodingOption,
    JsonOption,
    ModelOption,
    RateOption,
    ScenarioOption,
    SeedOption,
    SetOption,
    SizeOption,
    SnrOption,
    read_scenario,
)
from megdt.cli.output import print_json, progress_bar


@app.command()
def run(
    task: Annotated[
        str | None,
        typer.Argument(help="Such as text-to-image; all are listed without.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(help="What is asked for.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="What the UE sees: any picture that Pillow reads. (default: a view of the garden)",
            show_default=False,
        ),
    ] = None,
    mechanism: Annotated[
        str | None,
        typer.Option(help="One that suits the task. (default: the first of them)"),
    ] = None,
    ues: Annotated[
        int | None, typer.Option(help="Cameras, where there are many. (default: 4)")
    ] = None,
    model: ModelOption = None,
    size: SizeOption = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 24)")] = None,
    rng_seed: SeedOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    snr_db: SnrOption = None,
    channel: ChannelOption = None,
    coding: CodingOption = None,
    bandwidth_hz: BandwidthOption = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where what is shown goes. (default: named after the task)",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run TASK by the mechanism that suits it, and say what is shown where, and when.

    Without a task, list them all.
    """
    from megdt import showing, tasks

    if task is None:
        showing.print_tasks()
        return
    chosen = tasks.find_task(task)
    wanted = read_scenario(
        scenario,
        settings,
        defaults=tasks.defaults(chosen),
        request={"prompt": prompt, "size_px": size, "steps": steps, "rng_seed": rng_seed},
        plan={"mechanism": mechanism},
        model=model,
        codec=codec,
        rate=rate,
        link={
            "snr_db": snr_db,
            "channel": channel,
            "coding": coding,
            "bandwidth_hz": bandwidth_hz,
        },
        world={"ues": ues},
    )
    tasks.check_suits(chosen, wanted.plan.mechanism)
    for note in tasks.list_unread(wanted, prompt=prompt is not None, ues=ues is not None):
        typer.echo(f"note: {note}", err=True)

    from megdt.pictures import free_name, read_picture

    pixels = None if picture is None else read_picture(picture, wanted.request.size_px)
    suffix = "webp" if tasks.is_video(wanted) else "png"
    path = out if out is not None else free_name(Path(f"{chosen.name}.{suffix}"))
    files = showing.name_files(wanted, path)
    with progress_bar() as progress:
        done = tasks.run_task(
            chosen, wanted, wanted.model.load(), picture=pixels, progress=progress
        )
    written = showing.save_shown(done, path, files)
    if as_json:
        print_json(showing.as_json(done, written))
    else:
        showing.print_done(done, written)
    if done.outcome != "delivered":
        raise typer.Exit(1)
