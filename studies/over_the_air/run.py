"""Fusion on the air against the gate: quality, channel uses, time and energy by SNR and overlap.

python studies/over_the_air/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megdt import __version__
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference, psnr_db
from megdt.records import Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.sensing import sense

HERE = Path(__file__).parent
PIECE_PX = 256
"""Width of the pieces in which a panorama is judged."""
SCHEMES: dict[str, dict[str, dict[str, str]]] = {
    "air": {"plan": {"fusion": "air"}},
    "gate, int8": {"codecs": {"observation": "int8"}},
    "gate, progressive": {"codecs": {"observation": "progressive"}},
}
"""The last one at its usual rate, 0.1 bit a pixel."""

Image = NDArray[np.uint8]


def make_scenario(
    scheme: str, spacing_m: float, snr_db: float, rng_seed: int, settings: Mapping[str, Any]
) -> Scenario:
    changes = SCHEMES[scheme]
    return parse_scenario(
        {
            "request": {"prompt": "the garden", "rng_seed": rng_seed},
            "plan": {"mechanism": "coordinated", **changes.get("plan", {})},
            "codecs": changes.get("codecs", {}),
            "link": {
                "snr_db": snr_db, "bandwidth_hz": settings["bandwidth_hz"], "coding": "abstract",
            },
            "devices": {"ue": settings["device"]},
            "world": {
                "ues": settings["ues"], "spacing_m": spacing_m,
                "memory_days": settings["memory_days"], "hidden": settings["hidden"],
            },
        }
    )  # fmt: skip


class DecodesOnce:
    """The bundle; what all UEs decode alike is decoded once and counted each time."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.counted = 0.0
        self.last: tuple[bytes, Image, float] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bundle, name)

    @property
    def flops(self) -> float:
        return self.bundle.flops + self.counted

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> Image:
        key = latents.tobytes()
        if self.last is not None and self.last[0] == key:
            self.counted += self.last[2]
            return self.last[1]
        before = self.bundle.flops
        images = self.bundle.decode(latents, noise_power)
        self.last = key, images, self.bundle.flops - before
        return images


class Judge:
    """The world now, against what is shown of it, piece by piece."""

    def __init__(self, now: Image) -> None:
        self.now = now
        starts = range(0, now.shape[1] - PIECE_PX + 1, PIECE_PX)
        self.pieces = [slice(s, s + PIECE_PX) for s in starts]
        self.references = [PerceptualReference(now[None, :, piece]) for piece in self.pieces]

    def measure(self, shown: Image) -> dict[str, float]:
        distances = [
            reference.distance(shown[None, :, piece])[0]
            for reference, piece in zip(self.references, self.pieces, strict=True)
        ]
        return {"perceptual": float(np.mean(distances)), "psnr_db": psnr_db(shown, self.now)}


def count_costs(result: Result) -> dict[str, float]:
    """Of a round; energies are means over the UEs."""
    ledger = result.ledger
    up = [c for c in ledger.crossings if c.to_side == Side.ES]
    ues = {c.from_side for c in up}
    ends = {c.stage: c.end_s for c in ledger.computations if c.task == "run"}
    return {
        # What is on the air together is there once.
        "uses_up": float(round(sum(c.channel_uses / c.among for c in up))),
        "uses_reports": float(sum(c.channel_uses for c in up if c.kind == "needs")),
        "kbit_up": sum(c.bits for c in up) / 1000,
        "fused_ms": 1000 * ends["fuse"],
        "shown_ms": 1000 * ledger.duration_s,
        "ue_sends_mj": 1000 * sum(c.sender_j for c in up) / len(ues),
        "ue_energy_mj": 1000 * float(np.mean([ledger.energy_of(side) for side in ues])),
    }


def measure(spacing_m: float, settings: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """All schemes and SNRs in the same gardens; means over the gardens."""
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    models = DecodesOnce(bundle)
    for number in range(settings["gardens"]):
        rng_seed = settings["first_garden"] + number
        judge, done, judged = None, None, dict[bytes, dict[str, float]]()
        for scheme in SCHEMES:
            for snr_db in settings["snr_db"]:
                scenario = make_scenario(scheme, spacing_m, snr_db, rng_seed, settings)
                if judge is None or done is None:
                    sensed = sense(scenario, bundle)
                    done = sensed.done
                    judge = Judge(next(iter(sensed.truth.values())))
                    found.setdefault(("memory alone", 0.0), []).append(
                        judge.measure(bundle.decode(done.features["remember"].values[None])[0])
                    )
                result = scenario.run(models, done=done)
                # Views are encoded once, and what that has cost is taken over.
                done = result.part(
                    {*done.features, *(f"observe_{n + 1}" for n in range(settings["ues"]))}
                )
                shown = result.image
                assert shown is not None
                # Bits arrive as they were sent, so one picture is that of several SNRs.
                quality = judged.setdefault(shown.tobytes(), {}) or judge.measure(shown)
                judged[shown.tobytes()] = quality
                found.setdefault((scheme, snr_db), []).append(quality | count_costs(result))
        print(f"{number + 1}/{settings['gardens']} gardens, {spacing_m:g} m apart", flush=True)
    return [
        {
            "scheme": scheme, "spacing_m": spacing_m, "snr_db": snr_db,
            **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
            "perceptual_each": [row["perceptual"] for row in rows],
        }
        for (scheme, snr_db), rows in found.items()
    ]  # fmt: skip


def list_claims(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    by = {(r["scheme"], r["spacing_m"], r["snr_db"]): r for r in rows if "uses_up" in r}
    places = list(dict.fromkeys((r["spacing_m"], r["snr_db"]) for r in rows if "uses_up" in r))
    claims = []
    for key, what, digits in (
        ("uses_up", "channel uses up", 0), ("fused_ms", "time until the ES has fused", 1),
        ("ue_sends_mj", "energy a UE sends with", 1), ("perceptual", "ST-LPIPS of the panorama", 3),
    ):  # fmt: skip
        # The time of progressive seeds is that of their codec, which is measured here.
        for other in list(SCHEMES)[1 : 2 if key == "fused_ms" else None]:
            less = [p for p in places if by["air", *p][key] < by[other, *p][key]]
            verdict = {0: "does not hold", len(places): "holds"}.get(len(less), "holds when")
            claims.append(
                {
                    "claim": f"Less with fusion on the air than with {other}: {what}",
                    "verdict": verdict,
                    "found": f"{len(less)} of {len(places)}: "
                    + "; ".join(
                        f"{m:g} m, {db:g} dB {by['air', m, db][key]:,.{digits}f} against "
                        f"{by[other, m, db][key]:,.{digits}f}"
                        for m, db in places
                    ),
                }
            )
    return claims


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
    bundle = Bundle()
    bundle.load("encoder", "decoder", "gate")
    # Codecs are measured, and the first call of one compiles it.
    warm = make_scenario("gate, progressive", 2.0, 20.0, 0, settings | {"ues": 1})
    warm.run(bundle, done=sense(warm, bundle).done)
    rows = [
        row for spacing_m in settings["spacing_m"] for row in measure(spacing_m, settings, bundle)
    ]
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "gate_sha256": bundle.card("gate")["sha256"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "rows": rows,
        "claims": list_claims(rows),
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
