"""What the commands print: a generation judged, its JSON object, tables, and the recall data."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from megdt import __version__
from megdt.errors import BundleError, OutputError, RequestError
from megdt.link.channels import capacity_bits
from megdt.pictures import draw_comparison
from megdt.records import Ledger, Result
from megdt.scenario import MECHANISMS, Scenario, parse_scenario

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StageProgress
    from megdt.models.bundle import Bundle

BASELINE = "centralized"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A generation with what it is judged against."""

    scenario: Scenario
    result: Result
    error_free: NDArray[np.uint8]
    """The picture had the air done nothing. [height, width, 3]"""
    psnr_db: float
    baseline: Outcome | None = None
    """The centralized generation at the same SNR, when a comparison was asked for."""


def check_comparable(scenario: Scenario) -> None:
    """See that a comparison with the baseline makes sense, before anything long is started.

    Raises:
        RequestError: If the scenario is the baseline itself.
    """
    if scenario.plan.mechanism == BASELINE:
        raise RequestError(
            f"mechanism is {BASELINE}, which is what --compare compares with; leave one of them out"
        )


def generate(
    scenario: Scenario, bundle: Bundle, *, compare: bool, progress: StageProgress | None
) -> Outcome:
    """Run a scenario, judge it against the error-free picture and, if asked, the baseline."""
    from megdt.models.bundle import GENERATING

    bundle.load(*GENERATING)  # no stage is charged for reading files
    result = scenario.run(bundle, progress=progress)
    outcome = _judge(scenario, result, _error_free(result, bundle))
    if not compare:
        return outcome
    plan = replace(scenario.plan, mechanism=BASELINE)
    if plan.codecs["image"] == "webp":
        # Equal channel uses: WebP may spend what the seed and its side information took.
        budget = seed_uses(result.ledger) * capacity_bits(scenario.link.snr_db)
        plan = replace(plan, image_bits=int(budget))
    other = replace(scenario, plan=plan)
    baseline = other.run(bundle, done=result.part(_shared_stages(scenario)))
    return replace(outcome, baseline=_judge(other, baseline, outcome.error_free))


def seed_uses(ledger: Ledger) -> int:
    """Channel uses of all that crossed but the prompt, which every scheme sends alike."""
    return sum(c.channel_uses for c in ledger.crossings if c.kind != "prompt")


def _shared_stages(scenario: Scenario) -> set[str]:
    """Stages that the mechanism and the baseline run alike, on the same side."""
    ours, theirs = (MECHANISMS[name].stages for name in (scenario.plan.mechanism, BASELINE))
    return {stage.name for stage in ours if stage in theirs}


def _latent(result: Result) -> NDArray[np.float32]:
    """The last latent that was made."""
    latents = [f.values for f in result.features.values() if f.kind == "seed"]
    latent: NDArray[np.float32] = latents[-1]
    return latent


def _error_free(result: Result, bundle: Bundle) -> NDArray[np.uint8]:
    """The picture of the same latent, decoded where it was made."""
    image: NDArray[np.uint8] = bundle.decode(_latent(result)[None])[0]
    return image


def _judge(scenario: Scenario, result: Result, error_free: NDArray[np.uint8]) -> Outcome:
    from megdt.models.quality import psnr_db

    quality = psnr_db(result.image, error_free)
    return Outcome(scenario=scenario, result=result, error_free=error_free, psnr_db=quality)


def as_json(outcome: Outcome, path: Path, figure: Path | None) -> dict[str, Any]:
    """One JSON object of everything measured; a PSNR without any error is null."""
    found = {
        "file": str(path),
        "figure": str(figure) if figure is not None else None,
        "latent_shape": list(_latent(outcome.result).shape),
        **_measures(outcome),
        "scenario": outcome.scenario.table(),
    }
    if outcome.baseline is not None:
        found[BASELINE] = _measures(outcome.baseline)
    return found


def _measures(outcome: Outcome) -> dict[str, Any]:
    ledger = outcome.result.ledger
    return {
        "bits": ledger.bits,
        "channel_uses": ledger.channel_uses,
        "airtime_s": ledger.airtime_s,
        "energy_j": ledger.energy_j,
        "compute_s": ledger.compute_s(),
        "psnr_db": outcome.psnr_db if np.isfinite(outcome.psnr_db) else None,
        "ledger": {
            "crossings": [asdict(c) | {"paper_bits": c.paper_bits} for c in ledger.crossings],
            "computations": [asdict(c) for c in ledger.computations],
        },
    }


