"""What generation does for the twin, part by part.

python studies/meg_aids_twin/run.py [--quick] [--part NAME ...] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import behaviour
import creation
import maintenance
import torch
import unseen
import validation

import scenarios
from megdt import __version__
from megdt.models.bundle import Bundle

HERE = Path(__file__).parent
Measure = Callable[[Mapping[str, Any], Bundle], tuple[dict[str, Any], list[dict[str, str]]]]
PARTS: dict[str, Measure] = {
    "creation": creation.measure,
    "unseen": unseen.measure,
    "maintenance": maintenance.measure,
    "validation": validation.measure,
    "behaviour": behaviour.measure,
    "scenarios": scenarios.measure,
}
"""Each takes its table of study.toml and gives its figures and its claims."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="this one alone; what --out holds of others stays"
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    if arguments.quick:
        settings = {part: told | quick.get(part, {}) for part, told in settings.items()}
    bundle = Bundle()
    kept: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.part else {}
    if kept.get("bundle_sha256", bundle.checksum) != bundle.checksum:
        parser.error(f"{arguments.out} is of another bundle; run all parts anew, without --part")
    figures, claims, used = {}, [], {}
    for part, measure in PARTS.items():
        if arguments.part and part not in arguments.part:
            if part in kept:
                figures[part], used[part] = kept[part], kept["settings"][part]
                claims += [claim for claim in kept["claims"] if claim["part"] == part]
            continue
        figures[part], found = measure(settings[part], bundle)
        used[part] = settings[part]
        claims += [{"part": part, **claim} for claim in found]
    results: dict[str, Any] = {
        "settings": used,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        **figures,
        "claims": claims,
    }  # fmt: skip
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
