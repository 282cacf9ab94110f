"""One picture under every scheme at every SNR; one scene at every rate; what each scheme takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from schemes import GARDEN, GENERATED, PHOTOGRAPHS, SCHEMES, SPLIT, Scheme, sketches

from megdt.codecs.image import FileImageCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.link.adaptation import MCS_TABLES
from megdt.link.radio import RadioLink
from megdt.mechanisms.execute import air_rng
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference, ms_ssim, psnr_db
from megdt.pictures import read_picture
from megdt.records import Crossing, Delivery, Feature, Packet, Part, Result
from megdt.scenario import parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HELD_OUT = 10_000_000  # as in recipes/data.py: no recipe trains on views from here on
GENERATED_FROM = 20_000_000
# Photographs that ship with scikit-image, scikit-learn and matplotlib; no model ever saw them.
FILES = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
HEADER_BITS = 24
"""The least that a progressive seed takes."""
TRIALS = 20
"""Payloads sent to choose an MCS table."""
USES, ENERGY = "uses", "energy"
"""What is equal between the schemes; raw pixels and sketches take what they take in either."""
COSTS = ("uses", "bits", "radiated_j", "lost")

Image = NDArray[np.uint8]
Key = tuple[str, float, str]
"""Scheme, SNR that the split has, and what is equal."""


class PatientBundle(Bundle):
    """Decodes and draws each latent once: what arrives alike at several SNRs is only looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Any, Any] = {}

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> Image:
        told = b"" if noise_power is None else noise_power.tobytes()
        return self._once(
            ("decode", latents.tobytes(), told),
            lambda: super(PatientBundle, self).decode(latents, noise_power),
        )

    def denoise(
        self, prompt_embeds: NDArray[np.float32], rng_seeds: Sequence[int], **settings: Any
    ) -> NDArray[np.float32]:
        key = (
            "denoise",
            prompt_embeds.tobytes(),
            *rng_seeds,
            settings["size_px"],
            settings["steps"],
        )
        return self._once(
            key, lambda: super(PatientBundle, self).denoise(prompt_embeds, rng_seeds, **settings)
        )

    def redraw(
        self, sketches: Image, prompt_embeds: Any, rng_seeds: Sequence[int], **settings: Any
    ) -> NDArray[np.float32]:
        key = ("redraw", sketches.tobytes(), *rng_seeds, settings["style"], settings["steps"])
        return self._once(
            key,
            lambda: super(PatientBundle, self).redraw(
                sketches, prompt_embeds, rng_seeds, **settings
            ),
        )

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]


@dataclass(kw_only=True)
class Subject:
    """A picture that is sent again and again."""

    name: str
    number: int
    reference: Image
    request: dict[str, Any]
    mechanisms: dict[str, str]
    """By what crosses."""
    done: dict[str, Part]
    """What was made before anything crosses, by what crosses."""
    judged: bool
    """By MS-SSIM and perceptual distance as well."""
    known: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def judge(self, image: Image | None, bundle: Bundle) -> dict[str, Any]:
        """Quality against the reference, and features; grey where nothing arrived."""
        shown = np.full_like(self.reference, 128) if image is None else image
        key = shown.tobytes()
        if key in self.known:
            return self.known[key]
        found: dict[str, Any] = {
            # A picture without any error counts as 60 dB, better than any eye can tell.
            "psnr_db": min(psnr_db(shown, self.reference), 60.0),
            "ms_ssim": np.nan,
            "perceptual": np.nan,
            "features": bundle.probe_features(shown[None])[0],
        }
        if self.judged:
            found["ms_ssim"] = ms_ssim(shown, self.reference)
            found["perceptual"] = float(self.perceptual.distance(shown[None])[0])
        self.known[key] = found
        return found

    @property
    def perceptual(self) -> PerceptualReference:
        """The reference as the perceptual distance sees it."""
        if not hasattr(self, "_perceptual"):
            self._perceptual = PerceptualReference(self.reference[None])
        return self._perceptual


