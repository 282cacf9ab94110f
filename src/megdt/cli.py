"""The command line: each command parses, calls, prints. Data on stdout, everything else on stderr.

Exit codes: 0 done, 1 no picture came across or a check failed (recall differs, doctor found something
missing), 2 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megdt.errors import MegdtError, RequestError

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StageProgress
    from megdt.scenario import Scenario
    from megdt.trial import Trial

# Heavy modules are imported inside the commands, so that --help is instant.

app = typer.Typer(
    name="megdt",
    help="Generative AI split between an edge server and user equipments.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LINK, _FILES = "Link", "Scenario and output"

SnrOption = Annotated[
    float | None,
    typer.Option(
        "--snr-db", help="Mean Es/N0 per complex channel use. (default: 10)", rich_help_panel=_LINK
    ),
]
ChannelOption = Annotated[
    str | None,
    typer.Option(
        "--channel",
        help="awgn, rayleigh, rician, tdl-a to tdl-e, cdl-a to cdl-e, umi, uma, or trace:FILE. (default: awgn)",
        rich_help_panel=_LINK,
    ),
]
BandwidthOption = Annotated[
    float | None,
    typer.Option("--bandwidth-hz", help="Of the carrier. (default: 1e6)", rich_help_panel=_LINK),
]
CarrierOption = Annotated[
    float | None,
    typer.Option(
        "--carrier-frequency-hz",
        help="Gives Doppler shift and path loss. (default: 3.5e9)",
        rich_help_panel=_LINK,
    ),
]
PowerOption = Annotated[
    float | None,
    typer.Option(
        "--tx-power-dbm", help="Radiated while sending. (default: 23)", rich_help_panel=_LINK
    ),
]
SpeedOption = Annotated[
    float | None,
    typer.Option("--speed-m-s", help="Of the UE. (default: 1.5)", rich_help_panel=_LINK),
]
CodingOption = Annotated[
    str | None,
    typer.Option(
        "--coding",
        help="ldpc (bit-true), abstract (error rates) or ideal (capacity). (default: ldpc)",
        rich_help_panel=_LINK,
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Also send it as webp, avif, jxl, raw pixels or prompt alone, in the seed's channel uses. (default of --compare: webp, in paper mode raw)",
        show_default=False,
    ),
]
CompareOption = Annotated[
    bool,
    typer.Option(
        "--compare", help="Also write a figure: error-free, split and baseline side by side."
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        help="Height and width in pixels, such as 256, 512 or 1024. (default: 256)",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--rng-seed", help="Another number, other chances. (default: 0)")
]
CodecOption = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="How the feature crosses: seed (entropy-coded), sketch, jscc, hybrid; analog, int8, float16 or float32. (default: int8, in paper mode analog)",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help="Of seed and sketch in bits a pixel, of jscc and hybrid as a share of the analog seed's channel uses, 0.125 to 1. (default: 0.1, 0.03, 1)",
    ),
]
ScenarioOption = Annotated[
    Path | None,
    typer.Option(
        "--scenario",
        help="TOML file with tables request, plan, codecs, link, devices, video.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TABLE.KEY=VALUE",
        help="Override one key, such as link.csi=perfect. May be repeated.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_FILES),
]


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
    size: SizeOption = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 24)")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strongly the prompt leads; 1 is as trained. (default: 2.5)"),
    ] = None,
    rng_seed: SeedOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    mechanism: Annotated[
        str | None,
        typer.Option(
            help="es_to_ue; centralized or prompt_only for a baseline. (default: es_to_ue)"
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="fair (complex baseband, Es/N0) or paper (the paper's Fig. 6). (default: fair)"
        ),
    ] = None,
    compare: CompareOption = False,
    baseline: BaselineOption = None,
    snr_db: SnrOption = None,
    channel: ChannelOption = None,
    coding: CodingOption = None,
    bandwidth_hz: BandwidthOption = None,
    carrier_frequency_hz: CarrierOption = None,
    tx_power_dbm: PowerOption = None,
    speed_m_s: SpeedOption = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the PNG goes. (default: named after the prompt)",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw PROMPT: the ES embeds and denoises, the seed crosses the air, the UE decodes."""
    from megdt import report, trial
    from megdt.pictures import check_writable, name_picture, save_picture

    wanted = _read_scenario(
        scenario,
        settings,
        request={
            "prompt": prompt,
            "size_px": size,
            "steps": steps,
            "guidance_scale": guidance,
            "rng_seed": rng_seed,
        },
        plan={"mechanism": mechanism, "mode": mode},
        codec=codec,
        rate=rate,
        link={
            "snr_db": snr_db,
            "channel": channel,
            "coding": coding,
            "bandwidth_hz": bandwidth_hz,
            "carrier_frequency_hz": carrier_frequency_hz,
            "tx_power_dbm": tx_power_dbm,
            "speed_m_s": speed_m_s,
        },
    )
    if compare and baseline is None:
        baseline = "raw" if wanted.plan.mode == "paper" else "webp"
    trial.check_comparable(wanted, baseline)
    path = out if out is not None else name_picture(wanted.request.prompt, Path.cwd())
    figure_path = path.with_name(f"{path.stem}-compare.png") if compare else None
    for target in (path, figure_path, *_beside(path, wanted).values()):
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
        outcome = trial.generate(wanted, bundle, baseline=baseline, progress=progress)
    if outcome.result.image is not None:
        save_picture(path, outcome.result.image, data)
    _finish(outcome, path, figure_path, as_json=as_json)


