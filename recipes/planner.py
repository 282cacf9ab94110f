"""Measure what the planner's ways take and give: src/megdt/twin/planner_costs.json.

1. hardness: garden views lose detail to a short seed, and get noise; what their latents are like tells
   how much that shows (src/megdt/twin/hardness.json).
2. pictures: generations after sentences about held-out views are sent in every way, over a link of each
   SNR where noise gets into the picture, else once; the distance is ST-LPIPS to the picture that the
   ES decodes of the error-free latent. Operations, seconds of codecs, bits and symbols are counted. A
   way whose packet has bits alone gives the same picture at any SNR, or none. A file a picture, so
   that this can be stopped and started again, or run side by side.
3. costs: all pictures together, and packets of these bits and symbols cross the link at each SNR, under
   each MCS table, several times; every draw's latency is kept, since it is the late ones that break a
   deadline.

    python recipes/planner.py hardness
    python recipes/planner.py pictures FOLDER [--pictures 48] [--large 16] [--first-view 10000000]
    python recipes/planner.py costs FOLDER

Studies judge plans on other pictures: `python recipes/planner.py held-out FOLDER --out held_out.json`.
Needs the extras metrics and images, and stlpips-pytorch. Two minutes for hardness, some 15 seconds for a picture on one core, 30
for one of 512 pixels, and five minutes for the links.
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
from megdt.records import Delivery, Feature, Packet, Part, Request, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.trial import load
from megdt.twin.hardness import LEARNED, foresee, spread
from megdt.twin.hardness import describe as latent_features
from megdt.twin.ways import COSTS, WAYS, Way
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

QUALITY_SNR_DB = (-10.0, -6.0, -2.0, 2.0, 6.0, 10.0, 14.0, 20.0, 30.0)
SENDING_SNR_DB = tuple(float(snr) for snr in range(-10, 31, 2))
SIZES_PX = (256, 512)
MCS_TABLES = (2, 3)
DRAWS = 4
NOISY = ("seed analog", "seed hybrid", "steps 12 analog", "steps 18 analog")
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
        self.latent = first.features["denoise"].values
        self.reference = PerceptualReference(bundle.decode(self.latent[None]))

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
        for snr_db in QUALITY_SNR_DB if name in NOISY else (20.0,):
            result = picture.run(way, snr_db)
            assert result.image is not None, (name, snr_db, result.outcome)
            packet = picture.packet(way, result, snr_db)
            rows.append(
                {
                    "bits": packet.bits,
                    "symbols": 0 if packet.symbols is None else packet.symbols.size,
                    "told_snr": packet.told_snr,
                    "distance": float(picture.reference.distance(result.image[None])[0]),
                    **account(result),
                }
            )
        found[name] = {key: [row[key] for row in rows] for key in rows[0]}
    return found


def measure_pictures(folder: Path, first_view: int, pictures: int, large: int) -> None:
    """A file a picture and size into the folder; those that are there are left as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle()
    bundle.load("text_encoder", "denoiser", "encoder", "decoder", "student", "sketch_adapter")
    for way in WAYS.values():
        load(make_scenario(way, "?", size_px=256, rng_seed=0, snr_db=20.0), bundle, ())
    wanted = [(256, n) for n in range(pictures)] + [(512, n) for n in range(large)]
    for size_px, number in sorted(wanted, key=lambda one: (one[1], one[0])):
        view = first_view + number
        path = folder / f"{size_px}_{view}.json"
        if path.exists():
            continue
        picture = Picture(bundle, view, size_px)
        # The prompt alone gives the picture itself, so once is enough.
        ways = [
            n for n, w in WAYS.items() if w.up_to_px >= size_px and (n != "prompt" or not number)
        ]
        found = {"view": view, "prompt": picture.prompt, "ways": send_all(picture, ways)}
        request = Request(prompt=picture.prompt, rng_seed=view)
        found["hardness"] = foresee(bundle, request)
        path.write_text(json.dumps(found))
        print(path, flush=True)


