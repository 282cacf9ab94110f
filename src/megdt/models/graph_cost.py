"""What a graph takes on this machine, measured in a process of its own.

    python -m megdt.models.graph_cost decoder.onnx "latents=1,4,64,64" "noise_power=1"

Prints JSON: the median seconds of a call, and the memory that opening and running it has added.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megdt.errors import BundleError

_REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class GraphCost:
    """Of one call, whatever else the process holds."""

    seconds: float
    memory_mb: float


def measure_graph(path: Path, inputs: Mapping[str, tuple[int, ...]]) -> GraphCost:
    """Run a graph on zeros in a fresh process.

    Args:
        path: Of the graph.
        inputs: The shape of each.

    Raises:
        BundleError: If it does not run.
    """
    shapes = [f"{name}={','.join(map(str, shape))}" for name, shape in inputs.items()]
    asked = [sys.executable, "-m", "megdt.models.graph_cost", str(path), *shapes]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    if told.returncode:
        raise BundleError(
            f"{path} does not run ({told.stderr.strip().splitlines()[-1]}); write it again with "
            "megdt compress"
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

    path, *shapes = sys.argv[1:]
    given = {
        name: np.zeros([int(size) for size in sizes.split(",")], np.float32)
        for name, sizes in (shape.split("=") for shape in shapes)
    }
    options = SessionOptions()
    options.log_severity_level = 3
    before, _ = _memory_mb()
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    times = []
    for repeat in range(_REPEATS + 1):
        begun = time.perf_counter()
        session.run(None, given)
        if repeat:
            times.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": statistics.median(times), "memory_mb": _memory_mb()[1] - before}))


if __name__ == "__main__":
    _main()
