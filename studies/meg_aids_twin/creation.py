"""Creation: a replica of a garden that the ES has never seen, from what its UEs send once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from replicas import (
    SHAPE,
    VIEW_PX,
    Image,
    Latent,
    World,
    arrived,
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
from megdt.codecs.prompt import TextCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.codecs.sketch import SketchCodec
from megdt.mechanisms.panorama import VIEW_COLUMNS, Panorama
from megdt.models.bundle import Bundle
from megdt.models.outpainting import window_lefts
from megdt.records import Feature
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import Garden, View

FORMATS: tuple[FileFormat, ...] = ("webp", "avif", "jxl")
INT8_BITS = 8 * int(np.prod(SHAPE))
GUIDANCE_SCALE = 2.5

Draw = Callable[[], Image]


class Scene:
    """One garden, the views of its UEs, and what each way makes of them at the ES."""

    def __init__(self, rng_seed: int, settings: Mapping[str, Any], bundle: Bundle) -> None:
        self.rng_seed, self.settings, self.bundle = rng_seed, settings, bundle
        garden = Garden(rng_seed, length_m=settings["length_m"])
        self.world = World(garden, bundle, settings["judged_px"])
        self.panorama: Panorama = cameras_along(settings["length_m"], settings["cameras"])
        self.views = views_of(self.world.picture, self.panorama)
        self.latents = bundle.encode(self.views)

    def ways(self) -> dict[str, tuple[float, Draw]]:
        """Bits a view of each way, and what the ES does with what came."""
        found: dict[str, tuple[float, Draw]] = {
            "int8 seed": self.seeds(QuantisedSeedCodec(shape=SHAPE))
        }
        budgets = [round(rate * VIEW_PX**2) for rate in self.settings["bits_a_pixel"]]
        for budget in budgets:
            codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=budget)
            found[f"seed, {budget} bits"] = self.seeds(codec)
        for strength in self.settings["mended"]:
            codec = ProgressiveSeedCodec(shape=SHAPE, budget_bits=budgets[0])
            name = f"seed, {budgets[0]} bits, drawn anew from {strength:g}"
            found[name] = self.seeds(codec, strength)
        for kind in FORMATS:
            for budget in (*budgets, INT8_BITS):
                found[f"{kind}, {budget} bits"] = self.pictures(kind, budget)
        found["sketch, as it is"], found["sketch, drawn"] = self.sketches()
        found["words of the UE"] = self.words(
            [self.bundle.write("", view, rng_seed=n) for n, view in enumerate(self.views)]
        )
        found["words of one who knows"] = self.words(
            [self.caption(c.position_m) for c in self.panorama.cameras]
        )
        return found  # fmt: skip

    def caption(self, position_m: float) -> str:
        """All that the caption grammar can say of a view."""
        truth = self.world.garden.truth(View(position_m=position_m))
        return phrase(attributes(truth), np.random.default_rng((self.rng_seed, 5)))

    def seeds(self, codec: Any, strength: float = 0.0) -> tuple[float, Draw]:
        """Each view as a seed; with a strength, its noise is raised to that level and taken away."""
        packets = [codec.encode(Feature(kind="seed", values=latent)) for latent in self.latents]

        def draw() -> Image:
            came = np.stack([codec.decode(arrived(packet)).values for packet in packets])
            if strength:
                came = self.bundle.edit(
                    came, self.no_prompt(len(came)), range(len(came)), strength=strength,
                    steps=self.settings["steps"], guidance_scale=1.0,
                )  # fmt: skip
            return self.shown(list(came))

        return float(np.mean([packet.bits for packet in packets])), draw

    def pictures(self, kind: FileFormat, budget: int) -> tuple[float, Draw]:
        """Each view as a file, as good as its codec can within the budget."""
        codec = FileImageCodec(size_px=VIEW_PX, file_format=kind, budget_bits=budget)
        packets = [codec.encode(Feature(kind="image", values=view)) for view in self.views]

        def draw() -> Image:
            came = [codec.decode(arrived(packet)).values for packet in packets]
            return put_together(came, self.panorama)

        return float(np.mean([packet.bits for packet in packets])), draw

    def sketches(self) -> tuple[tuple[float, Draw], tuple[float, Draw]]:
        """Each view as a thumbnail, shown, and drawn as a picture that would have it."""
        codec = SketchCodec(size_px=VIEW_PX)
        packets = [codec.encode(Feature(kind="image", values=view)) for view in self.views]
        bits = float(np.mean([packet.bits for packet in packets]))

        def show() -> Image:
            came = [codec.decode(arrived(packet)).values for packet in packets]
            return put_together(came, self.panorama)

        def draw() -> Image:
            sketches = np.stack([codec.decode(arrived(packet)).values for packet in packets])
            drawn = self.bundle.redraw(
                sketches, None, range(len(sketches)), style=codec.style,
                steps=self.settings["steps"], guidance_scale=GUIDANCE_SCALE,
            )  # fmt: skip
            return self.shown(list(drawn))

        return (bits, show), (bits, draw)

    def words(self, captions: Sequence[str]) -> tuple[float, Draw]:
        """A sentence for each view, and the panorama drawn of all at once."""
        sent = [through(TextCodec(), Feature(kind="prompt", values=text)) for text in captions]

        def draw() -> Image:
            width = self.panorama.width
            lefts = np.array([camera.column for camera in self.panorama.cameras])
            nearest = [int(np.abs(lefts - left).argmin()) for left in window_lefts(width)]
            embeds = self.bundle.embed([sent[n][0].values for n in nearest])
            drawn = self.bundle.outpaint(
                np.zeros((SHAPE[0], VIEW_COLUMNS, width), np.float32),
                np.zeros((VIEW_COLUMNS, width), bool), embeds, self.rng_seed,
                steps=self.settings["steps"], guidance_scale=GUIDANCE_SCALE,
            )  # fmt: skip
            picture: Image = self.bundle.decode(drawn[None])[0]
            return picture

        return float(np.mean([bits for _, bits in sent])), draw

    def shown(self, latents: list[Latent]) -> Image:
        """The picture of a replica that has these views."""
        return replica_of(latents, self.panorama).picture(self.bundle)

    def no_prompt(self, count: int) -> Any:
        """[count, embedding]"""
        return np.zeros_like(self.bundle.embed(["nothing"] * count))


def measure(
    settings: Mapping[str, Any], bundle: Bundle
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Make the same held-out gardens' replicas in every way.

    Returns:
        What was found, and the claims with their verdicts.
    """
    bundle.load("encoder", "decoder", "denoiser", "text_encoder", "sketch_adapter", "classifier")
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(settings["gardens"]):
        scene = Scene(settings["first_garden"] + number, settings, bundle)
        for name, (bits, draw) in scene.ways().items():
            started = time.process_time()
            picture = draw()
            spent = time.process_time() - started
            judged = scene.world.judge(picture)
            found.setdefault(name, []).append(
                {"bits_a_view": bits, **judged, "es_ms_a_view": 1000 * spent / settings["cameras"]}
            )
        print(f"{number + 1}/{settings['gardens']} gardens created", flush=True)
    rows = [
        {
            "way": name,
            "bits_a_view": round(float(np.mean([row["bits_a_view"] for row in got]))),
            "perceptual": told([row["perceptual"] for row in got]),
            "entity_f1": told([row["entity_f1"] for row in got]),
            "error": round(float(np.mean([row["error"] for row in got])), 2),
            "es_ms_a_view": round(float(np.median([row["es_ms_a_view"] for row in got])), 1),
            "perceptual_each": [round(row["perceptual"], 4) for row in got],
        }
        for name, got in found.items()
    ]
    return {"rows": rows}, claims_of(rows, settings)


