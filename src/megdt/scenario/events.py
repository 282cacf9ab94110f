"""What might happen to a scene, in words: a prompt becomes settings of a twin's scenario.

>>> read_events("a crowd of 40 UEs in a storm at night")
(Event(name='crowd', amount=40), Event(name='storm', amount=None), Event(name='night', amount=None))
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from megdt.errors import ScenarioError
from megdt.scenario.twin import TwinScenario


class Event(NamedTuple):
    """Something that happens: one of `EVENTS`, and how much of it where a prompt tells a number."""

    name: str
    amount: int | None = None
    """UEs of a crowd, days that pass; None for what `EVENTS` says."""


EVENTS: Mapping[str, Mapping[str, str]] = {
    "storm": {"scene.weather": "rainy", "scene.sky": "cloudy", "radio.extra_loss_db": "+6"},
    "rain": {"scene.weather": "rainy", "radio.extra_loss_db": "+1"},
    "mist": {"scene.weather": "misty"},
    "clouds": {"scene.sky": "cloudy"},
    "sunset": {"scene.sky": "sunset"},
    "night": {"scene.sky": "night"},
    "crowd": {"ues.count": "*4", "requests.each_round": "*4", "radio.extra_loss_db": "+3"},
    "rush": {"requests.each_round": "*3"},
    "outage": {"radio.outage": "1"},
    "jammer": {"attack.kind": "jammed", "attack.from_round": "0"},
    "forger": {"attack.kind": "forged", "attack.from_round": "0"},
    "drought": {"scene.sky": "clear", "scene.weather": "dry"},
    "week": {"scene.age_days": "+7"},
}
"""What each word does, one after the other; "*4" is four times what there is, "+7" is 7
more, where the prompt tells no number. Losses are assumptions: heavy rain at 3.5 GHz takes well below
1 dB over such ways (ITU-R P.838), wet leaves and people in between take the rest."""


@cache
def _words() -> Mapping[str, Any]:
    return tomllib.loads((files("megdt.scenario") / "words.toml").read_text(encoding="utf-8"))


@cache
def _phrases() -> Mapping[tuple[str, ...], str]:
    told = _words()["events"].items()
    return {tuple(phrase.split()): name for name, phrases in told for phrase in phrases}


def read_events(prompt: str) -> tuple[Event, ...]:
    """What a prompt says that happens, in its order, and night last: it is darker than any clouds.

    Raises:
        ScenarioError: If a word says nothing that can happen here, or none does.
    """
    words = re.findall(r"[a-z]+|\d+", prompt.lower())
    found: dict[str, int | None] = {}
    at = 0
    while at < len(words):
        event, length = _read_next(words[at:])
        if event is not None:
            found[event.name] = event.amount or found.get(event.name)
        elif words[at] not in _words()["fillers"]["words"]:
            raise ScenarioError(
                f"the prompt says {words[at]!r}, which nothing here can become; known: {', '.join(EVENTS)}; use "
                "these, or --set"
            )
        at += length
    if not found:
        raise ScenarioError(f"the prompt is {prompt!r}; say what happens: {', '.join(EVENTS)}")
    events = [Event(name, amount) for name, amount in found.items()]
    return tuple(sorted(events, key=lambda event: event.name == "night"))


def _read_next(words: Sequence[str]) -> tuple[Event | None, int]:
    """The event that words begin with, if any, and how many of them were read."""
    for size in range(min(max(map(len, _phrases())), len(words)), 0, -1):
        if (name := _phrases().get(tuple(words[:size]))) is not None:
            return Event(name), size
    told = _words()["numbers"]
    number = size = 0
    for word in words:
        if word in told["times"]:
            number = max(number, 1) * told["times"][word]
        elif word.isdigit() or word in told["words"]:
            number += int(told["words"].get(word, word))
        else:
            break
        size += 1
    unit = words[size] if size < len(words) else ""
    if number and unit in told["days"]:
        return Event("week", number * told["days"][unit]), size + 1
    if number > 1 and unit in told["ues"]:
        return Event("crowd", number), size + 1
    return None, 1


def as_settings(events: Sequence[Event], scenario: TwinScenario) -> list[str]:
    """Settings such as "ues.count=24" of what happens, for a scenario as it is."""
    tables, changed = scenario.table(), {}
    ues = tables["ues"]["count"]
    for name, amount in events:
        for path, value in EVENTS[name].items():
            table, _, key = path.partition(".")
            now = tables[table][key]
            if value[0] == "*" and amount is not None:
                tables[table][key] = round(now * amount / ues)
            elif value[0] == "*":
                tables[table][key] = min(round(now * float(value[1:])), 64)
            elif value[0] == "+":
                days = amount if path == "scene.age_days" else None
                tables[table][key] = now + float(days or value[1:])
            else:
                tables[table][key] = value
            changed[path] = tables[table][key]
    return [f"{key}={value}" for key, value in changed.items()]
