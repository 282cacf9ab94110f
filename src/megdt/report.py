"""What the commands print: summaries, JSON objects, the recall data, the doctor's findings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from megdt import __version__
from megdt.errors import BundleError, MegdtError, OutputError
from megdt.link.channels import capacity_bits
from megdt.mechanisms.stages import Progress
from megdt.pictures import draw_comparison
from megdt.records import Ledger, Result
from megdt.scenario import Scenario, parse_scenario

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

# Packages by what a user can do with them, and the command that brings them.
REQUIRED = ("numpy", "torch", "safetensors", "skia-python", "pillow", "typer", "rich")
EXTRAS = {"metrics": ("torchmetrics", "stlpips_pytorch")}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A generation with what it is judged against."""

    scenario: Scenario
    result: Result
    error_free: NDArray[np.uint8]
    """The picture had the air done nothing. [height, width, 3]"""
    psnr_db: float
    centralized: Outcome | None = None
    """The baseline at the same SNR, when a comparison was asked for."""


def generate(
    scenario: Scenario, bundle: Bundle, *, compare: bool, progress: Progress | None
) -> Outcome:
    """Run a scenario, judge it against the error-free picture and, if asked, the baseline."""
    result = scenario.run(bundle, progress=progress)
    error_free = _error_free(scenario, bundle, result)
    outcome = _judge(scenario, result, error_free)
    if not compare:
        return outcome
    plan = scenario.plan
    baseline = replace(plan, mechanism="centralized")
    if plan.mode == "fair" and baseline.codecs["image"] == "webp":
        # Equal channel uses: WebP may spend what the split spent on its seed.
        uses = sum(c.channel_uses for c in result.ledger.crossings if c.kind != "prompt")
        budget = int(uses * capacity_bits(scenario.link.snr_db))
        baseline = replace(baseline, image_bits=budget)
    other = replace(scenario, plan=baseline)
    known = {name: f for name, f in result.features.items() if f.kind != "image"}
    centralized = other.run(bundle, known=known)
    return replace(outcome, centralized=_judge(other, centralized, error_free))


def _error_free(scenario: Scenario, bundle: Bundle, result: Result) -> NDArray[np.uint8]:
    """The picture of the same latent, decoded where it was made."""
    latent = result.features["denoise"].values
    image: NDArray[np.uint8] = bundle.decode(latent[None])[0]
    return image


def _judge(scenario: Scenario, result: Result, error_free: NDArray[np.uint8]) -> Outcome:
    from megdt.models.quality import psnr_db

    quality = psnr_db(result.image, error_free)
    return Outcome(scenario=scenario, result=result, error_free=error_free, psnr_db=quality)


def as_json(outcome: Outcome, path: Path, figure: Path | None) -> dict[str, Any]:
    """One JSON object of everything measured; no number is a string, infinity is null."""
    ledger, latent = outcome.result.ledger, outcome.result.features["denoise"].values
    found: dict[str, Any] = {
        "file": str(path),
        "latent_shape": list(latent.shape),
        "bits": ledger.bits,
        "channel_uses": ledger.channel_uses,
        "airtime_s": ledger.airtime_s,
        "energy_j": ledger.energy_j,
        "compute_s": ledger.compute_s(),
        "psnr_db": outcome.psnr_db if np.isfinite(outcome.psnr_db) else None,
        "ledger": ledger_table(ledger),
        "scenario": outcome.scenario.table(),
    }
    if figure is not None:
        found["figure"] = str(figure)
    if outcome.centralized is not None:
        other = outcome.centralized
        found["centralized"] = {
            "bits": other.result.ledger.bits,
            "channel_uses": other.result.ledger.channel_uses,
            "airtime_s": other.result.ledger.airtime_s,
            "psnr_db": other.psnr_db if np.isfinite(other.psnr_db) else None,
            "ledger": ledger_table(other.result.ledger),
        }
    return found


def ledger_table(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """The ledger's lines as JSON values, with the paper's count beside ours."""
    return {
        "crossings": [asdict(c) | {"paper_bits": c.paper_bits} for c in ledger.crossings],
        "computations": [asdict(c) for c in ledger.computations],
    }


def print_summary(outcome: Outcome, path: Path, figure: Path | None) -> None:
    """A table of what crossed and what was computed, then where the picture is."""
    console = Console()
    ledger, link = outcome.result.ledger, outcome.scenario.link
    table = Table(box=None, pad_edge=False)
    for name in ("crossing", "codec", "bits", "channel uses", "airtime", "radiated"):
        table.add_column(name, justify="left" if name in ("crossing", "codec") else "right")
    for c in ledger.crossings:
        codec = outcome.scenario.plan.codecs[c.kind]
        table.add_row(
            f"{c.kind}: {c.from_side} to {c.to_side}",
            codec,
            f"{c.bits:,}",
            f"{c.channel_uses:,}",
            f"{c.airtime_s * 1000:.1f} ms",
            f"{c.energy_j * 1000:.2f} mJ",
        )
    console.print(table)
    console.print()
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "side", "seconds", "energy"):
        table.add_column(name, justify="left" if name in ("stage", "side") else "right")
    for line in ledger.computations:
        table.add_row(line.stage, line.side, f"{line.seconds:.3f}", f"{line.energy_j:.2f} J")
    console.print(table)
    console.print()
    quality = f"{outcome.psnr_db:.1f} dB" if np.isfinite(outcome.psnr_db) else "no error"
    console.print(
        f"SNR {link.snr_db:g} dB, {outcome.scenario.plan.mode} mode; against the error-free picture: {quality}"
    )
    # Plain print: a path must not be wrapped or coloured.
    print(f"picture: {path}")
    if figure is not None:
        print(f"figure:  {figure}")


