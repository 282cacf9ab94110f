"""Commands about megdt itself: its models, mechanisms and studies, and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import (
    CodecOption,
    JsonOption,
    ModelOption,
    RateOption,
    ScenarioOption,
    SetOption,
    place_of,
    read_scenario,
)
from megdt.cli.output import print_json, progress_bar, write_text


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(help="A folder of studies/, such as fig6.", show_default=False)
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Small numbers, in half a minute.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results, figures and report. (default: NAME-study or NAME-quick here)",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Run a study of the source tree: results.json, figures, and report.html with all of it."""
    from megdt.pictures import free_name
    from megdt.study import find_study, run_study

    folder = find_study(name)
    target = out if out is not None else free_name(Path(f"{name}-{'quick' if quick else 'study'}"))
    with progress_bar() as progress:
        report = run_study(
            folder,
            target,
            quick=quick,
            model=None if model is None else place_of(model),
            progress=progress,
            say=lambda line: typer.echo(line, err=True) if progress is None else None,
        )
    typer.echo(f"results: {target / 'results.json'}")
    typer.echo(f"report:  {report}")


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the models of the bundle: what they do, how they were trained, what they measure."""
    from megdt import report
    from megdt.models.bundle import Bundle

    bundle = Bundle()
    cards = report.read_cards(bundle)
    if as_json:
        print_json({"bundle_sha256": bundle.checksum, "models": cards})
    else:
        report.print_models(cards, bundle.checksum)


mechanisms_app = typer.Typer(help="List the mechanisms, or draw one.")
app.add_typer(mechanisms_app, name="mechanisms")


@mechanisms_app.callback(invoke_without_command=True)
def _list_mechanisms(context: typer.Context) -> None:
    """What runs where: list the mechanisms, or draw one with `show`."""
    if context.invoked_subcommand is None:
        from megdt import report

        report.print_mechanisms()


@mechanisms_app.command("show")
def show_mechanism(
    name: Annotated[str, typer.Argument(help="Such as es_to_ue.", show_default=False)],
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Run it once, and label it with bits, channel uses and simulated time."
        ),
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option(help="Also write the drawing as an SVG file.", show_default=False),
    ] = None,
    model: ModelOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
) -> None:
    """Draw a mechanism: sides as lanes, what crosses as arrows with its codec."""
    from megdt import diagram, trial

    wanted = read_scenario(
        scenario,
        settings,
        request={},
        plan={"mechanism": name},
        defaults={"request": {"prompt": "a field of red poppies at sunset"}},
        model=model,
        codec=codec,
        rate=rate,
        link={},
    )
    ledger = None
    if run:
        wanted, result = trial.demonstrate(wanted, wanted.model.load())
        ledger = result.ledger
    mechanism = wanted.mechanism
    typer.echo(f"{mechanism.name}: {mechanism.about}\n")
    typer.echo(diagram.as_text(mechanism, wanted.plan.codecs, ledger))
    if ledger is not None:
        typer.echo(f"\n{ledger.duration_s:.2f} s, {ledger.energy_j:.2f} J")
    if svg is not None:
        write_text(svg, diagram.as_svg(mechanism, wanted.plan.codecs, ledger), "--svg")
        typer.echo(f"drawing: {svg}", err=True)


@app.command()
def profile(
    base: Annotated[
        str,
        typer.Option(help="Device whose radio is taken, and whose power where none is measured."),
    ] = "phone",
    name: Annotated[str, typer.Option(help="What to call this machine.")] = "this_machine",
    out: Annotated[
        Path | None,
        typer.Option(help="TOML file to write. (default: print it)", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine as a device that scenarios can name."""
    import tomllib
    from datetime import date

    from megdt.models.bundle import Bundle
    from megdt.profiling import measure_profile

    text = measure_profile(Bundle(), name=name, date=date.today().isoformat(), base=base)
    if out is not None:
        write_text(out, text, "--out")
    if as_json:
        print_json({"file": str(out) if out is not None else None, "profile": tomllib.loads(text)})
    else:
        typer.echo(out if out is not None else text, nl=out is not None)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, and the command that installs it."""
    from dataclasses import asdict

    from megdt.doctor import examine

    findings = examine()
    healthy = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print_json({"healthy": healthy, "parts": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.part) for finding in findings)
        for finding in findings:
            mark = "ok  " if finding.ok else "MISS" if finding.needed else "opt "
            todo = "" if finding.ok else f"   to install: {finding.fix}"
            typer.echo(f"{mark} {finding.part:{width}}  {finding.found}{todo}")
    if not healthy:
        raise typer.Exit(1)
