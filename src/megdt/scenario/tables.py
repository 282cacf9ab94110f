"""Scenarios made of their tables, and of options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from megdt.codecs.jscc import (
    check_rate,
)
from megdt.errors import ScenarioError
from megdt.link.paper import PaperLink
from megdt.link.radio import RadioLink
from megdt.mechanisms.single_user import (
    ES_TO_UE,
    ES_TO_UE_SKETCH,
    ES_TO_UE_STEPS,
    PREVIEW_THEN_SEED,
    SKETCH_FIRST,
    UE_TO_ES,
    UE_TO_ES_SKETCH,
)
from megdt.mechanisms.video import Video
from megdt.records import (
    Fusion,
    Kind,
    Mode,
    Plan,
    Request,
    Side,
)
from megdt.scenario.checking import check_table, read_table, reject_choice, reject_unknown
from megdt.scenario.scenario import (
    CODECS,
    DEFAULT_CODECS,
    MECHANISMS,
    NOISE_CODECS,
    OF_AUTOENCODERS,
    OF_PIPELINES,
    Scenario,
    sketch_size_px,
)
from megdt.scenario.settings import Devices, Model, World, Writer

TABLES = ("request", "plan", "codecs", "link", "devices", "video", "world", "writer", "model")


SKETCHING = {ES_TO_UE.name: ES_TO_UE_SKETCH.name, UE_TO_ES.name: UE_TO_ES_SKETCH.name}
"""What sends a sketch where the other would send a seed."""


def choose_codec(
    tables: Mapping[str, Any], codec: str | None, rate: float | None, *, source: str = "scenario"
) -> dict[str, Any]:
    """Set how the feature crosses, in the words of the command line.

    Args:
        tables: A scenario's, with its mechanism.
        codec: "seed" for entropy-coded seeds, "sketch" for a sketch instead of a seed, or one of
            CODECS["seed"]; None leaves it as it is.
        rate: Of seed and sketch in bits a pixel, of jscc and hybrid as a share of the channel uses
            of the analog seed; None for the usual one.
        source: What to call the tables in errors.

    Raises:
        ScenarioError: If the tables are no scenario, the codec has no rate, or the mechanism sends
            neither seed nor sketch.
    """
    # What is worked with below is of the right type; the prompt may come later.
    asked = {"prompt": "?", **read_table(tables, "request", source)}
    parsed = parse_scenario({**tables, "request": asked}, source=source)
    crossing = {edge.source.makes for edge in parsed.mechanism.edges}
    changed = {name: dict(table) for name, table in tables.items()}
    plan, codecs = changed.setdefault("plan", {}), changed.setdefault("codecs", {})
    mechanism = plan.get("mechanism", Plan.mechanism)
    known = ("seed", "sketch", *CODECS["seed"])
    if codec is not None:
        reject_choice(codec, known, "codec")
    if codec == "sketch":
        sketching_too = (PREVIEW_THEN_SEED.name, SKETCH_FIRST.name)
        if mechanism not in (*SKETCHING, *SKETCHING.values(), *sketching_too):
            raise ScenarioError(
                f"mechanism is {mechanism!r}, which sends no sketch; leave it out, or take "
                f"{' or '.join(SKETCHING.values())}"
            )
        plan["mechanism"] = SKETCHING.get(mechanism, mechanism)
    elif codec is not None:
        name = {"seed": "progressive"}.get(codec, codec)
        kinds: tuple[Kind, ...] = ("seed", "observation")
        takes: list[Kind] = [k for k in kinds if k in crossing and name in CODECS[k]]
        if not takes and not (codec == "seed" and "frame" in crossing):
            there = [f"{k} as {', '.join(CODECS[k])}" for k in kinds if k in crossing]
            raise ScenarioError(
                f"codec is {codec}, but {mechanism} sends {' and '.join(there) or 'no seed'}; "
                f"{'take one of these' if there else 'leave it out'}"
            )
        for kind in takes:
            codecs[kind] = name
    if rate is None:
        return changed
    mode: Mode = plan.get("mode", Plan.mode)
    default = DEFAULT_CODECS.get(mode, {}).get("seed")
    sketching = codec == "sketch" or (codec is None and mechanism in SKETCHING.values())
    coded = "sketch" if sketching else codecs.get("seed", default)
    if "frame" in crossing:
        coded = "progressive"
    elif "seed" not in crossing and not sketching:
        coded = codecs.get("observation", DEFAULT_CODECS[mode]["observation"])
    size_px = changed.get("request", {}).get("size_px", Request.size_px)
    if coded == "sketch":
        size_px = sketch_size_px(plan.get("mechanism", Plan.mechanism), size_px)
    pixels = size_px**2
    if coded in ("progressive", "sketch"):
        low, high = RATE_RANGES[coded]
        if not low <= rate <= high:
            raise ScenarioError(
                f"rate is {rate:g} bit a pixel, {codec or coded} goes from {low:g} to {high:g}; choose one "
                "in between"
            )
        plan["seed_bits" if coded == "progressive" else "sketch_bits"] = round(rate * pixels)
    elif coded in ("jscc", "hybrid"):
        check_rate(rate)
        plan["symbol_rate"] = rate
    else:
        raise ScenarioError(
            f"rate is {rate:g}, but codec {coded} has none; take seed, sketch, jscc or hybrid"
        )
    return changed


RATE_RANGES = {"progressive": (0.005, 1.0), "sketch": (0.008, 0.06)}
"""Bits a pixel that make sense: below, nothing is left; above, other codecs serve better."""


def parse_scenario(tables: Mapping[str, Any], *, source: str = "scenario") -> Scenario:
    """Make a scenario of its tables.

    Args:
        tables: request, plan, codecs, link, devices, video, world, writer, model; each may be left out but request.prompt.
        source: What to call the tables in errors, such as a file's name.

    Raises:
        ScenarioError: If a table or key is not known, or a value has the wrong type.
        RequestError, LinkError: If a value is out of range.
    """
    reject_unknown(tables, TABLES, source, "table")
    plan = check_table(tables, "plan", Plan, source, left_out={"codecs"})
    mode: Mode = plan.get("mode", Plan.mode)
    reject_choice(mode, get_args(Mode), f"{source} [plan] mode")
    reject_choice(
        plan.get("mechanism", Plan.mechanism), tuple(MECHANISMS), f"{source} [plan] mechanism"
    )
    reject_choice(plan.get("fusion", Plan.fusion), get_args(Fusion), f"{source} [plan] fusion")
    chosen = read_table(tables, "codecs", source)
    reject_unknown(chosen, tuple(CODECS), f"{source} [codecs]", "key")
    codecs: dict[Kind, str] = {**DEFAULT_CODECS[mode], **chosen}  # type: ignore[dict-item]
    for kind, name in codecs.items():
        reject_choice(name, tuple(CODECS[kind]), f"{source} [codecs] {kind}")
    request = check_table(tables, "request", Request, source)
    if plan.get("mechanism") == ES_TO_UE_STEPS.name and codecs["seed"] not in NOISE_CODECS:
        raise ScenarioError(
            f"{source} [codecs] seed is {codecs['seed']!r}, but {ES_TO_UE_STEPS.name} hands over a seed "
            f"that is noise in part, which only {', '.join(NOISE_CODECS)} carry; take one of these"
        )
    link_type = PaperLink if mode == "paper" else RadioLink
    link_source = f"{source} in paper mode" if mode == "paper" else source
    link = check_table(tables, "link", link_type, link_source)
    devices = Devices(**check_table(tables, "devices", Devices, source))
    devices.profiles((Side.ES, Side.UE))  # an unknown one is said before anything runs
    world = World(**check_table(tables, "world", World, source))
    writer = Writer(**check_table(tables, "writer", Writer, source))
    model = Model(**check_table(tables, "model", Model, source))
    if model.name is not None:
        _check_pipeline(model, plan.get("mechanism", Plan.mechanism), codecs, source)
    if model.variant is not None and plan.get("mechanism", Plan.mechanism).startswith("video"):
        raise ScenarioError(
            f"{source} [model] variant is {model.variant!r}, and both ends of a video decode by the same "
            "autoencoder; leave model.variant out"
        )
    scenario = Scenario(
        request=Request(**{"prompt": "", **request}),
        plan=Plan(**plan, codecs=codecs),
        link=link_type(**link),
        devices=devices,
        video=Video(**check_table(tables, "video", Video, source)),
        world=world,
        writer=writer,
        model=model,
    )
    if scenario.plan.mechanism == "coordinated" and scenario.plan.fusion == "air":
        scenario.link_of("superposed")  # what is impossible is said before anything runs
    return scenario


def _check_pipeline(model: Model, mechanism: str, codecs: Mapping[Kind, str], source: str) -> None:
    """See that a mechanism, and how it sends, ask for nothing that the bundle alone has learnt.

    Raises:
        ScenarioError: If they do.
    """
    able = tuple(m.name for m in (OF_AUTOENCODERS if model.is_autoencoder else OF_PIPELINES))
    if mechanism not in able:
        raise ScenarioError(
            f"{source} [plan] mechanism is {mechanism!r}, for which {model.name} has no sub-models; "
            f"take one of {', '.join(able)}, or leave model.name out"
        )
    for kind in ("seed", "observation"):
        takes = (*NOISE_CODECS, "jscc") if kind == "seed" and model.has_code else NOISE_CODECS
        if codecs[kind] not in takes:
            trained = " (recipes/own_jscc.py trains another)" if codecs[kind] == "jscc" else ""
            raise ScenarioError(
                f"{source} [codecs] {kind} is {codecs[kind]!r}, which has learnt the bundle's latents{trained}; "
                f"take one of {', '.join(takes)}, or leave model.name out"
            )
