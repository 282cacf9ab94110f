"""A scenario run and judged: against the error-free picture, and against a baseline."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.jscc import CARD, read_card
from megdt.errors import BundleError, RequestError, ScenarioError
from megdt.link.radio import RadioLink
from megdt.link.recording import read_recording, write_recording
from megdt.mechanisms.execute import air_rng
from megdt.mechanisms.single_user import (
    CENTRALIZED,
    ES_TO_UE,
    ES_TO_UE_SKETCH,
    ES_TO_UE_STEPS,
    PREVIEW_THEN_SEED,
    PROMPT_ONLY,
    SEND_PICTURE,
    SKETCH_FIRST,
    UE_TO_ES,
    UE_TO_ES_SKETCH,
    denoise_last,
    draw,
    fuse,
    redraw,
)
from megdt.mechanisms.stages import Job, models_at
from megdt.models.cards import Cards
from megdt.records import Delivery, Feature, Kind, Ledger, Outcome, Part, Result, Side
from megdt.scenario import Scenario, parse_scenario, sketch_size_px, told_snr_db
from megdt.scenario.settings import take_model
from megdt.sensing import sense

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StageProgress, StoredModels

BASELINES = ("webp", "avif", "jxl", "raw", "prompt")
"""The picture under an image codec in the channel uses that the seed took; raw pixels as analog
symbols, in as many as they need; prompt and rng_seed for a UE that holds the whole model."""

_WHOLE_PICTURE = {
    ES_TO_UE.name: CENTRALIZED,
    ES_TO_UE_STEPS.name: CENTRALIZED,
    ES_TO_UE_SKETCH.name: CENTRALIZED,
    PREVIEW_THEN_SEED.name: CENTRALIZED,
    SKETCH_FIRST.name: CENTRALIZED,
    UE_TO_ES.name: SEND_PICTURE,
    UE_TO_ES_SKETCH.name: SEND_PICTURE,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run with what it is judged against."""

    scenario: Scenario
    result: Result
    error_free: NDArray[np.uint8]
    """The picture that the air should not have changed. [height, width, 3]"""
    psnr_db: float | None
    """Infinite without any error; None without a picture."""
    baseline: Trial | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of the picture."""
        return self.result.outcome


def check_comparable(scenario: Scenario, baseline: str | None) -> None:
    """See that a comparison makes sense, before anything long is started.

    Raises:
        RequestError: If there is no picture to compare, no such baseline, or none for the scenario's
            mechanism.
    """
    check_pictured(scenario)
    if baseline is None:
        return
    if baseline not in BASELINES:
        raise RequestError(
            f"baseline is {baseline!r}, known: {', '.join(BASELINES)}; choose one of these"
        )
    if baseline == "prompt" and scenario.request.rng_seed >= 2**32:
        raise RequestError(
            f"rng_seed is {scenario.request.rng_seed}, baseline prompt sends 32 bits of it; choose "
            "a smaller one"
        )
    mechanism = scenario.plan.mechanism
    if mechanism not in _WHOLE_PICTURE:
        raise RequestError(
            f"mechanism is {mechanism}, which is a baseline itself; leave out the comparison or "
            f"take one of {', '.join(_WHOLE_PICTURE)}"
        )
    if baseline == "prompt" and _WHOLE_PICTURE[mechanism] is not CENTRALIZED:
        raise RequestError(
            "baseline is 'prompt', but a picture that is there already has none; choose one of "
            f"{', '.join(BASELINES[:-1])}"
        )
    if scenario.plan.mode == "paper" and baseline not in ("raw", "prompt"):
        raise RequestError(
            f"baseline is {baseline!r}, the paper compares with raw pixels; take raw, or fair mode"
        )


def check_pictured(scenario: Scenario) -> None:
    """See that a scenario ends in a picture.

    Raises:
        RequestError: If its mechanism ends in a text.
    """
    if scenario.mechanism.stages[-1].makes == "text":
        raise RequestError(
            f"mechanism is {scenario.plan.mechanism}, which ends in a text and not in a picture; "
            f"take another one, such as {ES_TO_UE.name}, or run the scenario from Python: "
            "Scenario.run(...).text"
        )


def check_sendable(scenario: Scenario) -> None:
    """See that a scenario sends a picture that is there already.

    Raises:
        RequestError: If its mechanism draws one.
    """
    kinds = (UE_TO_ES.name, UE_TO_ES_SKETCH.name, SEND_PICTURE.name)
    if scenario.plan.mechanism not in kinds:
        raise RequestError(
            f"mechanism is {scenario.plan.mechanism}, which draws a picture of its own; to send one "
            f"take one of {', '.join(kinds)}"
        )


def check_drawable(scenario: Scenario) -> None:
    """See that a scenario draws a picture of its prompt alone.

    Raises:
        RequestError: If its mechanism has to be given something that a UE sees, or an ES remembers.
    """
    names = {stage.name for stage in scenario.mechanism.stages}
    if scenario.for_many or names & {"sense", "remember"}:
        raise RequestError(
            f"mechanism is {scenario.plan.mechanism}, in which a UE senses; run it with megdt run, or "
            f"take {ES_TO_UE.name}"
        )


def generate(
    scenario: Scenario,
    bundle: StoredModels,
    *,
    baseline: str | None,
    progress: StageProgress | None,
) -> Trial:
    """Run a scenario; judge it against the picture decoded where its latent was made."""
    from megdt.models.cards import GENERATING

    load(scenario, bundle, GENERATING)
    result = scenario.run(bundle, progress=progress)
    error_free = _error_free(scenario, result, bundle, needed=baseline is not None)
    return _compare(_judge(scenario, result, error_free), bundle, baseline)


def transmit(
    scenario: Scenario, picture: NDArray[np.uint8], bundle: StoredModels, *, baseline: str | None
) -> Trial:
    """Send a picture that is there already; judge what arrives against it.

    Args:
        scenario: Its mechanism is "ue_to_es" or "send_picture".
        picture: Of the request's size. [size_px, size_px, 3]
        bundle: The autoencoder.
        baseline: One of BASELINES, or None.
    """
    load(scenario, bundle, ("encoder", "decoder"))
    done = Part(features={"sense": Feature(kind="image", values=picture)})
    result = scenario.run(bundle, done=done)
    return _compare(_judge(scenario, result, picture), bundle, baseline)


def demonstrate(scenario: Scenario, bundle: StoredModels) -> tuple[Scenario, Result]:
    """Run a scenario once, whatever it takes: who senses sees the scenario's world.

    Returns:
        The scenario as it was run, with shares by what was seen, and what came of it.
    """
    from megdt.models.cards import GENERATING

    load(scenario, bundle, GENERATING)
    sensed = sense(scenario, bundle)
    return sensed.scenario, sensed.scenario.run(bundle, done=sensed.done)


def load(scenario: Scenario, bundle: StoredModels, names: Collection[str]) -> None:
    """Get models and codecs ready before anything runs, so that no stage is charged for it."""
    bundle.load(*names)
    mechanism = scenario.mechanism
    runs = {stage.run for stage in mechanism.stages}
    if redraw in runs:
        bundle.load("denoiser", "sketch_adapter")
    if fuse in runs or scenario.for_many:
        bundle.load("gate")
    if mechanism.stages[-1].makes == "text":
        bundle.load("classifier")
    if denoise_last in runs:
        bundle.load("student")
    crossing = {edge.source.makes for edge in mechanism.edges}
    rng = np.random.default_rng(0)
    size = sketch_size_px(scenario.plan.mechanism, scenario.request.size_px)
    samples: dict[Kind, NDArray[Any]] = {
        "seed": rng.standard_normal(scenario.seed_shape).astype(np.float32),
        "sketch": np.zeros((size, size, 3), np.uint8),
    }
    samples["observation"] = rng.standard_normal(scenario.view_shape).astype(np.float32)
    samples["frame"] = samples["sketch"]
    for kind, values in samples.items():
        if kind in crossing:
            # Once in vain: they read their networks, or compile what they are made of.
            codec = scenario.codec(kind)
            packet = codec.encode(Feature(kind=kind, values=values))
            noise_power = 0.0 if packet.symbols is None else 1.0
            codec.decode(
                Delivery(payload=packet.payload, symbols=packet.symbols, noise_power=noise_power)
            )


def record(
    scenario: Scenario, picture: NDArray[np.uint8], bundle: StoredModels, path: Path
) -> dict[str, Any]:
    """Write a picture's seed as a SigMF recording instead of sending it.

    Args:
        scenario: In fair mode; its mean SNR chooses the MCS.
        picture: Of the request's size. [size_px, size_px, 3]
        bundle: The autoencoder.
        path: NAME.sigmf-meta.

    Returns:
        What the file holds, for a report.

    Raises:
        RequestError: If the scenario's link has no waveform, or no SNR to choose an MCS by.
    """
    link = scenario.link
    if not isinstance(link, RadioLink) or link.mean_snr_db is None:
        raise RequestError(
            "a recording needs fair mode and a channel with snr_db, which chooses its MCS; leave "
            "out --mode paper and --channel"
        )
    if scenario.plan.codecs["seed"] == "hybrid":
        raise RequestError(
            "codec hybrid fits its bits to a link that answers, a recording has none; take jscc"
        )
    packet = scenario.codec("seed").encode(
        Feature(kind="seed", values=models_at(bundle, Side.UE).encode(picture[None])[0])
    )
    transport = link.transport
    burst = write_recording(
        packet,
        path,
        grid=replace(transport.grid, pilots=True, control=True),
        snr_db=link.mean_snr_db,
        carrier_frequency_hz=link.carrier_frequency_hz,
        mcs_table=link.mcs_table,
        # Enough to make the picture anywhere; a device's file would not travel with it.
        plan=_travelling_plan(scenario, bundle),
    )
    return {
        "file": str(path),
        "bits": packet.bits,
        "analog_symbols": burst.analog_symbols,
        "slots": len(burst.digital_slots()) + len(burst.analog_slots()),
        "mcs_table": burst.mcs_table,
        "mcs_index": burst.mcs_index,
        "sample_rate_hz": burst.sample_rate_hz,
    }


_NUMEROLOGY = ("bandwidth_hz", "subcarrier_spacing_khz", "coding", "csi")


def _travelling_plan(scenario: Scenario, models: StoredModels) -> dict[str, Any]:
    """Tables by which another machine builds the codec that was used here."""
    plan = scenario.plan
    name = plan.codecs["seed"]
    told: dict[str, Any] = {}
    if name == "progressive" and plan.seed_bits is not None:
        told["seed_bits"] = plan.seed_bits
    if name == "jscc":
        told = {
            "symbol_rate": plan.symbol_rate,
            "told_snr_db": told_snr_db(plan, scenario.link),
            "restore": plan.restore,
            "jscc_sha256": read_card(scenario.model.code / CARD.name)["sha256"],
        }
    named = scenario.model.name is not None
    table = scenario.model.told() if named else {}
    return {
        "model": {**table, "sha256": models.checksum if named else Cards().checksum},
        "request": {
            "prompt": scenario.request.prompt,
            "size_px": scenario.request.size_px,
            "rng_seed": scenario.request.rng_seed,
        },
        "plan": told,
        "codecs": {"seed": name},
        # How many symbols fit in what may be spent.
        "link": {key: getattr(scenario.link, key) for key in _NUMEROLOGY},
    }


def receive(
    path: Path, model: Mapping[str, Any] | None = None
) -> tuple[Outcome, NDArray[np.uint8] | None]:
    """The picture of a recording, or None where it cannot be decoded.

    Args:
        path: NAME.sigmf-meta.
        model: Keys of [model] that its reader gives; see `settings.take_model`.

    Raises:
        LinkError, ScenarioError, CodecError: If the file is not a recording of a seed.
        BundleError: If it is of other models.
        RequestError: If smaller models for a UE are given.
    """
    if "variant" in (model or {}):
        raise RequestError(
            "--model is of megdt compress, whose models a UE runs, and a recording is decoded by the ES; leave it out"
        )
    delivery, plan = read_recording(path)
    told = plan.get("model", {})
    if not isinstance(told, Mapping):
        raise ScenarioError(f"{path} [model] is {told!r}, expected a table; record it again")
    told = dict(told)
    made_with = told.pop("sha256", None)
    tables = {name: table for name, table in plan.items() if name != "model"} | (
        {"model": told} if told else {}
    )
    tables = take_model(tables, model or {}, str(path))
    scenario = parse_scenario(tables, source=str(path))
    models = scenario.model.load()
    if made_with is None:
        raise ScenarioError(f"{path} does not say which models its seed is of; record it again")
    if made_with != models.checksum:
        if told:
            way_out = "name the one that it was made with by --model"
        else:
            way_out = "leave --model out" if model else "install the megdt that recorded it"
        raise BundleError(
            f"{path} is of {told.get('name') or 'bundle'} {str(made_with)[:12]}, {scenario.model.name or 'bundle'} "
            f"is {models.checksum[:12]}; {way_out}"
        )
    if delivery.outcome != "delivered":
        return delivery.outcome, None
    seed = scenario.codec("seed").decode(delivery)
    noise_power = np.array([seed.noise_power], np.float32)
    return "delivered", models.decode(seed.values[None], noise_power)[0]


def feature_uses(ledger: Ledger) -> int:
    """Channel uses of all that crossed but the prompt, which schemes send alike."""
    return sum(c.channel_uses for c in ledger.crossings if c.kind != "prompt")


def _error_free(
    scenario: Scenario, result: Result, bundle: StoredModels, *, needed: bool
) -> NDArray[np.uint8]:
    """The picture of the latent, decoded where it was made; finished first, where it was noisy."""
    # The ES's last seed is the one that was drawn; what a UE draws of a sketch is its own.
    sides = {stage.name: stage.side for stage in scenario.mechanism.stages}
    seeds = [
        feature
        for name, feature in result.features.items()
        if feature.kind == "seed" and sides[name] == Side.ES
    ]
    if seeds:
        seed = seeds[-1]
        if _is_split(scenario):
            prompt = Feature(kind="prompt", values=scenario.request.prompt)
            seed = denoise_last(Job(request=scenario.request, models=bundle), seed, prompt)
        image: NDArray[np.uint8] = bundle.decode(seed.values[None])[0]
        return image
    if result.image is not None:
        return result.image  # all of it was made on one side
    if needed:  # the prompt did not come across; a baseline is judged all the same
        job = Job(request=scenario.request, models=bundle)
        recipe = Feature(kind="recipe", values=(scenario.request.prompt, scenario.request.rng_seed))
        drawn: NDArray[np.uint8] = draw(job, recipe).values
        return drawn
    return np.full((scenario.request.size_px, scenario.request.size_px, 3), 128, np.uint8)


def _is_split(scenario: Scenario) -> bool:
    """Whether what crosses is finished at the UE, so that its picture is not the ES's own."""
    return any(s.run is denoise_last for s in scenario.mechanism.stages)


