"""Entities and their updates: what is asked of one, and the row that it becomes.

Nothing here is written anywhere; `store.py` does that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from megdt.errors import ConflictError, MeasurementError, TwinError, UnknownEntityError
from megdt.twin.storage import EntityKind, Row, pack, unpack

MAX_STATE_BYTES = 2**24
"""Of one entity, packed."""

_MOST = sys.float_info.max
_FINITE = (-_MOST, _MOST)

RANGES: Mapping[str, tuple[float, float]] = {
    "snr_db": (-100.0, 100.0),
    "power_dbm": (-200.0, 100.0),
    "bler": (0.0, 1.0),
    "load": (0.0, 1.0),
    "confidence": (0.0, 1.0),
    "age_s": (0.0, _MOST),
    "latency_s": (0.0, _MOST),
    "battery_j": (0.0, _MOST),
    "bandwidth_hz": (0.0, _MOST),
}
"""Lowest and highest of what is measured, by its key, wherever in a state it stands."""

NAME = re.compile(r"[\w.:/@-]{1,200}", re.ASCII)


_KINDS = get_args(EntityKind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What is new of one entity.

    States are patched as in RFC 7396: keys that are left out stay, None takes a key away, objects
    are patched within, anything else is put in place of what was there.
    """

    id: str
    """Letters, digits and ._:/@- such as "ue/3"; at most 200."""
    kind: EntityKind | None = None
    """Given, it makes the entity where there is none; left out, there has to be one."""
    reported: Mapping[str, Any] | None = None
    """What the entity says of itself: JSON's values, and bytes for small binaries."""
    desired: Mapping[str, Any] | None = None
    """What it is wanted to become."""
    at_s: float | None = None
    """When the world was so, at most the twin's clock; the twin's clock where left out."""
    expected: int | None = None
    """The entity's revision that this builds on, 0 for none; any where left out."""
    remove: bool = False
    """Take the entity away; its history stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """An entity as one revision has left it. Its states are copies, to do with as one likes."""

    id: str
    kind: EntityKind
    revision: int
    """That last changed it."""
    at_s: float
    """When the world was so, on the twin's clock."""
    reported: dict[str, Any] = field(default_factory=dict)
    desired: dict[str, Any] = field(default_factory=dict)
    removed: bool = False
    """Only in histories: it was taken away by this revision."""


def check(update: Update, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Whether it can be kept at all, whatever the twin knows.

    Raises:
        MeasurementError: If a state is out of range, or not made of JSON's values and bytes.
        TwinError: If the name or the kind is none.
    """
    if not NAME.fullmatch(update.id):
        raise TwinError(f"id is {update.id!r}; take up to 200 letters, digits and ._:/@-")
    if update.kind is not None and update.kind not in _KINDS:
        raise TwinError(f"kind of {update.id} is {update.kind!r}; known are {', '.join(_KINDS)}")
    try:
        for name in ("reported", "desired"):
            if (state := getattr(update, name)) is not None:
                if type(state) is not dict:
                    raise MeasurementError(f"{name} is {state!r}; take a dict")
                _check_state(state, name, _FINITE, ranges)
    except MeasurementError as error:
        raise MeasurementError(f"{update.id}: {error}") from None
    except RecursionError:
        raise MeasurementError(f"{update.id}: state is nested too deep; make it flat") from None


def _check_state(
    value: Any, name: str, bounds: tuple[float, float], ranges: Mapping[str, tuple[float, float]]
) -> None:
    # Exact types, as what is packed has to come back the same.
    made = type(value)
    if made is float or made is int:
        if not bounds[0] <= value <= bounds[1]:  # also catches nan
            raise MeasurementError(f"{name} is {value}, it goes from {bounds[0]} to {bounds[1]}")
    elif made is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise MeasurementError(f"{name} has the key {key!r}; keys are text")
            _check_state(inner, key, ranges.get(key, _FINITE), ranges)
    elif made is list:
        for inner in value:
            _check_state(inner, name, bounds, ranges)
    elif value is not None and (made not in (str, bool, bytes) or bounds is not _FINITE):
        expected = "a number" if bounds is not _FINITE else "JSON's values and bytes"
        raise MeasurementError(f"{name} is a {made.__name__}; take {expected}")


def next_row(update: Update, row: Row | None, revision: int, clock_s: float) -> Row:
    """The entity's next row.

    Raises:
        ConflictError: If it is not at the revision expected.
        UnknownEntityError: If there is none to be patched.
        MeasurementError: If the update is from the future, or cannot be packed.
        TwinError: If it is of another kind.
    """
    id = update.id
    alive = row is not None and bool(row.state)
    if update.expected is not None and update.expected != (
        found := row.revision if alive and row else 0
    ):
        raise ConflictError(
            f"{id} is at revision {found}, the update expects {update.expected}; read it again and retry",
            expected=update.expected,
            found=found,
        )
    at_s = clock_s if update.at_s is None else float(update.at_s) + 0.0  # -0.0 would not come back
    if not -_MOST <= at_s <= clock_s:
        raise MeasurementError(
            f"{id} was measured at {at_s} s, the twin's clock is at {clock_s} s; set the sender's clock or "
            "tell the twin's with now_s"
        )
    if row is None or not alive:
        if update.kind is None or update.remove:
            raise UnknownEntityError(f"{id!r} is not known; give the update a kind to make it")
        kind, reported, desired = update.kind, {}, {}
    else:
        if update.kind not in (None, row.kind):
            raise TwinError(f"{id} is a {row.kind}, the update says {update.kind}; take another id")
        kind, (reported, desired) = row.kind, unpack(row.state)
    if update.remove:
        return Row(revision, id, kind, at_s, b"")
    try:
        state = pack((_patched(reported, update.reported), _patched(desired, update.desired)))
    except (OverflowError, UnicodeEncodeError) as error:
        raise MeasurementError(f"{id}: state cannot be kept: {error}; change that value") from None
    if len(state) > MAX_STATE_BYTES:
        raise MeasurementError(
            f"{id}: state is of {len(state)} bytes, at most {MAX_STATE_BYTES} are kept; keep large "
            "things in files and their names here"
        )
    return Row(revision, id, kind, at_s, state)


def _patched(state: Any, patch: Mapping[str, Any] | None) -> Any:
    """A state with a patch put on it (RFC 7396, section 2); the state is changed."""
    if patch is None:
        return state
    for key, value in patch.items():
        if type(value) is dict:
            inner = state.get(key)
            state[key] = _patched(inner if type(inner) is dict else {}, value)
        elif value is None:
            state.pop(key, None)
        else:
            state[key] = value
    return state


def entity_of(row: Row) -> Entity:
    """The entity that a row holds."""
    if not row.state:
        return Entity(
            id=row.id, kind=row.kind, revision=row.revision, at_s=row.at_s, removed=True
        )  # fmt: skip
    reported, desired = unpack(row.state)
    return Entity(
        id=row.id, kind=row.kind, revision=row.revision, at_s=row.at_s,
        reported=reported, desired=desired,
    )  # fmt: skip
