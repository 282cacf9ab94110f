"""Three mechanisms for many users: quality, latency and bits by number of UEs and their overlap.

python studies/multi_user/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megdt import __version__
from megdt.mechanisms.panorama import EDGE_COLUMNS
from megdt.models import FACTOR
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference, psnr_db
from megdt.records import Result
from megdt.scenario import MANY_USERS, Scenario, parse_scenario
from megdt.sensing import sense

HERE = Path(__file__).parent
PIECE_PX = 256
"""Width of the pieces in which a panorama is judged."""
ENOUGH, ALLOWED = 0.9, 0.25
"""Of coordinated's gain, and of its bits."""

Image = NDArray[np.uint8]


def make_scenario(
    name: str, ues: int, spacing_m: float, rng_seed: int, settings: Mapping[str, Any],
    share_bits: int | None = None,
) -> Scenario:  # fmt: skip
    plan = {"mechanism": name} | ({} if share_bits is None else {"share_bits": share_bits})
    return parse_scenario(
        {
            "request": {"prompt": "the garden", "rng_seed": rng_seed},
            "plan": plan,
            "link": {
                "snr_db": float(settings["snr_db"]), "bandwidth_hz": settings["bandwidth_hz"],
                "coding": "abstract",
            },
            "devices": {"ue": settings["device"]},
            "world": {
                "ues": ues, "spacing_m": spacing_m, "memory_days": settings["memory_days"],
                "hidden": settings["hidden"],
            },
        }
    )  # fmt: skip


class Round:
    """One garden, one mechanism: what it gave and what it took."""

    def __init__(self, scenario: Scenario, bundle: Bundle) -> None:
        sensed = sense(scenario, bundle)
        self.scenario, self.memory = sensed.scenario, sensed.done.features["remember"].values
        self.result: Result = sensed.scenario.run(bundle, done=sensed.done)

    def views(self) -> list[Image]:
        """The extended view of each UE, as it shows it."""
        shown = []
        for camera in self.scenario.panorama.cameras:
            image = self.result.features[f"decode_{camera.number}"].values
            if self.scenario.plan.mechanism == "coordinated":
                columns = self.scenario.panorama.shown(camera)
                image = image[:, columns.start * FACTOR : columns.stop * FACTOR]
            shown.append(image)
        return shown

    def panorama(self, bundle: Bundle) -> Image:
        """What the ES could show of all: its memory, refreshed with what has come up."""
        features, panorama = self.result.features, self.scenario.panorama
        if "fuse" in features:
            latent = features["fuse"].values
        else:
            latent = self.memory.copy()
            for camera in panorama.cameras:
                inner = slice(EDGE_COLUMNS, camera.width - EDGE_COLUMNS)
                columns = np.array(camera.view)[inner]
                latent[:, :, columns] = features[f"replica_{camera.number}"].values[:, :, inner]
        return bundle.decode(latent[None])[0]

    def cost(self) -> dict[str, float]:
        """Means over the UEs."""
        ledger, cameras = self.result.ledger, self.scenario.panorama.cameras
        there = {c.stage: c.end_s for c in ledger.computations if c.task == "run"}
        ends = [there[f"decode_{camera.number}"] for camera in cameras]
        bits = [c for c in ledger.crossings if c.kind in ("observation", "seed")]
        told = [c for c in ledger.crossings if c.kind in ("needs", "shares")]
        # One panorama on the air for all, where every UE gets the same one.
        once = {(c.source, c.bits) for c in bits if c.source == "fuse"}
        rest = sum(c.bits for c in ledger.crossings if c.source != "fuse")
        count = len(cameras)
        return {
            "latency_ms": 1000 * float(np.mean(ends)),
            "last_ms": 1000 * float(max(ends)),
            "kbit_a_ue": ledger.bits / 1000 / count,
            "kbit_a_ue_broadcast": (rest + sum(b for _, b in once)) / 1000 / count,
            "asking_kbit_a_ue": sum(c.bits for c in told) / 1000 / count,
            "ue_energy_mj": 1000 * float(np.mean([ledger.energy_of(c.side) for c in cameras])),
        }


