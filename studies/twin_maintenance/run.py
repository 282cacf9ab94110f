"""Who refreshes which part of the replica, at equal bits: how far it is from the world.

python studies/twin_maintenance/run.py [--quick] [--out results.json]
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
from megdt.codecs.observation import WideObservationCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.mechanisms.panorama import VIEW_COLUMNS, Camera, Panorama, cut
from megdt.models import LATENT_CHANNELS
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Delivery, Feature, Side
from megdt.twin.content import predict_change
from megdt.twin.maintenance import Refresh, plan_refreshes, take_turns
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.worlds.garden import Garden, View
from megdt.worlds.scene import VIEW_EXTENT_M

HERE = Path(__file__).parent
DAY_S = 86_400.0
COLUMNS_A_M = VIEW_COLUMNS / VIEW_EXTENT_M
PIECE_PX = 256
WAYS = ("by need", "in turns", "by chance")
WANTED = 0.7

Image = NDArray[np.uint8]


class Play:
    """One garden and its cameras, round by round; the same for every way of choosing."""

    def __init__(
        self, rng_seed: int, repeat: int, settings: Mapping[str, Any], bundle: Bundle
    ) -> None:
        self.settings, self.bundle = settings, bundle
        self.garden = Garden(rng_seed, length_m=settings["length_m"])
        self.width = round(settings["length_m"] * COLUMNS_A_M)
        rng = np.random.default_rng((rng_seed, 7, repeat))
        room = settings["length_m"] - VIEW_EXTENT_M
        middle = rng.uniform(0, room)
        self.starts = np.clip(middle + rng.uniform(-3, 3, settings["crowd"]), 0, room)
        self.wander = rng.uniform(0, 2 * room, settings["wanderers"])
        self.steps = rng.uniform(1.5, 3.0, settings["wanderers"])
        self.room = room
        self.rounds = [self._round(number) for number in range(settings["rounds"])]
        before = bundle.encode(self.garden.panorama(256)[None])[0]
        self.memory = Feature(kind="observation", values=before)

    def _round(
        self, number: int
    ) -> tuple[Panorama, Image, dict[Side, Feature], PerceptualReference]:
        """Who stands where, the world, what each sees, and what the replica is judged by."""
        along = (self.wander + number * self.steps) % (2 * self.room)
        lefts = [*self.starts, *np.where(along > self.room, 2 * self.room - along, along)]
        cameras = tuple(
            Camera(side=Side.ue(n + 1), column=round(float(left) * COLUMNS_A_M))
            for n, left in enumerate(lefts)
        )
        panorama = Panorama(width=self.width, cameras=cameras, margin=0)
        now = self.garden.later((number + 1) * self.settings["days_between"])
        views = np.stack([now.render(View(position_m=c.position_m)) for c in cameras])
        latents = self.bundle.encode(views)
        seen = {
            c.side: Feature(kind="observation", values=latent)
            for c, latent in zip(cameras, latents, strict=True)
        }
        world = now.panorama(256)
        return panorama, world, seen, PerceptualReference(pieces(world))

    def run(self, way: str, views: float) -> dict[str, float]:
        """Refresh the replica round by round; means over the rounds."""
        codec = WideObservationCodec(
            seed=lambda width: QuantisedSeedCodec(shape=(LATENT_CHANNELS, VIEW_COLUMNS, width)),
            columns=self.width,
        )
        rng = np.random.default_rng(0)
        replica = Replica.blank(VIEW_COLUMNS, self.width)
        distances, bits, turn = [], 0, 0
        with open_store() as store:
            replica.refresh(self.memory, range(self.width), source=Side.ES, now_s=0, store=store)
            for number, (panorama, _, seen, reference) in enumerate(self.rounds):
                now_s = (number + 1) * self.settings["days_between"] * DAY_S
                sides = [camera.side for camera in panorama.cameras]
                order = [sides[(turn + k) % len(sides)] for k in range(len(sides))]
                if way == "by chance":
                    order = [sides[int(k)] for k in rng.permutation(len(sides))]
                # What was not spent is there for the next round: whole views do not fit every budget.
                budget = views * bits_of(VIEW_COLUMNS) * (number + 1) - bits
                chosen: Sequence[Refresh]
                if way == "by need":
                    chosen = plan_refreshes(
                        replica, panorama, now_s=now_s, budget=budget,
                        cost=lambda side, columns: bits_of(columns), novelty=novelty,
                    )  # fmt: skip
                else:
                    chosen, turns = take_turns(
                        panorama, order, budget=budget, cost=lambda side, columns: bits_of(columns)
                    )
                    turn += turns
                for refresh in chosen:
                    view = panorama.by_side[refresh.side].view
                    part = cut(seen[refresh.side], view, refresh.columns)
                    packet = codec.encode(part)
                    bits += packet.bits
                    came = codec.decode(Delivery(payload=packet.payload))
                    replica.refresh(
                        came, refresh.columns, source=refresh.side, now_s=now_s, store=store
                    )
                if (number + 1) % self.settings["judged_every"] == 0:
                    shown = replica.picture(self.bundle)
                    distances.append(float(reference.distance(pieces(shown)).mean()))
        return {
            "perceptual": float(np.mean(distances)),
            "kbit_a_round": bits / 1000 / len(self.rounds),
        }


def novelty(age_s: float) -> float:
    """What is expected to have changed since."""
    return predict_change(age_s / DAY_S).mean


def bits_of(columns: int) -> float:
    """Of so many columns as int8, with head and a run."""
    return 8 * LATENT_CHANNELS * VIEW_COLUMNS * columns + 64


def pieces(panorama: Image) -> Image:
    """Side by side, 256 pixels each. [pieces, 256, 256, 3]"""
    count = panorama.shape[1] // PIECE_PX
    cut_off = panorama[:, : count * PIECE_PX]
    return np.ascontiguousarray(cut_off.reshape(256, count, PIECE_PX, 3).swapaxes(0, 1))


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
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    plays = [(g, r) for g in range(settings["gardens"]) for r in range(settings["repeats"])]
    for done, (garden, repeat) in enumerate(plays, start=1):
        play = Play(settings["first_garden"] + garden, repeat, settings, bundle)
        for views in settings["views_a_round"]:
            for way in WAYS:
                found.setdefault((way, views), []).append(play.run(way, views))
        print(f"{done}/{len(plays)} gardens", flush=True)
    rows = [
        {
            "way": way, "views_a_round": views,
            **{key: float(np.mean([row[key] for row in got])) for key in got[0]},
            "perceptual_each": [row["perceptual"] for row in got],
        }
        for (way, views), got in found.items()
    ]  # fmt: skip
    by = {(row["way"], row["views_a_round"]): row["perceptual"] for row in rows}
    ratios = {v: by["by need", v] / by["in turns", v] for v in settings["views_a_round"]}
    chance = {v: by["by need", v] / by["by chance", v] for v in settings["views_a_round"]}
    met = [r <= WANTED for r in ratios.values()]
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "rows": rows,
        "claims": [
            {
                "claim": f"At equal bits the replica's distance to the world is at most {WANTED} of round "
                "robin's (our target)",
                "verdict": "met" if all(met) else "met when" if any(met) else "missed",
                "found": ", ".join(f"{r:.2f} at {v:g} views a round" for v, r in ratios.items()),
            },
            {
                "claim": "and of what chance would give",
                "verdict": "holds" if max(chance.values()) < 1 else "does not hold",
                "found": ", ".join(f"{r:.2f} at {v:g} views a round" for v, r in chance.items()),
            },
        ],
    }  # fmt: skip
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
