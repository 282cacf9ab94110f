"""Fig. 6 with a model of one's own: its seeds, and pictures, by SNR. `run.py --model` comes here.

What is left out has learnt the bundle's latents (joint codes, the progressive seed, sketches), or says
nothing new (the prompt alone, exact wherever it arrives). The reference of each picture is what the
model's decoder shows of the error-free latent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from measure import HEADER_BITS, choose_table
from numpy.typing import NDArray
from schemes import AVIF, PAPER_CENTRALIZED, PAPER_SPLIT, RAW, SPLIT

from megdt.errors import RequestError
from megdt.mechanisms.execute import air_rng
from megdt.mechanisms.stages import StoredModels
from megdt.models.quality import PerceptualReference, psnr_db
from megdt.records import Crossing, Part, Result
from megdt.scenario import Scenario, parse_scenario
from megdt.scenario.settings import Model

INT8 = "seed, int8"
METRICS = ("psnr_db", "perceptual")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to get the picture across."""

    name: str
    mechanism: str
    codecs: dict[str, str] = field(default_factory=dict)
    paper: bool = False
    in_the_splits_uses: bool = False


WAYS = (
    # The split first: its channel uses are AVIF's budget.
    Way(name=SPLIT, mechanism="es_to_ue", codecs={"seed": "analog"}),
    Way(name=INT8, mechanism="es_to_ue", codecs={"seed": "int8"}),
    Way(name=AVIF, mechanism="centralized", codecs={"image": "avif"}, in_the_splits_uses=True),
    Way(name=RAW, mechanism="centralized", codecs={"image": "analog"}),
    Way(name=PAPER_SPLIT, mechanism="es_to_ue", codecs={"seed": "analog"}, paper=True),
    Way(name=PAPER_CENTRALIZED, mechanism="centralized", codecs={"image": "analog"}, paper=True),
)


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """All results but who made them.

    Args:
        name: Of the pipeline: a folder, or on the hub.
        settings: [own_model] of study.toml, with snr_db and link.

    Raises:
        RequestError: If it draws no pictures.
    """
    model = Model(name=name)
    if model.is_autoencoder:
        raise RequestError(
            f"{name} is an autoencoder alone, and Fig. 6 is of generated pictures; take study fair_baseline"
        )
    models = cast(StoredModels, model.load())
    lines: dict[tuple[str, float], list[dict[str, float]]] = defaultdict(list)
    for number, prompt in enumerate(settings["prompts"]):
        request = {
            "prompt": prompt, "rng_seed": number,
            **{key: settings[key] for key in ("size_px", "steps", "guidance_scale")},
        }  # fmt: skip
        for key, line in measure_picture(request, model, models, settings):
            lines[key].append(line)
        print(f"{number + 1}/{len(settings['prompts'])} pictures", flush=True)
    return {
        "model_sha256": models.checksum,
        "curves": {way.name: list(average(way.name, lines)) for way in WAYS},
        "claims": list_claims(lines),
    }


def measure_picture(
    request: dict[str, Any], model: Model, models: StoredModels, settings: dict[str, Any]
) -> Iterator[tuple[tuple[str, float], dict[str, float]]]:
    """Quality and cost under every way at every SNR."""
    tables = {"request": request, "model": model.table()}
    error_free = parse_scenario(
        {**tables, "codecs": {"seed": "float32"}, "link": {"coding": "ideal", "snr_db": 60.0}}
    )
    made = error_free.run(models)
    assert made.image is not None
    reference = Reference(made.image)
    for snr_db in settings["snr_db"]:
        split: Crossing | None = None
        for way in WAYS:
            scenario = choose_scenario(way, tables, snr_db, settings, split)
            done = take_done(made, scenario)
            result = scenario.run(models, done=done)
            (crossing,) = result.ledger.crossings
            split = crossing if way.name == SPLIT else split
            yield (
                (way.name, snr_db),
                {
                    **reference.judge(result.image),
                    "uses": crossing.channel_uses,
                    "lost": float(crossing.outcome != "delivered"),
                },
            )


