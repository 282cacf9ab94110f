"""What the commands print: a trial as JSON object and tables, the models, and the recall data."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from megdt import __version__
from megdt.errors import BundleError, OutputError
from megdt.link.paper import PaperLink
from megdt.pictures import draw_comparison
from megdt.scenario import MECHANISMS, Scenario, parse_scenario
from megdt.scenario.settings import take_model
from megdt.trial import Trial, feature_uses

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StoredModels
    from megdt.models.bundle import Bundle
    from megdt.records import Ledger, Plan


def as_json(trial: Trial, path: Path | None, figure: Path | None) -> dict[str, Any]:
    """One JSON object of everything measured; a PSNR without any error is null."""
    found = {
        "file": str(path) if path is not None else None,
        "figure": str(figure) if figure is not None else None,
        **_measures(trial),
        "scenario": trial.scenario.table(),
    }
    latents = [f.values for f in trial.result.features.values() if f.kind == "seed"]
    if latents:
        found["latent_shape"] = list(latents[-1].shape)
    if trial.baseline is not None:
        found["baseline"] = _measures(trial.baseline) | {
            "mechanism": trial.baseline.scenario.plan.mechanism,
            "codecs": dict(trial.baseline.scenario.plan.codecs),
        }
    return found


def _measures(trial: Trial) -> dict[str, Any]:
    ledger = trial.result.ledger
    finite = trial.psnr_db is not None and np.isfinite(trial.psnr_db)
    return {
        "outcome": trial.outcome,
        "bits": ledger.bits,
        "channel_uses": ledger.channel_uses,
        "airtime_s": ledger.airtime_s,
        "duration_s": ledger.duration_s,
        "energy_j": ledger.energy_j,
        "idle_j": ledger.idle_j,
        "energy_by_side_j": {side: ledger.energy_of(side) for side in ledger.waiting_j},
        "compute_s": ledger.compute_s(),
        "psnr_db": trial.psnr_db if finite else None,
        "redrawn_from": _redrawn_from(trial),
        "whole": all(f.whole for f in trial.result.arrived.values()),
        "ledger": {
            "crossings": [
                asdict(c)
                | {
                    "channel_uses": c.channel_uses,
                    "paper_bits": c.paper_bits,
                    "radio_j": c.radio_j,
                }
                for c in ledger.crossings
            ],
            "computations": [asdict(c) for c in ledger.computations],
        },
    }


_TABLE_WIDTH = 92


def print_summary(trial: Trial, path: Path | None, figure: Path | None) -> None:
    """Tables of what crossed and what was computed, then where the picture is."""
    console = Console()
    console = Console(
        width=max(console.width, _TABLE_WIDTH)
    )  # a digit cut off is worse than a wrap
    for title, one in (("", trial), ("baseline", trial.baseline)):
        if one is not None:
            if title:
                console.print(f"[bold]{title}[/bold]")
            for part in (*_cost_tables(one.result.ledger, one.scenario.plan), _verdict(one)):
                console.print(part)
                console.print()
    # Plain print: a path must not be wrapped or coloured.
    if path is not None:
        print(f"picture: {path}")
    if figure is not None:
        print(f"figure:  {figure}")


def print_costs(ledger: Ledger, plan: Plan) -> None:
    """What crossed the air and what was computed."""
    for table in _cost_tables(ledger, plan):
        Console().print(table)


def _cost_tables(ledger: Ledger, plan: Plan) -> tuple[Table, Table]:
    sent = make_table(
        "sent", "codec", "bits", "uses", "extra", "blocks", "failed", "arrives", "radio"
    )
    for c in ledger.crossings:
        uses = c.uses
        sent.add_row(
            f"{c.kind} to {c.to_side}",
            plan.codecs[c.kind],
            f"{c.bits:,}",
            f"{uses.total:,}",
            f"{(uses.total - uses.data) / max(uses.total, 1):.0%}",
            str(c.blocks or "-"),
            str(c.failed_first if c.blocks else "-"),
            f"{c.latency_s * 1000:.1f} ms" if c.outcome == "delivered" else c.outcome,
            f"{c.radio_j * 1000:.1f} mJ",
        )
    done = make_table("stage", "side", "seconds", "energy")
    for line in ledger.computations:
        name = line.stage if line.task == "run" else line.task
        done.add_row(name, line.side, f"{line.seconds:.4f}", f"{line.energy_j:.3f} J")
    return sent, done


def _verdict(trial: Trial) -> str:
    """One line: over which link, and how it came out."""
    ledger = trial.result.ledger
    return (
        f"{describe_link(trial.scenario)}: {_quality(trial)}{_caution(trial)}; "
        f"{ledger.duration_s:.2f} s, {ledger.energy_j:.2f} J ({ledger.idle_j:.2f} idle)"
    )


def _quality(trial: Trial) -> str:
    if trial.psnr_db is None:
        return {"late": "too late, no picture"}.get(trial.outcome, "lost, no picture")
    return f"PSNR {trial.psnr_db:.1f} dB" if np.isfinite(trial.psnr_db) else "no error"


_INVENTED_FROM = 0.55
"""Noise level above which species and colours are often not those that were sent (studies/fig6)."""


def _caution(trial: Trial) -> str:
    """What of the picture is not as it was sent, in words; empty where nothing is."""
    came = trial.result.arrived.values()
    level = _redrawn_from(trial)
    words = []
    if level:
        words.append(f"drawn anew from noise level {level:.2f}")
        if level > _INVENTED_FROM:
            words.append("what it shows may be invented")
    if not all(f.whole for f in came):
        words.append("from the start of a packet, without its checksum")
    return "".join(f", {w}" for w in words)


def _redrawn_from(trial: Trial) -> float:
    """The highest noise level from which a codec or a stage has denoised what the air had changed."""
    there = (*trial.result.arrived.values(), *trial.result.features.values())
    return max((f.redrawn_from for f in there), default=0.0)


def describe_link(scenario: Scenario) -> str:
    """Channel, SNR and coding in a few words."""
    link = scenario.link
    if isinstance(link, PaperLink):
        return f"{link.snr_db:g} dB SNR in paper mode"
    snr_db = link.mean_snr_db
    where = link.channel if snr_db is None else f"{link.channel} at {snr_db:g} dB SNR"
    return f"{where}, {link.coding}"


def make_table(*columns: str) -> Table:
    """A plain table: words on the left, numbers on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        left = column in (
            "mechanism", "sent", "codec", "stage", "side", "part", "found", "to do", "task", "sends",
            "by", "shown", "twin is", "views from", "planned", "object", "UE", "what", "monitor",
        )  # fmt: skip

        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    return table


