"""Scenarios of a twin: a scene, the UEs in it, their radio and what they ask for, over many rounds.

Seven tables, each a dataclass here that holds defaults and meanings:

    [twin]      Rounds    rounds, interval_s, refresh_bits, objective, violation
    [scene]     Scene     kind, rng_seed, length_m, sky, weather, age_days, folder
    [ues]       Ues       count, speed_m_s, memory_mb, variants, position_noise_m
    [radio]     Radio     stations, outage, extra_loss_db, bandwidth_hz, tx_power_dbm, ...
    [requests]  Requests  each_round, size_px, deadline_s, max_distance
    [attack]    Attack    kind, ue, from_round
    [devices]   Devices   es, ue
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from megdt.errors import ScenarioError
from megdt.models.pretrained import as_path
from megdt.records import Side
from megdt.scenario.checking import (
    check_table,
    load_scenario,
    override,
    reject_choice,
    reject_unknown,
)
from megdt.scenario.settings import Devices
from megdt.worlds.scene import SKIES, WEATHERS

Objective = Literal["latency", "ue_energy", "energy"]
SceneKind = Literal["garden", "city", "photos"]
AttackName = Literal["none", "forged", "replayed", "spoofed", "jammed"]

BUILT_IN = {path.stem: path for path in sorted((Path(__file__).parent / "twins").glob("*.toml"))}
"""Scenarios that come with the package, by name."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often the twin looks at the world, and what it may spend on that."""

    rounds: int = 8
    interval_s: float = 600.0
    """From one round to the next."""
    refresh_bits: int = 65_536
    """That UEs may send up for the replica in a round; a view of int8 seeds takes 32,768."""
    objective: Objective = "latency"
    """What the planner has little of: latency, ue_energy or energy."""
    violation: float = 0.1
    """Probability with which a plan may miss its deadline, or its quality."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the cameras see."""

    kind: SceneKind = "garden"
    """garden: a meadow; city: the verges of a town's streets, with the town's radio; photos: pictures of
    yours, side by side."""
    rng_seed: int = 0
    """Lays out scene, ways and radio."""
    length_m: float = 24.0
    """Of the panorama, in whole metres; each camera sees 4 m. Of photos, 4 m each."""
    sky: str = "clear"
    weather: str = "dry"
    age_days: float = 0.0
    """Of the garden, at the twin's time 0."""
    folder: str = ""
    """Of the photos; all that Pillow reads, in the order of their names."""


@dataclass(frozen=True, kw_only=True)
class Ues:
    """Who moves about with a camera."""

    count: int = 6
    speed_m_s: float = 1.5
    memory_mb: float = math.inf
    """That may be filled with sub-models."""
    variants: tuple[str, ...] = ()
    """Folders of `megdt compress`: smaller sub-models that each may run in place of the bundle's."""
    position_noise_m: float = 0.15
    """Of what they tell; 0.15 is satellites with corrections."""

    def __post_init__(self) -> None:
        # So that they are found from other folders too.
        places = tuple(str(as_path(folder).resolve()) for folder in self.variants)
        object.__setattr__(self, "variants", places)


@dataclass(frozen=True, kw_only=True)
class Radio:
    """What they send over."""

    stations: int = 2
    outage: int = 0
    """Number of the station that is out of order; 0 for none."""
    distance_m: float = 350.0
    """Of the first station from the scene's middle; each further one stands twice as far. In a city the
    station stands where the scene has it."""
    extra_loss_db: float = 0.0
    """By rain or a crowd."""
    bandwidth_hz: float = 1e6
    tx_power_dbm: float = 23.0
    carrier_frequency_hz: float = 3.5e9
    snr_noise_db: float = 1.0
    """Of what UEs measure."""
    rays: int = 1_000_000
    """Traced through a city."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What UEs want to have generated."""

    each_round: int = 2
    size_px: int = 256
    deadline_s: float = 0.5
    max_distance: float = 0.2
    """ST-LPIPS to the error-free picture."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Who lies, and how."""

    kind: AttackName = "none"
    ue: int = 1
    from_round: int = 4
    """The first round is 0."""


@dataclass(frozen=True, kw_only=True)
class TwinScenario:
    """A scene, its UEs and their radio, and how the twin follows them."""

    twin: Rounds = field(default_factory=Rounds)
    scene: Scene = field(default_factory=Scene)
    ues: Ues = field(default_factory=Ues)
    radio: Radio = field(default_factory=Radio)
    requests: Requests = field(default_factory=Requests)
    attack: Attack = field(default_factory=Attack)
    devices: Devices = field(default_factory=Devices)

    def table(self) -> dict[str, dict[str, Any]]:
        """As nested tables of JSON's values, which `parse_twin_scenario` turns back into it."""
        tables: dict[str, dict[str, Any]] = asdict(self)
        tables["ues"]["variants"] = list(self.ues.variants)
        return tables


_RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "twin": {
        "rounds": (1, 10_000), "interval_s": (1, 1e7), "refresh_bits": (0, 1e9),
        "violation": (0, 1),
    },
    "scene": {"rng_seed": (0, 2**31), "length_m": (5, 256), "age_days": (0, 10_000)},
    "ues": {
        "count": (1, 64), "speed_m_s": (0.1, 30), "memory_mb": (0, math.inf),
        "position_noise_m": (0.001, 100),
    },
    "radio": {
        "stations": (1, 4), "outage": (0, 4), "distance_m": (10, 5000), "extra_loss_db": (0, 60),
        "bandwidth_hz": (180e3, 100e6), "tx_power_dbm": (-20, 50),
        "carrier_frequency_hz": (0.5e9, 100e9), "snr_noise_db": (0.01, 10), "rays": (1e4, 1e8),
    },
    "requests": {
        "each_round": (0, 64), "size_px": (256, 512), "deadline_s": (0.001, math.inf),
        "max_distance": (0, math.inf),
    },
    "attack": {"ue": (1, 64), "from_round": (0, 10_000)},
}  # fmt: skip

_CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "twin": {"objective": get_args(Objective)},
    "scene": {"kind": get_args(SceneKind), "sky": SKIES, "weather": WEATHERS},
    "attack": {"kind": get_args(AttackName)},
}


def read_twin_scenario(name: str, settings: Sequence[str] = ()) -> TwinScenario:
    """A scenario of the package by its name, or of a file, with settings on top.

    Args:
        name: One of BUILT_IN, or the path of a TOML file.
        settings: Such as "ues.count=20"; the later ones count.

    Raises:
        ScenarioError: If there is none of that name, or something in it is wrong.
    """
    path = BUILT_IN.get(name, Path(name))
    if name not in BUILT_IN and not path.is_file():
        raise ScenarioError(
            f"no scenario {name!r}; known: {', '.join(BUILT_IN)}, or give the path of a TOML file"
        )
    return parse_twin_scenario(override(load_scenario(path), settings), source=name)


def parse_twin_scenario(tables: Mapping[str, Any], *, source: str = "scenario") -> TwinScenario:
    """Make a twin's scenario of its tables.

    Args:
        tables: twin, scene, ues, radio, requests, attack, devices; each may be left out.
        source: What to call the tables in errors.

    Raises:
        ScenarioError: If a table or key is not known, or a value has the wrong type or is out of range.
    """
    kinds = get_type_hints(TwinScenario)
    reject_unknown(tables, tuple(kinds), source, "table")
    made: dict[str, Any] = {}
    for name, kind in kinds.items():
        table = check_table(tables, name, kind, source)
        for key, known in _CHOICES.get(name, {}).items():
            reject_choice(table.get(key, getattr(kind, key)), known, f"{source} [{name}] {key}")
        made[name] = kind(**table)
        for key, (low, high) in _RANGES.get(name, {}).items():
            if not low <= getattr(made[name], key) <= high:  # also catches nan
                raise ScenarioError(
                    f"{source} [{name}] {key} is {getattr(made[name], key):g}, it goes from {low:g} to "
                    f"{high:g}"
                )
    scenario = TwinScenario(**made)
    _check_whole(scenario, source)
    return scenario


def _check_whole(scenario: TwinScenario, source: str) -> None:
    """What no table knows alone."""
    scene, radio, attack = scenario.scene, scenario.radio, scenario.attack
    stations = 1 if scene.kind == "city" else radio.stations
    if radio.outage and radio.outage >= stations + (stations > 1):
        raise ScenarioError(
            f"{source} [radio] outage is {radio.outage}, and there {'is' if stations == 1 else 'are'} "
            f"{stations} station{'s' * (stations > 1)}; one has to be left: add a station, or take 0"
        )
    if attack.kind != "none" and attack.ue > scenario.ues.count:
        raise ScenarioError(
            f"{source} [attack] ue is {attack.ue}, there are {scenario.ues.count}; name one of these"
        )
    if scene.kind == "photos" and not scene.folder:
        raise ScenarioError(
            f"{source} [scene] folder is not named; say where your photos are, as "
            "--set scene.folder=Pictures"
        )
    if scenario.requests.size_px not in (256, 512):
        raise ScenarioError(
            f"{source} [requests] size_px is {scenario.requests.size_px}, plans are made for 256 and "
            "512; choose one of these"
        )
    if scene.length_m != round(scene.length_m):
        raise ScenarioError(
            f"{source} [scene] length_m is {scene.length_m:g}; the replica has tiles of a metre, give "
            "whole metres"
        )
    scenario.devices.profiles((Side.ES, Side.UE))
