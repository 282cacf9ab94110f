"""The command line: each command parses, calls, prints. Data on stdout, everything else on stderr.

Exit codes: 0 done, 1 a check failed (recall differs, doctor found something missing), 2 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megdt.errors import MegdtError

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StageProgress

# Heavy modules are imported inside the commands, so that --help is instant.

app = typer.Typer(
    name="megdt",
    help="Generative AI split between an edge server and user equipments.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from megdt import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What to draw, in your own words.", show_default=False)
    ] = None,
    snr_db: Annotated[
        float | None, typer.Option(help="Signal-to-noise ratio of the link. (default: 10)")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Height and width in pixels, such as 256, 512 or 1024. (default: 256)"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 24)")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strongly the prompt leads; 1 is as trained. (default: 2.5)"),
    ] = None,
    rng_seed: Annotated[
        int | None, typer.Option(help="Another number, another picture. (default: 0)")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="How the seed crosses: float32, float16, int8 or analog. (default: int8, in paper mode analog)"
        ),
    ] = None,
    mechanism: Annotated[
        str | None,
        typer.Option(help="es_to_ue, or centralized for the baseline. (default: es_to_ue)"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="fair (complex baseband, Es/N0) or paper (the paper's Fig. 6). (default: fair)"
        ),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(help="TOML file with tables request, plan, codecs, link.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Override one key, such as link.bandwidth_hz=5e6. May be repeated.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also write a figure: error-free, split and centralized at the same SNR.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the PNG goes. (default: named after the prompt)", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw PROMPT: the ES embeds and denoises, the seed crosses the air, the UE decodes."""
    from megdt import report
    from megdt.pictures import check_writable, name_picture, save_picture
    from megdt.scenario import load_scenario, override, parse_scenario

    tables = load_scenario(scenario) if scenario is not None else {}
    tables = override(tables, settings or [])
    options: dict[str, dict[str, Any]] = {
        "request": {
            "prompt": prompt,
            "size_px": size,
            "steps": steps,
            "guidance_scale": guidance,
            "rng_seed": rng_seed,
        },
        "plan": {"mechanism": mechanism, "mode": mode},
        "codecs": {"seed": codec},
        "link": {"snr_db": snr_db},
    }
    for table, values in options.items():
        given = {key: value for key, value in values.items() if value is not None}
        tables[table] = {**tables.get(table, {}), **given}
    source = str(scenario) if scenario is not None else "command line"
    wanted = parse_scenario(tables, source=source)
    if compare:
        report.check_comparable(wanted)
    path = out if out is not None else name_picture(wanted.request.prompt, Path.cwd())
    figure_path = path.with_name(f"{path.stem}-compare.png") if compare else None
    for target in (path, figure_path):
        if target is not None:
            check_writable(target)

    from megdt.models.bundle import Bundle
    from megdt.models.text_encoder import MAX_WORDS, split_words

    count = len(split_words(wanted.request.prompt, limit=None))
    if count == 0:
        typer.echo("note: the prompt has no word in Latin letters; any meadow may come", err=True)
    elif count > MAX_WORDS:
        typer.echo(f"note: the first {MAX_WORDS} of {count} words are read", err=True)
    bundle = Bundle()
    data = report.recall_data(wanted, bundle)
    with _progress_bar() as progress:
        outcome = report.generate(wanted, bundle, compare=compare, progress=progress)
    figure = report.draw_figure(outcome) if compare else None
    save_picture(path, outcome.result.image, data)
    if figure is not None and figure_path is not None:
        save_picture(figure_path, figure)
    if as_json:
        _print_json(report.as_json(outcome, path, figure_path))
    else:
        report.print_summary(outcome, path, figure_path)


@app.command()
def recall(
    picture: Annotated[
        Path, typer.Argument(help="A PNG that megdt generate wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the new PNG goes. (default: beside the first)", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the same picture again from the data inside PICTURE, and say whether it is the same."""
    from megdt import report
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, read_recall, save_picture

    pixels, made = read_recall(picture)
    bundle = Bundle()
    wanted = report.recalled_scenario(made, bundle, picture)
    path = out if out is not None else picture.with_name(f"{picture.stem}-recalled.png")
    check_writable(path)
    data = report.recall_data(wanted, bundle)
    with _progress_bar() as progress:
        image = report.generate(wanted, bundle, compare=False, progress=progress).result.image
    save_picture(path, image, data)
    same = image.shape == pixels.shape and bool((image == pixels).all())
    if as_json:
        _print_json({"file": str(path), "identical": same})
    elif same:
        typer.echo(f"{path}: identical to {picture}, bit for bit")
    else:
        typer.echo(f"{path}: differs from {picture}: {report.explain_difference(made, data)}")
    if not same:
        raise typer.Exit(1)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the models of the bundle: what they do, how they were trained, what they measure."""
    from megdt import report
    from megdt.models.bundle import Bundle

    bundle = Bundle()
    cards = report.read_cards(bundle)
    if as_json:
        _print_json({"bundle_sha256": bundle.checksum, "models": cards})
    else:
        report.print_models(cards, bundle.checksum)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, and the command that installs it."""
    from dataclasses import asdict

    from megdt.doctor import examine

    findings = examine()
    healthy = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        _print_json({"healthy": healthy, "parts": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.part) for finding in findings)
        for finding in findings:
            mark = "ok  " if finding.ok else "MISS" if finding.needed else "opt "
            todo = "" if finding.ok else f"   to install: {finding.fix}"
            typer.echo(f"{mark} {finding.part:{width}}  {finding.found}{todo}")
    if not healthy:
        raise typer.Exit(1)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


@contextmanager
def _progress_bar() -> Iterator[StageProgress | None]:
    """A progress bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield tell


def main() -> None:
    """Run the command line; every error on purpose becomes one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message())
    except MegdtError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)
