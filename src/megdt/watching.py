"""A twin followed for some rounds: as tables, as JSON, and as pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from megdt.errors import TwinError
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models import FACTOR
from megdt.pictures import draw_rows
from megdt.records import Side
from megdt.report import make_table
from megdt.scenario.twin import TwinScenario, parse_twin_scenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.entities import Update
from megdt.twin.loop import Round, run_round
from megdt.twin.patrol import DAY_S
from megdt.twin.replica import TILE_COLUMNS, Replica
from megdt.twin.store import Store
from megdt.twin.twin import SERVER, Twin, begin_s, whole_revision
from megdt.twin.validation import Assessment

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

Tell = Callable[[Round], None]


def keep_scenario(store: Store, scenario: TwinScenario) -> None:
    """Have a store say what it is the twin of.

    What makes no other place (plans, requests, attacks, devices, what UEs run) is kept as it is now.

    Raises:
        TwinError: If it is one of another scene, of other UEs or of other stations.
    """
    known = kept_scenario(store)
    if known == scenario:
        return
    if known is not None:
        for key, theirs, ours in _differences(known, scenario):
            if key != "ues.variants" and key.startswith(("scene.", "ues.", "radio.stations")):
                raise TwinError(
                    f"this is the twin of another scenario: its {key} is {theirs!r}, now it is {ours!r}; "
                    "take another --db, or ask what if with megdt twin whatif"
                )
    told = Update(id=SERVER, kind="es", reported={"scenario": finite_table(scenario)})
    store.apply([told], now_s=store.now_s)


def check_event(scenario: TwinScenario, changed: TwinScenario) -> None:
    """See that what might happen happens to the same place.

    Raises:
        TwinError: If it would be another one.
    """
    for key, was, now in _differences(scenario, changed):
        if key in {
            "scene.kind",
            "scene.rng_seed",
            "scene.length_m",
            "scene.folder",
            "radio.stations",
        }:
            raise TwinError(
                f"{key} is {was!r} and would be {now!r}, which is another place and not what happens to "
                "this one; follow it with megdt twin run"
            )


def _differences(one: TwinScenario, other: TwinScenario) -> list[tuple[str, Any, Any]]:
    """Keys by which two scenarios differ, with both values."""
    theirs = other.table()
    return [
        (f"{name}.{key}", value, theirs[name][key])
        for name, table in one.table().items() for key, value in table.items()
        if value != theirs[name][key]
    ]  # fmt: skip


def kept_scenario(store: Store) -> TwinScenario | None:
    """What a store is the twin of; None for an empty one."""
    server = next((e.reported for e in store.entities("es") if e.id == SERVER), {})
    if (kept := server.get("scenario")) is None:
        return None
    tables = {
        name: {key: math.inf if value == "inf" else value for key, value in table.items()}
        for name, table in kept.items()
    }
    return parse_twin_scenario(tables, source="the twin's scenario")


def rounds_over(store: Store) -> int:
    """How many rounds of a twin are over."""
    return next(
        (int(e.reported.get("rounds", 0)) for e in store.entities("es") if e.id == SERVER), 0
    )


def finite_table(scenario: TwinScenario) -> dict[str, dict[str, Any]]:
    """Its tables; endless bounds, which JSON has no number for, as "inf", or left out where they are the
    defaults.
    """
    usual = TwinScenario().table()
    return {
        name: {
            key: "inf" if value == math.inf else value
            for key, value in table.items() if value != math.inf or usual[name][key] != math.inf
        }
        for name, table in scenario.table().items()
    }  # fmt: skip


def follow(twin: Twin, site: SimulatedSite, rounds: int, tell: Tell | None = None) -> list[Round]:
    """Run the loop for some rounds.

    Args:
        twin: What is known.
        site: The world.
        rounds: How many.
        tell: Told of each as it is over.
    """
    found = []
    for _ in range(rounds):
        found.append(run_round(twin, site, refresh_bits=site.scenario.twin.refresh_bits))
        if tell is not None:
            tell(found[-1])
    return found


def what_if(
    scenario: TwinScenario,
    changed: TwinScenario,
    store: Store,
    bundle: Bundle,
    *,
    rounds: int,
    tell: Tell | None = None,
) -> dict[str, tuple[Twin, SimulatedSite, list[Round]]]:
    """The next rounds on two forks of a twin, as it is and if something happened: both from the end of
    its last whole round, whoever follows it meanwhile. A garden that is older if, is looked at so much
    later.

    Args:
        scenario: As it is.
        changed: If.
        store: The twin's, with some rounds in it; nothing is written to it.
        bundle: Sub-models.
        rounds: How many, each.
        tell: Told of each as it is over.
    """
    found = {}
    now_s, at = begin_s(store, scenario.twin.interval_s), whole_revision(store)
    live = open_twin(scenario, SimulatedSite(scenario, bundle, start_s=now_s), store, bundle)
    later_days = max(changed.scene.age_days - scenario.scene.age_days, 0.0)
    scene = replace(changed.scene, age_days=changed.scene.age_days - later_days)
    for name, case, later_s in (
        ("as it is", scenario, 0.0),
        ("if", replace(changed, scene=scene), DAY_S * later_days),
    ):
        site = SimulatedSite(case, bundle, start_s=now_s + later_s)
        fork = live.fork(site.place, case.ues.count, at=at)
        found[name] = fork, site, follow(fork, site, rounds, tell)
    return found


def summarise(twin: Twin, site: SimulatedSite, rounds: Sequence[Round]) -> dict[str, Any]:
    """What some rounds came to; None for what nobody could measure."""
    answers = [answer for r in rounds for answer in r.answers]
    delivered = [a.served for a in answers if a.served.outcome == "delivered"]
    poor = [a.poor for a in answers if a.poor is not None]
    known = np.isfinite(twin.replica.seen_s).all(0).repeat(FACTOR)
    off = (twin.picture[:, known].astype(float) - site.panorama[:, known]) ** 2
    return {
        "rounds": len(rounds),
        "verdicts": dict(Counter(_verdict(r.validity) for r in rounds)),
        "views_sent_up": sum(len(r.uploads) for r in rounds),
        "views_lost": sum(u.arrival is None for r in rounds for u in r.uploads),
        "bits_sent_up": sum(u.bits for r in rounds for u in r.uploads),
        "alarms": sum(bool(j.evidence) for r in rounds for j in r.judgements.values()),
        "quarantined": [
            f"UE{n}" for n in range(1, twin.network.tracker.ues + 1)
            if not twin.monitor.trusts(Side.ue(n))
        ],
        "replica_seen": float(known.mean()),
        "replica_error": float(np.sqrt(off.mean())) if off.size else None,
        "wishes": len(answers),
        "delivered": len(delivered),
        "late": _share([a.late for a in answers]),
        "poor": _share(poor),
        "fell_back": _share([bool(a.decision.fallback) for a in answers]),
        "latency_s": _mean([s.latency_s for s in delivered]),
        "ue_energy_j": _mean([a.served.ue_energy_j for a in answers]),
        "energy_j": _mean([a.served.energy_j for a in answers]),
        "bits": _mean([float(a.served.bits) for a in answers]),
        "ways": dict(Counter(a.decision.candidate.answer for a in answers).most_common()),
    }  # fmt: skip


def as_json(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Each round as an object."""
    return [
        {
            "round": r.number,
            "time_s": r.now_s,
            "revision": r.revision,
            "verdict": r.validity.verdict,
            "replica": r.validity.replica.verdict,
            "predictions": r.validity.predictions.verdict,
            "reasons": list(r.validity.reasons),
            "views": [str(u.side) for u in r.uploads],
            "lost": [str(u.side) for u in r.uploads if u.arrival is None],
            "evidence": {
                str(side): [str(e) for e in judged.evidence]
                for side, judged in r.judgements.items() if judged.evidence
            },
            "answers": [
                {
                    "ue": str(a.wish.side),
                    "prompt": a.wish.request.prompt,
                    "station": a.prediction.station,
                    "expected_snr_db": a.prediction.snr_db,
                    "snr_sd_db": a.prediction.snr_sd_db,
                    "plan": a.decision.candidate.name,
                    "fallback": a.decision.fallback,
                    "broken": list(a.decision.broken),
                    "outcome": a.served.outcome,
                    "latency_s": a.served.latency_s,
                    "energy_j": a.served.energy_j,
                    "distance": a.served.distance,
                }
                for a in r.answers
            ],
        }
        for r in rounds
    ]  # fmt: skip


