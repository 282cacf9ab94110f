"""Devices: how fast they compute, and what computing, sending and receiving cost them.

A device is a TOML file in which every number carries its source; `devices/` holds those that come
with the package. Times follow from floating point operations, so a ledger says what the device
would need and not what the machine needed that ran the simulation.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from megdt.errors import ScenarioError
from megdt.records import Precision

_FOLDER = Path(__file__).parent / "devices"

DEVICES = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
"""Names of the devices that come with the package."""

# Field of the profile: where it stands in the file.
_PLACES = {
    "flops_per_s": ("compute", "flops_per_s"),
    "compute_power_w": ("compute", "active_power_w"),
    "compute_idle_power_w": ("compute", "idle_power_w"),
    "core_power_w": ("compute", "core_power_w"),
    "transmit_circuit_power_w": ("radio", "transmit_circuit_power_w"),
    "amplifier_efficiency": ("radio", "amplifier_efficiency"),
    "receive_power_w": ("radio", "receive_power_w"),
    "radio_idle_power_w": ("radio", "idle_power_w"),
}


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What a device can do and what it draws.

    Args:
        name: Of the device.
        flops_per_s: Floating point operations a second on convolutional networks, 2 for each
            multiply-add; what is reached, not the peak.
        compute_power_w: Drawn while computing.
        compute_idle_power_w: Drawn by the same parts while they wait.
        core_power_w: Drawn by one busy processor core: what codecs run on.
        transmit_circuit_power_w: Drawn while sending by all of the transmitter but its amplifier.
        amplifier_efficiency: Radiated power over what grows with it.
        receive_power_w: Drawn while receiving.
        radio_idle_power_w: Drawn by the radio while nothing is sent or received.
        sources: Where each number is from, by the name of its field.
        precision: That networks compute in on a device that runs them without torch.
        description: What the device is.

    Raises:
        ScenarioError: If a number is not one, is out of its range or has no source.
    """

    name: str
    flops_per_s: float
    compute_power_w: float
    compute_idle_power_w: float
    core_power_w: float
    transmit_circuit_power_w: float
    amplifier_efficiency: float
    receive_power_w: float
    radio_idle_power_w: float
    sources: Mapping[str, str] = field(repr=False, hash=False)
    precision: Precision = "fp32"
    description: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ScenarioError("a device has an empty name; call it something")
        if self.precision not in get_args(Precision):
            raise ScenarioError(
                f"{self.name} has precision = {self.precision!r}, networks compute in "
                f"{', '.join(get_args(Precision))}; take one of these"
            )
        for attribute, (table, key) in _PLACES.items():
            where = f"{self.name} [{table}] {key}"
            _check(attribute, getattr(self, attribute), self.sources.get(attribute), where)

    def compute_s(self, flops: float) -> float:
        """Seconds that this many floating point operations take."""
        return flops / self.flops_per_s

    def compute_j(self, seconds: float) -> float:
        """Joules of running networks for this long."""
        return seconds * self.compute_power_w

    def compute_idle_j(self, seconds: float) -> float:
        """Joules of what runs networks, while it waits for this long."""
        return seconds * self.compute_idle_power_w

    def core_j(self, seconds: float) -> float:
        """Joules of one processor core that is busy for this long."""
        return seconds * self.core_power_w

    def transmit_j(self, airtime_s: float, radiated_j: float) -> float:
        """Joules of sending: what the amplifier takes, and the rest of the chain.

        Args:
            airtime_s: Seconds on the air.
            radiated_j: Radiated meanwhile.
        """
        return radiated_j / self.amplifier_efficiency + airtime_s * self.transmit_circuit_power_w

    def receive_j(self, airtime_s: float) -> float:
        """Joules of receiving for this long."""
        return airtime_s * self.receive_power_w

    def radio_idle_j(self, seconds: float) -> float:
        """Joules of a radio that waits for this long."""
        return seconds * self.radio_idle_power_w

    def toml(self) -> str:
        """The profile as the text of a file that `load_profile` reads."""
        lines = [f"name = {_quote(self.name)}", f"description = {_quote(self.description)}"]
        lines.append(f"precision = {_quote(self.precision)}")
        last = ""
        for attribute, (table, key) in _PLACES.items():
            if table != last:
                lines += ["", f"[{table}]"]
            last = table
            source = _quote(self.sources[attribute])
            lines.append(f"{key} = {{ value = {getattr(self, attribute)!r}, source = {source} }}")
        return "\n".join(lines) + "\n"