def _judge(scenario: Scenario, result: Result, error_free: NDArray[np.uint8]) -> Trial:
    from megdt.models.quality import psnr_db

    quality = None if result.image is None else psnr_db(result.image, error_free)
    return Trial(scenario=scenario, result=result, error_free=error_free, psnr_db=quality)


def _compare(trial: Trial, bundle: StoredModels, baseline: str | None) -> Trial:
    if baseline is None:
        return trial
    scenario = trial.scenario
    plan = scenario.plan
    if baseline == "prompt":
        other = replace(scenario, plan=replace(plan, mechanism=PROMPT_ONLY.name))
        return replace(trial, baseline=_judge_baseline(trial, other, other.run(bundle), bundle))
    mechanism = _WHOLE_PICTURE[plan.mechanism]
    codec = "analog" if baseline == "raw" else baseline
    plan = replace(plan, mechanism=mechanism.name, codecs={**plan.codecs, "image": codec})
    sent = [c for c in trial.result.ledger.crossings if c.kind in ("seed", "sketch")]
    if codec != "analog" and sent:
        rng = air_rng(scenario.request, sent[0].from_side, sent[0].to_side, 0)
        bits = scenario.link.payload_bits(feature_uses(trial.result.ledger), rng)
        plan = replace(plan, image_bits=bits)
    other = replace(scenario, plan=plan)
    # What both do alike is not done twice.
    stages = {s.name for s in scenario.mechanism.stages if s in mechanism.stages}
    result = other.run(bundle, done=trial.result.part(stages))
    return replace(trial, baseline=_judge_baseline(trial, other, result, bundle))


def _judge_baseline(trial: Trial, other: Scenario, result: Result, bundle: StoredModels) -> Trial:
    """Against the same picture as the trial, unless the baseline draws another one."""
    error_free = trial.error_free
    if _is_split(trial.scenario):
        error_free = _error_free(other, result, bundle, needed=True)
    return _judge(other, result, error_free)