def draw_figure(outcome: Outcome) -> NDArray[np.uint8]:
    """Error-free, split and centralized side by side, each with its cost."""
    plan, link = outcome.scenario.plan, outcome.scenario.link
    assert outcome.centralized is not None
    other = outcome.centralized
    request = outcome.scenario.request
    return draw_comparison(
        f"“{request.prompt}”, {link.snr_db:g} dB SNR, {plan.mode} mode",
        (
            (outcome.error_free, "error-free", ("as made at the edge server",)),
            (outcome.result.image, f"split: {plan.codecs['seed']} seed", _notes(outcome)),
            (other.result.image, f"centralized: {_image_name(other)}", _notes(other)),
        ),
    )


def _image_name(outcome: Outcome) -> str:
    codec = outcome.scenario.plan.codecs["image"]
    return {"webp": "WebP, equal uses", "analog": "raw pixels"}.get(codec, codec)


def _notes(outcome: Outcome) -> tuple[str, str]:
    sent = [c for c in outcome.result.ledger.crossings if c.kind != "prompt"]
    bits, uses = sum(c.bits for c in sent), sum(c.channel_uses for c in sent)
    quality = f"PSNR {outcome.psnr_db:.1f} dB" if np.isfinite(outcome.psnr_db) else "no error"
    airtime = sum(c.airtime_s for c in sent) * 1000
    carried = f"{bits / 1000:,.1f} kbit, " if bits > 100 else ""
    return f"{quality}", f"{carried}{uses:,} channel uses, {airtime:,.1f} ms"


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
        BundleError: If the picture was made with another bundle.
    """
    tables, made_with = data.get("scenario"), data.get("bundle_sha256")
    if not isinstance(tables, dict) or not isinstance(made_with, str):
        raise OutputError(
            f"{picture} lacks scenario or bundle_sha256 in its recall data; generate it again"
        )
    if made_with != bundle.checksum:
        raise BundleError(
            f"{picture} was made with bundle {made_with[:12]}, this installation has "
            f"{bundle.checksum[:12]}; install the megdt version it names: "
            f"{data.get('versions', {}).get('megdt', 'unknown')}"
        )
    return parse_scenario(tables, source=str(picture))


def print_models(*, as_json: bool) -> None:
    """The bundle's cards, each checked against its weights."""
    from megdt.models.bundle import NAMES, Bundle, read_weights

    bundle = Bundle()
    cards = []
    for name in NAMES:
        card = bundle.card(name)
        path = bundle.folder / f"{name}.safetensors"
        read_weights(path, card["sha256"])
        cards.append({**card, "bytes": path.stat().st_size})
    if as_json:
        print(json.dumps({"bundle_sha256": bundle.checksum, "models": cards}))
        return
    console = Console()
    for card in cards:
        console.print(f"[bold]{card['name']}[/bold]: {card['task']}")
        console.print(
            f"  {card['parameters'] / 1e6:.2f} M parameters, {card['bytes'] / 1e6:.1f} MB, "
            f"sha256 {card['sha256'][:12]}, checked"
        )
        console.print(
            f"  trained on {card['data']}: {card['steps']:,} steps, {card['seconds']:,} s; {card['recipe']}"
        )
        for name, value in card.get("metrics", {}).items():
            console.print(f"  {name}: {_plain(value)}")
    console.print(
        f"bundle sha256 {bundle.checksum[:12]}, {sum(c['bytes'] for c in cards) / 1e6:.1f} MB in all"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_doctor(*, as_json: bool) -> bool:
    """What is installed; true when nothing that megdt needs is missing."""
    rows: list[dict[str, Any]] = [
        {
            "part": "python",
            "found": platform.python_version(),
            "ok": sys.version_info >= (3, 11),
            "fix": "install Python 3.11 or newer",
        }
    ]
    for package in REQUIRED:
        rows.append(_package_row(package, package, "pip install megdt"))
    rows.append(_bundle_row())
    needed = len(rows)
    for extra, packages in EXTRAS.items():
        for package in packages:
            rows.append(_package_row(f"{package} (extra {extra})", package, _EXTRA_FIX[package]))
    healthy = all(row["ok"] for row in rows[:needed])
    if as_json:
        print(json.dumps({"healthy": healthy, "parts": rows}))
        return healthy
    table = Table(box=None, pad_edge=False)
    for column in ("part", "found", "to do"):
        table.add_column(column)
    for row in rows:
        colour = "green" if row["ok"] else "red" if row in rows[:needed] else "yellow"
        table.add_row(
            row["part"], f"[{colour}]{row['found']}[/{colour}]", "" if row["ok"] else row["fix"]
        )
    Console().print(table)
    return healthy


_EXTRA_FIX = {
    "torchmetrics": "pip install torchmetrics",
    # Its declared dependencies want a torchvision that megdt does not need.
    "stlpips_pytorch": "pip install --no-deps stlpips-pytorch",
}


def _package_row(part: str, package: str, fix: str) -> dict[str, Any]:
    try:
        found, ok = importlib.metadata.version(package), True
    except importlib.metadata.PackageNotFoundError:
        found, ok = "missing", False
    return {"part": part, "found": found, "ok": ok, "fix": fix}


def _bundle_row() -> dict[str, Any]:
    row: dict[str, Any] = {
        "part": "bundle",
        "found": "damaged",
        "ok": False,
        "fix": "reinstall megdt",
    }
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        return row | {"found": "cannot be checked without torch and safetensors"}
    from megdt.models.bundle import NAMES, Bundle, read_weights

    bundle = Bundle()
    try:
        for name in NAMES:
            read_weights(bundle.folder / f"{name}.safetensors", bundle.card(name)["sha256"])
    except MegdtError as error:
        return row | {"found": str(error)}
    return row | {"found": f"{len(NAMES)} models, checksums right", "ok": True}
