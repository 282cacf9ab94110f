"""Tables as TOML and as settings, and what is said where one is wrong."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from megdt.errors import ScenarioError


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
        read_table(tables, name, str(path))
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


def read_table(tables: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """A table by its name; empty where left out."""
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{source} has {name} = {table!r}, expected a table [{name}]")
    return dict(table)


def check_table(
    tables: Mapping[str, Any],
    name: str,
    kind: type[Any],
    source: str,
    left_out: Set[str] = frozenset(),
) -> dict[str, Any]:
    """The table's keys, each a field of the dataclass and of its type."""
    table = read_table(tables, name, source)
    keys = tuple(field.name for field in fields(kind) if field.name not in left_out)
    reject_unknown(table, keys, f"{source} [{name}]", "key")
    types = get_type_hints(kind)
    for key, value in table.items():
        if get_origin(types[key]) is tuple:
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise ScenarioError(
                    f"{source} [{name}] {key} is {value!r}, expected a list of texts"
                )
            table[key] = tuple(value)
            continue
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


def reject_unknown(found: Mapping[str, Any], known: Sequence[str], where: str, what: str) -> None:
    """See that every name is a known one."""
    for name in found:
        if name not in known:
            raise ScenarioError(
                f"{where} has no {what} {name!r}; known {what}s: {', '.join(sorted(known))}"
            )


def reject_choice(name: Any, known: Sequence[str], where: str) -> None:
    """See that a value is a known one, or say which it may have meant."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ScenarioError(f"{where} is {name!r}, known: {', '.join(known)}{hint}")