class Judge:
    """The world now, against what is shown of it."""

    def __init__(self, scenario: Scenario, bundle: Bundle) -> None:
        # As `coordinated` shows it: all of it.
        whole = replace(scenario, plan=replace(scenario.plan, mechanism="coordinated"))
        self.now: Image = next(iter(sense(whole, bundle).truth.values()))
        self.windows = []
        for camera in scenario.panorama.cameras:
            columns = scenario.panorama.shown(camera)
            self.windows.append(self.now[:, columns.start * FACTOR : columns.stop * FACTOR])
        self.references = [PerceptualReference(window[None]) for window in self.windows]

    def views(self, shown: Sequence[Image]) -> dict[str, float]:
        """Means over the UEs' extended views."""
        distances = [r.distance(s[None])[0] for r, s in zip(self.references, shown, strict=True)]
        psnr = [psnr_db(s, t) for s, t in zip(shown, self.windows, strict=True)]
        return {"perceptual": float(np.mean(distances)), "psnr_db": float(np.mean(psnr))}

    def panorama(self, shown: Image) -> dict[str, float]:
        """Of the global view, piece by piece."""
        starts = range(0, shown.shape[1] - PIECE_PX + 1, PIECE_PX)
        distances = [
            PerceptualReference(self.now[None, :, s : s + PIECE_PX]).distance(
                shown[None, :, s : s + PIECE_PX]
            )[0]
            for s in starts
        ]
        return {
            "global_perceptual": float(np.mean(distances)),
            "global_psnr_db": psnr_db(shown, self.now),
        }


