"""An edge server under load: steps in one batch against one request after the other, 32 UEs at once, and
five times as many as it takes.

python benchmarks/serving.py [--quick] [--out benchmarks/serving.json]

Server and UEs are in one process with real sockets between them, on loopback; UEs compute nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megdt.errors import SessionError
from megdt.models.batching import BatchingBundle
from megdt.models.bundle import Bundle
from megdt.models.onnx_models import OnnxModels
from megdt.runtime.edge_server import EdgeServer
from megdt.runtime.limits import Limits
from megdt.runtime.serving import Server, address, listen, session_url
from megdt.runtime.tokens import mint
from megdt.runtime.ue import Ue


class Blind(OnnxModels):
    """A UE that looks at nothing: what is measured is the server."""

    def decode(self, latents: Any, noise_power: Any = None) -> Any:
        return np.zeros((1, 8, 8, 3), np.uint8)


@contextmanager
def serving(es: EdgeServer) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    server = Server(es, drain_s=1)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield session_url(address(listening, secure=False))
    finally:
        server.should_exit = True
        thread.join(20)


def compare_batching(requests: int, steps: int) -> dict[str, Any]:
    """One after the other, and in one batch; taking turns."""
    serial, batched = Bundle(), BatchingBundle(largest=requests)
    embeds = serial.embed(["red poppies at sunset"])
    told: dict[str, Any] = {"size_px": 256, "steps": steps, "guidance_scale": 2.0}
    ratios, differences = [], []
    with ThreadPoolExecutor(requests) as pool:
        for turn in range(-1, 3):
            began = time.perf_counter()
            one = [serial.denoise(embeds, [seed], **told) for seed in range(requests)]
            between = time.perf_counter()
            other = list(
                pool.map(lambda seed: batched.denoise(embeds, [seed], **told), range(requests))
            )
            ended = time.perf_counter()
            if turn >= 0:
                ratios.append((between - began) / (ended - between))
                differences += [float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)]
    return {
        "requests": requests,
        "throughput_times_serial": round(statistics.median(ratios), 2),
        "largest_difference_of_latents": float(f"{max(differences):.2g}"),
    }


async def load(url: str, ues: int, seconds: float, steps: int, deadline_s: float) -> dict[str, Any]:
    """So many UEs, each asking again as soon as it is answered."""
    done, failed = [0] * ues, [0] * ues
    waits: list[float] = []
    until = time.monotonic() + seconds

    async def one(number: int) -> None:
        token = mint("secret", f"ue-{number}")
        async with Ue(url, token=token, models=Blind()) as ue:
            while time.monotonic() < until:
                began = time.monotonic()
                request = {
                    "prompt": "red poppies",
                    "rng_seed": 1000 * number + done[number],
                    "steps": steps,
                }
                tables = {"request": request, "link": {"channel": "network"}}
                try:
                    await ue.ask(tables, deadline_s=deadline_s)
                except SessionError:
                    failed[number] += 1
                    continue
                if time.monotonic() < until:
                    done[number] += 1
                waits.append(time.monotonic() - began)

    await asyncio.gather(*(one(number) for number in range(ues)))
    mean = statistics.mean(done)
    return {
        "ues": ues,
        "done": sum(done),
        "done_a_second": round(sum(done) / seconds, 2),
        "failed": sum(failed),
        "share_least": round(min(done) / mean, 3) if mean else None,
        "share_most": round(max(done) / mean, 3) if mean else None,
        "median_s": round(statistics.median(waits), 2) if waits else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="some seconds, figures of no worth")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seconds, steps = (4.0, 1) if arguments.quick else (60.0, 2)
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "batching": [compare_batching(n, 2 if arguments.quick else 12) for n in ((2,) if arguments.quick else (2, 4, 8, 16))],
    }  # fmt: skip
    with serving(EdgeServer(BatchingBundle(), key="secret", workers=8)) as url:
        found["32 UEs"] = asyncio.run(load(url, 32, seconds, steps, 120))
    tight = Limits(running=8)
    with serving(EdgeServer(BatchingBundle(), key="secret", workers=8, limits=tight)) as url:
        found["at capacity"] = asyncio.run(load(url, 8, seconds, steps, 120))
        found["5 times the capacity"] = asyncio.run(load(url, 40, seconds, steps, 120))
        began = time.monotonic()
        found["after it"] = asyncio.run(load(url, 1, 1.0, steps, 30))
        found["recovery_s"] = round(time.monotonic() - began, 2)
    found["goodput_times_peak"] = round(
        found["5 times the capacity"]["done_a_second"] / found["at capacity"]["done_a_second"], 3
    )
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
