"""Scenarios: the one place that turns TOML, and options of the command line, into objects.

A scenario has five tables. Every key is a field of the dataclass named here, which holds its
default and its meaning:

    [request]  records.Request       prompt, size_px, steps, guidance_scale, rng_seed
    [plan]     records.Plan          mechanism, mode, image_bits
    [codecs]   CODECS below          prompt, recipe, seed, image
    [link]     link.radio.RadioLink  channel, snr_db, bandwidth_hz, coding, ...; in paper mode
               link.paper.PaperLink  snr_db, bandwidth_hz, tx_power_dbm
    [devices]  Devices below         es, ue

To add a mechanism or a codec, add it to the dict here.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from megdt.codecs import Codec
from megdt.codecs.image import AnalogImageCodec, FileFormat, FileImageCodec
from megdt.codecs.prompt import RecipeCodec, TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.errors import ScenarioError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.link.paper import PaperLink
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import (
    CENTRALIZED,
    ES_TO_UE,
    PROMPT_ONLY,
    SEND_PICTURE,
    SEND_SEED,
)
from megdt.mechanisms.stages import Mechanism, Models, StageProgress
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.records import Kind, Mode, Part, Plan, Request, Result, Side

MECHANISMS: dict[str, Mechanism] = {
    m.name: m for m in (ES_TO_UE, CENTRALIZED, PROMPT_ONLY, SEND_SEED, SEND_PICTURE)
}


def _file_codec(file_format: FileFormat) -> Callable[[Request, Plan], Codec]:
    return lambda request, plan: FileImageCodec(
        size_px=request.size_px, file_format=file_format, budget_bits=plan.image_bits
    )


CODECS: dict[Kind, dict[str, Callable[[Request, Plan], Codec]]] = {
    "prompt": {"text": lambda request, plan: TextCodec()},
    "recipe": {"text": lambda request, plan: RecipeCodec()},
    "seed": {
        "float32": lambda request, plan: QuantisedSeedCodec(
            shape=seed_shape(request), precision="float32"
        ),
        "float16": lambda request, plan: QuantisedSeedCodec(
            shape=seed_shape(request), precision="float16"
        ),
        "int8": lambda request, plan: QuantisedSeedCodec(
            shape=seed_shape(request), precision="int8"
        ),
        "analog": lambda request, plan: AnalogSeedCodec(shape=seed_shape(request), mode=plan.mode),
    },
    "image": {
        "webp": _file_codec("webp"),
        "avif": _file_codec("avif"),
        "jxl": _file_codec("jxl"),
        "analog": lambda request, plan: AnalogImageCodec(size_px=request.size_px, mode=plan.mode),
    },
}

DEFAULT_CODECS: dict[Mode, dict[Kind, str]] = {
    "fair": {"prompt": "text", "recipe": "text", "seed": "int8", "image": "webp"},
    "paper": {"prompt": "text", "recipe": "text", "seed": "analog", "image": "analog"},
}


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
        codecs = {
            kind: CODECS[kind][name](self.request, self.plan)
            for kind, name in self.plan.codecs.items()
        }
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
