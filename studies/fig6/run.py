"""Fig. 6: seeds, joint codes, sketches and pictures by SNR, as the paper does and in fair terms.

python studies/fig6/run.py [--quick] [--out results.json] [--workers 2] [--scratch FOLDER]
python studies/fig6/run.py --model stabilityai/sd-turbo --out FILE    # a pipeline of one's own

Every picture measured is kept in the scratch folder: a run that was interrupted goes on from
there, and `--summarise` makes results of what is there already.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# A thread a worker; those that spin while they wait would take the core from the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from claims import list_claims, list_targets
from measure import (
    ENERGY,
    USES,
    PatientBundle,
    choose_table,
    count_overhead,
    draw_grid,
    measure_picture,
    sweep_rates,
)
from own_model import measure as measure_own
from plot import CAPTIONS, OWN_CAPTIONS, draw_pictures
from schemes import GARDEN, GENERATED, SETS
from summary import Judge, curves, differences, judge_garden, rate_ratios, smallest_rate

from megdt import __version__
from megdt.codecs.jscc import read_card
from megdt.errors import MegdtError
from megdt.models.bundle import Bundle
from megdt.models.classifier import PROBE_FEATURES

HERE = Path(__file__).parent
CHUNK = 10
Task = tuple[str, tuple[Any, ...]]
"""Kind of work, and what it is about; together they name a file in the scratch folder."""


def list_tasks(settings: dict[str, Any]) -> list[Task]:
    """All work, the long pieces first so that no worker is left alone with one."""
    rates = settings["rates"]["pictures"]
    found: list[Task] = [
        ("rates", (GARDEN, number, int(size)))
        for size in sorted(rates, key=int, reverse=True)
        for number in range(rates[size])
    ]
    found += [
        ("rates", (GENERATED, number, 256)) for number in range(settings["rates"]["generated"])
    ]
    found += [("overhead", (int(size),)) for size in settings["overhead"]["pictures"]]
    found += [("grid", (0,))]
    for kind in reversed(SETS):
        count = settings[kind]["pictures"]
        found += [("set", (kind, at, min(at + CHUNK, count))) for at in range(0, count, CHUNK)]
    return found


def path_of(task: Task, scratch: Path) -> Path:
    name, about = task
    return scratch / ("-".join([name, *map(str, about)]) + ".pickle")


def work(job: tuple[Task, dict[str, Any], Path]) -> Task:
    """Do one task, and keep what it found."""
    task, settings, scratch = job
    torch.set_num_threads(1)
    name, about = task
    found: Any
    if name == "set":
        kind, start, stop = about
        bundle = PatientBundle()
        found = {n: measure_picture(kind, n, settings, bundle) for n in range(start, stop)}
    elif name == "rates":
        kind, number, size_px = about
        found = sweep_rates(kind, number, size_px, settings)
    elif name == "overhead":
        found = count_overhead(*about, settings)
    else:
        snrs = [s for s in settings["snr_db"] if s % 10 == 0]
        found = {"snr_db": snrs, "pictures": draw_grid(*about, snrs, settings)}
    path = path_of(task, scratch)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(pickle.dumps(found))
    part.replace(path)  # whole or not at all
    return task


def gather(kind: str, tasks: list[Task], scratch: Path) -> dict[Any, dict[str, Any]]:
    """A set's pictures as arrays, by scheme, SNR and what is equal."""
    lines: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for name, about in tasks:
        path = path_of((name, about), scratch)
        if name == "set" and about[0] == kind and path.exists():
            for number, found in pickle.loads(path.read_bytes()).items():
                for key, line in found.items():
                    lines[key].append({"number": number, **line})
    return {
        key: {name: np.array([line[name] for line in each]) for name in each[0]}
        for key, each in lines.items()
    }


