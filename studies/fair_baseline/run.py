"""Send seeds and well-coded pictures over one real link, in equal channel uses, at every SNR.

    python studies/fair_baseline/run.py [--quick] [--out results.json]

An autoencoder of one's own, on photographs of one's own, without the generated pictures:

    python studies/fair_baseline/run.py --model FOLDER --photographs FOLDER ... --out FILE

With a joint code that recipes/own_jscc.py has trained for it, that too, in all, a quarter and an
eighth of the channel uses.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from megdt import __version__
from megdt.link.adaptation import MCS_TABLES
from megdt.link.radio import RadioLink
from megdt.mechanisms.execute import air_rng
from megdt.mechanisms.stages import StoredModels
from megdt.models.bundle import Bundle
from megdt.models.quality import ms_ssim, perceptual_distance, psnr_db
from megdt.pictures import read_picture
from megdt.records import Crossing, Feature, Packet, Part, Result
from megdt.scenario import Model, parse_scenario
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
# Photographs that ship with scikit-image, scikit-learn and matplotlib; no model ever saw them.
PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
COSTS = ("uses", "bits", "blocks", "failed_first", "lost", "nothing_fits")
CODECS = {"webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
# A picture that takes more than its budget by more than this is coded again, so many times at most.
TOLERANCE, RECODINGS = 1.02, 4
ANALOG, INT8, IDEAL = "analog seed", "int8 seed", "ideal code"
METRICS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]] = {
    # A picture without any error counts as 60 dB, better than any eye can tell.
    "psnr_db": lambda image, reference: min(psnr_db(image, reference), 60.0),
    "ms_ssim": ms_ssim,
    "perceptual": lambda image, reference: float(
        perceptual_distance(image[None], reference[None])[0]
    ),
}


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way to get the picture across."""

    name: str
    feature: str
    """What crosses: "seed", "image" or "recipe"."""
    codec: str
    budget: str | None = None
    """Name of the scheme whose channel uses a picture may take."""
    ideal: bool = False
    """Under a code that reaches capacity, without overhead: what no real link can surpass."""
    rate: float | None = None
    """Of learned symbols, as a share of the analog seed's channel uses."""


def in_uses_of(budget: str, codecs: Sequence[str], *, ideal: bool = False) -> tuple[Scheme, ...]:
    """Image codecs, rate-controlled to the channel uses of another scheme."""
    tail = f", {IDEAL}" if ideal else ""
    return tuple(
        Scheme(
            name=f"{CODECS[codec]} in the {budget}'s uses{tail}",
            feature="image",
            codec=codec,
            budget=budget,
            ideal=ideal,
        )
        for codec in codecs
    )


# In this order: a budget is known before what has to keep within it.
SEEDS = (
    Scheme(name=ANALOG, feature="seed", codec="analog"),
    Scheme(name=INT8, feature="seed", codec="int8"),
    Scheme(name="float16 seed", feature="seed", codec="float16"),
)
LEARNED = tuple(
    Scheme(name=f"learned symbols ({name})", feature="seed", codec="jscc", rate=rate)
    for name, rate in (("all", 1.0), ("1/4", 0.25), ("1/8", 0.125))
)
RAW = Scheme(name="raw pixels", feature="image", codec="analog")
PROMPT = Scheme(name="prompt only", feature="recipe", codec="text")


@dataclass(kw_only=True)
class Subject:
    """A picture that is sent again and again."""

    name: str
    number: int
    reference: NDArray[np.uint8]
    request: dict[str, Any]
    mechanisms: dict[str, str]
    """By what crosses."""
    model: dict[str, Any]
    """Whose latents they are."""
    done: dict[str, Part]
    """What was made before anything crosses, by what crosses."""
    known: dict[bytes, dict[str, float]] = field(default_factory=dict)

    def judge(self, image: NDArray[np.uint8] | None, metrics: Sequence[str]) -> dict[str, float]:
        """Quality against the reference; grey where nothing arrived."""
        shown = np.full_like(self.reference, 128) if image is None else image
        key = shown.tobytes()
        if key not in self.known:  # digital seeds arrive alike at every SNR
            self.known[key] = {name: METRICS[name](shown, self.reference) for name in metrics}
        return self.known[key]


