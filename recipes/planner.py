"""Measure what the planner's ways take and give: src/megdt/twin/planner_costs.json.

1. quality: generations after sentences about held-out views are sent in every way, over a link of each
   SNR where noise gets into the picture, else once; the distance is ST-LPIPS to the picture that the
   ES decodes of the error-free latent, and every picture's is kept. A way whose packet has bits alone
   gives the same picture at any SNR, or none.
2. costs: the same runs, and one at 512 pixels, tell operations, seconds of codecs, bits and symbols.
3. sending: packets of these bits and symbols cross the link at each SNR, under each MCS table, several
   times; every draw's latency is kept, since it is the late ones that break a deadline.

    python recipes/planner.py quality [--pictures 10] [--first-view 10000000] [--large 2] --out quality.json
    python recipes/planner.py sending --quality quality.json [more.json ...]

Needs the extras metrics and images, and stlpips-pytorch. Eight minutes on one core; the first part may
be run in pieces, side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.link.radio import RadioLink
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Packet, Part, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.trial import load
from megdt.twin.ways import COSTS, WAYS, Way
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

QUALITY_SNR_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 30.0)
SENDING_SNR_DB = tuple(float(snr) for snr in range(-10, 31, 5))
SIZES_PX = (256, 512)
MCS_TABLES = (2, 3)
DRAWS = 4
NOISY = ("seed analog", "seed hybrid", "steps 18 analog")
"""Ways of which symbols cross: what they give, and what the UE does against the noise, has an SNR."""


def describe(view: int) -> str:
    """A sentence about a held-out view."""
    garden, seen = draw_view(view)
    return phrase(attributes(garden.truth(seen)), np.random.default_rng(view))


def make_scenario(way: Way, prompt: str, *, size_px: int, rng_seed: int, snr_db: float) -> Scenario:
    """The way as a scenario over the default link."""
    plan = way.plan(size_px)
    budgets = {
        key: getattr(plan, key)
        for key in ("image_bits", "seed_bits", "sketch_bits")
        if getattr(plan, key) is not None
    }
    request = {"prompt": prompt, "size_px": size_px, "rng_seed": rng_seed}
    if way.handoff_step is not None:
        request["handoff_step"] = way.handoff_step
    return parse_scenario(
        {
            "request": request,
            "plan": {"mechanism": way.mechanism, **budgets},
            "codecs": dict(way.codecs),
            "link": {"snr_db": snr_db, "coding": "abstract"},
        }
    )


class Picture:
    """One generation, drawn once and sent in every way."""

    def __init__(self, bundle: Bundle, view: int, size_px: int) -> None:
        self.bundle, self.size_px, self.rng_seed = bundle, size_px, view
        self.prompt = describe(view)
        self.drawn: dict[tuple[str, int | None], Part] = {}
        first = self.run(WAYS["seed int8"], 20.0)
        latent = first.features["denoise"].values
        self.reference = bundle.decode(latent[None])

    def distance(self, images: NDArray[np.uint8]) -> list[float]:
        """Of each from the picture of the error-free latent."""
        reference = PerceptualReference(np.repeat(self.reference, len(images), 0))
        return [float(x) for x in reference.distance(images)]

    def run(self, way: Way, snr_db: float) -> Result:
        """Send it in one way; what the ES draws is drawn once."""
        scenario = make_scenario(
            way, self.prompt, size_px=self.size_px, rng_seed=self.rng_seed, snr_db=snr_db
        )
        key = ("split" if way.handoff_step else "whole", way.handoff_step)
        result = scenario.run(
            self.bundle, done=self.drawn.get(key) if way.name != "prompt" else None
        )
        if way.name != "prompt" and key not in self.drawn:
            self.drawn[key] = result.part({"ask", "embed", "denoise", "denoise_first"})
        return result

    def packet(self, way: Way, result: Result, snr_db: float) -> Packet:
        """What crossed down to the UE."""
        scenario = make_scenario(
            way, self.prompt, size_px=self.size_px, rng_seed=self.rng_seed, snr_db=snr_db
        )
        edge = scenario.mechanism.edges[-1]
        feature = result.features[edge.source.name]
        return scenario.codec(edge.source.makes).encode(feature)


def account(result: Result) -> dict[str, float]:
    """Operations of both sides' networks, and seconds of their cores."""
    found: dict[str, float] = {}
    for side in (Side.ES, Side.UE):
        lines = [c for c in result.ledger.computations if c.side == side]
        found[f"{side}_flops".lower()] = sum(c.flops for c in lines)
        # Codecs, and stages that hand on what there is: both run on a core.
        found[f"{side}_core_s".lower()] = sum(
            c.seconds for c in lines if not c.flops and c.task != "run"
        )
    return found