def print_summary(outcome: Outcome, path: Path, figure: Path | None) -> None:
    """A table of what crossed and what was computed, then where the picture is."""
    ledger, plan = outcome.result.ledger, outcome.scenario.plan
    sent = _table("crossing", "codec", "bits", "channel uses", "airtime", "radiated")
    for c in ledger.crossings:
        sent.add_row(
            f"{c.kind}: {c.from_side} to {c.to_side}",
            plan.codecs[c.kind],
            f"{c.bits:,}",
            f"{c.channel_uses:,}",
            f"{c.airtime_s * 1000:.1f} ms",
            f"{c.energy_j * 1000:.2f} mJ",
        )
    done = _table("stage", "side", "seconds", "energy")
    for line in ledger.computations:
        name = line.stage if line.task == "run" else line.task
        done.add_row(name, line.side, f"{line.seconds:.3f}", f"{line.energy_j:.2f} J")
    quality = f"{outcome.psnr_db:.1f} dB PSNR" if np.isfinite(outcome.psnr_db) else "no error"
    console = Console()
    for part in (
        sent,
        done,
        f"{outcome.scenario.link.snr_db:g} dB SNR in {plan.mode} mode: {quality}",
    ):
        console.print(part)
        console.print()
    # Plain print: a path must not be wrapped or coloured.
    print(f"picture: {path}")
    if figure is not None:
        print(f"figure:  {figure}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        left = column in ("crossing", "codec", "stage", "side", "part", "found", "to do")
        table.add_column(column, justify="left" if left else "right")
    return table


def draw_figure(outcome: Outcome) -> NDArray[np.uint8]:
    """Error-free, split and centralized side by side, each with its cost."""
    assert outcome.baseline is not None
    request, plan = outcome.scenario.request, outcome.scenario.plan
    names = {"webp": "WebP", "analog": "raw pixels"}
    image = outcome.baseline.scenario.plan.codecs["image"]
    return draw_comparison(
        f"“{request.prompt}”, {outcome.scenario.link.snr_db:g} dB SNR, {plan.mode} mode",
        (
            (outcome.error_free, "error-free", ("as the edge server would see it",)),
            (outcome.result.image, f"split: {plan.codecs['seed']} seed", _notes(outcome)),
            (
                outcome.baseline.result.image,
                f"centralized: {names.get(image, image)}",
                _notes(outcome.baseline),
            ),
        ),
    )


def _notes(outcome: Outcome) -> tuple[str, str]:
    sent = [c for c in outcome.result.ledger.crossings if c.kind != "prompt"]
    bits, airtime = sum(c.bits for c in sent), sum(c.airtime_s for c in sent)
    quality = f"PSNR {outcome.psnr_db:.1f} dB" if np.isfinite(outcome.psnr_db) else "no error"
    uses = f"{seed_uses(outcome.result.ledger):,} channel uses, {airtime * 1000:,.1f} ms"
    return f"{quality}, {bits / 1000:,.1f} kbit" if bits else quality, uses


def recall_data(scenario: Scenario, bundle: Bundle) -> dict[str, Any]:
    """What a picture carries so that it can be made again."""
    import torch

    return {
        "scenario": scenario.table(),
        "bundle_sha256": bundle.checksum,
        "versions": {
            "megdt": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def recalled_scenario(data: Mapping[str, Any], bundle: Bundle, picture: Path) -> Scenario:
    """The scenario in a picture's recall data.

    Raises:
        OutputError: If the data lacks a part.
        BundleError: If the picture was made with other models.
    """
    tables, versions = data.get("scenario"), data.get("versions")
    made_with = data.get("bundle_sha256")
    if not (isinstance(tables, dict) and isinstance(versions, dict) and isinstance(made_with, str)):
        raise OutputError(
            f"{picture} lacks scenario, versions or bundle_sha256 in its recall data; "
            "generate it again"
        )
    if made_with != bundle.checksum:
        raise BundleError(
            f"{picture} was made with bundle {made_with[:12]}, this installation has "
            f"{bundle.checksum[:12]}; install the megdt that made it: {versions.get('megdt')}"
        )
    return parse_scenario(tables, source=str(picture))


def explain_difference(made: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which versions or machine differ between two recall data, in words."""
    changed = [
        f"{k} {made['versions'].get(k)} then, {v} now"
        for k, v in now["versions"].items()
        if made["versions"].get(k) != v
    ]
    return "; ".join(changed) or "the same versions, so the processors or thread counts differ"


def read_cards(bundle: Bundle) -> list[dict[str, Any]]:
    """The bundle's cards with the sizes of their weights, each checked against its checksum."""
    from megdt.models.bundle import NAMES

    bundle.load(*NAMES)
    sizes = {name: (bundle.folder / f"{name}.safetensors").stat().st_size for name in NAMES}
    return [{**bundle.card(name), "bytes": sizes[name]} for name in NAMES]


def print_models(cards: list[dict[str, Any]], checksum: str) -> None:
    """What each model does, how it was trained, what it measures."""
    console = Console()
    for card in cards:
        console.print(f"[bold]{card['name']}[/bold]: {card['task']}")
        console.print(
            f"  {card['parameters'] / 1e6:.2f} M parameters, {card['bytes'] / 1e6:.1f} MB, "
            f"sha256 {card['sha256'][:12]} checked"
        )
        console.print(f"  data: {card['data']}")
        console.print(f"  {card['recipe']}, {card['steps']:,} steps in {card['seconds']:,} s")
        for name, value in card["metrics"].items():
            console.print(f"  {name.replace('_', ' ')}: {_plain(value)}")
        console.print()
    total = sum(card["bytes"] for card in cards) / 1e6
    console.print(f"bundle {checksum[:12]}, {total:.1f} MB in all")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
