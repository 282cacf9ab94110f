"""The commands of real nodes: an edge server, and a UE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from megdt.cli.app import app
from megdt.cli.options import (
    FILES,
    ChannelOption,
    CodecOption,
    JsonOption,
    RateOption,
    ScenarioOption,
    SeedOption,
    SetOption,
    SizeOption,
    SnrOption,
    read_scenario,
)
from megdt.cli.output import print_json

TOKEN = "MEGDT_TOKEN"
TokenOption = Annotated[
    str | None,
    typer.Option("--token", help=f"That both ends know. (default: ${TOKEN})", envvar=TOKEN),
]


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)
    ] = 8420,
    token: TokenOption = None,
    workers: Annotated[int, typer.Option("--workers", help="Requests made at once.", min=1)] = 1,
) -> None:
    """Be an edge server: UEs ask over WebSocket, its side of each request is made here."""
    import secrets

    from megdt.errors import MissingExtraError
    from megdt.models.bundle import Bundle

    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("megdt serve needs uvicorn; pip install 'megdt[serve]'") from None
    import socket

    from megdt.errors import SessionError
    from megdt.runtime.edge_server import PATH, EdgeServer

    shown = token or secrets.token_urlsafe(16)
    es = EdgeServer(Bundle(), tokens={shown: "ue"}, workers=workers)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise SessionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; take another --host or --port"
        ) from None
    url = f"ws://{host}:{listening.getsockname()[1]}{PATH}"
    typer.echo(f"megdt ue PROMPT --server {url}" + ("" if token else f" --token {shown}"))
    # The session has pings and credit of its own; a frame is at most as large as it takes.
    config = uvicorn.Config(
        es.app, log_level="warning", ws="websockets-sansio",
        ws_max_size=es.sessions.limits.frame_bytes, ws_ping_interval=None, ws_per_message_deflate=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


@app.command()
def ue(
    prompt: Annotated[str, typer.Argument(help="What the picture shows, or the text answers.", show_default=False)],
    server: Annotated[
        str,
        typer.Option("--server", help="As megdt serve prints it: ws://HOST:PORT/v1/session."),
    ] = "ws://127.0.0.1:8420/v1/session",
    token: TokenOption = None,
    deadline_s: Annotated[
        float, typer.Option("--deadline-s", help="For the whole of it.", min=0.1, max=600)
    ] = 60.0,
    size: SizeOption = None,
    rng_seed: SeedOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    snr_db: SnrOption = None,
    channel: ChannelOption = None,
    scenario: ScenarioOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where the PNG goes. (default: named after the prompt)",
            show_default=False, rich_help_panel=FILES,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Be a UE: ask an edge server for PROMPT and make this side's part of it."""
    import asyncio

    from megdt import report
    from megdt.errors import SessionError
    from megdt.models.bundle import Bundle
    from megdt.pictures import check_writable, name_picture, save_picture
    from megdt.runtime.ue import Answer, Ue

    wanted = read_scenario(
        scenario, settings, request={"prompt": prompt, "size_px": size, "rng_seed": rng_seed},
        codec=codec, rate=rate, link={"snr_db": snr_db, "channel": channel},
    )  # fmt: skip
    if token is None:
        raise SessionError(f"no token is told; give the server's with --token or in ${TOKEN}")
    path = out if out is not None else name_picture(prompt, Path.cwd())
    check_writable(path)

    async def ask() -> Answer:
        async with Ue(server, token=token, models=Bundle()) as node:
            return await node.ask(wanted.table(), deadline_s=deadline_s)

    answer = asyncio.run(ask())
    made = answer.made
    text = made.values if made is not None and made.kind == "text" else None
    shown = made is not None and made.kind == "image"
    if made is not None and shown:
        save_picture(path, made.values)
    if as_json:
        ledger = answer.ledger
        print_json(
            {
                "outcome": answer.outcome, "file": str(path) if shown else None, "text": text,
                "bits": ledger.bits, "channel_uses": ledger.channel_uses,
                "duration_s": ledger.duration_s, "energy_j": ledger.energy_j,
            }
        )  # fmt: skip
    else:
        report.print_costs(answer.ledger, wanted.plan)
        typer.echo(text or (f"picture: {path}" if shown else f"picture: none, {answer.outcome}"))
    if made is None:
        raise typer.Exit(1)
