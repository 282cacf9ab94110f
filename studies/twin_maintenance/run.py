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
from megdt.codecs.columns import pack_columns
from megdt.codecs.digest import STEP, DigestCodec
from megdt.codecs.observation import BLOCK, BlocksCodec, WideObservationCodec, split_blocks
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.mechanisms.panorama import VIEW_COLUMNS, Camera, Panorama, cut
from megdt.models import LATENT_CHANNELS
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Delivery, Feature, Side
from megdt.twin.content import predict_change
from megdt.twin.maintenance import Refresh, plan_refreshes, share_out, take_turns
from megdt.twin.replica import Replica
from megdt.twin.store import Store, open_store
from megdt.worlds.garden import Garden, View
from megdt.worlds.scene import VIEW_EXTENT_M

HERE = Path(__file__).parent
DAY_S = 86_400.0
COLUMNS_A_M = VIEW_COLUMNS / VIEW_EXTENT_M
PIECE_PX = 256
WAYS = ("by need", "by age", "in turns", "by chance", "informed")
WANTED = 0.7

Image = NDArray[np.uint8]
Changes = dict[Side, NDArray[np.float64]]


class World:
    """One garden round by round, and what replicas of it are judged by."""

    def __init__(self, rng_seed: int, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.rng_seed, self.settings, self.bundle = rng_seed, settings, bundle
        self.width = round(settings["length_m"] * COLUMNS_A_M)
        garden = Garden(rng_seed, length_m=settings["length_m"])
        self.memory = Feature(kind="observation", values=self.encode(garden))
        days = settings["days_between"]
        self.gardens = [garden.later((n + 1) * days) for n in range(settings["rounds"])]
        every = settings["judged_every"]
        self.references = {
            n: PerceptualReference(pieces(self.gardens[n].panorama(256)))
            for n in range(every - 1, settings["rounds"], every)
        }
        fresh = [self.judge(n, self.encode(self.gardens[n])) for n in self.references]
        self.fresh = float(np.mean(fresh))
        self.first = float(np.mean([self.judge(n, self.memory.values) for n in self.references]))

    def encode(self, garden: Garden) -> NDArray[np.float32]:
        """All of it at once."""
        return self.bundle.encode(garden.panorama(256)[None])[0]

    def judge(self, number: int, latents: NDArray[np.float32]) -> float:
        """How far latents are from the world of a round."""
        shown = self.bundle.decode(latents[None])[0]
        return float(self.references[number].distance(pieces(shown)).mean())


class Play:
    """Cameras in a world, round by round; the same for every way of choosing."""

    def __init__(self, world: World, cast: Mapping[str, Any]) -> None:
        self.world, self.settings = world, world.settings
        self.room = room = self.settings["length_m"] - VIEW_EXTENT_M
        rng = np.random.default_rng((world.rng_seed, 7, 0))
        middle = rng.uniform(0, room)
        self.still = np.concatenate(
            (
                np.clip(middle + rng.uniform(-3, 3, cast["crowd"]), 0, room),
                np.linspace(0, room, cast["evenly"]),
            )
        )
        self.wander = rng.uniform(0, 2 * room, cast["wanderers"])
        self.steps = rng.uniform(1.5, 3.0, cast["wanderers"])
        self.rounds = [self._round(n, garden) for n, garden in enumerate(world.gardens)]

    def _round(self, number: int, garden: Garden) -> tuple[Panorama, dict[Side, Feature]]:
        """Who stands where, and what each sees."""
        along = (self.wander + number * self.steps) % (2 * self.room)
        lefts = [*self.still, *np.where(along > self.room, 2 * self.room - along, along)]
        cameras = tuple(
            Camera(side=Side.ue(n + 1), column=round(float(left) * COLUMNS_A_M))
            for n, left in enumerate(lefts)
        )
        views = np.stack([garden.render(View(position_m=c.position_m)) for c in cameras])
        latents = self.world.bundle.encode(views)
        seen = {
            c.side: Feature(kind="observation", values=latent)
            for c, latent in zip(cameras, latents, strict=True)
        }
        return Panorama(width=self.world.width, cameras=cameras, margin=0), seen

    def run(self, way: str, views: float) -> dict[str, float]:
        """Refresh the replica round by round; means over the rounds."""
        rng = np.random.default_rng(0)
        replica = Replica.blank(VIEW_COLUMNS, self.world.width)
        distances, bits, digest_bits, turn = [], 0, 0, 0
        with open_store() as store:
            replica.refresh(
                self.world.memory, range(replica.width), source=Side.ES, now_s=0, store=store
            )
            for number, (panorama, seen) in enumerate(self.rounds):
                now_s = (number + 1) * self.settings["days_between"] * DAY_S
                # What was not spent is there for the next round: whole views do not fit every budget.
                budget = views * bits_of(VIEW_COLUMNS) * (number + 1) - bits
                sides = [camera.side for camera in panorama.cameras]
                chosen: Sequence[Refresh]
                if way in ("in turns", "by chance"):
                    order = [sides[(turn + k) % len(sides)] for k in range(len(sides))]
                    if way == "by chance":
                        order = [sides[int(k)] for k in rng.permutation(len(sides))]
                    chosen, turns = take_turns(panorama, order, budget=budget, cost=cost_of)
                    turn += turns
                else:
                    changes, told = self._changes(way, number, replica)
                    bits, digest_bits, budget = bits + told, digest_bits + told, budget - told
                    chosen = plan_refreshes(
                        replica, panorama, now_s=now_s, budget=budget, cost=cost_of_blocks,
                        novelty=novelty, changes=changes,
                    )  # fmt: skip
                for refresh in chosen:
                    bits += send(refresh, seen, panorama, replica, now_s, store)
                if number in self.world.references:
                    distances.append(self.world.judge(number, replica.values))
        rounds = len(self.rounds)
        return {
            "perceptual": float(np.mean(distances)),
            "kbit_a_round": bits / 1000 / rounds,
            "digests_kbit_a_round": digest_bits / 1000 / rounds,
        }

    def run_all_seen(self) -> float:
        """The distance if all that anyone sees were sent each round, whatever it costs."""
        replica = Replica.blank(VIEW_COLUMNS, self.world.width)
        distances = []
        with open_store() as store:
            replica.refresh(
                self.world.memory, range(replica.width), source=Side.ES, now_s=0, store=store
            )
            for number, (panorama, seen) in enumerate(self.rounds):
                for side, columns in share_out(panorama, cost_of).items():
                    refresh = Refresh(side=side, columns=columns)
                    send(refresh, seen, panorama, replica, number + 1.0, store)
                if number in self.world.references:
                    distances.append(self.world.judge(number, replica.values))
        return float(np.mean(distances))

    def _changes(self, way: str, number: int, replica: Replica) -> tuple[Changes | None, int]:
        """How much each block has changed, as far as the ES knows, and the bits that told it."""
        if way == "by age":
            return None, 0
        panorama, seen = self.rounds[number]
        changes, bits = {}, 0
        for side, columns in share_out(panorama, cost_of_blocks).items():
            view = cut(seen[side], panorama.by_side[side].view, columns)
            known = replica.values[:, :, list(columns)]
            if way == "informed":
                square = split_blocks(np.square(view.values - known))
                changes[side] = np.sqrt(square.mean(2)) / STEP
                continue
            codec = DigestCodec(shape=known.shape, number=number)
            packet = codec.encode(view)
            # The ES asks for it by its columns.
            bits += packet.bits + 8 * len(pack_columns(columns))
            changes[side] = codec.compare(codec.decode(Delivery(payload=packet.payload)), known)
        return changes, bits


def send(
    refresh: Refresh,
    seen: Mapping[Side, Feature],
    panorama: Panorama,
    replica: Replica,
    now_s: float,
    store: Store,
) -> int:
    """One refresh from the UE to the replica; the bits it took."""
    part = refresh.of(seen[refresh.side], panorama.by_side[refresh.side].view)
    asked = 0
    codec: WideObservationCodec | BlocksCodec
    if refresh.blocks is None:
        codec = WideObservationCodec(seed=_seed(replica.height), columns=replica.width)
    else:
        shape = (LATENT_CHANNELS, replica.height)
        codec = BlocksCodec(seed=_seed(BLOCK), shape=shape, columns=replica.width)
        # The ES says which columns, and a bit for each block.
        asked = 8 * len(pack_columns(refresh.columns)) + refresh.blocks.size
    packet = codec.encode(part)
    came = codec.decode(Delivery(payload=packet.payload))
    replica.refresh(came, refresh.columns, source=refresh.side, now_s=now_s, store=store)
    return packet.bits + asked


def _seed(height: int) -> Any:
    return lambda width: QuantisedSeedCodec(shape=(LATENT_CHANNELS, height, width))


def novelty(age_s: float) -> float:
    """What is expected to have changed since."""
    return predict_change(age_s / DAY_S).mean


def bits_of(columns: float) -> float:
    """Of so many columns as int8, with head and a run."""
    return 8 * LATENT_CHANNELS * VIEW_COLUMNS * columns + 64


def cost_of(side: Side, columns: float) -> float:
    """Of whole columns."""
    return bits_of(columns)


def cost_of_blocks(side: Side, columns: float) -> float:
    """Of blocks, with the map of them there and back, and the columns there."""
    return bits_of(columns) + 160


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
    found: dict[tuple[str, str, float], list[dict[str, float]]] = {}
    bounds: dict[str, list[dict[str, float]]] = {}
    for garden in range(settings["gardens"]):
        world = World(settings["first_garden"] + garden, settings, bundle)
        for name, cast in settings["scenarios"].items():
            play = Play(world, cast)
            bounds.setdefault(name, []).append(
                {"first": world.first, "all_seen": play.run_all_seen(), "fresh": world.fresh}
            )
            for views in settings["views_a_round"]:
                for way in WAYS:
                    found.setdefault((name, way, views), []).append(play.run(way, views))
            print(f"garden {garden + 1}/{settings['gardens']}, {name}", flush=True)
    rows = [
        {
            "scenario": name, "way": way, "views_a_round": views,
            **{key: float(np.mean([row[key] for row in got])) for key in got[0]},
            "perceptual_each": [row["perceptual"] for row in got],
        }
        for (name, way, views), got in found.items()
    ]  # fmt: skip
    means = {
        name: {key: float(np.mean([row[key] for row in got])) for key in got[0]}
        for name, got in bounds.items()
    }
    results: dict[str, Any] = {
        "settings": settings,
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "rows": rows,
        "bounds": means,
        "claims": [claim for name in means for claim in claims(name, rows, means[name])],
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


def claims(
    scenario: str, rows: Sequence[Mapping[str, Any]], bounds: Mapping[str, float]
) -> list[dict[str, str]]:
    """What the numbers of one scenario say."""
    by = {
        (r["way"], r["views_a_round"]): r["perceptual"] for r in rows if r["scenario"] == scenario
    }
    budgets = sorted({views for _, views in by})

    def ratios(over: str, under: str, floor: float = 0.0) -> list[float]:
        return [(by[over, v] - floor) / (by[under, v] - floor) for v in budgets]

    def say(values: Sequence[float]) -> str:
        pairs = zip(values, budgets, strict=True)
        return ", ".join(f"{r:.2f} at {v:g} views a round" for r, v in pairs)

    turns = ratios("by need", "in turns")
    met = [r <= WANTED for r in turns]
    chance = ratios("by need", "by chance")
    best = [bounds["all_seen"] / by["in turns", v] for v in budgets]
    return [
        {
            "claim": f"{scenario}: at equal bits the replica's distance to the world is at most {WANTED} "
            "of round robin's (our target)",
            "verdict": "met" if all(met) else "met when" if any(met) else "missed",
            "found": say(turns),
        },
        {
            "claim": f"{scenario}: the same for who knows what has changed, without a digest",
            "verdict": "measured",
            "found": say(ratios("informed", "in turns")),
        },
        {
            "claim": f"{scenario}: the same if all that anyone sees were sent in every round, whatever it costs",
            "verdict": "measured",
            "found": say(best),
        },
        {
            "claim": f"{scenario}: of round robin's, both above the distance of a replica that is fresh everywhere",
            "verdict": "measured",
            "found": say(ratios("by need", "in turns", bounds["fresh"])),
        },
        {
            "claim": f"{scenario}: less than by chance",
            "verdict": "holds" if max(chance) < 1 else "does not hold",
            "found": say(chance),
        },
    ]


if __name__ == "__main__":
    main()