def load_profile(name_or_path: str) -> DeviceProfile:
    """Read a device.

    Args:
        name_or_path: One of DEVICES, or the path to a file, which has a slash or ends in .toml.

    Raises:
        ScenarioError: If there is no such device, the file cannot be read, or it has a key too
            many, one too few or a wrong value.
    """
    if name_or_path in DEVICES:
        path, source = _FOLDER / f"{name_or_path}.toml", f"device {name_or_path}"
    elif name_or_path.endswith(".toml") or "/" in name_or_path or "\\" in name_or_path:
        path, source = Path(name_or_path), name_or_path
    else:
        near = difflib.get_close_matches(name_or_path, DEVICES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ScenarioError(
            f"device is {name_or_path!r}, known: {', '.join(DEVICES)}, or a path to a .toml file{hint}"
        )
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(
            f"cannot read device {path} ({error.strerror}); check the path, or take one of "
            f"{', '.join(DEVICES)}"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, not TOML, or a number too long to read
        raise ScenarioError(f"{path} is not TOML: {error}") from error
    return _parse(tables, source)


def _parse(tables: Mapping[str, Any], source: str) -> DeviceProfile:
    tables = {"precision": "fp32", **tables}
    _match_keys(tables, ("name", "description", "precision", "compute", "radio"), source)
    for key in ("name", "description", "precision"):
        if not isinstance(tables[key], str):
            raise ScenarioError(f"{source} has {key} = {tables[key]!r}, expected text")
    for table in ("compute", "radio"):
        if not isinstance(tables[table], dict):
            raise ScenarioError(
                f"{source} has {table} = {tables[table]!r}, expected a table [{table}]"
            )
        keys = tuple(key for place, key in _PLACES.values() if place == table)
        _match_keys(tables[table], keys, f"{source} [{table}]")
    numbers, sources = {}, {}
    for attribute, (table, key) in _PLACES.items():
        entry = tables[table][key]
        if not isinstance(entry, dict):
            raise ScenarioError(
                f"{source} [{table}] {key} is {entry!r}, expected "
                f'{{ value = {entry!r}, source = "where the number is from" }}'
            )
        _match_keys(entry, ("value", "source"), f"{source} [{table}] {key}")
        _check(attribute, entry["value"], entry["source"], f"{source} [{table}] {key}")
        numbers[attribute], sources[attribute] = float(entry["value"]), entry["source"]
    return DeviceProfile(
        name=tables["name"],
        description=tables["description"],
        precision=tables["precision"],
        sources=sources,
        **numbers,
    )


def _match_keys(found: Mapping[str, Any], wanted: tuple[str, ...], where: str) -> None:
    """See that a table has these keys and no others."""
    for key in found:
        if key not in wanted:
            near = difflib.get_close_matches(key, wanted, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ScenarioError(
                f"{where} has no key {key!r}; known keys: {', '.join(wanted)}{hint}"
            )
    for key in wanted:
        if key not in found:
            raise ScenarioError(f"{where} lacks {key!r}; it needs {', '.join(wanted)}")


def _check(attribute: str, value: Any, source: Any, where: str) -> None:
    """See that a number is one, in its range, and has a source."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScenarioError(f"{where} is {value!r}, expected a number")
    if attribute == "amplifier_efficiency":
        good, wanted = 1e-4 <= value <= 1, "from 0.0001 to 1"
    elif attribute == "flops_per_s":
        good, wanted = 1e3 <= value <= 1e21, "from 1e3 to 1e21"
    else:
        good, wanted = 0 <= value <= 1e9, "from 0 to 1e9"
    if not good:  # also for nan
        found = f"{value:g}" if -1e300 < value < 1e300 or isinstance(value, float) else "too large"
        raise ScenarioError(f"{where} is {found}, expected a number {wanted}")
    if not isinstance(source, str) or not source.strip():
        raise ScenarioError(
            f"{where} has no source; say in words where the number is from, or what is assumed"
        )


def _quote(text: str) -> str:
    # JSON strings are TOML strings, but for this one character that TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
