"""Bits of video as seeds, each frame told by the one before, against seeds that need no other.

    python benchmarks/video_seeds.py [--quick] [--frames 16] [--scenes 3] [--processes 2]
        [--out benchmarks/video_seeds.json]

A camera goes along held-out gardens, or stands still while days pass. Both ways carry the same
frames of 256 pixels: as independent progressive seeds at several rates, which is a curve of bits
over perceptual distance (ST-LPIPS, to the frames as drawn), and as `VideoSeedCodec` packets, all of
their bytes counted, the key frame included. The ratio is of the bits at equal distance, read off
the curve in logarithms; null where the distance lies beyond its ends. Distances are means over
every third frame and the last.

The camera's motion is not told: the sender finds it in the pictures. The codec's two thresholds
were chosen on gardens 0 and 2 of these; 1 was not looked at before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.video import VideoSeedCodec
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Delivery, Feature
from megdt.worlds.garden import Garden, View
from megdt.worlds.scene import VIEW_EXTENT_M

SIZE_PX = 256
HELD_OUT = 10_000_000
SINGLE_BITS = (3000, 5000, 8000, 12000)
KEY_BITS = (4000, 6552)
WANTED = 0.25


@dataclass(frozen=True)
class Track:
    """Where the camera goes, and how time goes by."""

    name: str
    pixels: float
    days: float


TRACKS = (
    Track("8 px a frame", 8.0, 0.0),
    Track("13.7 px and 0.1 days a frame", 13.7, 0.1),
    Track("32 px a frame", 32.0, 0.0),
    Track("time-lapse, 1 day a frame", 0.0, 1.0),
)


def draw(track: Track, scene: int, frames: int) -> np.ndarray:
    """The frames as the garden draws them. [frames, height, width, 3]"""
    garden = Garden(HELD_OUT + scene, length_m=24.0)
    step = track.pixels * VIEW_EXTENT_M / SIZE_PX
    return np.stack(
        [
            garden.later(track.days * n).render(
                View(position_m=VIEW_EXTENT_M / 2 + step * n, size_px=SIZE_PX)
            )
            for n in range(frames)
        ]
    )


def measure(job: tuple[Track, int], *, frames: int) -> dict[str, Any]:
    """Both ways over one track through one garden."""
    track, scene = job
    torch.set_num_threads(1)
    bundle, pictures = Bundle(), draw(track, scene, frames)
    judged = sorted({*range(0, frames, 3), frames - 1})
    reference = PerceptualReference(pictures[judged])
    seeds = bundle.encode(pictures[judged])
    singles = []
    for bits in SINGLE_BITS:
        codec = ProgressiveSeedCodec(shape=seeds[0].shape, budget_bits=bits)
        packets = [codec.encode(Feature(kind="seed", values=seed)) for seed in seeds]
        again = [codec.decode(Delivery(payload=p.payload)).values for p in packets]
        singles.append(
            {
                "bits a frame": float(np.mean([p.bits for p in packets])),
                "distance": float(reference.distance(bundle.decode(np.stack(again))).mean()),
            }
        )
    rows = [follow(bundle, pictures, judged, reference, singles, bits) for bits in KEY_BITS]
    garden = Garden(HELD_OUT + scene)
    weather = f"{garden.conditions.sky}, {garden.conditions.weather}"
    return {
        "track": track.name,
        "scene": scene,
        "weather": weather,
        "single": singles,
        "video": rows,
    }


def follow(
    bundle: Bundle,
    pictures: np.ndarray,
    judged: list[int],
    reference: PerceptualReference,
    singles: list[dict[str, float]],
    key_bits: int,
) -> dict[str, Any]:
    """The track as video at one rate."""
    sender, receiver = (VideoSeedCodec(bundle, key_bits=key_bits) for _ in range(2))
    bits, shown = [], []
    for picture in pictures:
        packet = sender.encode(Feature(kind="image", values=picture))
        bits.append(packet.bits)
        shown.append(receiver.decode(Delivery(payload=packet.payload)).values)
    distances = reference.distance(np.stack(shown)[judged])
    distance = float(distances.mean())
    equal = bits_at(distance, singles)
    return {
        "key_bits": key_bits,
        "bits": bits,
        "bits a frame": float(np.mean(bits)),
        "distance": round(distance, 5),
        "distances": [round(float(d), 4) for d in distances],
        "single bits at equal distance": equal,
        "ratio": None if equal is None else round(float(np.mean(bits)) / equal, 3),
    }


def bits_at(distance: float, singles: list[dict[str, float]]) -> float | None:
    """Bits a frame of independent seeds at this distance; None beyond the curve."""
    bits = np.array([row["bits a frame"] for row in singles])
    found = np.array([row["distance"] for row in singles])
    # More bits that do not help are no reason to count fewer.
    found = np.minimum.accumulate(found)
    if not found[-1] <= distance <= found[0]:
        return None
    return round(float(np.exp(np.interp(-np.log(distance), -np.log(found), np.log(bits)))), 1)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By track: the ratios' mean and range over gardens and rates."""
    found = []
    for track in TRACKS:
        every = [v for row in rows if row["track"] == track.name for v in row["video"]]
        ratios = [v["ratio"] for v in every if v["ratio"] is not None]
        if ratios:
            found.append(
                {
                    "track": track.name,
                    "ratio": round(float(np.mean(ratios)), 3),
                    "lowest": min(ratios),
                    "highest": max(ratios),
                    "beyond the curve": len(every) - len(ratios),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one garden, four frames, for a test")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    frames, scenes = (4, 1) if arguments.quick else (arguments.frames, arguments.scenes)
    jobs = [(track, scene) for scene, track in product(range(scenes), TRACKS)]
    rows = []
    with ProcessPoolExecutor(
        arguments.processes, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        for row in pool.map(partial(measure, frames=frames), jobs):
            rows.append(row)
            for video in row["video"]:
                kept = {k: video[k] for k in ("key_bits", "bits a frame", "distance", "ratio")}
                print(
                    json.dumps({"track": row["track"], "scene": row["scene"], **kept}), flush=True
                )
            found = {
                "wanted": WANTED,
                "frames": frames,
                "tracks": summarise(rows),
                "rows": rows,
            }
            arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    for line in summarise(rows):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
