"""Maintenance: a replica kept over days by seeds, by pictures in as many bits, or not at all.

Who refreshes which part is studies/twin_maintenance; here everybody sends, or all take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from replicas import (
    SHAPE,
    VIEW_PX,
    Image,
    World,
    cameras_along,
    put_together,
    replica_of,
    spelled,
    through,
    told,
    views_of,
)

from megdt.codecs.image import FileFormat, FileImageCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.models.bundle import Bundle
from megdt.records import Feature
from megdt.worlds.garden import Garden

FORMATS: tuple[FileFormat, ...] = ("webp", "avif")
Send = Callable[[Image, int], tuple[Image, int]]
"""A view and its budget of bits, to what is shown of it, and the bits it took."""


class Course:
    """A garden over some rounds under one sky, and the replica of its first day."""

    def __init__(self, rng_seed: int, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.settings, self.bundle = settings, bundle
        self.garden = Garden(rng_seed, length_m=settings["length_m"])
        self.panorama = cameras_along(settings["length_m"], settings["cameras"])
        every, rounds = settings["judged_every"], settings["rounds"]
        self.worlds = {
            n: World(self.later(n), bundle, settings["judged_px"])
            for n in range(every, rounds + 1, every)
        }
        first = bundle.encode(views_of(self.garden.panorama(VIEW_PX), self.panorama))
        codec = QuantisedSeedCodec(shape=SHAPE)
        came = [through(codec, Feature(kind="seed", values=latent))[0].values for latent in first]
        self.first = replica_of(came, self.panorama).picture(bundle)

    def later(self, number: int) -> Garden:
        """As it stands in a round."""
        return self.garden.later(number * self.settings["days_between"])

    def never(self) -> list[dict[str, float]]:
        """Judgements of a replica that is left as it was."""
        return [world.judge(self.first) | {"bits": 0.0} for world in self.worlds.values()]

    def all_send(self, send: Send, budget: int) -> list[dict[str, float]]:
        """Judgements where all views come in every round: what came before no longer shows."""
        found = []
        for world in self.worlds.values():
            sent = [send(view, budget) for view in views_of(world.picture, self.panorama)]
            picture = put_together([shown for shown, _ in sent], self.panorama)
            found.append(world.judge(picture) | {"bits": float(sum(bits for _, bits in sent))})
        return found

    def in_turns(self, send: Send, budget: int) -> list[dict[str, float]]:
        """Judgements where some views come in a round, as much better, and the next in the next."""
        cameras, each = len(self.panorama.cameras), self.settings["in_turns"]
        picture, turn, spent, found = self.first, 0, 0, []
        for number in range(1, self.settings["rounds"] + 1):
            views = views_of(self.later(number).panorama(VIEW_PX), self.panorama)
            shown: list[Image | None] = [None] * cameras
            for camera in [(turn + k) % cameras for k in range(each)]:
                shown[camera], bits = send(views[camera], budget * cameras // each)
                spent += bits
            turn += each
            picture = put_together(shown, self.panorama, picture)
            if number in self.worlds:
                judged = self.worlds[number].judge(picture)
                found.append(judged | {"bits": spent / number})
        return found

    def senders(self) -> dict[str, Send]:
        """By seeds, and by files of each format."""

        def by_seed(view: Image, budget: int) -> tuple[Image, int]:
            codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=budget)
            latent = self.bundle.encode(view[None])[0]
            came, bits = through(codec, Feature(kind="seed", values=latent))
            return self.bundle.decode(came.values[None])[0], bits

        def by_file(kind: FileFormat) -> Send:
            def send(view: Image, budget: int) -> tuple[Image, int]:
                codec = FileImageCodec(size_px=VIEW_PX, file_format=kind, budget_bits=budget)
                came, bits = through(codec, Feature(kind="image", values=view))
                return came.values, bits

            return send

        return {"seeds": by_seed, **{kind: by_file(kind) for kind in FORMATS}}


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Keep the same held-out gardens' replicas in every way.

    Returns:
        What was found, and the claims with their verdicts.
    """
    found: dict[tuple[str, int], list[list[dict[str, float]]]] = {}
    for number in range(settings["gardens"]):
        course = Course(settings["first_garden"] + number, settings, bundle)
        found.setdefault(("never refreshed", 0), []).append(course.never())
        for budget in settings["bits_a_view"]:
            for name, send in course.senders().items():
                for how, run in (("all", course.all_send), ("in turns", course.in_turns)):
                    found.setdefault((f"{name}, {how}", budget), []).append(run(send, budget))
        print(f"{number + 1}/{settings['gardens']} gardens kept", flush=True)
    rows = [
        {
            "way": name,
            "bits_a_view": budget,
            "kbit_a_round": round(float(np.mean([[j["bits"] for j in g] for g in got])) / 1000, 1),
            **{
                key: told([float(np.mean([j[key] for j in g])) for g in got])
                for key in ("perceptual", "entity_f1")
            },
            "perceptual_by_day": [
                round(float(np.mean([g[n]["perceptual"] for g in got])), 4)
                for n in range(len(got[0]))
            ],
            "perceptual_each": [
                round(float(np.mean([j["perceptual"] for j in g])), 4) for g in got
            ],
        }
        for (name, budget), got in found.items()
    ]
    return {"rows": rows}, claims_of(rows, settings)


def claims_of(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What the numbers say; a difference holds by its whole interval over gardens."""
    by = {(row["way"], row["bits_a_view"]): row for row in rows}
    never = by["never refreshed", 0]
    claims = []
    for budget in settings["bits_a_view"]:
        ways = [name for name, bits in by if bits == budget]
        ours, files = (
            min(
                (n for n in ways if n.startswith("seeds") == seeds),
                key=lambda n: by[n, budget]["perceptual"]["mean"],
            )
            for seeds in (True, False)
        )
        less = told(
            [
                b - a
                for a, b in zip(
                    by[ours, budget]["perceptual_each"],
                    by[files, budget]["perceptual_each"],
                    strict=True,
                )
            ]
        )
        claims.append(
            {
                "claim": f"Over days and at {budget} bits a view and round, the best way with seeds keeps the "
                "replica nearer to the world (ST-LPIPS) than the best with pictures",
                "verdict": "holds" if less["low"] > 0 else "does not hold",
                "found": f"by {spelled(less)}: {ours} against {files}",
            }
        )
        better = [
            n for n in ways if by[n, budget]["perceptual"]["mean"] < never["perceptual"]["mean"]
        ]
        claims.append(
            {
                "claim": f"Each way of refreshing at {budget} bits a view is better than never",
                "verdict": "holds" if len(better) == len(ways) else "does not hold",
                "found": f"of {len(ways)} ways these are: {'; '.join(better) or 'none'}",
            }
        )
    return claims
