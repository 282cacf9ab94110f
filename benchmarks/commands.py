"""Seconds and memory of whole commands from a cold start.

python benchmarks/commands.py [--repeats 3] [--out benchmarks/commands.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

COMMANDS = {
    "help": ["--help"],
    "generate 256": ["generate", "red poppies at sunset", "--out", "a.png"],
    "generate 1024": ["generate", "red poppies at sunset", "--size", "1024", "--out", "a.png"],
}


def run(arguments: list[str], folder: str) -> tuple[float, float]:
    """Wall seconds and peak memory in gigabytes of one process."""
    code = f"import os; os.chdir({folder!r}); from megdt.cli import main; main()"
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"megdt {' '.join(arguments)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in COMMANDS.items():
            runs = [run(command, folder) for _ in range(arguments.repeats)]
            rows[name] = {
                "median_s": round(median(r[0] for r in runs), 2),
                "peak_gb": round(max(r[1] for r in runs), 2),
            }
            print(name, rows[name])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    arguments.out.write_text(json.dumps({"machine": machine, "commands": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