def send_all(picture: Picture, ways: Sequence[str]) -> dict[str, Any]:
    """Distances, costs and packets of one picture, by way and SNR."""
    found: dict[str, Any] = {}
    for name in ways:
        way = WAYS[name]
        rows: list[dict[str, Any]] = []
        images: list[NDArray[np.uint8]] = []
        for snr_db in QUALITY_SNR_DB if name in NOISY else (20.0,):
            result = picture.run(way, snr_db)
            assert result.image is not None, (name, snr_db, result.outcome)
            packet = picture.packet(way, result, snr_db)
            symbols = 0 if packet.symbols is None else packet.symbols.size
            images.append(result.image)
            rows.append(
                {
                    "bits": packet.bits,
                    "symbols": symbols,
                    "told_snr": packet.told_snr,
                    **account(result),
                }
            )
        found[name] = {key: [row[key] for row in rows] for key in rows[0]}
        found[name]["distance"] = picture.distance(np.stack(images))
    return found


def measure_quality(pictures: int, first_view: int, large: int) -> dict[str, Any]:
    """Distances of all pictures, and costs by size; a few large ones say what they cost, and how their
    distances compare with the small ones'.
    """
    bundle = Bundle()
    bundle.load("text_encoder", "denoiser", "encoder", "decoder", "student", "sketch_adapter")
    for way in WAYS.values():
        load(make_scenario(way, "?", size_px=256, rng_seed=0, snr_db=20.0), bundle, ())
    everywhere = [name for name in WAYS if name != "prompt"]
    every = []
    for number in range(pictures):
        picture = Picture(bundle, first_view + number, 256)
        # The prompt alone gives the picture itself, so once is enough.
        every.append(send_all(picture, list(WAYS) if number == 0 else everywhere))
        print(f"{number + 1}/{pictures} pictures", flush=True)
    larger = [name for name, way in WAYS.items() if way.up_to_px >= 512]
    every_512 = []
    for number in range(large):
        picture = Picture(bundle, first_view + number, 512)
        every_512.append(send_all(picture, [n for n in larger if n != "prompt" or number == 0]))
        print(f"{number + 1}/{large} pictures of 512 pixels", flush=True)
    ways: dict[str, Any] = {}
    for name in WAYS:
        there = [one[name] for one in every if name in one]
        distance = np.array([one["distance"] for one in there]).T
        if name == "prompt":
            assert distance.max() < 1e-3
            distance = np.zeros((1, pictures))
        ways[name] = {"distance": distance.round(4).tolist(), "256": merge(there)}
        if name in larger and large:
            there = [one[name] for one in every_512 if name in one]
            ways[name]["512"] = merge(there)
            distance = np.array([one["distance"] for one in there]).T
            ways[name]["distance_512"] = distance.round(4).tolist()
    prompts = [len(describe(first_view + n).encode()) for n in range(pictures)]
    return {
        "bundle_sha256": bundle.checksum,
        "first_view": first_view,
        "pictures": pictures,
        "snr_db": QUALITY_SNR_DB,
        "prompt_bits": 8 * round(float(np.mean(prompts))),
        "models_mb": {
            model: round(4 * bundle.card(model)["parameters"] / 1e6, 2)
            for model in sorted({m for way in WAYS.values() for m in way.ue_models})
        },
        "ways": ways,
    }


