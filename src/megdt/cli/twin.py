"""The commands of the digital twin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import FILES, JsonOption, SetOption
from megdt.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from megdt.scenario.twin import TwinScenario
    from megdt.twin.store import Store
    from megdt.watching import Tell

twin_app = typer.Typer(
    help="The digital twin of a scene: follow it, ask it what if, look back.",
    no_args_is_help=True,
)
app.add_typer(twin_app, name="twin")

ScenarioArgument = Annotated[
    str,
    typer.Argument(
        help="garden_drones, city_vehicles, photos, or a TOML file.", show_default=False
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        help="Where the twin is kept: a file, or postgresql://user@host/database. (default: nowhere)",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
RoundsOption = Annotated[
    int | None, typer.Option("--rounds", help="How many. (default: the scenario's)")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Where the picture goes. (default: named after the command)",
        show_default=False, rich_help_panel=FILES,
    ),
]  # fmt: skip


@twin_app.command("run")
def run_twin(
    scenario: ScenarioArgument = "garden_drones",
    rounds: RoundsOption = None,
    settings: SetOption = None,
    db: DatabaseOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a scene: refresh its replica, judge what comes, plan and serve what UEs want."""
    from megdt import watching
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, free_name, save_picture
    from megdt.scenario.twin import read_twin_scenario
    from megdt.site import SimulatedSite, open_twin
    from megdt.twin.twin import begin_s

    chosen = read_twin_scenario(scenario, settings or [])
    many = _count(rounds, chosen)
    path = out if out is not None else free_name(Path("twin.png"))
    check_writable(path)
    bundle = Bundle()
    with _kept(db) as store:
        start_s = begin_s(store, chosen.twin.interval_s)
        site = SimulatedSite(chosen, bundle, start_s=start_s)
        watching.keep_scenario(store, chosen)
        twin = open_twin(chosen, site, store, bundle)
        try:
            with _told(many) as tell:
                found = watching.follow(twin, site, many, tell)
        except KeyboardInterrupt:
            if db is not None:
                typer.echo(
                    f"stopped after {twin.rounds} rounds; {db} keeps them, the same command goes on",
                    err=True,
                )
            raise
        views = {"the replica": twin.picture, "the world": site.panorama}
        save_picture(path, watching.draw_twin(f"after {found[-1].now_s:g} s", views))
        summary = watching.summarise(twin, site, found)
    if as_json:
        print_json(
            {"summary": summary, "rounds": watching.as_json(found), "file": str(path)}
            | {"scenario": watching.finite_table(chosen)}
        )
        return
    watching.print_rounds(found)
    watching.print_summaries({"these rounds": summary})
    typer.echo(f"picture: {path}")


