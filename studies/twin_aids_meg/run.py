"""What the twin does for generation, part by part.

python studies/twin_aids_meg/run.py [--quick] [--part NAME] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from pathlib import Path
from typing import Any

import attacks
import steering
import torch

from megdt import __version__
from megdt.models.bundle import Bundle

HERE = Path(__file__).parent
PARTS = {"steering": steering.measure, "attacks": attacks.measure}
"""Each takes its table of study.toml and gives its figures and its claims."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--part", choices=PARTS, help="run this one, and keep what others found")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    if arguments.quick:
        settings = {part: told | quick[part] for part, told in settings.items()}
        settings["steering"]["sites"] = dict(list(settings["steering"]["sites"].items())[2:3])
    bundle = Bundle()
    results: dict[str, Any] = {"settings": settings, "bundle_sha256": bundle.checksum}
    kept = (
        json.loads(arguments.out.read_text()) if arguments.part and arguments.out.exists() else {}
    )
    for part, measure in PARTS.items():
        if arguments.part in (None, part):
            figures, claims = measure(settings[part], bundle)
            results[part] = {**figures, "claims": claims}
        elif part in kept:
            results[part] = kept[part]
    results["machine"] = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"megdt {__version__}"
    )
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
