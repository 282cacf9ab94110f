"""A server and UEs in two network namespaces, with a bad network between them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest

from megdt.errors import SessionError
from megdt.models.onnx_models import OnnxModels
from megdt.records import Outcome
from megdt.runtime.messages import Tables
from megdt.runtime.tokens import mint
from megdt.runtime.ue import Ue
from tests.runtime.lossy_link import ADDRESSES, LossyLink, enter, lossy_link, missing

pytest.importorskip("uvicorn", reason="needs the extra serve")

UES, REQUESTS = 25, 4
"""Of each UE, one after the other."""
KEY = "secret"


class Blind(OnnxModels):
    """It looks at nothing, so that time goes to the network."""

    def decode(self, latents: Any, noise_power: Any = None) -> Any:
        return np.zeros((1, 8, 8, 3), np.uint8)


async def ask_all(url: str) -> list[str]:
    """What became of each request: its outcome, or the code of its error."""
    models = Blind()

    async def one(number: int) -> list[str]:
        found = []
        token = mint(KEY, f"ue-{number}")
        async with Ue(url, token=token, models=models) as ue:
            for turn in range(REQUESTS):
                request: dict[str, Any] = {
                    "prompt": "red poppies",
                    "rng_seed": REQUESTS * number + turn,
                    "steps": 1,
                }
                tables: Tables = {"request": request, "link": {"channel": "network"}}
                try:
                    found.append((await ue.ask(tables, deadline_s=60)).outcome)
                except SessionError as error:
                    found.append(error.code)
        return found

    by_ue = await asyncio.gather(*(one(number) for number in range(UES)))
    return [outcome for found in by_ue for outcome in found]


@pytest.mark.skipif(bool(missing()), reason=missing() or "has what it needs")
@pytest.mark.timeout(180)
def test_over_a_bad_network_nearly_everything_arrives_or_is_said_to_be_degraded() -> None:
    link = LossyLink(delay_s=0.3, jitter_s=0.1, loss=0.05)
    with lossy_link(link) as (ue_side, es_side):
        told = ["serve", "--host", ADDRESSES[1], "--port", "8420", "--key", KEY]
        code = "from megdt.cli import main; main()"
        serving = subprocess.Popen(
            ["ip", "netns", "exec", es_side, sys.executable, "-c", code, *told],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline()
            outcomes: list[str] = []

            def run() -> None:
                enter(ue_side)
                outcomes.extend(asyncio.run(ask_all(f"ws://{ADDRESSES[1]}:8420/v1/session")))

            asking = threading.Thread(target=run)
            asking.start()
            time.sleep(6)
            link.black_out(10)
            asking.join()
        finally:
            serving.terminate()
            serving.communicate(timeout=60)
    assert len(outcomes) == UES * REQUESTS
    assert link.lost > 0.04 * link.sent
    assert link.overtaken > 0.1 * link.sent
    counted = Counter(outcomes)
    complete = sum(counted[outcome] for outcome in get_args(Outcome))
    assert complete >= 0.99 * len(outcomes), counted