def print_mechanisms() -> None:
    """Names, and what each does."""
    table = make_table("mechanism", "what it does")
    table.columns[1].no_wrap = False
    table.columns[1].justify = "left"
    for name in MECHANISMS:
        tables = {"request": {"prompt": "?"}, "plan": {"mechanism": name}}
        table.add_row(name, parse_scenario(tables).mechanism.about)
    Console().print(table)


def draw_figure(trial: Trial) -> NDArray[np.uint8]:
    """Error-free, split and baseline side by side, each with its cost."""
    assert trial.baseline is not None
    request, plan = trial.scenario.request, trial.scenario.plan
    other = trial.baseline.scenario.plan
    names = {"webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL", "analog": "raw pixels"}
    if other.mechanism == "prompt_only":
        heading = "prompt and rng_seed alone"
    else:
        heading = f"picture as {names[other.codecs['image']]}"
    return draw_comparison(
        f"“{request.prompt}”, {describe_link(trial.scenario)}",
        (
            (trial.error_free, "error-free", ("as the sender sees it",)),
            (_shown(trial), f"split: {plan.codecs['seed']} seed", _notes(trial)),
            (_shown(trial.baseline), heading, _notes(trial.baseline)),
        ),
    )


def _shown(trial: Trial) -> NDArray[np.uint8]:
    """The picture, or plain grey where there is none."""
    if trial.result.image is not None:
        return trial.result.image
    return np.full_like(trial.error_free, 200)


def _notes(trial: Trial) -> tuple[str, str]:
    sent = [c for c in trial.result.ledger.crossings if c.kind != "prompt"]
    bits, latency_s = sum(c.bits for c in sent), sum(c.latency_s for c in sent)
    quality = f"{_quality(trial)}, {bits / 1000:,.1f} kbit" if bits else _quality(trial)
    uses = feature_uses(trial.result.ledger)
    return quality, f"{uses:,} channel uses, {latency_s * 1000:,.1f} ms"


def recall_data(scenario: Scenario, models: StoredModels) -> dict[str, Any]:
    """What a picture carries so that it can be made again."""
    import torch

    return {
        "scenario": _told(scenario),
        "bundle_sha256": models.checksum,
        "versions": {
            "megdt": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            **({} if scenario.model.variant is None else {"onnxruntime": version("onnxruntime")}),
        },
    }


def _told(scenario: Scenario) -> dict[str, dict[str, Any]]:
    tables, model = scenario.table(), scenario.model.told()
    return {**tables, "model": model}


def recalled_scenario(
    data: Mapping[str, Any], picture: Path, model: Mapping[str, Any] | None = None
) -> tuple[Scenario, StoredModels]:
    """The scenario in a picture's recall data, and the models that made it.

    Args:
        data: Of the picture.
        picture: For messages.
        model: Keys of [model] that its reader gives; see `settings.take_model`.

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
    scenario = parse_scenario(take_model(tables, model or {}, str(picture)), source=str(picture))
    models, name = scenario.model.load(), scenario.model.name or scenario.model.variant
    if made_with != models.checksum:
        raise BundleError(
            f"{picture} was made with {name or 'bundle'} {made_with[:12]}, this installation has "
            f"{models.checksum[:12]}; "
            + (
                f"install the megdt that made it: {versions.get('megdt')}"
                if name is None
                else "fetch the version that made it"
            )
        )
    return scenario, models


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
    from megdt.models.cards import NAMES

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
