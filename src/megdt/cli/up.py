"""The command that starts everything: an edge server, UEs, a twin, and the pages to watch them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import FILES, SetOption


@app.command()
def up(
    scenario: Annotated[
        str,
        typer.Option("--scenario", help="Of the twin: garden_drones, city_vehicles, photos, or a TOML file."),
    ] = "garden_drones",
    ues: Annotated[
        int, typer.Option("--ues", help="Python UEs that want something now and then.", min=0, max=256)
    ] = 2,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", help="Of the twin, after which it rests. (default: no end)", min=1),
    ] = None,
    settings: SetOption = None,
    db: Annotated[
        str | None,
        typer.Option(
            "--db", help="Where the twin is kept, as of megdt twin run. (default: nowhere)",
            show_default=False, rich_help_panel=FILES,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)
    ] = 8420,
    dev_certificate: Annotated[
        bool, typer.Option("--dev-cert", help="TLS by a certificate made now: phones give their camera to no other page.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Say what happens, as JSON lines.")] = False,
) -> None:  # fmt: skip
    """Start an edge server, UEs and a twin, with pages to watch them and to be a UE; Ctrl-C ends it."""
    import secrets
    import tempfile

    from megdt.models.batching import BatchingBundle
    from megdt.runtime.edge_server import EdgeServer
    from megdt.runtime.following import Follower
    from megdt.runtime.serving import Server, address, listen, log_to_stderr, session_url
    from megdt.runtime.tokens import LONGEST_S, mint
    from megdt.runtime.vendor import missing
    from megdt.runtime.wishing import Wishers
    from megdt.scenario.twin import read_twin_scenario

    chosen = read_twin_scenario(scenario, settings or [])
    key, models = secrets.token_urlsafe(24), BatchingBundle()
    es = EdgeServer(models, key=key, workers=8)
    models.watch = es.metrics.batch.observe
    follower = Follower(
        chosen, models, es.feed, where=db if db is not None else ":memory:", rounds=rounds
    )
    listening = listen(host, port)
    if log:
        log_to_stderr()
    if missing():
        typer.echo(
            "note: the pages lack what others have written; python -m megdt.runtime.vendor fetches it",
            err=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        pair = None
        if dev_certificate:
            from megdt.runtime.certificate import write_certificate

            pair = write_certificate(Path(folder), ("localhost", "127.0.0.1", "::1", host))
        base = address(listening, secure=pair is not None)
        token = mint(key, "you", lifetime_s=LONGEST_S)
        typer.echo(f"dashboard: {base}/ue/dashboard.html#token={token}")
        typer.echo(f"a UE:      {base}/ue/#token={token}")
        server = Server(es, follower, certificate=pair, drain_s=5.0)
        trusted = None if pair is None else pair[0]
        wishers = Wishers(session_url(base), key=key, ues=ues, trust=trusted)
        wishers.start()
        try:
            server.run(sockets=[listening])
        finally:
            wishers.stop()