def print_rounds(rounds: Sequence[Round]) -> None:
    """One row a round, and under it what the monitor found."""
    console = Console()
    table = make_table("round", "time", "twin is", "views from", "planned", "took")
    table.columns[4].no_wrap = False  # the one that has room to give
    for r in rounds:
        plans = Counter(a.decision.candidate.answer for a in r.answers)
        took = _mean([a.served.latency_s for a in r.answers if a.served.outcome == "delivered"])
        table.add_row(
            str(r.number), f"{r.now_s:.0f} s", _verdict(r.validity),
            " ".join(f"{u.side}{'' if u.arrival else ' (lost)'}" for u in r.uploads) or "nobody",
            ", ".join(f"{n} x {name}" if n > 1 else name for name, n in plans.items()) or "nothing",
            "" if took is None else f"{1000 * took:.0f} ms",
        )  # fmt: skip
    console.print(table)
    for r in rounds:
        for side, judged in r.judgements.items():
            if judged.evidence:
                console.print(f"round {r.number}, {side}: {judged.evidence[0]}", highlight=False)


_LINES = (
    ("views sent up", "views_sent_up", "{:.0f}"),
    ("of these lost", "views_lost", "{:.0f}"),
    ("replica seen", "replica_seen", "{:.0%}"),
    ("replica's error, grey levels", "replica_error", "{:.1f}"),
    ("alarms", "alarms", "{:.0f}"),
    ("wishes", "wishes", "{:.0f}"),
    ("delivered", "delivered", "{:.0f}"),
    ("late", "late", "{:.0%}"),
    ("poor", "poor", "{:.0%}"),
    ("safe plans", "fell_back", "{:.0%}"),
    ("latency, ms", "latency_s", "{:.0f}"),
    ("energy of the UE, J", "ue_energy_j", "{:.2f}"),
    ("energy, J", "energy_j", "{:.2f}"),
    ("bits", "bits", "{:.0f}"),
)


