"""UEs that want something now and then, for trying an edge server out: real nodes, each over its own
connection.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import numpy as np

from megdt.errors import SessionError
from megdt.models.onnx_models import OnnxModels
from megdt.records import MIN_SIZE_PX
from megdt.runtime.tokens import mint
from megdt.runtime.ue import Ue, trust_certificate
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view

DEADLINE_S = 60.0


class Wishers:
    """UEs in a thread of their own, until stopped.

    Args:
        url: Of the server's session.
        key: That its tokens are made with.
        ues: How many: ue-1, ue-2, ...
        rng_seed: Draws what they want, and when.
        every_s: That a UE waits between two wishes, on average.
        trust: Certificate of a server that has signed it itself.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str,
        ues: int,
        rng_seed: int = 0,
        every_s: float = 8.0,
        trust: Path | None = None,
    ) -> None:
        self._url, self._key, self._ues = url, key, ues
        self._rng_seed, self._every_s = rng_seed, every_s
        self.answered = self.failed = 0
        self._tls = None if trust is None else trust_certificate(trust)
        self._models = OnnxModels(threads=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="megdt-ues", daemon=True)

    def start(self) -> None:
        """Connect all of them."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye."""
        self._stopping.set()
        self._thread.join(15)

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._want(number) for number in range(1, self._ues + 1)))

    async def _want(self, number: int) -> None:
        rng = np.random.default_rng((self._rng_seed, number))
        token = partial(mint, self._key, f"ue-{number}", lifetime_s=60.0)
        async with Ue(self._url, token=token, models=self._models, tls=self._tls) as ue:
            while not self._stopping.is_set():
                asking = asyncio.create_task(self._ask(ue, rng))
                while not (asking.done() or self._stopping.is_set()):
                    await asyncio.wait({asking}, timeout=0.2)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, ue: Ue, rng: np.random.Generator) -> None:
        await asyncio.sleep(float(rng.uniform(0, 2 * self._every_s)))
        garden, view = await asyncio.to_thread(
            draw_view, int(rng.integers(2**31)), size_px=MIN_SIZE_PX
        )
        prompt = phrase(attributes(garden.truth(view)), rng)
        snr_db = float(rng.uniform(0, 25))
        try:
            await ue.ask(
                {
                    "request": {"prompt": prompt, "rng_seed": int(rng.integers(2**31))},
                    "codecs": {"seed": str(rng.choice(["analog", "int8"]))},
                    "link": {"channel": "rayleigh", "snr_db": snr_db},
                },
                deadline_s=DEADLINE_S,
            )
            self.answered += 1
        except SessionError:
            self.failed += 1
