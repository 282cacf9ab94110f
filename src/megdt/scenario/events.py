"""What might happen to a scene, in words: a prompt becomes settings of a twin's scenario.

>>> read_events("a crowd of UEs in a storm at night")
('crowd', 'storm', 'night')
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from megdt.errors import ScenarioError
from megdt.scenario.twin import TwinScenario

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
more. Losses are assumptions: heavy rain at 3.5 GHz takes well below 1 dB over such ways (ITU-R P.838),
wet leaves and people in between take the rest."""

_FORMS = {
    "stormy": "storm", "rainy": "rain", "raining": "rain", "misty": "mist", "fog": "mist",
    "cloudy": "clouds", "cloud": "clouds", "dusk": "sunset", "midnight": "night", "moonlight": "night",
    "crowds": "crowd", "crowded": "crowd", "outages": "outage", "jammed": "jammer",
    "jamming": "jammer", "forged": "forger", "forgery": "forger", "dry": "drought", "later": "week",
}  # fmt: skip
_FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "at",
        "in",
        "of",
        "on",
        "and",
        "with",
        "by",
        "during",
        "after",
        "while",
        "it",
        "is",
        "cell",
        "ues",
        "ue",
        "users",
        "hour",
        "one",
        "over",
    ]
)


def read_events(prompt: str) -> tuple[str, ...]:
    """What a prompt says that happens, in its order.

    Raises:
        ScenarioError: If a word says nothing that can happen here, or none does.
    """
    found = []
    for word in re.findall(r"[a-z]+", prompt.lower()):
        name = _FORMS.get(word, word)
        if name in EVENTS:
            found.append(name)
        elif word not in _FILLERS:
            raise ScenarioError(
                f"the prompt says {word!r}, which nothing here can become; known: {', '.join(EVENTS)}; use "
                "these, or --set"
            )
    if not found:
        raise ScenarioError(f"the prompt is {prompt!r}; say what happens: {', '.join(EVENTS)}")
    # Night is darker than a storm's clouds, in whatever order they are named.
    return tuple(sorted(dict.fromkeys(found), key=lambda name: name == "night"))


def as_settings(events: Sequence[str], scenario: TwinScenario) -> list[str]:
    """Settings such as "ues.count=24" of what happens, for a scenario as it is."""
    tables, changed = scenario.table(), {}
    for key, value in (pair for name in events for pair in EVENTS[name].items()):
        table, _, name = key.partition(".")
        now = tables[table][name]
        if value[0] == "*":
            tables[table][name] = min(round(now * float(value[1:])), 64)
        elif value[0] == "+":
            tables[table][name] = now + float(value[1:])
        else:
            tables[table][name] = value
        changed[key] = tables[table][name]
    return [f"{key}={value}" for key, value in changed.items()]
