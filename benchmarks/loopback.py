"""A seed of 64 KiB through UE, session and edge server on loopback, against a bare echo by websockets.

python benchmarks/loopback.py [--turns 501] [--out benchmarks/loopback.json]

Nothing is computed: the server sends the seed back. It is the real one, under uvicorn, in a process of
its own, as the echo is. They take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import socket
import statistics
import time
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from megdt.records import Delivery, Ledger, Side
from megdt.runtime.api import PATH, make_app
from megdt.runtime.driving import clock
from megdt.runtime.edge_server import EdgeServer
from megdt.runtime.es_session import EsSession
from megdt.runtime.events import Answered, Event, FeatureArrived
from megdt.runtime.tokens import mint
from megdt.runtime.ue import Ue

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

SEED = np.random.default_rng(0).bytes(2**16)
UPLOADS = {"plan": {"mechanism": "ue_to_es"}}


class NoModels:
    """All that a session wants to know of them."""

    checksum = "0" * 64


class Echo(EdgeServer):
    """Sends back what comes."""

    def _handle(self, session: EsSession | None, event: Event) -> None:
        if isinstance(event, FeatureArrived) and session is not None:
            session.release(event.size_bytes, clock())
            generation = self.sessions.generations.get(session.owner, event.key)
            assert generation is not None
            generation.send_feature(event.content, source="denoise", to_side=Side.UE, kind="seed")
            generation.finish("delivered", Ledger())
            self._wake()


class Asker(Ue):
    """Sends a seed and waits for it to come back."""

    came = b""

    async def once(self, number: int) -> None:
        key = f"request {number}"
        end = self._ends[key] = asyncio.get_running_loop().create_future()
        self.session.ask(key, UPLOADS, deadline_s=60, now_s=clock())
        upload = Delivery(payload=SEED)
        self.session.send_feature(key, upload, source="encode", to_side=Side.ES, kind="seed")
        self._wake.set()
        await end
        del self._ends[key]
        assert self.came == SEED

    def _handle(self, event: Event) -> None:
        if isinstance(event, FeatureArrived):
            self.session.release(event.size_bytes, clock())
            self.came = event.content.payload
        elif isinstance(event, Answered):
            self._ends[event.key].set_result(event)


def run_server(listening: socket.socket) -> None:
    import uvicorn

    es = Echo(cast("Bundle", NoModels()), key="secret")
    config = uvicorn.Config(
        make_app(es), log_level="error", ws="websockets-sansio", ws_ping_interval=None,
        ws_per_message_deflate=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def run_bare(listening: socket.socket, ready: Flag) -> None:
    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def run() -> None:
        async with serve(echo, sock=listening, compression=None, ping_interval=None) as server:
            ready.set()
            await server.serve_forever()

    asyncio.run(run())


async def measure(ports: tuple[int, int], turns: int) -> tuple[list[float], list[float]]:
    """Seconds of each turn: through the session, and bare."""
    found: tuple[list[float], list[float]] = ([], [])
    url = f"ws://127.0.0.1:{ports[0]}{PATH}"
    async with (
        Asker(url, token=mint("secret", "ue"), models=cast("Bundle", NoModels())) as ue,
        connect(f"ws://127.0.0.1:{ports[1]}", compression=None, ping_interval=None) as bare,
    ):
        for number in range(-20, turns):  # the first ones warm up
            started = time.perf_counter()
            await ue.once(number)
            between = time.perf_counter()
            await bare.send(SEED)
            assert await bare.recv() == SEED
            ended = time.perf_counter()
            if number >= 0:
                found[0].append(between - started)
                found[1].append(ended - between)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=501)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ready = multiprocessing.Event()
    processes = [
        multiprocessing.Process(target=run_server, args=(sockets[0],), daemon=True),
        multiprocessing.Process(target=run_bare, args=(sockets[1], ready), daemon=True),
    ]
    for process in processes:
        process.start()
    ready.wait(30)
    try:
        time.sleep(1.0)
        ports = sockets[0].getsockname()[1], sockets[1].getsockname()[1]
        sessions, peers = asyncio.run(measure(ports, arguments.turns))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"websockets {websockets.__version__}",
        "seed_bytes": len(SEED),
        "session_us": round(1e6 * statistics.median(sessions), 1),
        "bare_us": round(1e6 * statistics.median(peers), 1),
        "times_bare": round(statistics.median(sessions) / statistics.median(peers), 2),
        "times_bare_turn_by_turn": round(
            statistics.median(a / b for a, b in zip(sessions, peers, strict=True)), 2
        ),
    }
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