@app.command()
def transmit(
    picture: Annotated[
        Path, typer.Argument(help="Any picture that Pillow reads.", show_default=False)
    ],
    size: SizeOption = None,
    rng_seed: SeedOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    mode: Annotated[str | None, typer.Option(help="fair or paper. (default: fair)")] = None,
    compare: CompareOption = False,
    baseline: BaselineOption = None,
    snr_db: SnrOption = None,
    channel: ChannelOption = None,
    coding: CodingOption = None,
    bandwidth_hz: BandwidthOption = None,
    carrier_frequency_hz: CarrierOption = None,
    tx_power_dbm: PowerOption = None,
    speed_m_s: SpeedOption = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Write the waveform as a SigMF recording NAME.sigmf-meta instead of sending it.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the PNG goes. (default: named after the picture)",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send PICTURE as its latent: the UE encodes, the seed crosses the air, the ES decodes.

    The middle square of the picture is taken, at --size.
    """
    from megdt import trial
    from megdt.pictures import check_writable, free_name, read_picture, save_picture

    wanted = _read_scenario(
        scenario,
        settings,
        request={"prompt": picture.name, "size_px": size, "rng_seed": rng_seed},
        plan={"mode": mode},
        # What is sent need not be a garden, which is all that the denoiser could draw anew.
        defaults={"plan": {"mechanism": "ue_to_es", "restore": False}},
        codec=codec,
        rate=rate,
        link={
            "snr_db": snr_db,
            "channel": channel,
            "coding": coding,
            "bandwidth_hz": bandwidth_hz,
            "carrier_frequency_hz": carrier_frequency_hz,
            "tx_power_dbm": tx_power_dbm,
            "speed_m_s": speed_m_s,
        },
    )
    trial.check_sendable(wanted)
    if record is not None and (compare or baseline or out or channel):
        raise RequestError(
            "--record only writes what would be sent; leave out --compare, --baseline, --out and "
            "--channel"
        )
    if compare and baseline is None:
        baseline = "raw" if wanted.plan.mode == "paper" else "webp"
    trial.check_comparable(wanted, baseline)
    pixels = read_picture(picture, wanted.request.size_px)
    path = out if out is not None else free_name(Path(f"{picture.stem}-received.png"))
    figure_path = path.with_name(f"{path.stem}-compare.png") if compare else None

    from megdt.models.bundle import Bundle

    if record is not None:
        written = trial.record(wanted, pixels, Bundle(), record)
        if as_json:
            _print_json(written)
        else:
            typer.echo(
                f"recording: {record}, {written['slots']} slots at "
                f"{written['sample_rate_hz'] / 1e6:g} Msample/s; megdt receive {record}"
            )
        return
    for target in (path, figure_path, *_beside(path, wanted).values()):
        if target is not None:
            check_writable(target)
    outcome = trial.transmit(wanted, pixels, Bundle(), baseline=baseline)
    if outcome.result.image is not None:
        save_picture(path, outcome.result.image)
    _finish(outcome, path, figure_path, as_json=as_json)


@app.command()
def receive(
    recording: Annotated[
        Path, typer.Argument(help="A SigMF recording: NAME.sigmf-meta.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the PNG goes. (default: named after the recording)", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode a RECORDING that megdt transmit --record wrote, wherever it has been since."""
    from megdt import trial
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, free_name, save_picture

    path = out if out is not None else free_name(Path(f"{recording.stem}-received.png"))
    check_writable(path)
    outcome, image = trial.receive(recording, Bundle())
    if image is not None:
        save_picture(path, image)
    if as_json:
        _print_json({"outcome": outcome, "file": str(path) if image is not None else None})
    else:
        typer.echo(f"picture: {path}" if image is not None else f"{outcome}: no picture")
    if image is None:
        raise typer.Exit(1)


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
    from megdt import report, trial
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, read_recall, save_picture

    pixels, made = read_recall(picture)
    bundle = Bundle()
    wanted = report.recalled_scenario(made, bundle, picture)
    path = out if out is not None else picture.with_name(f"{picture.stem}-recalled.png")
    check_writable(path)
    data = report.recall_data(wanted, bundle)
    with _progress_bar() as progress:
        outcome = trial.generate(wanted, bundle, baseline=None, progress=progress)
    image = outcome.result.image
    if image is None:
        typer.echo(f"{picture}: its seed was {outcome.outcome} this time, no picture", err=True)
        raise typer.Exit(1)
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
) -> None:
    """Run a study of the source tree: results.json, figures, and report.html with all of it."""
    from megdt.pictures import free_name
    from megdt.study import find_study, run_study

    folder = find_study(name)
    target = out if out is not None else free_name(Path(f"{name}-{'quick' if quick else 'study'}"))
    with _progress_bar() as progress:
        report = run_study(
            folder,
            target,
            quick=quick,
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
        _print_json({"bundle_sha256": bundle.checksum, "models": cards})
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
    codec: CodecOption = None,
    rate: RateOption = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
) -> None:
    """Draw a mechanism: sides as lanes, what crosses as arrows with its codec."""
    from megdt import diagram, trial

    wanted = _read_scenario(
        scenario,
        settings,
        request={},
        plan={"mechanism": name},
        defaults={"request": {"prompt": "a field of red poppies at sunset"}},
        codec=codec,
        rate=rate,
        link={},
    )
    ledger = None
    if run:
        from megdt.models.bundle import Bundle

        ledger = trial.demonstrate(wanted, Bundle()).ledger
    mechanism = wanted.mechanism
    typer.echo(f"{mechanism.name}: {mechanism.about}\n")
    typer.echo(diagram.as_text(mechanism, wanted.plan.codecs, ledger))
    if ledger is not None:
        typer.echo(f"\n{ledger.duration_s:.2f} s, {ledger.energy_j:.2f} J")
    if svg is not None:
        _write_text(svg, diagram.as_svg(mechanism, wanted.plan.codecs, ledger), "--svg")
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
    """Measure this machine as a device, for the [devices] of a scenario."""
    import tomllib
    from datetime import date

    from megdt.models.bundle import Bundle
    from megdt.profiling import measure_profile

    text = measure_profile(Bundle(), name=name, date=date.today().isoformat(), base=base)
    if out is not None:
        _write_text(out, text, "--out")
    if as_json:
        _print_json({"file": str(out) if out is not None else None, "profile": tomllib.loads(text)})
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
        _print_json({"healthy": healthy, "parts": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.part) for finding in findings)
        for finding in findings:
            mark = "ok  " if finding.ok else "MISS" if finding.needed else "opt "
            todo = "" if finding.ok else f"   to install: {finding.fix}"
            typer.echo(f"{mark} {finding.part:{width}}  {finding.found}{todo}")
    if not healthy:
        raise typer.Exit(1)


