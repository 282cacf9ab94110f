"""Scenarios: the one place that turns TOML, and options of the command line, into objects.

A scenario has five tables. Every key is a field of the dataclass named here, which holds its
default and its meaning:

    [request]  records.Request       prompt, size_px, steps, guidance_scale, strength, ...
    [plan]     records.Plan          mechanism, mode, image_bits, seed_bits, sketch_bits
    [codecs]   CODECS below          prompt, recipe, seed, observation, sketch, image
    [link]     link.radio.RadioLink  channel, snr_db, bandwidth_hz, coding, ...; in paper mode
               link.paper.PaperLink  snr_db, bandwidth_hz, tx_power_dbm
    [devices]  Devices below         es, ue

To add a mechanism or a codec, add it to the dict here.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from megdt.codecs import Codec
from megdt.codecs.image import AnalogImageCodec, FileFormat, FileImageCodec
from megdt.codecs.jscc import (
    MAPS,
    MIN_COARSE_BITS,
    JsccSeedCodec,
    PlainSeedCodec,
    check_peer,
    check_rate,
    check_told,
    choose_share,
    map_size,
)
from megdt.codecs.observation import ObservationCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.prompt import RecipeCodec, TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec, count_symbols
from megdt.codecs.sketch import SketchCodec
from megdt.errors import ScenarioError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.link.paper import PaperLink
from megdt.link.radio import RadioLink
from megdt.mechanisms.execute import air_rng
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import (
    CENTRALIZED,
    ES_TO_UE,
    ES_TO_UE_SKETCH,
    ES_TO_UE_STEPS,
    PARALLEL,
    PREVIEW_THEN_SEED,
    PROMPT_ONLY,
    SEND_PICTURE,
    SEQUENTIAL,
    UE_TO_ES,
    UE_TO_ES_SKETCH,
)
from megdt.mechanisms.stages import Mechanism, Models, StageProgress
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.records import Kind, Mode, Part, Plan, Request, Result, Side, Style

MECHANISMS: dict[str, Mechanism] = {
    m.name: m
    for m in (
        ES_TO_UE,
        ES_TO_UE_STEPS,
        ES_TO_UE_SKETCH,
        PREVIEW_THEN_SEED,
        CENTRALIZED,
        PROMPT_ONLY,
        UE_TO_ES,
        UE_TO_ES_SKETCH,
        SEND_PICTURE,
        SEQUENTIAL,
        PARALLEL,
    )
}


CodecFactory = Callable[[Request, Plan, "RadioLink | PaperLink"], Codec]
"""Makes a codec of what both ends agree on."""


def _file_codec(file_format: FileFormat) -> CodecFactory:
    return lambda request, plan, link: FileImageCodec(
        size_px=request.size_px, file_format=file_format, budget_bits=plan.image_bits
    )


def _sketch_codec(style: Style) -> CodecFactory:
    return lambda request, plan, link: SketchCodec(
        size_px=request.size_px, style=style, budget_bits=plan.sketch_bits
    )


def told_snr_db(plan: Plan, link: RadioLink | PaperLink) -> float:
    """What a codec is told of the channel, by the plan or by the link's mean.

    Raises:
        ScenarioError: If neither has it, or the paper's convention holds, which tells nobody.
    """
    if plan.mode == "paper":
        raise ScenarioError(
            "codecs that are told the SNR send complex symbols at unit power, paper mode has "
            "neither; take fair mode, or codec analog"
        )
    told = link.mean_snr_db if plan.told_snr_db is None else plan.told_snr_db
    if told is None:
        raise ScenarioError(
            "the codec is told an SNR and this channel has none that both ends know beforehand; "
            "set plan.told_snr_db"
        )
    return told


def jscc_codec(request: Request, plan: Plan, link: RadioLink | PaperLink) -> Codec:
    """Learned symbols alone, in plan.symbol_rate of the channel uses of the analog seed."""
    return hybrid_codec(request, plan, link, share=1.0)


def hybrid_codec(
    request: Request, plan: Plan, link: RadioLink | PaperLink, *, share: float | None = None
) -> Codec:
    """Bits and learned symbols in plan.symbol_rate of the channel uses of the analog seed.

    Args:
        request: What is to be sent.
        plan: How much may be spent on it.
        link: Its SNR says how.
        share: How much of that goes by symbols, where it is not to be chosen by the SNR.
    """
    snr_db, shape = told_snr_db(plan, link), seed_shape(request)
    assert isinstance(link, RadioLink)  # the paper's tells no SNR
    check_rate(plan.symbol_rate)
    check_told(snr_db)
    check_peer(plan.jscc_sha256)
    if share is None:
        share = choose_share(snr_db, plan.symbol_rate)
        if share is None:
            return PlainSeedCodec(shape=shape, restore=plan.restore)
    uses = round(plan.symbol_rate * link.analog_uses(count_symbols(math.prod(shape), "fair")))
    bits = 0
    if share < 1:
        digital = round((1 - share) * uses)
        bits = link.payload_bits(digital, _air_of(request, plan, "seed"))
        # Too few to say anything: then all of it goes by symbols.
        bits, share = (bits, share) if bits >= MIN_COARSE_BITS else (0, 1.0)
    if share == 0:
        # Bits alone are not mended: the network costs more than it gives where they are many.
        return ProgressiveSeedCodec(shape=shape, budget_bits=bits)
    maps = round(link.symbols_within(round(share * uses)) * 2 // map_size(shape))
    return JsccSeedCodec(
        shape=shape,
        snr_db=snr_db,
        maps=min(MAPS, maps if bits else max(1, maps)),
        coarse_bits=bits,
        restore=plan.restore,
        rng_seed=request.rng_seed,
        peer_sha256=plan.jscc_sha256,
    )


def _air_of(request: Request, plan: Plan, kind: Kind) -> np.random.Generator:
    """The course of the channel that a feature of this kind will meet, as its sender sounds it."""
    for edge in MECHANISMS[plan.mechanism].edges:
        if edge.source.makes == kind:
            return air_rng(request, edge.source.side, edge.target.side, edge.number)
    return np.random.default_rng(request.rng_seed)  # it does not cross: nothing will be sent


def _observation_codec(name: str) -> CodecFactory:
    return lambda request, plan, link: ObservationCodec(
        seed=CODECS["seed"][name](request, plan, link)
    )


CODECS: dict[Kind, dict[str, CodecFactory]] = {
    "prompt": {"text": lambda request, plan, link: TextCodec()},
    "recipe": {"text": lambda request, plan, link: RecipeCodec()},
    "seed": {
        "float32": lambda request, plan, link: QuantisedSeedCodec(
            shape=seed_shape(request), precision="float32"
        ),
        "float16": lambda request, plan, link: QuantisedSeedCodec(
            shape=seed_shape(request), precision="float16"
        ),
        "int8": lambda request, plan, link: QuantisedSeedCodec(
            shape=seed_shape(request), precision="int8"
        ),
        "analog": lambda request, plan, link: AnalogSeedCodec(
            shape=seed_shape(request), mode=plan.mode
        ),
        "progressive": lambda request, plan, link: ProgressiveSeedCodec(
            shape=seed_shape(request), budget_bits=plan.seed_bits
        ),
        "jscc": jscc_codec,
        "hybrid": hybrid_codec,
    },
    "observation": {
        name: _observation_codec(name) for name in ("progressive", "int8", "float16", "float32")
    },
    "sketch": {
        "edges": _sketch_codec("edges"),
        "layout": _sketch_codec("layout"),
        "thumbnail": _sketch_codec("thumbnail"),
    },
    "image": {
        "webp": _file_codec("webp"),
        "avif": _file_codec("avif"),
        "jxl": _file_codec("jxl"),
        "analog": lambda request, plan, link: AnalogImageCodec(
            size_px=request.size_px, mode=plan.mode
        ),
    },
}

DEFAULT_CODECS: dict[Mode, dict[Kind, str]] = {
    "fair": {
        "prompt": "text",
        "recipe": "text",
        "seed": "int8",
        "observation": "int8",
        "sketch": "thumbnail",
        "image": "webp",
    },
    "paper": {
        "prompt": "text",
        "recipe": "text",
        "seed": "analog",
        "observation": "int8",
        "sketch": "thumbnail",
        "image": "analog",
    },
}


NOISE_CODECS = ("float32", "float16", "int8", "analog")
"""Of seeds: those that carry noise as well as what a picture has; the others know latents without."""

TABLES = ("request", "plan", "codecs", "link", "devices")


def seed_shape(request: Request) -> tuple[int, int, int]:
    """Shape of the default bundle's seed for this request."""
    side = request.size_px // FACTOR
    return LATENT_CHANNELS, side, side


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What the sides are: names of `link.energy.DEVICES`, or paths of profiles."""

    es: str = "edge_gpu"
    ue: str = "phone"

    def profiles(self) -> dict[Side, DeviceProfile]:
        """The profiles by side."""
        return {Side.ES: load_profile(self.es), Side.UE: load_profile(self.ue)}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One generation, complete: what is wanted, what runs where, what carries it."""

    request: Request
    plan: Plan
    link: RadioLink | PaperLink
    devices: Devices = Devices()

    def run(
        self,
        models: Models,
        *,
        done: Part | None = None,
        progress: StageProgress | None = None,
    ) -> Result:
        """Simulate it; see `mechanisms.simulate.simulate`."""
        codecs = {kind: self.codec(kind) for kind in self.plan.codecs}
        return simulate(
            MECHANISMS[self.plan.mechanism],
            self.request,
            models=models,
            codecs=codecs,
            links=dict.fromkeys(codecs, self.link),
            devices=self.devices.profiles(),
            done=done,
            progress=progress,
        )

    def codec(self, kind: Kind) -> Codec:
        """What carries this kind of feature over the air."""
        return CODECS[kind][self.plan.codecs[kind]](self.request, self.plan, self.link)

    def table(self) -> dict[str, dict[str, Any]]:
        """The scenario as nested tables, which `parse_scenario` turns back into it."""
        parts = {
            "request": asdict(self.request),
            "plan": asdict(self.plan),
            "link": asdict(self.link),
            "devices": asdict(self.devices),
        }
        parts["codecs"] = parts["plan"].pop("codecs")
        # TOML has no null: what is left out is None.
        return {
            name: {key: value for key, value in table.items() if value is not None}
            for name, table in parts.items()
        }


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
    parse_scenario({**tables, "request": asked}, source=source)
    changed = {name: dict(table) for name, table in tables.items()}
    plan, codecs = changed.setdefault("plan", {}), changed.setdefault("codecs", {})
    mechanism = plan.get("mechanism", Plan.mechanism)
    known = ("seed", "sketch", *CODECS["seed"])
    if codec is not None:
        _reject_choice(codec, known, "codec")
    if codec == "sketch":
        if mechanism not in (*SKETCHING, *SKETCHING.values(), PREVIEW_THEN_SEED.name):
            raise ScenarioError(
                f"mechanism is {mechanism!r}, which sends no sketch; leave it out, or take "
                f"{' or '.join(SKETCHING.values())}"
            )
        plan["mechanism"] = SKETCHING.get(mechanism, mechanism)
    elif codec is not None:
        codecs["seed"] = {"seed": "progressive"}.get(codec, codec)
    if rate is None:
        return changed
    mode: Mode = plan.get("mode", Plan.mode)
    default = DEFAULT_CODECS.get(mode, {}).get("seed")
    sketching = codec == "sketch" or (codec is None and mechanism in SKETCHING.values())
    crossing = "sketch" if sketching else codecs.get("seed", default)
    pixels = changed.get("request", {}).get("size_px", Request.size_px) ** 2
    if crossing in ("progressive", "sketch"):
        low, high = RATE_RANGES[crossing]
        if not low <= rate <= high:
            raise ScenarioError(
                f"rate is {rate:g} bit a pixel, {codec or crossing} goes from {low:g} to {high:g}; choose one "
                "in between"
            )
        plan["seed_bits" if crossing == "progressive" else "sketch_bits"] = round(rate * pixels)
    elif crossing in ("jscc", "hybrid"):
        check_rate(rate)
        plan["symbol_rate"] = rate
    else:
        raise ScenarioError(
            f"rate is {rate:g}, but codec {crossing} has none; take seed, sketch, jscc or hybrid"
        )
    return changed


RATE_RANGES = {"progressive": (0.005, 1.0), "sketch": (0.008, 0.06)}
"""Bits a pixel that make sense: below, nothing is left; above, other codecs serve better."""


def parse_scenario(tables: Mapping[str, Any], *, source: str = "scenario") -> Scenario:
    """Make a scenario of its tables.

    Args:
        tables: request, plan, codecs, link, devices; each may be left out but request.prompt.
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
    devices.profiles()  # an unknown one is said before anything runs
    return Scenario(
        request=Request(**{"prompt": "", **request}),
        plan=Plan(**plan, codecs=codecs),
        link=link_type(**link),
        devices=devices,
    )


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