def make_subject(
    kind: str, number: int, settings: dict[str, Any], bundle: Bundle, *, size_px: int = 256
) -> Subject:
    """A picture of one of the sets."""
    make = {GARDEN: _garden, PHOTOGRAPHS: _photograph, GENERATED: _generated}[kind]
    wanted = {k: settings[k] for k in ("steps", "guidance_scale")} | {"size_px": size_px}
    name, reference, mechanisms, done = make(number, wanted, bundle)
    return Subject(
        name=name,
        number=number,
        reference=reference,
        request={"prompt": name, "rng_seed": number, **wanted},
        mechanisms=mechanisms,
        done=done,
        judged=number < settings[kind]["judged"],
    )


_SENSED = {"seed": "ue_to_es", "image": "send_picture", "sketch": "ue_to_es_sketch"}


def _sense(picture: Image, bundle: Bundle) -> dict[str, Part]:
    sensed = {"sense": Feature(kind="image", values=picture)}
    encoded = {"encode": Feature(kind="seed", values=bundle.encode(picture[None])[0])}
    return {
        "seed": Part(features=sensed | encoded),
        "image": Part(features=sensed),
        "sketch": Part(features=sensed),
    }


def _garden(number: int, wanted: dict[str, Any], bundle: Bundle) -> tuple[Any, ...]:
    garden, view = draw_view(HELD_OUT + number, size_px=wanted["size_px"])
    picture = garden.render(view)
    return f"view {HELD_OUT + number}", picture, _SENSED, _sense(picture, bundle)


def _photograph(number: int, wanted: dict[str, Any], bundle: Bundle) -> tuple[Any, ...]:
    package, file = FILES[number]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(
            f"{package} is not installed, its photographs are needed: pip install 'megdt[studies]'"
        )
    picture = read_picture(Path(spec.origin).parent / file, wanted["size_px"])
    return Path(file).stem, picture, _SENSED, _sense(picture, bundle)


def _generated(number: int, wanted: dict[str, Any], bundle: Bundle) -> tuple[Any, ...]:
    """The reference is what the decoder makes of the error-free latent."""
    garden, view = draw_view(GENERATED_FROM + number)
    prompt = phrase(attributes(garden.truth(view)), np.random.default_rng(GENERATED_FROM + number))
    embedding = bundle.embed([prompt])
    latent = bundle.denoise(embedding, [number], **wanted)
    picture = bundle.decode(latent)[0]
    made = {
        "ask": Feature(kind="prompt", values=prompt),
        "embed": Feature(kind="prompt_embeds", values=embedding[0]),
        "denoise": Feature(kind="seed", values=latent[0]),
    }
    shown = {**made, "decode": Feature(kind="image", values=picture)}
    recipe = {"ask": Feature(kind="recipe", values=(prompt, number))}
    mechanisms = {"seed": "es_to_ue", "image": "centralized", "recipe": "prompt_only"}
    done = {
        "seed": Part(features=made),
        "image": Part(features=shown),
        "recipe": Part(features=recipe),
    }
    return prompt, picture, mechanisms, done


