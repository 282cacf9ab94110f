"""The commands of real nodes: an edge server, and a UE."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from megdt.cli.app import app
from megdt.cli.options import (
    FILES,
    LINK,
    CodecOption,
    JsonOption,
    ModelOption,
    RateOption,
    ScenarioOption,
    SeedOption,
    SetOption,
    SizeOption,
    SnrOption,
    read_scenario,
)
from megdt.cli.output import print_json

KEY, TOKEN = "MEGDT_KEY", "MEGDT_TOKEN"
SECURITY = "Security"
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", help=f"That tokens are made with; it never crosses the network. (default: ${KEY})",
        envvar=KEY, rich_help_panel=SECURITY,
    ),
]  # fmt: skip
SERVER = "ws://127.0.0.1:8420/v1/session"


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)
    ] = 8420,
    workers: Annotated[int, typer.Option("--workers", help="Requests that compute at once; their denoising steps run as one batch.", min=1)] = 8,
    drain_s: Annotated[
        float, typer.Option("--drain-s", help="What finishing may take when it is stopped.", min=0)
    ] = 30.0,
    log: Annotated[bool, typer.Option("--log", help="Say what happens, as JSON lines.")] = False,
    key: KeyOption = None,
    token_s: Annotated[
        float,
        typer.Option(
            "--token-s", help="How long the token that is printed lasts.", min=1, max=86400,
            rich_help_panel=SECURITY,
        ),
    ] = 3600.0,
    certificate: Annotated[
        Path | None,
        typer.Option("--cert", help="For TLS, as PEM.", rich_help_panel=SECURITY, show_default=False),
    ] = None,
    certificate_key: Annotated[
        Path | None,
        typer.Option("--cert-key", help="Its key, as PEM.", rich_help_panel=SECURITY, show_default=False),
    ] = None,
    dev_certificate: Annotated[
        bool,
        typer.Option("--dev-cert", help="TLS by a certificate made now, signed by itself.", rich_help_panel=SECURITY),
    ] = False,
    model: ModelOption = None,
    settings: SetOption = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", help="Another web page that may open sessions, as https://HOST.",
            rich_help_panel=SECURITY, show_default=False,
        ),
    ] = None,
) -> None:  # fmt: skip
    """Be an edge server: UEs ask over WebSocket, its side of each request is made here."""
    import secrets
    import tempfile

    from megdt.errors import ScenarioError, SessionError
    from megdt.models.batching import BatchingBundle
    from megdt.runtime.edge_server import EdgeServer
    from megdt.runtime.serving import Server, address, listen, log_to_stderr, session_url
    from megdt.runtime.tokens import mint
    from megdt.scenario.settings import Model

    if (certificate is None) != (certificate_key is None):
        raise SessionError("TLS needs a certificate and its key; give --cert and --cert-key")
    secret = key or secrets.token_urlsafe(24)
    others = [told for told in settings or [] if not told.startswith("model.")]
    if others:
        raise ScenarioError(
            f"--set {others[0]}: of a scenario, a server knows [model] alone, UEs send the rest; give it to "
            "megdt ue"
        )
    ours = read_scenario(None, settings, defaults={"request": {"prompt": "?"}}, model=model).model
    variant = None if ours.variant is None else Path(ours.variant)
    if variant is not None:  # it is of the UEs, and browsers are given it
        ours = replace(ours, variant=None)
    batching = BatchingBundle(largest=workers) if ours.name is None else None
    models = batching or ours.load()
    if ours.name is not None and not ours.is_autoencoder:
        models.load("denoiser")  # whatever is wrong with it is said now, and no UE waits for it
    es = EdgeServer(
        models, model=ours, key=secret, workers=workers,
        origins=tuple(origins or ()), variant=variant,
    )  # fmt: skip
    if batching is not None:
        batching.watch = es.metrics.batch.observe
    listening = listen(host, port)
    if log:
        log_to_stderr()
    with tempfile.TemporaryDirectory() as folder:
        pair = None
        if certificate is not None and certificate_key is not None:
            pair = certificate, certificate_key
        elif dev_certificate:
            from megdt.runtime.certificate import write_certificate

            pair = write_certificate(Path(folder), ("localhost", "127.0.0.1", "::1", host))
        base = address(listening, secure=pair is not None)
        token = mint(secret, "ue", lifetime_s=token_s)
        server = Server(es, certificate=pair, drain_s=drain_s)
        shown = ours.name or variant
        named = "" if shown is None else f" --model {shlex.quote(str(shown))}"
        for key in ("dtype", "scheduler"):
            value = getattr(ours, key)
            if ours.name is not None and value != getattr(Model, key):
                named += f" --set model.{key}={shlex.quote(str(value))}"
        typer.echo(f"megdt ue PROMPT --server {session_url(base)} --token {token}{named}")
        if ours.name is None:
            typer.echo(f"a browser as a UE: {base}/ue/#token={token}")
        server.run(sockets=[listening])


@app.command()
def token(
    owner: Annotated[str, typer.Argument(help="Who shows it.", show_default=False)],
    key: KeyOption = None,
    lifetime_s: Annotated[
        float, typer.Option("--lifetime-s", help="From now on.", min=1, max=86400)
    ] = 3600.0,
) -> None:
    """Make a token that an edge server of the same key takes."""
    from megdt.errors import SessionError
    from megdt.runtime.tokens import mint

    if key is None:
        raise SessionError(f"no key is told; give the server's with --key or in ${KEY}")
    typer.echo(mint(key, owner, lifetime_s=lifetime_s))


@app.command()
def ue(
    prompt: Annotated[
        str | None, typer.Argument(help="What the picture shows, or the text answers.", show_default=False)
    ] = None,
    server: Annotated[str, typer.Option("--server", help="As megdt serve prints it.")] = SERVER,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", help=f"As megdt serve or megdt token prints it. (default: ${TOKEN})",
            envvar=TOKEN, rich_help_panel=SECURITY,
        ),
    ] = None,
    key: KeyOption = None,
    name: Annotated[
        str, typer.Option("--name", help="Who this UE is, where it has a key.", rich_help_panel=SECURITY)
    ] = "ue",
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust", help="Certificate of the server, as PEM. (default: the system's)",
            rich_help_panel=SECURITY, show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", help="What its camera sees: edited as PROMPT says, or described without one.",
            rich_help_panel=FILES, show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="fp32, fp16 or int8, that its networks compute in. (default: the device's)",
            show_default=False,
        ),
    ] = None,
    max_latency_s: Annotated[
        float | None,
        typer.Option(
            help="Of decoding, by which an elastic --model takes its size from call to call. (default: the largest)",
            show_default=False,
        ),
    ] = None,
    deadline_s: Annotated[
        float, typer.Option("--deadline-s", help="For the whole of it.", min=0.1, max=600)
    ] = 60.0,
    size: SizeOption = None,
    rng_seed: SeedOption = None,
    codec: CodecOption = None,
    rate: RateOption = None,
    snr_db: SnrOption = None,
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel", help="As of megdt generate, or network: no radio, the network is the link. (default: awgn)",
            rich_help_panel=LINK,
        ),
    ] = None,
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
    """Be a UE: ask an edge server for PROMPT and make this side's part of it, without torch."""
    import asyncio
    from functools import partial

    from megdt import report
    from megdt.errors import BundleError, RequestError, SessionError
    from megdt.link.energy import load_profile
    from megdt.models.onnx_models import OnnxModels, check_precision
    from megdt.pictures import check_writable, name_picture, read_picture, save_picture
    from megdt.runtime.sides import NETWORK
    from megdt.runtime.tokens import mint
    from megdt.runtime.ue import Answer, Ue, trust_certificate

    if prompt is None and picture is None:
        raise RequestError("nothing is asked for; give a PROMPT, a --picture, or both")
    if token is None and key is None:
        raise SessionError(
            f"no token is told; give the server's with --token or in ${TOKEN}, or its key with --key"
        )
    seen = {"describe": prompt is None, "sequential": prompt is not None}
    mechanism = next((m for m, suits in seen.items() if suits), None) if picture else None
    network = channel == NETWORK
    wanted = read_scenario(
        scenario, settings,
        defaults={} if mechanism is None else {"plan": {"mechanism": mechanism}},
        model=model, request={"prompt": prompt or "what the camera sees", "size_px": size, "rng_seed": rng_seed}, codec=codec, rate=rate,
        link={"snr_db": snr_db, "channel": None if network else channel},
    )  # fmt: skip
    tables = wanted.table()
    if network:
        tables["link"] = {"channel": NETWORK}
    path = out if out is not None else name_picture(prompt or "picture", Path.cwd())
    check_writable(path)
    pixels = None if picture is None else read_picture(picture, wanted.request.size_px)
    device = load_profile(wanted.devices.ue)
    chosen = check_precision(precision) if precision is not None else device.precision
    if precision is not None and wanted.model.name is not None:
        raise RequestError(
            f"--precision {precision} is of the bundle's networks; leave it out, and set model.dtype"
        )
    if max_latency_s is not None and wanted.model.name is not None:
        raise RequestError(
            f"--max-latency-s {max_latency_s:g} is of a folder of megdt compress; leave it out, or name one by "
            "--model"
        )
    variant = None if wanted.model.variant is None else Path(wanted.model.variant)
    if wanted.model.name is None:
        models: Any = OnnxModels(precision=chosen, variant=variant, max_latency_s=max_latency_s)
        if max_latency_s is not None:
            models.load("decoder")  # and see how fast this machine is
    else:
        models = wanted.model.load()
    shown = token if token is not None else partial(mint, key or "", name, lifetime_s=60.0)

    async def ask() -> Answer:
        async with Ue(
            server, token=shown, models=models, model=wanted.model, device=device,
            tls=None if trust is None else trust_certificate(trust),
        ) as node:  # fmt: skip
            return await node.ask(tables, picture=pixels, deadline_s=deadline_s)

    try:
        answer = asyncio.run(ask())
    except BundleError as error:
        raise BundleError(
            f"this UE cannot do its part of {wanted.plan.mechanism}: {error}"
        ) from None
    made = answer.made
    copies = next((f.values for f in answer.features.values() if f.kind == "agreement"), None)
    text = made.values if made is not None and made.kind == "text" else None
    has_picture = made is not None and made.kind == "image"
    if made is not None and has_picture:
        save_picture(path, made.values)
    if as_json:
        ledger = answer.ledger
        print_json(
            {
                "outcome": answer.outcome, "file": str(path) if has_picture else None, "text": text,
                "bits": ledger.bits, "channel_uses": ledger.channel_uses,
                "duration_s": ledger.duration_s, "energy_j": ledger.energy_j, "copies": copies,
            }
        )  # fmt: skip
    else:
        report.print_costs(answer.ledger, wanted.plan)
        if copies is not None:
            typer.echo(f"copies of the gate: {copies}")
        typer.echo(
            text or (f"picture: {path}" if has_picture else f"picture: none, {answer.outcome}")
        )
    if answer.outcome != "delivered":
        raise typer.Exit(1)
