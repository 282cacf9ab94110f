"""Videos for one user: waiting, stalls, energy and bits, in sequence and in parallel.

python studies/video/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megdt import __version__
from megdt.codecs import Codec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.video import VideoSeedCodec
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.video import play, screen
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.pictures import draw_sheet, save_picture
from megdt.records import Delivery, Feature, Packet, Part, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
NAMES = {"SEU": "video_sequential", "PEU": "video_parallel"}
MOTIONS = ("lapse", "track")
WANTED = 0.25
SKIES = {
    "clear": "at sunset", "cloudy": "on a sunny day", "sunset": "under the stars", "night": "at sunset",
}  # fmt: skip
"""By the sky of the view, that at the end of a time-lapse."""

Image = NDArray[np.uint8]


def scenario_of(
    name: str, scene: int, motion: str, settings: Mapping[str, Any], *, snr_db: float,
    devices: Sequence[str],
) -> tuple[Scenario, Image]:  # fmt: skip
    """A mechanism on a held-out view, told what it shows; a time-lapse ends under another sky."""
    garden, view = draw_view(settings["first_scene"] + scene)
    truth = garden.truth(view)
    prompt = phrase(attributes(truth), np.random.default_rng(scene))
    group = truth.groups[0]
    sky = SKIES[truth.conditions.sky]
    scenario = parse_scenario(
        {
            "request": {"prompt": prompt, "steps": settings["steps"], "rng_seed": scene},
            "plan": {"mechanism": NAMES[name]},
            "link": {
                "snr_db": float(snr_db), "coding": "abstract",
                "bandwidth_hz": settings["bandwidth_hz"],
            },
            "devices": dict(zip(("es", "ue"), devices, strict=True)),
            "video": {
                "motion": motion, "frames": settings["frames"],
                "frames_per_s": settings["frames_per_s"],
                "pixels_per_frame": settings["pixels_per_frame"],
                "to_prompt": f"{group.colour} {group.species} {sky}" if motion == "lapse" else "",
            },
        }
    )  # fmt: skip
    return scenario, garden.render(view)


def make(scene: int, motion: str, settings: Mapping[str, Any], bundle: Bundle) -> Result:
    """A video as the ES makes it and the UE shows it."""
    scenario, view = scenario_of(
        "PEU", scene, motion, settings, snr_db=10, devices=("edge_gpu", "phone")
    )
    done = Part(features={"sense": Feature(kind="image", values=view)})
    return scenario.run(bundle, done=done)


def measure_waiting(
    made: Result, scene: int, motion: str, settings: Mapping[str, Any], bundle: Bundle
) -> list[dict[str, Any]]:
    """Both mechanisms with the same video, over several links and on several devices."""
    rows = []
    for devices in settings["devices"]:
        for snr_db in settings["snr_db"]:
            for name in NAMES:
                scenario, _ = scenario_of(
                    name, scene, motion, settings, snr_db=snr_db, devices=devices
                )
                rows.append(
                    {
                        "motion": motion, "scene": scene, "mechanism": name, "es": devices[0],
                        "ue": devices[1], "snr_db": snr_db,
                        **account(again(scenario, made, bundle), settings["frames_per_s"]),
                    }
                )  # fmt: skip
    return rows


class Counter:
    """Counts operations."""

    flops = 0.0


class Replay:
    """What the frames' codec has made before, with the operations that it took."""

    remembers = True

    def __init__(self, made: Result) -> None:
        ledger = made.ledger
        self.bits = [c.bits for c in ledger.crossings if c.kind == "frame"]
        self.frames = [made.arrived[f"frame_{n + 1}", Side.UE] for n in range(len(self.bits))]
        self.took = {
            way: [c.flops for c in ledger.computations if c.task == f"{way} frame"]
            for way in ("encode", "decode")
        }
        self.at, self.flops = 0, 0.0

    def _next(self, way: str) -> int:
        self.flops += self.took[way][self.at]
        self.at += 1
        return self.at - 1

    def ask_key(self) -> None:
        """A loss would change what follows."""
        raise RuntimeError("a frame was lost, which a replay cannot follow; take a better link")

    def encode(self, feature: Feature) -> Packet:
        del feature
        return Packet(payload=bytes(self.bits[self._next("encode")] // 8))

    def decode(self, delivery: Delivery) -> Feature:
        del delivery
        return self.frames[self._next("decode")]


def again(scenario: Scenario, made: Result, bundle: Bundle) -> Result:
    """The same video by another mechanism, over another link, on other devices.

    Stages and codec give what they gave, at what it costs here.
    """
    flops = {c.stage: c.flops for c in made.ledger.computations if c.task == "run"}
    counter = Counter()

    def kept(name: str, run: Callable[..., Feature]) -> Callable[..., Feature]:
        if name not in flops or name.startswith("show"):
            return run

        def give(job: Any, *inputs: Any) -> Feature:
            counter.flops += flops[name]
            return made.features[name]

        return give

    plain = scenario.mechanism
    stages = tuple(replace(s, run=kept(s.name, s.run)) for s in plain.stages)
    codecs = {kind: scenario.codec(kind) for kind in ("prompt", "observation")}
    codecs["frame"] = Replay(made)
    return simulate(
        replace(plain, stages=stages),
        scenario.request,
        models=counter,
        codecs=codecs,
        links=dict.fromkeys(codecs, scenario.link),
        devices=scenario.devices.profiles(scenario.mechanism.sides),
        done=Part(features={"sense": made.features["sense"]}),
    )


def account(result: Result, frames_per_s: float) -> dict[str, float]:
    """When what is on the screen, and what it took."""
    found, ledger = play(result, frames_per_s=frames_per_s), result.ledger
    made = [c.end_s for c in ledger.computations if c.stage.startswith("frame") and c.task == "run"]
    return {
        "first_picture_ms": 1000 * found.picture_s,
        "first_frame_ms": 1000 * found.first_s,
        "playable_ms": 1000 * found.playable_s,
        "stalls_ms": 1000 * found.stalls_s,
        "waits": found.waits,
        "lost": found.lost,
        "generated_ms": 1000 * max(made),
        "arrived_ms": 1000 * ledger.duration_s,
        "ue_energy_mj": 1000 * ledger.energy_of(Side.UE),
        "es_energy_mj": 1000 * ledger.energy_of(Side.ES),
        "frame_kbit": sum(c.bits for c in ledger.crossings if c.kind == "frame") / 1000,
    }


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Over scenes."""
    keys = ("motion", "es", "ue", "snr_db", "mechanism")
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return [
        {
            **dict(zip(keys, place, strict=True)),
            **{
                k: round(float(np.mean([r[k] for r in group])), 2)
                for k in group[0]
                if k not in (*keys, "scene")
            },
        }
        for place, group in found.items()
    ]


def measure_bits(
    made: Result, scene: int, motion: str, settings: Mapping[str, Any], bundle: Bundle
) -> list[dict[str, Any]]:
    """Frames told by the one before against frames by themselves, at equal ST-LPIPS."""
    frames = np.stack([made.features[f"frame_{n + 1}"].values for n in range(settings["frames"])])
    judged = sorted({*range(0, len(frames), 3), len(frames) - 1})
    reference = PerceptualReference(frames[judged])
    seeds = bundle.encode(frames[judged])
    curve = []
    for bits in settings["rates"]:
        codec = ProgressiveSeedCodec(shape=seeds[0].shape, budget_bits=bits)
        spent, values = carry([codec] * 2, "seed", list(seeds))
        distance = reference.distance(bundle.decode(np.stack(values))).mean()
        curve.append((spent, float(distance)))
    rows = []
    for bits in settings["key_bits"]:
        ends = [VideoSeedCodec(bundle, key_bits=bits) for _ in range(2)]
        spent, shown = carry(ends, "frame", list(frames))
        distance = float(reference.distance(np.stack(shown)[judged]).mean())
        equal = bits_at(distance, curve)
        rows.append(
            {
                "motion": motion, "scene": scene, "key_bits": bits,
                "bits_a_frame": round(spent, 1), "perceptual": round(distance, 4),
                "single_bits": equal,
                "ratio": None if equal is None else round(spent / equal, 3),
            }
        )  # fmt: skip
    return rows


def carry(ends: Sequence[Codec], kind: Any, values: Sequence[Any]) -> tuple[float, list[Any]]:
    """Mean bits, and what arrives."""
    sender, receiver = ends
    packets = [sender.encode(Feature(kind=kind, values=v)) for v in values]
    arrived = [receiver.decode(Delivery(payload=p.payload)).values for p in packets]
    return float(np.mean([p.bits for p in packets])), arrived


def bits_at(distance: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """Bits of a frame by itself at this distance, read off in logarithms; None beyond the curve."""
    bits, found = np.array(curve).T
    # More bits that do not help are no reason to count fewer.
    found = np.minimum.accumulate(found)
    if not found[-1] <= distance <= found[0]:
        return None
    return round(float(np.exp(np.interp(-np.log(distance), -np.log(found), np.log(bits)))), 1)


def draw(made: Result, path: Path) -> None:
    """The UE's view and eight of the frames that it shows."""
    frames = screen(made)
    numbers = sorted({round(n) for n in np.linspace(0, len(frames) - 1, 8)})
    pictures = [made.features["sense"].values, *(frames[n] for n in numbers)]
    notes = ["what the UE sees", *(f"frame {n + 1}" for n in numbers)]
    save_picture(path, draw_sheet(pictures, notes, columns=5))


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the paper says of videos (section II-C1 and the conclusion of III), with our figures."""
    rows = results["waiting"]
    pairs = [(s, p) for s in rows if s["mechanism"] == "SEU" for p in rows
             if p["mechanism"] == "PEU" and all(s[k] == p[k] for k in ("motion", "es", "snr_db"))]  # fmt: skip

    def ratios(key: str) -> str:
        found = [p[key] / s[key] for s, p in pairs]
        return f"{min(found):.2f} to {max(found):.2f}"

    by_motion = {
        m: [r["ratio"] for r in results["bits"] if r["motion"] == m and r["ratio"] is not None]
        for m in MOTIONS
    }
    told = "; ".join(
        f"{m} {min(v):.2f} to {max(v):.2f}, mean {np.mean(v):.2f}" if v else f"{m} beyond the curve"
        for m, v in by_motion.items()
    )
    track = by_motion["track"]
    sooner = all(p["first_frame_ms"] < s["first_frame_ms"] for s, p in pairs)
    playable = all(p["playable_ms"] < s["playable_ms"] for s, p in pairs)
    return [
        {
            "claim": "With SEU users wait for the whole generation; with PEU a video is shown while it is made",
            "verdict": "holds" if sooner and playable else "does not hold",
            "found": f"first frame after {ratios('first_frame_ms')} of SEU's time, playable to its end after {ratios('playable_ms')}; the UE's own view at once",
        },
        {
            "claim": "PEU costs the UE no more energy (ours)",
            "verdict": "holds" if all(p["ue_energy_mj"] <= s["ue_energy_mj"] for s, p in pairs) else "does not hold",
            "found": f"{ratios('ue_energy_mj')} of SEU's",
        },
        {
            "claim": "Seeds predicted from the frame before take at most 0.25 of the bits on a camera track, at equal perceptual distance (our target)",
            "verdict": "met" if track and max(track) <= WANTED else "missed",
            "found": told,
        },
    ]  # fmt: skip


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
    bundle.load("encoder", "decoder", "text_encoder", "denoiser")
    make(0, "track", {**settings, "frames": 2, "steps": 1}, bundle)  # compiles the codecs
    waiting: list[dict[str, Any]] = []
    bits: list[dict[str, Any]] = []
    jobs = [(scene, motion) for scene in range(settings["scenes"]) for motion in MOTIONS]
    for number, (scene, motion) in enumerate(jobs, start=1):
        made = make(scene, motion, settings, bundle)
        waiting += measure_waiting(made, scene, motion, settings, bundle)
        bits += measure_bits(made, scene, motion, settings, bundle)
        if scene == 0:
            draw(made, arguments.out.with_name(f"{motion}.png"))
        print(f"{number}/{len(jobs)} videos", flush=True)
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "waiting": means(waiting),
        "bits": bits,
    }
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
