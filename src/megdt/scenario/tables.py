"""Scenarios as TOML and as options of the command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

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
from megdt.scenario.scenario import (
    CODECS,
    DEFAULT_CODECS,
    MECHANISMS,
    NOISE_CODECS,
    Scenario,
    sketch_size_px,
)
from megdt.scenario.settings import Devices, World, Writer

TABLES = ("request", "plan", "codecs", "link", "devices", "video", "world", "writer")


def load_scenario(path: Path) -> dict[str, Any]:
    """Read a scenario file's tables.

    Raises:
        ScenarioError: If the file cannot be read, is not TOML, or has a key outside a table.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(
            f"cannot read scenario {path} ({error.strerror}); check the path"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number too long
        raise ScenarioError(f"{path} is not TOML: {error}") from error
    for name in tables:
        _table(tables, name, str(path))
    return tables


def override(tables: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply settings such as "link.snr_db=5" to a scenario's tables; values are TOML or bare words.

    Raises:
        ScenarioError: If a setting is not of the form table.key=value.
    """
    changed = {name: dict(table) for name, table in tables.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and table and name):
            raise ScenarioError(
                f"setting {setting!r} is not table.key=value; write it like link.snr_db=5"
            )
        try:
            parsed = tomllib.loads(f"value = {text}")
        except (ValueError, RecursionError):  # not TOML, or nested beyond all measure
            parsed = {}
        # A line break in the text could bring further keys; then it is not a value but a word.
        value = parsed["value"] if len(parsed) == 1 else text.strip()
        changed.setdefault(table, {})[name] = value
    return changed


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
    asked = {"prompt": "?", **_table(tables, "request", source)}
    parsed = parse_scenario({**tables, "request": asked}, source=source)
    crossing = {edge.source.makes for edge in parsed.mechanism.edges}
    changed = {name: dict(table) for name, table in tables.items()}
    plan, codecs = changed.setdefault("plan", {}), changed.setdefault("codecs", {})
    mechanism = plan.get("mechanism", Plan.mechanism)
    known = ("seed", "sketch", *CODECS["seed"])
    if codec is not None:
        _reject_choice(codec, known, "codec")
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
        tables: request, plan, codecs, link, devices, video, world, writer; each may be left out but request.prompt.
        source: What to call the tables in errors, such as a file's name.

    Raises:
        ScenarioError: If a table or key is not known, or a value has the wrong type.
        RequestError, LinkError: If a value is out of range.
    """
    _reject_unknown(tables, TABLES, source, "table")
    plan = _check_table(tables, "plan", Plan, source, left_out={"codecs"})
    mode: Mode = plan.get("mode", Plan.mode)
    _reject_choice(mode, get_args(Mode), f"{source} [plan] mode")
    _reject_choice(
        plan.get("mechanism", Plan.mechanism), tuple(MECHANISMS), f"{source} [plan] mechanism"
    )
    _reject_choice(plan.get("fusion", Plan.fusion), get_args(Fusion), f"{source} [plan] fusion")
    chosen = _table(tables, "codecs", source)
    _reject_unknown(chosen, tuple(CODECS), f"{source} [codecs]", "key")
    codecs: dict[Kind, str] = {**DEFAULT_CODECS[mode], **chosen}  # type: ignore[dict-item]
    for kind, name in codecs.items():
        _reject_choice(name, tuple(CODECS[kind]), f"{source} [codecs] {kind}")
    request = _check_table(tables, "request", Request, source)
    if plan.get("mechanism") == ES_TO_UE_STEPS.name and codecs["seed"] not in NOISE_CODECS:
        raise ScenarioError(
            f"{source} [codecs] seed is {codecs['seed']!r}, but {ES_TO_UE_STEPS.name} hands over a seed "
            f"that is noise in part, which only {', '.join(NOISE_CODECS)} carry; take one of these"
        )
    link_type = PaperLink if mode == "paper" else RadioLink
    link_source = f"{source} in paper mode" if mode == "paper" else source
    link = _check_table(tables, "link", link_type, link_source)
    devices = Devices(**_check_table(tables, "devices", Devices, source))
    devices.profiles((Side.ES, Side.UE))  # an unknown one is said before anything runs
    world = World(**_check_table(tables, "world", World, source))
    writer = Writer(**_check_table(tables, "writer", Writer, source))
    scenario = Scenario(
        request=Request(**{"prompt": "", **request}),
        plan=Plan(**plan, codecs=codecs),
        link=link_type(**link),
        devices=devices,
        video=Video(**_check_table(tables, "video", Video, source)),
        world=world,
        writer=writer,
    )
    if scenario.plan.mechanism == "coordinated" and scenario.plan.fusion == "air":
        scenario.link_of("superposed")  # what is impossible is said before anything runs
    return scenario


def _table(tables: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{source} has {name} = {table!r}, expected a table [{name}]")
    return dict(table)


def _check_table(
    tables: Mapping[str, Any],
    name: str,
    kind: type[Any],
    source: str,
    left_out: Set[str] = frozenset(),
) -> dict[str, Any]:
    """The table's keys, each a field of the dataclass and of its type."""
    table = _table(tables, name, source)
    keys = tuple(field.name for field in fields(kind) if field.name not in left_out)
    _reject_unknown(table, keys, f"{source} [{name}]", "key")
    types = get_type_hints(kind)
    for key, value in table.items():
        wanted = (types[key], *get_args(types[key]))
        if float in wanted and isinstance(value, int) and not isinstance(value, bool):
            # Beyond the range of floats it is out of everybody's range, which is infinity's error.
            table[key] = float(value) if abs(value) < 1e300 else float("inf")
            continue
        simple = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        expected = next((t for t in (bool, int, float, str) if t in wanted), str)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ScenarioError(
                f"{source} [{name}] {key} is {value!r}, expected {simple[expected]}"
            )
    return table


def _reject_unknown(found: Mapping[str, Any], known: Sequence[str], where: str, what: str) -> None:
    for name in found:
        if name not in known:
            raise ScenarioError(
                f"{where} has no {what} {name!r}; known {what}s: {', '.join(sorted(known))}"
            )


def _reject_choice(name: Any, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ScenarioError(f"{where} is {name!r}, known: {', '.join(known)}{hint}")
