"""What graphs take on this machine, measured in a process of their own.

    python -P -m megdt.compression.graph_cost '{"latents": [1, 4, 64, 64], "noise_power": [1]}' decoder.int8.onnx

Prints JSON: the median seconds of a call of the last graph on one core, and the memory that opening all of
them and running it has added.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megdt.errors import BundleError

_REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class GraphCost:
    """Of one call, whatever else the process holds."""

    seconds: float
    memory_mb: float


def measure_graphs(paths: Sequence[Path], inputs: Mapping[str, tuple[int, ...]]) -> GraphCost:
    """Run graphs on zeros in a fresh process.

    Args:
        paths: Of the graphs, the one that is timed last.
        inputs: The shape of each.

    Raises:
        BundleError: If one does not run, or the system is not Linux.
    """
    # Without -P the modules of whatever folder this is would come first.
    asked = [sys.executable, "-P", "-m", "megdt.compression.graph_cost", json.dumps(dict(inputs))]
    asked += [str(path.resolve()) for path in paths]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    if told.returncode:
        said = told.stderr.strip().splitlines() or [f"exit status {told.returncode}"]
        raise BundleError(
            f"{paths[-1]} does not run ({said[-1]}); write it again with megdt compress"
        )
    return GraphCost(**json.loads(told.stdout))


def _memory_mb() -> tuple[float, float]:
    """Resident now, and at most so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise BundleError(
            "the memory of a process is read from /proc, which this system lacks; take Linux"
        ) from None
    told = dict(line.split(":", 1) for line in lines)
    now, most = (int(told[field].split()[0]) * 1024 / 1e6 for field in ("VmRSS", "VmHWM"))
    return now, most


def _main() -> None:
    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions

    shapes, *paths = sys.argv[1:]
    given = {name: np.zeros(shape, np.float32) for name, shape in json.loads(shapes).items()}
    options = SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # other work on the machine then matters least
    before, _ = _memory_mb()
    sessions = [
        InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths
    ]
    times = []
    for repeat in range(_REPEATS + 1):
        begun = time.perf_counter()
        sessions[-1].run(None, given)
        if repeat:
            times.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": statistics.median(times), "memory_mb": _memory_mb()[1] - before}))


if __name__ == "__main__":
    _main()