def choose_scenario(
    way: Way,
    tables: dict[str, Any],
    snr_db: float,
    settings: dict[str, Any],
    split: Crossing | None,
) -> Scenario:
    """A way's at an SNR; `split` is what the split seed took."""
    plan: dict[str, Any] = {"mechanism": way.mechanism}
    link: dict[str, Any] = {"snr_db": float(snr_db)}
    if way.paper:
        plan["mode"] = "paper"
    else:
        uses = 2520 if split is None else split.channel_uses
        link |= settings["link"] | {"mcs_table": choose_table(float(snr_db), uses)}
    tables = {**tables, "plan": plan, "codecs": way.codecs, "link": link}
    scenario = parse_scenario(tables, source="study")
    if way.in_the_splits_uses:
        assert split is not None
        rng = air_rng(scenario.request, split.from_side, split.to_side, 0)
        bits = scenario.link.payload_bits(split.channel_uses, rng)
        plan["image_bits"] = max(bits, HEADER_BITS)
        scenario = parse_scenario(tables, source="study")
    return scenario


def take_done(made: Result, scenario: Scenario) -> Part:
    """What the ES has before anything comes down, so that it is made once."""
    found = {name: feature for name, feature in made.features.items() if feature.kind != "image"}
    if scenario.plan.mechanism == "centralized":
        found["decode"] = made.features["decode"]
    return Part(features=found)


class Reference:
    """The error-free picture; what arrives alike is judged once."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        self._picture, self._perceptual = picture, PerceptualReference(picture[None])
        self._known: dict[bytes, dict[str, float]] = {}

    def judge(self, image: NDArray[np.uint8] | None) -> dict[str, float]:
        """Grey where nothing arrived."""
        shown = np.full_like(self._picture, 128) if image is None else image
        key = shown.tobytes()
        if key not in self._known:
            self._known[key] = {
                # A picture without any error counts as 60 dB, better than any eye can tell.
                "psnr_db": min(psnr_db(shown, self._picture), 60.0),
                "perceptual": float(self._perceptual.distance(shown[None])[0]),
            }
        return self._known[key]


def average(
    name: str, lines: dict[tuple[str, float], list[dict[str, float]]]
) -> Iterator[dict[str, float]]:
    """The points of a curve."""
    for (way, snr_db), each in sorted(lines.items()):
        if way == name:
            means = {key: float(np.mean([line[key] for line in each])) for key in each[0]}
            yield {"snr_db": snr_db, **means}


def list_claims(
    lines: dict[tuple[str, float], list[dict[str, float]]],
) -> list[dict[str, str]]:
    """The paper's, as far as this model can answer."""

    def gains(ours: str, theirs: str) -> dict[float, float]:
        means = {
            key: float(np.mean([line["psnr_db"] for line in each])) for key, each in lines.items()
        }
        snrs = sorted(snr for way, snr in lines if way == ours)
        return {snr: means[ours, snr] - means[theirs, snr] for snr in snrs}

    claims = []
    for what, ours, theirs in (
        ("pixels that are sent raw, in the paper's own convention", PAPER_SPLIT, PAPER_CENTRALIZED),
        ("AVIF under LDPC in equal channel uses", SPLIT, AVIF),
    ):
        found = gains(ours, theirs)
        ahead = [snr for snr, gain in found.items() if gain > 0]
        verdict = (
            "holds" if len(ahead) == len(found) else "holds when" if ahead else "does not hold"
        )
        where = f"ahead at {', '.join(f'{snr:g}' for snr in ahead)} dB; " if ahead else ""
        claims.append(
            {
                "claim": f"Sending seeds instead of images is noise-resistant (IV-B), against {what}",
                "verdict": verdict,
                "found": f"{where}{min(found.values()):+.1f} to {max(found.values()):+.1f} dB of PSNR",
            }
        )
    return claims