@twin_app.command("whatif")
def ask_what_if(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="As of run, where no --db tells it. (default: garden_drones)", show_default=False
        ),
    ] = None,
    settings: SetOption = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help='What happens, in words, such as "a storm at night, a crowd of UEs".',
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How many, each.", min=1)] = 3,
    db: DatabaseOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run what might happen on a fork of a twin, beside the same rounds without; the twin stays as it is.

    With a database, its twin is asked; without, one is made first by the scenario's rounds.
    """
    from megdt import watching
    from megdt.errors import ScenarioError
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, free_name, save_picture
    from megdt.scenario import override
    from megdt.scenario.events import as_settings, read_events
    from megdt.scenario.twin import parse_twin_scenario, read_twin_scenario
    from megdt.site import SimulatedSite, open_twin
    from megdt.twin.store import open_store

    if prompt is None and not settings:
        raise ScenarioError(
            "nothing happens; say what with --prompt 'a storm at night', or with --set scene.sky=night"
        )
    path = out if out is not None else free_name(Path("whatif.png"))
    check_writable(path)
    if db is not None:
        watching.check_database(db)
        if scenario is not None:
            raise ScenarioError(
                f"both a scenario, {scenario}, and --db {db} are told; leave the scenario out: the database "
                "has its own"
            )
    with open_store(db if db is not None else ":memory:") as store:
        kept = watching.kept_scenario(store)
        if db is not None and kept is None:
            raise ScenarioError(f"{db} has no twin yet; make one with megdt twin run --db {db}")
        # Where a user's photos are, and how long a twin is followed before, are no events.
        here = [s for s in settings or [] if s.startswith(("scene.folder=", "twin.rounds="))]
        chosen = kept or read_twin_scenario(scenario or "garden_drones", here)
        events = [] if prompt is None else as_settings(read_events(prompt), chosen)
        said = [*events, *(settings or [])]
        changed = parse_twin_scenario(override(chosen.table(), said), source="if")
        watching.check_event(chosen, changed)
        bundle = Bundle()
        before = chosen.twin.rounds if kept is None else 0
        over = before or watching.rounds_over(store)
        attack = changed.attack
        if attack != chosen.attack and attack.kind != "none" and attack.from_round >= over + rounds:
            raise ScenarioError(
                f"attack.from_round is {attack.from_round}, the rounds that are asked for end before "
                f"{over + rounds}; take an earlier one, or more --rounds"
            )
        with _told(before + 2 * rounds) as tell:
            if before:
                site = SimulatedSite(chosen, bundle)
                watching.follow(open_twin(chosen, site, store, bundle), site, before, tell)
            cases = watching.what_if(chosen, changed, store, bundle, rounds=rounds, tell=tell)
        summaries = {name: watching.summarise(*case) for name, case in cases.items()}
        views = {f"the replica, {name}": case[0].picture for name, case in cases.items()}
        views["the world, if"] = cases["if"][1].panorama
        title = prompt if prompt is not None else ", ".join(settings or [])
        save_picture(path, watching.draw_twin(title, views))
    if as_json:
        told = {name: watching.as_json(case[2]) for name, case in cases.items()}
        print_json(
            {"summaries": summaries, "rounds": told, "file": str(path)}
            | {"scenario": watching.finite_table(chosen), "changed": watching.finite_table(changed)}
        )
        return
    typer.echo("if: " + ", ".join(said))
    watching.print_summaries(summaries)
    typer.echo(f"picture: {path}")


@twin_app.command("replay")
def replay_twin(
    database: Annotated[
        str, typer.Argument(metavar="DB", help="As --db of run.", show_default=False)
    ],
    at: Annotated[
        float | None,
        typer.Option("--at", help="On the twin's clock, in seconds. (default: the last)"),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a twin knew at any time of its past: UEs, links, objects, and the replica as a picture."""
    from megdt import watching
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, free_name, save_picture
    from megdt.twin.store import open_store

    watching.check_database(database)
    path = out if out is not None else free_name(Path("replay.png"))
    check_writable(path)
    with open_store(database) as store:
        found = watching.replay(store, at)
        replica = watching.replayed_replica(store, found["revision"])
    if replica is not None:
        views = {"the replica": replica.picture(Bundle())}
        save_picture(path, watching.draw_twin(f"at {found['time_s']:g} s", views))
    file = None if replica is None else str(path)
    if as_json:
        print_json({**found, "file": file})
        return
    watching.print_replay(found)
    typer.echo(f"picture: {file}" if file else "picture: none, nobody has seen anything yet")


@contextmanager
def _kept(db: str | None) -> Iterator[Store]:
    """The store of a twin; a file that is made for it goes again where nothing came to be kept."""
    from megdt.twin.store import open_store

    new = db is not None and "://" not in db and not Path(db).exists()
    revision = 0
    try:
        with open_store(db if db is not None else ":memory:") as store:
            try:
                yield store
            finally:
                revision = store.revision
    finally:
        if new and not revision:
            for end in ("", "-wal", "-shm"):
                Path(f"{db}{end}").unlink(missing_ok=True)


def _count(rounds: int | None, scenario: TwinScenario) -> int:
    from megdt.errors import ScenarioError

    if rounds is not None and rounds < 1:
        raise ScenarioError(f"rounds is {rounds}; take 1 or more")
    return scenario.twin.rounds if rounds is None else rounds


@contextmanager
def _told(rounds: int) -> Iterator[Tell | None]:
    with progress_bar() as progress:
        if progress is None:
            yield None
            return
        done = iter(range(1, rounds + 1))
        progress("rounds", 0, rounds)
        yield lambda _: progress("rounds", next(done), rounds)