@lru_cache
def choose_table(snr_db: float, uses: int) -> int:
    """The MCS table under which the most bits arrive within the split's uses, retransmissions in.

    By measured error rates, which is quick; what is reported is sent bit by bit.
    So every digital scheme has 256-QAM where the channel carries it. Where nothing arrives in so
    many uses it is the table of the lowest spectral efficiency.
    """
    arrived = {}
    for table in MCS_TABLES:
        link = RadioLink(snr_db=snr_db, mcs_table=table, coding="abstract")
        arrived[table] = 0
        for course in range(TRIALS):
            bits = link.payload_bits(uses, np.random.default_rng((1, course)))
            packet = Packet(payload=bytes(max(bits // 8, 1)))
            delivery = link.send(packet, np.random.default_rng((1, course)))
            if delivery.outcome == "delivered" and delivery.uses.total <= uses:
                arrived[table] += packet.bits
    if not any(arrived.values()):
        return max(arrived)
    return max(arrived, key=lambda table: arrived[table])


def send(
    scheme: Scheme,
    subject: Subject,
    snr_db: float,
    settings: dict[str, Any],
    bundle: Bundle,
    split: Crossing | None,
) -> Result:
    """Send a subject under a scheme; `split` is what the split seed took, a budget for some."""
    plan = {"mechanism": subject.mechanisms[scheme.crosses], **scheme.plan}
    paper = plan.get("mode") == "paper"
    uses = 2520 if split is None else split.channel_uses
    link = {"snr_db": float(snr_db)}
    if not paper:
        link |= settings["link"] | {"mcs_table": choose_table(round(2 * float(snr_db)) / 2, uses)}
    tables = {
        "request": subject.request,
        "plan": plan,
        "codecs": {scheme.crosses: scheme.codec},
        "link": link,
    }
    scenario = parse_scenario(tables, source="study")
    if scheme.budget is not None:
        assert split is not None
        rng = air_rng(scenario.request, split.from_side, split.to_side, 0)
        plan[scheme.budget] = max(scenario.link.payload_bits(uses, rng), HEADER_BITS)
        scenario = parse_scenario(tables, source="study")
    return scenario.run(bundle, done=subject.done[scheme.crosses])


def schemes_for(
    kind: str, number: int, snr_db: float, settings: dict[str, Any]
) -> Iterator[Scheme]:
    """What a picture of a set meets at an SNR."""
    told = settings["sketch"]
    drawn = sketches(told["styles"])
    sketched = snr_db in told["snr_db"] and number < told["pictures"]
    for scheme in (*SCHEMES, *drawn):
        if kind not in scheme.sets or (scheme in drawn and not sketched):
            continue
        whole = kind in scheme.whole
        if kind == GARDEN and scheme.name in settings["whole_at"]:
            whole = whole and snr_db in settings["whole_at"][scheme.name]
        if whole or number < settings[kind]["few"]:
            yield scheme


def measure_picture(
    kind: str, number: int, settings: dict[str, Any], bundle: PatientBundle
) -> dict[Key, dict[str, Any]]:
    """Quality and costs of every scheme at every SNR, for one picture."""
    bundle.known.clear()
    subject = make_subject(kind, number, settings, bundle)
    found: dict[Key, dict[str, Any]] = {
        ("reference", 0.0, USES): {"features": bundle.probe_features(subject.reference[None])[0]}
    }
    for snr_db in settings["snr_db"]:
        split = None
        for scheme in schemes_for(kind, number, snr_db, settings):
            result = send(scheme, subject, snr_db, settings, bundle, split)
            crossing = _crossing(result)
            split = crossing if scheme.name == SPLIT else split
            found[scheme.name, snr_db, USES] = _line(subject, result, bundle)
            if scheme.energy and kind == GARDEN and number < settings["energy"]["pictures"]:
                assert split is not None
                more_db = 10 * np.log10(split.channel_uses / crossing.channel_uses)
                louder = send(scheme, subject, snr_db + more_db, settings, bundle, split)
                found[scheme.name, snr_db, ENERGY] = _line(subject, louder, bundle)
    return found


def _crossing(result: Result) -> Crossing:
    (crossing,) = result.ledger.crossings
    return crossing


def _line(subject: Subject, result: Result, bundle: Bundle) -> dict[str, Any]:
    crossing = _crossing(result)
    return {
        **subject.judge(result.image, bundle),
        "uses": crossing.channel_uses,
        "bits": crossing.bits,
        "radiated_j": crossing.radiated_j,
        "lost": crossing.outcome != "delivered",
    }


def sweep_rates(kind: str, number: int, size_px: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Bits and perceptual distance of one picture's seed, quantised, and of the picture in AVIF."""
    bundle = Bundle()
    subject = make_subject(kind, number, settings, bundle, size_px=size_px)
    stage = "encode" if kind == GARDEN else "denoise"
    seed = subject.done["seed"].features[stage]
    rates = settings["rates"]

    def decode(latent: NDArray[np.float32]) -> float:
        return float(subject.perceptual.distance(bundle.decode(latent[None]))[0])

    found: dict[str, Any] = {"float32": decode(seed.values), "seed": [], "avif": []}
    for rate in rates["seed"][str(size_px)]:
        codec = ProgressiveSeedCodec(shape=seed.values.shape, budget_bits=int(rate * size_px**2))
        packet = codec.encode(seed)
        arrived = codec.decode(Delivery(payload=packet.payload))
        power = np.array([arrived.noise_power], np.float32)
        image = bundle.decode(arrived.values[None], power)
        distance = float(subject.perceptual.distance(image)[0])
        found["seed"].append({"rate": rate, "bits": packet.bits, "perceptual": distance})
    for rate in rates["avif"][str(size_px)]:
        picture = FileImageCodec(
            size_px=size_px, file_format="avif", budget_bits=int(rate * size_px**2)
        )
        packet = picture.encode(Feature(kind="image", values=subject.reference))
        shown = picture.decode(Delivery(payload=packet.payload)).values
        distance = float(subject.perceptual.distance(shown[None])[0])
        found["avif"].append({"rate": rate, "bits": packet.bits, "perceptual": distance})
    return found


EXTRA = (
    Scheme(name="float32 seed", crosses="seed", codec="float32"),
    Scheme(name="int8 seed", crosses="seed", codec="int8"),
)


def count_overhead(size_px: int, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What each scheme takes at one SNR, by purpose; means over a few scenes."""
    bundle = PatientBundle()
    told = settings["overhead"]
    count = told["pictures"][str(size_px)]
    # What the receiver draws costs nothing on the air, so one step of it will do.
    settings = settings | {"steps": 1}
    every = [s for s in SCHEMES if s.plan.get("mode") != "paper"]
    lines: dict[str, list[dict[str, float]]] = {}
    for number in range(count):
        bundle.known.clear()
        made = {
            kind: make_subject(kind, number, settings, bundle, size_px=size_px)
            for kind in (GARDEN, GENERATED)
        }
        split = None
        for scheme in (*every, *EXTRA, *sketches(("edges", "layout", "thumbnail"))):
            subject = made[GENERATED if scheme.crosses == "recipe" else GARDEN]
            result = send(scheme, subject, told["snr_db"], settings, bundle, split)
            crossing = _crossing(result)
            split = crossing if scheme.name == SPLIT else split
            # The joint code sends so much less of the seed's values, as symbols.
            share = scheme.plan.get("symbol_rate", 1.0)
            uses = crossing.uses
            lines.setdefault(scheme.name, []).append(
                {
                    "values": crossing.values * share,
                    "paper_bits": crossing.paper_bits * share,
                    "bits": crossing.bits,
                    "header_bits": crossing.header_bits,
                    "uses": uses.total,
                    "data": uses.data,
                    "retransmissions": uses.retransmissions,
                    "pilots": uses.pilots,
                    "control": uses.control,
                    "feedback": uses.feedback,
                    "radiated_mj": 1000 * crossing.radiated_j,
                    "radio_mj": 1000 * crossing.radio_j,
                }
            )
    return {
        name: {k: float(np.mean([line[k] for line in each])) for k in each[0]}
        for name, each in lines.items()
    }


GRID = (
    SPLIT, "split, digital", "JSCC, half the uses", "hybrid, half the uses", "hybrid",
    "AVIF + LDPC", "raw pixels",
)  # fmt: skip
"""Rows of the picture grid, as in the paper's Fig. 6(a)."""


def draw_grid(
    number: int, snrs: Sequence[float], settings: dict[str, Any]
) -> dict[str, list[Image]]:
    """One scene under the schemes of GRID; the reference is under its own name."""
    bundle = PatientBundle()
    subject = make_subject(GARDEN, number, settings, bundle)
    found: dict[str, list[Image]] = {"original": [subject.reference]}
    by_name = {scheme.name: scheme for scheme in SCHEMES}
    for snr_db in snrs:
        split = None
        for name in GRID:
            result = send(by_name[name], subject, snr_db, settings, bundle, split)
            split = _crossing(result) if name == SPLIT else split
            shown = np.full_like(subject.reference, 128) if result.image is None else result.image
            found.setdefault(name, []).append(shown)
    return found
