"""One plan for each of 10,000 UEs: seconds together, and against planning one by one.

python benchmarks/twin_planner.py [--ues 10000] [--out benchmarks/twin_planner.json]

UEs of four kinds, each with its own predicted SNR, size, deadline and bound of quality. What a kind of
UE takes at each SNR is worked out once, before the clock starts; that time is told beside.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from megdt.link.energy import load_profile
from megdt.twin.planner import Ask, Equipment, Planner

WANTED_S = 1.0
KINDS = (("phone", 6.0), ("phone", 70.0), ("embedded_board", 10.0), ("laptop", 70.0))
ALONE = 500
"""Of the same requests, planned one by one."""


def draw_asks(ues: int) -> list[Ask]:
    """Requests that differ in everything."""
    rng = np.random.default_rng(0)
    equipments = [Equipment(profile=load_profile(name), memory_mb=memory) for name, memory in KINDS]
    return [
        Ask(
            equipment=equipments[number % len(KINDS)],
            snr_db=float(rng.uniform(-5, 28)),
            snr_sd_db=float(rng.uniform(0.5, 5)),
            size_px=int(rng.choice([256, 512])),
            deadline_s=float(rng.uniform(0.05, 0.5)),
            max_distance=float(rng.uniform(0.02, 0.3)),
        )
        for number in range(ues)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ues", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    planner, asks = Planner(es=load_profile("edge_gpu")), draw_asks(arguments.ues)
    started = time.perf_counter()
    planner.plan(asks[: 8 * len(KINDS)])
    prepared_s = time.perf_counter() - started
    together, alone, busy = [], [], []
    for _ in range(arguments.runs):  # they take turns
        started, worked = time.perf_counter(), time.process_time()
        decisions = planner.plan(asks)
        together.append(time.perf_counter() - started)
        busy.append(time.process_time() - worked)
        started = time.perf_counter()
        singly = [planner.plan([ask])[0] for ask in asks[:ALONE]]
        alone.append((time.perf_counter() - started) / ALONE * arguments.ues)
        assert singly == decisions[:ALONE]
    found = {
        "machine": f"{platform.machine()}, numpy {np.__version__}",
        "ues": arguments.ues,
        "wanted_s": WANTED_S,
        "prepared_s": round(prepared_s, 2),
        "together_s": round(float(np.median(together)), 3),
        "fastest_s": round(min(together), 3),
        "processor_s": round(float(np.median(busy)), 3),
        "faster_than_one_by_one": round(float(np.median(np.array(alone) / together)), 1),
        "plans_used": len({d.candidate.name for d in decisions}),
    }
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
