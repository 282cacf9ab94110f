"""Commands about one picture: draw, send, receive and recall it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import (
    FILES,
    BandwidthOption,
    BaselineOption,
    CarrierOption,
    ChannelOption,
    CodecOption,
    CodingOption,
    CompareOption,
    JsonOption,
    ModelOption,
    PowerOption,
    RateOption,
    ScenarioOption,
    SeedOption,
    SetOption,
    SizeOption,
    SnrOption,
    SpeedOption,
    given_model,
    read_scenario,
)
from megdt.cli.output import print_json, progress_bar
from megdt.errors import RequestError

if TYPE_CHECKING:
    from megdt.scenario import Scenario
    from megdt.trial import Trial


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What to draw, in your own words.", show_default=False)
    ] = None,
    model: ModelOption = None,
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
            help="es_to_ue; sketch_first to see something early; centralized or prompt_only for a baseline. (default: es_to_ue)"
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
            rich_help_panel=FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw PROMPT: the ES embeds and denoises, the seed crosses the air, the UE decodes."""
    from megdt import report, trial
    from megdt.pictures import check_writable, name_picture, save_picture

    wanted = read_scenario(
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
        model=model,
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
    trial.check_drawable(wanted)
    trial.check_comparable(wanted, baseline)
    path = out if out is not None else name_picture(wanted.request.prompt, Path.cwd())
    figure_path = path.with_name(f"{path.stem}-compare.png") if compare else None
    for target in (path, figure_path, *_beside(path, wanted).values()):
        if target is not None:
            check_writable(target)

    models = wanted.model.load()
    if wanted.model.name is None:
        _note_words(wanted.request.prompt)
    data = report.recall_data(wanted, models)
    with progress_bar() as progress:
        outcome = trial.generate(wanted, models, baseline=baseline, progress=progress)
    if outcome.result.image is not None:
        save_picture(path, outcome.result.image, data)
    _finish(outcome, path, figure_path, as_json=as_json)


@app.command()
def transmit(
    picture: Annotated[
        Path, typer.Argument(help="Any picture that Pillow reads.", show_default=False)
    ],
    model: ModelOption = None,
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
            rich_help_panel=FILES,
        ),
    ] = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the PNG goes. (default: named after the picture)",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send PICTURE as its latent: the UE encodes, the seed crosses the air, the ES decodes.

    The middle square of the picture is taken, at --size.
    """
    from megdt import trial
    from megdt.pictures import check_writable, free_name, read_picture, save_picture

    wanted = read_scenario(
        scenario,
        settings,
        request={"prompt": picture.name, "size_px": size, "rng_seed": rng_seed},
        plan={"mode": mode},
        # What is sent need not be a garden, which is all that the denoiser could draw anew.
        defaults={"plan": {"mechanism": "ue_to_es", "restore": False}},
        model=model,
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
    models = wanted.model.load()
    if record is not None:
        written = trial.record(wanted, pixels, models, record)
        if as_json:
            print_json(written)
        else:
            typer.echo(
                f"recording: {record}, {written['slots']} slots at "
                f"{written['sample_rate_hz'] / 1e6:g} Msample/s; megdt receive {record}"
            )
        return
    for target in (path, figure_path, *_beside(path, wanted).values()):
        if target is not None:
            check_writable(target)
    outcome = trial.transmit(wanted, pixels, models, baseline=baseline)
    if outcome.result.image is not None:
        save_picture(path, outcome.result.image)
    _finish(outcome, path, figure_path, as_json=as_json)


@app.command()
def receive(
    recording: Annotated[
        Path, typer.Argument(help="A SigMF recording: NAME.sigmf-meta.", show_default=False)
    ],
    model: ModelOption = None,
    settings: SetOption = None,
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
    from megdt.pictures import check_writable, free_name, save_picture

    path = out if out is not None else free_name(Path(f"{recording.stem}-received.png"))
    check_writable(path)
    outcome, image = trial.receive(recording, given_model(model, settings))
    if image is not None:
        save_picture(path, image)
    if as_json:
        print_json({"outcome": outcome, "file": str(path) if image is not None else None})
    else:
        typer.echo(f"picture: {path}" if image is not None else f"{outcome}: no picture")
    if image is None:
        raise typer.Exit(1)


@app.command()
def recall(
    picture: Annotated[
        Path, typer.Argument(help="A PNG that megdt generate wrote.", show_default=False)
    ],
    model: ModelOption = None,
    settings: SetOption = None,
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
    from megdt.pictures import check_writable, read_recall, save_picture

    pixels, made = read_recall(picture)
    wanted, models = report.recalled_scenario(made, picture, given_model(model, settings))
    path = out if out is not None else picture.with_name(f"{picture.stem}-recalled.png")
    check_writable(path)
    data = report.recall_data(wanted, models)
    with progress_bar() as progress:
        outcome = trial.generate(wanted, models, baseline=None, progress=progress)
    image = outcome.result.image
    if image is None:
        typer.echo(f"{picture}: its seed was {outcome.outcome} this time, no picture", err=True)
        raise typer.Exit(1)
    save_picture(path, image, data)
    same = image.shape == pixels.shape and bool((image == pixels).all())
    if as_json:
        print_json({"file": str(path), "identical": same})
    elif same:
        typer.echo(f"{path}: identical to {picture}, bit for bit")
    else:
        typer.echo(f"{path}: differs from {picture}: {report.explain_difference(made, data)}")
    if not same:
        raise typer.Exit(1)


def _note_words(prompt: str) -> None:
    """Say what of a prompt the bundle does not read."""
    from megdt.models.text_encoder import MAX_WORDS, split_words

    count = len(split_words(prompt, limit=None))
    if count == 0:
        typer.echo("note: the prompt has no word in Latin letters; any meadow may come", err=True)
    elif count > MAX_WORDS:
        typer.echo(f"note: the first {MAX_WORDS} of {count} words are read", err=True)


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
        print_json({**report.as_json(outcome, shown, figure_path), "beside": beside})
    else:
        report.print_summary(outcome, shown, figure_path)
    if not there:
        raise typer.Exit(1)