def collect(name: str, tasks: list[Task], scratch: Path) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What tasks of one kind have found."""
    for task in tasks:
        path = path_of(task, scratch)
        if task[0] == name and path.exists():
            yield task[1], pickle.loads(path.read_bytes())


def summarise(settings: dict[str, Any], tasks: list[Task], scratch: Path) -> dict[str, Any]:
    """All results but who made them."""
    found: dict[str, Any] = {"curves": {}, "minus_split": {}, "equal_energy": {}}
    judges = {}
    for kind in SETS:
        table = gather(kind, tasks, scratch)
        if not table:
            continue
        judges[kind] = judge = Judge(table, unbiased=kind == GARDEN)
        found["curves"][kind] = curves(judge, USES)
        found["minus_split"][kind] = differences(judge, USES)
        if kind == GARDEN:
            found["equal_energy"] = {
                "curves": curves(judge, ENERGY),
                "minus_split": differences(judge, ENERGY),
            }
        print(f"summarised {kind}", flush=True)
    found |= judge_garden(judges[GARDEN])
    scenes: dict[str, list[Any]] = defaultdict(list)
    for (kind, _, size_px), scene in collect("rates", tasks, scratch):
        scenes[f"{kind}, {size_px} px"].append(scene)
    found["rates"] = {name: rate_ratios(each) for name, each in scenes.items()}
    # A generated picture is what its float32 seed decodes to: nothing is within 10 % of 0.
    found["smallest_rates"] = {
        name: smallest_rate(each) for name, each in scenes.items() if name.startswith(GARDEN)
    }
    found["rates_measured"] = scenes
    found["overhead"] = {
        f"{size_px} px": lines for (size_px,), lines in collect("overhead", tasks, scratch)
    }
    return found


def read_settings(path: Path, *, quick: bool) -> dict[str, Any]:
    settings = tomllib.loads(path.read_text())
    less = settings.pop("quick")
    if quick:
        settings |= less
    return settings


def name_machine() -> dict[str, str]:
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "megdt": __version__,
    }


def write_own(model: str, settings: dict[str, Any], out: Path) -> None:
    """Results with a pipeline of one's own."""
    started = time.perf_counter()
    try:
        measured = measure_own(model, settings)
    except MegdtError as error:
        sys.exit(str(error))
    found = {"settings": settings, "versions": name_machine(), "figures": OWN_CAPTIONS, **measured}
    found["seconds"] = round(time.perf_counter() - started)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"results: {out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--workers", type=int, help="processes (default: 2, with --quick 1)")
    parser.add_argument(
        "--scratch", type=Path, help="(default: a temporary folder, removed at the end)"
    )
    parser.add_argument("--model", help="a pipeline that draws instead: a folder, or a hub's name")
    parser.add_argument("--summarise", action="store_true", help="what the scratch folder has")
    parser.add_argument("--settings", type=Path, default=HERE / "study.toml")
    arguments = parser.parse_args()
    workers = arguments.workers or (1 if arguments.quick else 2)
    settings = read_settings(arguments.settings, quick=arguments.quick)
    started = time.perf_counter()
    own = settings.pop("own_model")
    if arguments.model is not None:
        told = {**own, "snr_db": settings["snr_db"], "link": settings["link"]}
        write_own(arguments.model, told, arguments.out)
        return
    bundle, joint = Bundle(), read_card()["sha256"]
    named = json.dumps([settings, bundle.checksum, joint]).encode()
    # Another setting or another model is another run: it must not take up this one's pictures.
    folder = arguments.scratch or Path(tempfile.gettempdir()) / "megdt-fig6"
    scratch = folder / hashlib.sha256(named).hexdigest()[:12]
    scratch.mkdir(parents=True, exist_ok=True)
    tasks = list_tasks(settings)
    todo = [task for task in tasks if not path_of(task, scratch).exists()]
    done = len(tasks) - len(todo)
    if not arguments.summarise:
        jobs = [(task, settings, scratch) for task in todo]
        for task in run_all(jobs, workers):
            done += 1
            print(f"{done}/{len(tasks)} {' '.join(map(str, (task[0], *task[1])))}", flush=True)
    found = {
        "settings": settings,
        "features": PROBE_FEATURES,
        "bundle_sha256": bundle.checksum,
        "jscc_sha256": joint,
        "versions": name_machine(),
        "seconds": round(time.perf_counter() - started),
        "workers": workers,
        "figures": CAPTIONS,
        "published": json.loads((HERE / "published.json").read_text()),
        "mcs_table": {f"{s:g}": choose_table(float(s), 2520) for s in settings["snr_db"]},
        **summarise(settings, tasks, scratch),
    }
    found["targets"] = list_targets(found)
    found["claims"] = list_claims(found)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    for _, grid in collect("grid", tasks, scratch):
        draw_pictures(grid["pictures"], grid["snr_db"], arguments.out.parent / "pictures.png")
    if arguments.scratch is None:
        shutil.rmtree(scratch)
    print(f"results: {arguments.out}")


def run_all(jobs: list[Any], workers: int) -> Iterator[Task]:
    if workers < 2:
        yield from map(work, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(work, jobs)


if __name__ == "__main__":
    main()