def print_summaries(summaries: dict[str, dict[str, Any]]) -> None:
    """What rounds came to, side by side."""
    table = make_table("", *summaries)
    for name, key, form in _LINES:
        cells = []
        for found in summaries.values():
            value = found[key]
            scaled = 1000 * value if key == "latency_s" and value is not None else value
            cells.append("not measured" if scaled is None else form.format(scaled))
        table.add_row(name, *cells)
    for name, key in (("the twin was", "verdicts"), ("planned", "ways")):
        cells = [
            "\n".join(f"{n} x {what}" for what, n in found[key].items()) or "nothing"
            for found in summaries.values()
        ]
        table.add_row(name, *cells)
    kept_out = [" ".join(found["quarantined"]) or "nobody" for found in summaries.values()]
    table.add_row("quarantined", *kept_out)
    Console().print(table)


def draw_twin(title: str, views: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Panoramas one under the other."""
    return draw_rows(title, [(picture, 0, name) for name, picture in views.items()])


def replay(store: Store, at_s: float | None) -> dict[str, Any]:
    """What the twin knew at a time, now where left out.

    Raises:
        TwinError: If it knew nothing yet, or the time has not come.
    """
    if at_s is not None and not at_s <= store.now_s:
        raise TwinError(
            f"the time is {at_s:g} s, this twin's clock goes to {store.now_s:g} s; give one until then"
        )
    revision = store.revision if at_s is None else store.revision_at(at_s)
    known = store.entities(at=revision) if revision else []
    if not known:
        when = "holds nothing" if at_s is None else f"knew nothing at {at_s:g} s"
        raise TwinError(
            f"this twin {when}; its clock goes to {store.now_s:g} s: give a time after its first "
            "round, or run it with megdt twin run --db"
        )
    server = next((e.reported for e in known if e.id == SERVER), {})
    return {
        "revision": revision,
        "time_s": store.now_s if at_s is None else at_s,
        "rounds": server.get("rounds", 0),
        "verdict": server.get("twin", {}).get("verdict"),
        "reasons": server.get("twin", {}).get("reasons", []),
        "conditions": server.get("conditions", {}),
        "entities": dict(Counter(e.kind for e in known)),
        "ues": {e.id: e.reported | e.desired for e in known if e.kind == "ue"},
        "links": {e.id: {"desired": e.desired, **e.reported} for e in known if e.kind == "link"},
        "objects": {e.id: e.reported for e in known if e.kind == "object"},
    }


def replayed_replica(store: Store, revision: int) -> Replica | None:
    """The replica of a revision, as far to the right as it was seen; None where it was not."""
    tiles = [int(e.id.partition("/")[2]) for e in store.entities("tile", at=revision)]
    if not tiles:
        return None
    return Replica.read(store, VIEW_COLUMNS, (max(tiles) + 1) * TILE_COLUMNS, at=revision)


def print_replay(found: dict[str, Any]) -> None:
    """The twin of a time."""
    console = Console()
    sky = ", ".join(found["conditions"].values()) or "not told"
    console.print(
        f"time {found['time_s']:g} s, revision {found['revision']}, after {found['rounds']} rounds; "
        f"{sky}; the twin was {found['verdict'] or 'not judged yet'}",
        highlight=False,
    )
    for reason in found["reasons"]:
        console.print(f"  {reason}", highlight=False)
    table = make_table("UE", "where", "hears", "was sent", "monitor")
    for id, state in found["ues"].items():
        link = found["links"].get(f"link/{id.partition('/')[2]}", {})
        where = ", ".join(f"{x:.1f}" for x in state.get("position_m", []))
        heard = [
            f"{s:.0f}" if s is not None else "-" for s in state.get("heard", {}).get("snr_db", [])
        ]
        table.add_row(
            id, f"{where} m", f"{' '.join(heard)} dB", link.get("desired", {}).get("way", ""),
            state.get("monitor", {}).get("status", "trusted"),
        )  # fmt: skip
    console.print(table)
    if found["objects"]:
        table = make_table("object", "what", "where")
        for id, state in found["objects"].items():
            table.add_row(id, f"{state['colour']} {state['species']}", f"{state['position_m']:g} m")
        console.print(table)


def check_database(where: str) -> None:
    """See that there is one, before it would be made.

    Raises:
        TwinError: If there is no such file.
    """
    if "://" not in where and not Path(where).is_file():
        raise TwinError(f"there is no twin at {where}; make one with megdt twin run --db {where}")


def _verdict(found: Assessment) -> str:
    """In a word or four: what is not as it should be."""
    parts = {"replica": found.replica, "predictions": found.predictions}
    told = [f"{part} {of.verdict}" for part, of in parts.items() if not of.fresh]
    return ", ".join(told) or "fresh"


def _share(values: Sequence[bool | None]) -> float | None:
    return float(np.mean([bool(v) for v in values])) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