def learn_hardness(views: int, first_view: int) -> dict[str, Any]:
    """What a short seed and noise do to garden views, as a linear function of what latents are like."""
    bundle = Bundle()
    codec = make_scenario(WAYS["seed 0.05"], "?", size_px=256, rng_seed=0, snr_db=20.0).codec(
        "seed"
    )
    described, distances = [], []
    for view in range(first_view, first_view + views):
        garden, seen = draw_view(view)
        latent = bundle.encode(garden.render(seen)[None])[0]
        packet = codec.encode(Feature(kind="seed", values=latent))
        short = codec.decode(Delivery(payload=packet.payload)).values
        noise = np.random.default_rng(0).standard_normal(latent.shape).astype(np.float32)
        reference = PerceptualReference(bundle.decode(latent[None]))
        distances.append(
            [reference.distance(bundle.decode(x[None]))[0] for x in (short, latent + 0.3 * noise)]
        )
        described.append(latent_features(latent))
    return fit_hardness(np.array(described), np.array(distances)) | {
        "bundle_sha256": bundle.checksum, "views": views, "first_view": first_view,
    }  # fmt: skip


def fit_hardness(described: NDArray[Any], distances: NDArray[Any]) -> dict[str, Any]:
    """Numbers of hardness.json."""
    found = spread(np.log(distances).T, described)
    return {
        "middle": found.middle.round(5).tolist(),
        "base": found.base.round(5).tolist(),
        "slope": found.slope.round(5).tolist(),
        "spread_before": np.log(distances).std(0).round(3).tolist(),
        "spread_left": found.residual.std(-1).round(3).tolist(),
    }


def gather(folder: Path) -> dict[str, Any]:
    """Distances and hardness of every picture in a folder, and costs as means, by way and size."""
    files = sorted(folder.glob("*.json"))
    of_size: dict[str, list[dict[str, Any]]] = {str(size): [] for size in SIZES_PX}
    for path in files:
        of_size[path.name.split("_")[0]].append(json.loads(path.read_text()))
    bundle = Bundle()
    ways: dict[str, Any] = {name: {} for name in WAYS}
    for name in WAYS:
        for size, pictures in of_size.items():
            if there := [one["ways"][name] for one in pictures if name in one["ways"]]:
                ways[name][size] = merge(there)
                distance = np.array([one["distance"] for one in there]).T
                if name == "prompt":
                    assert distance.max() < 1e-3
                    distance = np.zeros((1, len(pictures)))
                ways[name][size]["distance"] = distance.round(4).tolist()
    prompts = [len(one["prompt"].encode()) for one in of_size["256"]]
    return {
        "source": "python recipes/planner.py",
        "bundle_sha256": bundle.checksum,
        "first_view": min(one["view"] for one in of_size["256"]),
        "pictures": {size: len(pictures) for size, pictures in of_size.items()},
        "hardness": {
            size: [[round(x, 3) for x in one["hardness"]] for one in pictures]
            for size, pictures in of_size.items()
        },
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
    parser.add_argument("part", choices=("hardness", "pictures", "costs", "held-out"))
    parser.add_argument("folder", type=Path, nargs="?", help="of the pictures' files")
    parser.add_argument("--views", type=int, default=110, help="that hardness is learned from")
    parser.add_argument("--pictures", type=int, default=48, help="of 256 pixels")
    parser.add_argument("--large", type=int, default=16, help="of 512 pixels")
    parser.add_argument("--first-view", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=COSTS)
    arguments = parser.parse_args()
    if arguments.part == "hardness":
        LEARNED.write_text(json.dumps(learn_hardness(arguments.views, 30_000_000)) + "\n")
        return
    if arguments.folder is None:
        parser.error(f"{arguments.part} needs a folder")
    if arguments.part == "pictures":
        measure_pictures(
            arguments.folder, arguments.first_view, arguments.pictures, arguments.large
        )
        return
    found = gather(arguments.folder)
    if arguments.part == "costs":
        found["sending"] = measure_sending(found)
    else:
        for way in found["ways"].values():
            for size, costs in way.items():
                way[size] = {"distance": costs["distance"]}
    arguments.out.write_text(json.dumps(found) + "\n")
    print(f"{arguments.part}: {arguments.out}")


if __name__ == "__main__":
    main()