class PatientBundle(Bundle):
    """Draws each latent once: a UE that generates again would only find the same."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[tuple[Any, ...], NDArray[np.float32]] = {}

    def denoise(
        self, prompt_embeds: NDArray[np.float32], rng_seeds: Sequence[int], **settings: Any
    ) -> NDArray[np.float32]:
        settings.pop("progress", None)
        key = (prompt_embeds.tobytes(), *rng_seeds, *sorted(settings.items()))
        if key not in self.drawn:
            self.drawn[key] = super().denoise(prompt_embeds, rng_seeds, **settings)
        return self.drawn[key]


def generate_pictures(bundle: Bundle, settings: dict[str, Any]) -> list[Subject]:
    """Pictures of prompts; the reference is what the decoder makes of the error-free latent."""
    subjects = []
    wanted = {k: settings[k] for k in ("size_px", "steps", "guidance_scale")}
    for number in range(settings["pictures"]):
        garden, view = draw_view(20_000_000 + number)
        prompt = phrase(attributes(garden.truth(view)), np.random.default_rng(20_000_000 + number))
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
        subjects.append(
            Subject(
                name=prompt,
                number=number,
                reference=picture,
                request={"prompt": prompt, **wanted},
                mechanisms={"seed": "es_to_ue", "image": "centralized", "recipe": "prompt_only"},
                model={},
                done={
                    "seed": Part(features=made),
                    "image": Part(features=shown),
                    "recipe": Part(features=recipe),
                },
            )
        )
    return subjects


def find_photographs(settings: dict[str, Any], folders: Sequence[Path]) -> list[Path]:
    """Those that packages bring, and those of folders."""
    found = []
    for package, file in PHOTOGRAPHS[: settings["photographs"]]:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            sys.exit(
                f"{package} is not installed, its photographs are needed: pip install 'megdt[studies]'"
            )
        found.append(Path(spec.origin).parent / file)
    kinds = (".jpg", ".jpeg", ".webp")
    more = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in kinds]
    # Packages bring the same picture in several sizes.
    by_name = {path.stem: path for path in more}
    return found + list(by_name.values())[: settings["more_photographs"]]


def read_photographs(
    models: StoredModels, settings: dict[str, Any], folders: Sequence[Path]
) -> list[Subject]:
    """The middle squares of photographs, each its own reference."""
    subjects = []
    for number, path in enumerate(find_photographs(settings, folders)):
        file = path.name
        picture = read_picture(path, settings["size_px"])
        sensed = {"sense": Feature(kind="image", values=picture)}
        encoded = {"encode": Feature(kind="seed", values=models.encode(picture[None])[0])}
        subjects.append(
            Subject(
                name=Path(file).stem,
                number=number,
                reference=picture,
                request={"prompt": Path(file).stem, "size_px": settings["size_px"]},
                mechanisms={"seed": "ue_to_es", "image": "send_picture"},
                model=settings["model"],
                done={"seed": Part(features=sensed | encoded), "image": Part(features=sensed)},
            )
        )
    return subjects


def choose_table(link: dict[str, Any], settings: dict[str, Any]) -> int:
    """The MCS table that loses the fewest long payloads, and of those the one that is cheapest.

    So every digital scheme has 256-QAM where the channel carries it, and the low spectral
    efficiencies where nothing else gets through.
    """
    payload = np.random.default_rng(0).bytes(settings["trial_bytes"])
    costs = {}
    for table in MCS_TABLES:
        sender = RadioLink(**link, mcs_table=table)
        sent = [
            sender.send(Packet(payload=payload), np.random.default_rng((1, course)))
            for course in range(settings["trial_courses"])
        ]
        lost = sum(delivery.outcome != "delivered" for delivery in sent)
        costs[table] = (lost, sum(delivery.uses.total for delivery in sent))
    # Where nothing arrives, the fastest table loses it soonest: that is no merit.
    if all(lost == settings["trial_courses"] for lost, _ in costs.values()):
        return max(costs)
    return min(costs, key=lambda table: costs[table])


def send(
    scheme: Scheme,
    subject: Subject,
    link: dict[str, Any],
    course: int,
    bundle: StoredModels,
    budget: Crossing | None,
) -> Result:
    """Send a subject under a scheme, within the channel uses of `budget` if there is one."""
    tables = {
        # What is drawn is done: rng_seed only draws the air, the same for all schemes.
        "request": {**subject.request, "rng_seed": 1000 * course + subject.number},
        "plan": {"mechanism": subject.mechanisms[scheme.feature]},
        "codecs": {scheme.feature: scheme.codec},
        "link": link | ({"coding": "ideal"} if scheme.ideal else {}),
        "model": subject.model,
    }
    if scheme.rate is not None:
        tables["plan"] |= {"symbol_rate": scheme.rate, "restore": False}
    scenario = parse_scenario(tables, source="study")
    done = subject.done[scheme.feature]
    if budget is None:
        return scenario.run(bundle, done=done)
    allowed = budget.channel_uses
    rng = air_rng(scenario.request, budget.from_side, budget.to_side, 0)
    bits = scenario.link.payload_bits(allowed, rng)
    for attempt in range(1, RECODINGS + 1):
        tables["plan"]["image_bits"] = bits
        result = parse_scenario(tables, source="study").run(bundle, done=done)
        used = result.ledger.channel_uses
        if used <= TOLERANCE * allowed or attempt == RECODINGS:
            break
        # Retransmissions took it over: as if the sender had known, it codes for as much less.
        bits = int(bits * allowed / used)
    return result


def compare(
    subject: Subject,
    schemes: Sequence[Scheme],
    link: dict[str, Any],
    course: int,
    bundle: StoredModels,
    metrics: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Quality and costs of every scheme, for one subject on one course of the channel."""
    crossings: dict[str, Crossing] = {}
    found = {}
    for scheme in schemes:
        if scheme.feature not in subject.mechanisms:
            continue
        budget = crossings[scheme.budget] if scheme.budget else None
        result = send(scheme, subject, link, course, bundle, budget)
        (crossing,) = result.ledger.crossings
        crossings[scheme.name] = crossing
        found[scheme.name] = {
            **subject.judge(result.image, metrics),
            "uses": crossing.channel_uses,
            "bits": crossing.bits,
            "blocks": crossing.blocks,
            "failed_first": crossing.failed_first,
            "lost": crossing.outcome != "delivered",
            "nothing_fits": crossing.kind == "image" and crossing.bits == 24,
        }
    return found


