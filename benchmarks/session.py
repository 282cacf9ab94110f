"""A seed of 64 KiB to the ES and back through both ends of a session, against the bare encoding.

python benchmarks/session.py [--out benchmarks/session.json]

Nothing crosses a network: what is timed is all that a session adds to one. The peer packs the same
bytes with msgspec, unpacks and copies them, there and back, and keeps no promise. They take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from megdt.link.energy import load_profile
from megdt.records import Ledger, Packet, Side
from megdt.runtime.es_session import EsSession, Sessions
from megdt.runtime.events import FeatureArrived, Requested
from megdt.runtime.generations import Generation
from megdt.runtime.ue_session import UeSession

SEED = np.random.default_rng(0).bytes(2**16)
BUNDLE = "0" * 64
UPLOADS = {"plan": {"mechanism": "ue_to_es"}}
TURNS = 1001


class Echo:
    """A UE and an ES that sends back what comes."""

    def __init__(self) -> None:
        self.ue = UeSession(bundle=BUNDLE, device=load_profile("phone"))
        self.sessions = Sessions(bundle=BUNDLE)
        self.es: EsSession | None = None
        self.generation: Generation | None = None
        self.now_s, self.asked, self.frames = 0.0, 0, 0
        self.ue.connect(0)
        self.carry()

    def carry(self) -> bytes:
        """What has come back at the UE, once neither end has more to send."""
        came = b""
        while True:
            before = self.frames
            while frame := self.ue.next_frame(self.now_s):
                self.frames += 1
                self.take(frame)
            while self.es and (frame := self.es.next_frame(self.now_s)):
                self.frames += 1
                for event in self.ue.receive(frame, self.now_s):
                    if isinstance(event, FeatureArrived):
                        self.ue.release(event.size_bytes, self.now_s)
                        came = event.content.payload
            if self.frames == before:
                return came

    def take(self, frame: bytes) -> None:
        if self.es is None:
            self.es, _ = self.sessions.accept(frame, self.now_s, owner="ue", new_id="session")
            return
        for event in self.es.receive(frame, self.now_s):
            if isinstance(event, Requested):
                self.generation = event.generation
            elif isinstance(event, FeatureArrived) and self.generation is not None:
                self.es.release(event.size_bytes, self.now_s)
                self.generation.send_feature(
                    event.content, source="denoise", to_side=Side.UE, kind="seed"
                )
                self.generation.finish("delivered", Ledger())

    def once(self) -> None:
        """A whole request: asked, its seed sent, sent back, and ended."""
        self.asked += 1
        self.now_s += 0.001
        key = f"request {self.asked}"
        self.ue.ask(key, UPLOADS, deadline_s=60, now_s=self.now_s)
        upload = Packet(payload=SEED)
        self.ue.send_feature(key, upload, source="encode", to_side=Side.ES, kind="seed")
        assert self.carry() == SEED


def bare() -> None:
    """The same bytes, packed and unpacked twice."""
    came = SEED
    for _ in range(2):
        frame = msgspec.msgpack.encode({"type": "seed", "data": came})
        came = bytes(memoryview(msgspec.msgpack.decode(frame)["data"]))
    assert came == SEED


def timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return 1e6 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    echo = Echo()
    for _ in range(20):  # warm
        echo.once()
        bare()
    before = echo.frames
    pairs = [(timed(echo.once), timed(bare)) for _ in range(arguments.turns)]
    sessions, peers = (sorted(column) for column in zip(*pairs, strict=True))
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"msgspec {msgspec.__version__}",
        "seed_bytes": len(SEED),
        "frames_a_request": round((echo.frames - before) / arguments.turns, 2),
        "session_us": round(statistics.median(sessions), 1),
        "session_fastest_us": round(sessions[0], 1),
        "bare_us": round(statistics.median(peers), 1),
        "bare_fastest_us": round(peers[0], 1),
        "fastest_times_bare": round(sessions[0] / peers[0], 1),
    }
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