def _read_scenario(
    path: Path | None,
    settings: list[str] | None,
    *,
    defaults: dict[str, dict[str, Any]] | None = None,
    codec: str | None = None,
    rate: float | None = None,
    **options: dict[str, Any],
) -> Scenario:
    """The scenario of defaults, a file, --set and options, the later ones first in weight."""
    from megdt.scenario import choose_codec, load_scenario, override, parse_scenario

    tables = load_scenario(path) if path is not None else {}
    for table, values in (defaults or {}).items():
        tables[table] = {**values, **tables.get(table, {})}
    tables = override(tables, settings or [])
    for table, values in options.items():
        given = {key: value for key, value in values.items() if value is not None}
        tables[table] = {**tables.get(table, {}), **given}
    source = str(path) if path is not None else "command line"
    tables = choose_codec(tables, codec, rate, source=source)
    return parse_scenario(tables, source=source)


def _beside(path: Path, scenario: Scenario) -> dict[str, Path]:
    """Where sketch and preview go, as far as the scenario's mechanism makes them."""
    made = {stage.name for stage in scenario.mechanism.stages}
    names = [name for name in ("sketch", "preview") if name in made]
    return {name: path.with_name(f"{path.stem}-{name}.png") for name in names}


def _finish(outcome: Trial, path: Path, figure_path: Path | None, *, as_json: bool) -> None:
    """Figure, account, and exit code 1 where no picture came across."""
    from megdt import report
    from megdt.pictures import save_picture

    if figure_path is not None:
        save_picture(figure_path, report.draw_figure(outcome))
    arrived = {name: feature for (name, _), feature in outcome.result.arrived.items()}
    made = {**outcome.result.features, **arrived}
    beside = {}
    for name, target in _beside(path, outcome.scenario).items():
        # A sketch is for people too: as it arrived, not the picture that it was taken of.
        if name in made and (name != "sketch" or name in arrived):
            save_picture(target, made[name].values)
            beside[name] = str(target)
            if not as_json:
                typer.echo(f"{name}: {target}")
    there = outcome.result.image is not None
    shown = path if there else None
    if as_json:
        _print_json({**report.as_json(outcome, shown, figure_path), "beside": beside})
    else:
        report.print_summary(outcome, shown, figure_path)
    if not there:
        raise typer.Exit(1)


def _write_text(path: Path, text: str, option: str) -> None:
    from megdt.errors import OutputError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror}); choose another place with {option}"
        ) from error


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