def interval(values: NDArray[np.float64]) -> float | None:
    """Half of the 95 % confidence interval of the mean over pictures, by Student's t."""
    if values.size < 2:
        return None
    error = values.std(ddof=1) / np.sqrt(values.size)
    return round(float(stats.t.ppf(0.975, values.size - 1) * error), 5)


Rows = list[dict[str, dict[str, float]]]
"""A picture each: what was measured, by scheme and name."""


def summarise(rows: Rows, scheme: str, metrics: Sequence[str]) -> dict[str, float | None]:
    """Means over pictures, with intervals for the metrics."""
    found = _mean_and_interval({n: np.array([r[scheme][n] for r in rows]) for n in metrics})
    return found | {n: round(float(np.mean([r[scheme][n] for r in rows])), 4) for n in COSTS}


def subtract(
    rows: Rows, seed: str, picture: str, metrics: Sequence[str]
) -> dict[str, float | None]:
    """Seed minus picture, pair by pair: tighter than what the two intervals seem to say."""
    pairs = {n: np.array([r[seed][n] - r[picture][n] for r in rows]) for n in metrics}
    return _mean_and_interval(pairs)


def _mean_and_interval(values: dict[str, NDArray[np.float64]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, each in values.items():
        found |= {name: round(float(each.mean()), 5), f"{name}_95": interval(each)}
    return found


def average(courses: Rows) -> dict[str, dict[str, float]]:
    """One picture's row: courses of the channel are no pictures, and are averaged first."""
    return {
        scheme: {name: float(np.mean([c[scheme][name] for c in courses])) for name in found}
        for scheme, found in courses[0].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--model", help="whose autoencoder; the bundle's where left out")
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], metavar="FOLDER")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    own = settings.pop("own_model")
    settings |= own if arguments.model else {}
    settings |= quick if arguments.quick else {}
    started = time.perf_counter()
    settings["model"] = {"name": arguments.model} if arguments.model else {}
    sets: dict[str, list[Subject]] = {}
    bundle: StoredModels
    if arguments.model is None:
        bundle = patient = PatientBundle()
        sets["garden"] = generate_pictures(patient, settings)
    else:
        bundle = cast(StoredModels, Model(name=arguments.model).load())
    sets["photographs"] = read_photographs(bundle, settings, arguments.photographs)
    codecs, metrics = settings["codecs"], settings["metrics"]
    within = in_uses_of(ANALOG, codecs)
    more: tuple[Scheme, ...] = (SEEDS[2], RAW, PROMPT, *in_uses_of(ANALOG, codecs, ideal=True))
    if arguments.model is not None:
        more = ()
        if Model(name=arguments.model).has_code:
            more = (*LEARNED, *in_uses_of(LEARNED[-1].name, codecs))
    # channel, SNRs, courses of the channel, schemes
    plans = (
        ("awgn", settings["snr_db"], 1, (*SEEDS[:2], *within, *more)),
        (
            "rayleigh",
            settings["fading_snr_db"],
            settings["fading_courses"],
            (*SEEDS[:2], PROMPT, *within),
        ),
    )
    curves: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    chosen: dict[str, dict[str, int]] = {}
    units = 0
    for channel, snrs, courses, always in plans:
        curves[channel] = {name: defaultdict(list) for name in sets}
        differences[channel] = {name: defaultdict(list) for name in sets}
        chosen[channel] = {}
        for snr_db in snrs:
            schemes = always
            if channel == "awgn" and snr_db in settings["int8_budget_snr_db"]:
                schemes += in_uses_of(INT8, codecs)
            link = {"channel": channel, "snr_db": float(snr_db), **settings["link"]}
            link["mcs_table"] = choose_table(link, settings)
            chosen[channel][f"{snr_db:g}"] = link["mcs_table"]
            for name, subjects in sets.items():
                rows = []
                for subject in subjects:
                    met = [
                        compare(subject, schemes, link, course, bundle, metrics)
                        for course in range(courses)
                    ]
                    rows.append(average(met))
                units += len(subjects) * courses
                for scheme in rows[0]:
                    point = {"snr_db": snr_db, **summarise(rows, scheme, metrics)}
                    curves[channel][name][scheme].append(point)
                    print(channel, name, scheme, point, flush=True)
                for scheme in schemes:
                    if scheme.budget is not None:
                        difference = subtract(rows, scheme.budget, scheme.name, metrics)
                        point = {"snr_db": snr_db, **difference}
                        differences[channel][name][scheme.name].append(point)
            seconds = time.perf_counter() - started
            print(f"{seconds:.0f} s, {seconds / units:.1f} s a picture and course", flush=True)
    found = {
        "settings": {**settings, "model": bool(arguments.model)},
        "bundle_sha256": bundle.checksum,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, megdt {__version__}",
        "seconds": round(time.perf_counter() - started),
        "pictures": {name: [s.name for s in subjects] for name, subjects in sets.items()},
        "mcs_table": chosen,
        "curves": curves,
        "seed_minus_picture": differences,
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