def measure(
    ues: int, spacing_m: float, settings: Mapping[str, Any], bundle: Bundle,
    *, budgets: Sequence[float] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """All mechanisms in the same gardens; means over the gardens."""
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for number in range(settings["gardens"]):
        rng_seed = settings["first_garden"] + number
        judge = None
        for name in MANY_USERS:
            scenario = make_scenario(name, ues, spacing_m, rng_seed, settings)
            judge = Judge(scenario, bundle) if judge is None else judge
            one = Round(scenario, bundle)
            row = judge.views(one.views()) | judge.panorama(one.panorama(bundle)) | one.cost()
            found.setdefault((name, 1.0), []).append(row)
            if name != "decentralized":
                continue
            shared = sum(c.bits for c in one.result.ledger.crossings if is_share(c.source))
            for budget in budgets:
                if budget < 1:
                    less = make_scenario(
                        name, ues, spacing_m, rng_seed, settings, round(budget * shared)
                    )
                    one = Round(less, bundle)
                    row = judge.views(one.views()) | one.cost()
                    found.setdefault((name, budget), []).append(row)
        print(f"{ues} UEs, {spacing_m:g} m: {number + 1}/{settings['gardens']} gardens", flush=True)
    return [
        {
            "mechanism": name, "ues": ues, "spacing_m": spacing_m, "budget": budget,
            **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
            "perceptual_each": [row["perceptual"] for row in rows],
        }
        for (name, budget), rows in found.items()
    ]  # fmt: skip


def is_share(stage: str) -> bool:
    """Whether a stage makes what is shared by need."""
    return stage.startswith(("share_", "recall_"))


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By number and spacing: how far decentralized gets, with the fewest bits that are enough."""
    found = []
    for ues, spacing_m in dict.fromkeys((r["ues"], r["spacing_m"]) for r in rows):
        here = [r for r in rows if (r["ues"], r["spacing_m"]) == (ues, spacing_m)]
        alone, together = (
            next(r for r in here if r["mechanism"] == name)
            for name in ("individual", "coordinated")
        )
        gain = alone["perceptual"] - together["perceptual"]
        points = [
            {
                "budget": r["budget"],
                "share_of_gain": (alone["perceptual"] - r["perceptual"]) / gain,
                "share_of_bits": r["kbit_a_ue"] / together["kbit_a_ue"],
                "share_of_broadcast_bits": r["kbit_a_ue"] / together["kbit_a_ue_broadcast"],
            }
            for r in sorted(here, key=lambda r: r["budget"])
            if r["mechanism"] == "decentralized"
        ]
        enough = [p for p in points if p["share_of_gain"] >= ENOUGH]
        found.append(
            {
                "ues": ues, "spacing_m": spacing_m, "gain": gain, "points": points,
                "least_enough": min(enough, key=lambda p: p["share_of_bits"]) if enough else None,
            }
        )  # fmt: skip
    return found


def list_claims(results: Mapping[str, Any], ues: int) -> list[dict[str, str]]:
    """What the paper says (section II-C2) and what we wanted, with our figures."""
    full = [r for r in results["rows"] if r["budget"] == 1]
    places = list(dict.fromkeys((r["ues"], r["spacing_m"]) for r in full))
    by = {(r["mechanism"], r["ues"], r["spacing_m"]): r for r in full}

    def ordered(key: str, names: Sequence[str]) -> list[tuple[int, float]]:
        return [
            p for p in places
            if all(by[a, *p][key] <= by[b, *p][key] for a, b in pairwise(names))
        ]  # fmt: skip

    better = ordered("perceptual", MANY_USERS[::-1])
    world = ordered("global_perceptual", ("coordinated", "individual"))
    faster = ordered("latency_ms", MANY_USERS)
    last = ordered("last_ms", MANY_USERS)
    summary = [s for s in results["summary"] if s["ues"] == ues]
    enough = [s["least_enough"] for s in summary]
    met = [e is not None and e["share_of_bits"] <= ALLOWED for e in enough]
    return [
        {
            "claim": "Extended views: individual < decentralized < coordinated in quality",
            "verdict": count(better, places),
            "found": f"in {len(better)} of {len(places)} cases; " + spread(by, places, "perceptual", 3),
        },
        {
            "claim": "The global view is best where all is fused on the ES",
            "verdict": count(world, places),
            "found": spread(by, places, "global_perceptual", 3),
        },
        {
            "claim": "Latency goes the other way: individual < decentralized < coordinated",
            "verdict": count(faster, places),
            "found": f"mean over UEs, in {len(faster)} of {len(places)} cases; "
            + spread(by, places, "latency_ms", 0, " ms")
            + f"; until the last UE has its picture in {len(last)} of {len(places)}",
        },
        {
            "claim": f"Decentralized reaches {ENOUGH:.0%} of coordinated's gain with at most "
            f"{ALLOWED:.0%} of its bits, at {ues} UEs (our target)",
            "verdict": "met" if all(met) else "met when" if any(met) else "missed",
            "found": "; ".join(
                f"{s['spacing_m']:g} m apart "
                + ("never" if e is None else f"{e['share_of_gain']:.0%} with {e['share_of_bits']:.0%}")
                for s, e in zip(summary, enough, strict=True)
            ),
        },
    ]  # fmt: skip


def spread(by: Mapping[Any, Any], places: Sequence[Any], key: str, digits: int, unit: str = "") -> str:  # fmt: skip
    """Least to most of each mechanism."""
    parts = []
    for name in MANY_USERS:
        values = [by[name, *p][key] for p in places]
        parts.append(f"{name} {min(values):.{digits}f} to {max(values):.{digits}f}{unit}")
    return ", ".join(parts)


def count(good: Sequence[Any], places: Sequence[Any]) -> str:
    return "holds" if len(good) == len(places) else "holds when" if good else "does not hold"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    settings |= quick if arguments.quick else {}
    most = settings.get("sixteen", 16)
    bundle = Bundle()
    bundle.load("encoder", "decoder", "gate")
    rows = [
        row
        for ues in settings["ues"] if ues != most
        for row in measure(ues, 2.0, settings, bundle)
    ]  # fmt: skip
    for spacing_m in settings["spacing_m"]:
        rows += measure(most, spacing_m, settings, bundle, budgets=settings["budgets"])
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "gate_sha256": bundle.card("gate")["sha256"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "rows": rows,
        "summary": summarise(rows),
    }
    results["claims"] = list_claims(results, most)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