def claims_of(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What the numbers say; a difference holds by its whole interval over gardens."""
    by = {row["way"]: row for row in rows}
    budgets = [round(rate * VIEW_PX**2) for rate in settings["bits_a_pixel"]]

    def less(one: str, other: str) -> dict[str, float]:
        pairs = zip(by[one]["perceptual_each"], by[other]["perceptual_each"], strict=True)
        return told([a - b for a, b in pairs])

    claims = []
    for budget in budgets:
        best = min(
            (f"{k}, {budget} bits" for k in FORMATS), key=lambda n: by[n]["perceptual"]["mean"]
        )
        difference = less(f"seed, {budget} bits", best)
        claims.append(
            {
                "claim": f"From {budget} bits a view, seeds make a replica nearer to the world (ST-LPIPS) "
                "than the best of the picture files",
                "verdict": "holds" if difference["high"] < 0 else "does not hold",
                "found": f"by {spelled({k: -difference[o] for k, o in (('mean', 'mean'), ('low', 'high'), ('high', 'low'))})}; the best is {best.split(',')[0]}",
            }
        )  # fmt: skip
    words, seed = by["words of the UE"], by["int8 seed"]
    claims += [
        {
            "claim": "Words alone tell what there is: entity F1 of the panorama drawn from the UEs' captions "
            "is at least 0.9 of int8 seeds'",
            "verdict": "holds" if words["entity_f1"]["mean"] >= 0.9 * seed["entity_f1"]["mean"] else "does not hold",
            "found": f"{words['entity_f1']['mean']:.3f} of {seed['entity_f1']['mean']:.3f}, "
            f"from {words['bits_a_view']} bits a view",
        },
        {
            "claim": "Words do not tell where: the panorama drawn from them is more than twice as far from "
            "the world as from the shortest seeds",
            "verdict": "holds" if words["perceptual"]["mean"] > 2 * by[f"seed, {budgets[0]} bits"]["perceptual"]["mean"] else "does not hold",
            "found": f"{words['perceptual']['mean']:.3f} and {by[f'seed, {budgets[0]} bits']['perceptual']['mean']:.3f}",
        },
    ]  # fmt: skip
    dearer = next(b for b in budgets if b > by["sketch, drawn"]["bits_a_view"])
    for name in (
        min((f"{k}, {dearer} bits" for k in FORMATS), key=lambda n: by[n]["perceptual"]["mean"]),
        f"seed, {dearer} bits",
    ):
        difference = less("sketch, drawn", name)
        claims.append(
            {
                "claim": f"A sketch drawn as a picture at the ES is nearer to the world than {name} a view",
                "verdict": "holds" if difference["high"] < 0 else "does not hold",
                "found": f"distance differs by {spelled(difference)}, from {by['sketch, drawn']['bits_a_view']} bits",
            }
        )  # fmt: skip
    for strength in settings["mended"]:
        plain = f"seed, {budgets[0]} bits"
        difference = less(f"{plain}, drawn anew from {strength:g}", plain)
        claims.append(
            {
                "claim": f"Denoising from level {strength:g} brings the replica of the shortest seeds nearer to "
                "the world",
                "verdict": "holds" if difference["high"] < 0 else "does not hold",
                "found": f"distance changes by {spelled(difference)}",
            }
        )  # fmt: skip
    return claims