def merge(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Costs of several pictures: bits as the mean, the quickest of what was timed."""
    found: dict[str, Any] = {}
    for key in ("bits", "symbols", "es_flops", "ue_flops"):
        found[key] = [round(float(x)) for x in np.mean([run[key] for run in runs], 0)]
    for key in ("es_core_s", "ue_core_s"):
        found[key] = [round(float(x), 6) for x in np.min([run[key] for run in runs], 0)]
    found["told_snr"] = runs[0]["told_snr"][0]
    return found


def join(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Quality of several runs as of one; costs as the first has them, what was timed at its quickest."""
    found = json.loads(json.dumps(files[0]))
    found["source"] = "; ".join(file["source"] for file in files)
    found["pictures"] = sum(file["pictures"] for file in files)
    for name, way in found["ways"].items():
        every = [file["ways"][name] for file in files]
        way["distance"] = np.concatenate([one["distance"] for one in every], 1).tolist()
        for key in ("es_core_s", "ue_core_s"):
            way["256"][key] = np.min([one["256"][key] for one in every], 0).tolist()
    return dict(found)


def measure_sending(quality: dict[str, Any]) -> dict[str, Any]:
    """What the link takes for each way's packet: by MCS table, way and size, at each SNR."""
    tables: dict[str, Any] = {}
    for table in MCS_TABLES:
        found: dict[str, Any] = {}
        tables[str(table)] = found
        link = RadioLink(coding="abstract", mcs_table=table)
        asked = Packet(payload=bytes(quality["prompt_bits"] // 8))
        found["ask"] = send_often(link, [asked] * len(SENDING_SNR_DB))
        for name, way in quality["ways"].items():
            for size in map(str, SIZES_PX):
                if size in way:
                    packets = [pick_packet(way[size], snr) for snr in SENDING_SNR_DB]
                    found[f"{name} {size}"] = send_often(link, packets)
            print(f"MCS table {table}: {name}", flush=True)
    return {
        "snr_db": SENDING_SNR_DB,
        "bandwidth_hz": RadioLink.bandwidth_hz,
        "tx_power_dbm": RadioLink.tx_power_dbm,
        "tables": tables,
    }


def pick_packet(costs: dict[str, Any], snr_db: float) -> Packet:
    """As large as the way's packet is at the nearest SNR that was measured."""
    several = len(costs["bits"]) > 1
    at = int(np.argmin(np.abs(np.array(QUALITY_SNR_DB) - snr_db))) if several else 0
    symbols: NDArray[np.complex64] | None = None
    if costs["symbols"][at]:
        symbols = np.ones(costs["symbols"][at], np.complex64)
    payload = bytes(costs["bits"][at] // 8)
    return Packet(payload=payload, symbols=symbols, told_snr=costs["told_snr"])


def send_often(link: RadioLink, packets: Sequence[Packet]) -> dict[str, Any]:
    """Latency of each draw, rising, -1 for lost; means of the rest. [snr, draws], [snr]"""
    found: dict[str, list[Any]] = {
        "latency_ms": [], "airtime_s": [], "feedback_s": [], "radiated_j": [], "feedback_radiated_j": [],
    }  # fmt: skip
    for snr_db, packet in zip(SENDING_SNR_DB, packets, strict=True):
        there = replace(link, snr_db=snr_db)
        sent = [there.send(packet, np.random.default_rng((7, n))) for n in range(DRAWS)]
        came = sorted(1000 * d.latency_s for d in sent if d.outcome == "delivered")
        found["latency_ms"].append([round(x, 3) for x in came] + [-1] * (DRAWS - len(came)))
        for key in ("airtime_s", "feedback_s", "radiated_j", "feedback_radiated_j"):
            found[key].append(float(f"{np.mean([getattr(d, key) for d in sent]):.4g}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("quality", "sending"))
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--first-view", type=int, default=10_000_000)
    parser.add_argument("--quality", type=Path, nargs="+", help="of the first part, for the second")
    parser.add_argument("--large", type=int, default=2, help="pictures of 512 pixels")
    parser.add_argument("--out", type=Path, default=COSTS)
    arguments = parser.parse_args()
    if arguments.part == "quality":
        found = {
            "source": f"python recipes/planner.py quality --pictures {arguments.pictures} "
            f"--first-view {arguments.first_view} --large {arguments.large}",
            **measure_quality(arguments.pictures, arguments.first_view, arguments.large),
        }
    else:
        found = join([json.loads(path.read_text()) for path in arguments.quality])
        found["source"] += "; python recipes/planner.py sending"
        found["sending"] = measure_sending(found)
    arguments.out.write_text(json.dumps(found) + "\n")
    print(f"costs: {arguments.out}")


if __name__ == "__main__":
    main()
