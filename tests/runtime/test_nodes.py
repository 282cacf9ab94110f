"""An edge server and UEs with real sockets between them, on loopback."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.errors import SessionError
from megdt.mechanisms.stages import StoredModels
from megdt.models.bundle import Bundle
from megdt.models.onnx_models import OnnxModels
from megdt.records import Ledger
from megdt.runtime.limits import Limits
from megdt.runtime.messages import Tables
from megdt.runtime.sides import parse_request
from megdt.scenario import Model, parse_scenario
from megdt.worlds.garden import draw_view
from tests.small_models import write_variant

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("fastapi", reason="needs the extra serve")

from megdt.runtime.api import PATH, make_app  # noqa: E402
from megdt.runtime.edge_server import EdgeServer  # noqa: E402
from megdt.runtime.tokens import mint  # noqa: E402
from megdt.runtime.ue import Answer, Ue  # noqa: E402

NOTHING = -1
TABLES: Tables = {"request": {"prompt": "red poppies", "rng_seed": 7, "steps": 2}}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle()


@asynccontextmanager
async def served(
    bundle: StoredModels, *, port: int = 0, **more: Any
) -> AsyncIterator[tuple[EdgeServer, int]]:
    es = EdgeServer(bundle, key="secret", **more)
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(make_app(es), log_level="error", ws="websockets-sansio", ws_max_size=2**20)
    )
    running = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield es, listening.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def cutting(port: int, after_bytes: list[int]) -> AsyncIterator[int]:
    """A way to the server that is cut after so many bytes down, one number a connection.

    Over one with `NOTHING`, nothing comes, and it stays.
    """

    async def carry(reader: Any, writer: Any, left: int | None = None) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                if left == NOTHING:
                    continue
                if left is not None and (left := left - len(data)) < 0:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: Any, writer: Any) -> None:
        left = after_bytes.pop(0) if after_bytes else None
        if left == NOTHING:
            await carry(reader, writer, NOTHING)
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        down = asyncio.create_task(carry(up_reader, writer, left))
        up = asyncio.create_task(carry(reader, up_writer))
        await down
        up_writer.close()
        await up

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def ue_of(
    port: int, bundle: Bundle | OnnxModels, token: str | None = None, owner: str = "anna",
    limits: Limits | None = None,
) -> Ue:  # fmt: skip
    shown = mint("secret", owner) if token is None else token
    return Ue(f"ws://127.0.0.1:{port}{PATH}", token=shown, models=bundle, limits=limits)


def same(answer: Answer, tables: Tables, bundle: Bundle) -> None:
    simulated = parse_request(tables).scenario.run(bundle)
    assert answer.outcome == simulated.outcome
    assert answer.made is not None
    assert simulated.made is not None
    np.testing.assert_array_equal(answer.made.values, simulated.made.values)
    assert what(answer.ledger) == what(simulated.ledger)


def what(ledger: Ledger) -> list[Any]:
    """But for times, which codecs take as this machine has them."""
    crossings = [replace(c, start_s=0, end_s=0) for c in ledger.crossings]
    return [crossings, [(c.stage, c.task, c.side, c.flops) for c in ledger.computations]]


def test_over_a_network_it_is_the_picture_of_the_simulation(bundle: Bundle) -> None:
    async def run() -> Answer:
        async with served(bundle) as (_, port), ue_of(port, bundle) as ue:
            return await ue.ask(TABLES)

    same(asyncio.run(run()), TABLES, bundle)


def test_a_connection_that_is_cut_costs_no_second_generation(bundle: Bundle) -> None:
    async def run() -> tuple[Answer, int]:
        async with (
            served(bundle) as (es, port),
            cutting(port, [500, 1500, 20_000]) as cut,
            ue_of(cut, bundle) as ue,
        ):
            answer = await ue.ask(TABLES)
            assert ue.session.connections >= 3
            return answer, es.begun

    answer, made = asyncio.run(run())
    same(answer, TABLES, bundle)
    assert made == 1


def test_a_first_connection_that_nothing_answers_is_tried_again(bundle: Bundle) -> None:
    async def ask(silent: int) -> Answer:
        async with (
            served(bundle) as (_, port),
            cutting(port, [NOTHING] * silent) as bad,
            ue_of(bad, bundle, limits=Limits(greeting_s=1)) as ue,
        ):
            return await ue.ask(TABLES)

    assert asyncio.run(ask(2)).outcome == "delivered"
    with pytest.raises(SessionError, match="cannot be reached"):
        asyncio.run(ask(3))


def test_many_ues_at_once(bundle: Bundle) -> None:
    tables = [TABLES | {"request": TABLES["request"] | {"rng_seed": n}} for n in range(6)]

    async def one(port: int, told: Tables) -> Answer:
        async with ue_of(port, bundle) as ue:
            return await ue.ask(told)

    async def run() -> list[Answer]:
        async with served(bundle, workers=2) as (_, port):
            return await asyncio.gather(*(one(port, told) for told in tables))

    for told, answer in zip(tables, asyncio.run(run()), strict=True):
        same(answer, told, bundle)


def test_an_es_fuses_what_it_has_seen_of_a_ue_with_what_that_sees(bundle: Bundle) -> None:
    first, then = (
        garden.render(seen) for garden, seen in (draw_view(s, size_px=256) for s in (1, 2))
    )
    tables: Tables = TABLES | {"plan": {"mechanism": "parallel"}}

    async def run() -> tuple[list[Answer], bytes]:
        async with served(bundle) as (es, port), ue_of(port, OnnxModels()) as ue:
            with pytest.raises(SessionError, match="send a view up first"):
                await ue.ask(tables, picture=first)
            await ue.ask(TABLES | {"plan": {"mechanism": "ue_to_es"}}, picture=first)
            async with ue_of(port, OnnxModels(), owner="ben") as other:
                with pytest.raises(SessionError, match="send a view up first"):
                    await other.ask(tables, picture=first)
            answers = [
                await ue.ask(tables, picture=p, key=f"k{i}") for i, p in enumerate((first, then))
            ]
            return answers, es.metrics.text()

    answers, metrics = asyncio.run(run())
    for answer in answers:
        assert answer.outcome == "delivered"
        assert answer.features["agree"].values == "same"
        assert answer.made is not None
    assert b'megdt_gate_states_total{same="yes"} 2.0' in metrics


def test_a_pipeline_on_both_ends_is_that_of_the_simulation(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    pytest.importorskip("transformers", reason="needs the extra diffusers")
    from tests.models.tiny_pipelines import write_pipeline

    folders = write_pipeline("sd", tmp_path / "es"), write_pipeline("sd", tmp_path / "ue")
    ours, theirs = (Model(name=str(folder)) for folder in folders)
    tables = TABLES | {"plan": {"mechanism": "es_to_ue_steps"}}
    shown = mint("secret", "anna")

    async def run() -> Answer:
        async with served(ours.load(), model=ours) as (_, port):
            url = f"ws://127.0.0.1:{port}{PATH}"
            # The bundle is another model.
            async with ue_of(port, bundle) as other:
                with pytest.raises(SessionError, match="give both the same --model"):
                    await other.ask(TABLES)
            async with Ue(url, token=shown, models=theirs.load(), model=theirs) as ue:
                return await ue.ask({**tables, "model": theirs.table()})

    answer = asyncio.run(run())
    simulated = parse_scenario({**tables, "model": ours.table()}).run(ours.load())
    assert answer.outcome == simulated.outcome == "delivered"
    assert answer.made is not None
    assert simulated.made is not None
    np.testing.assert_array_equal(answer.made.values, simulated.made.values)
    assert what(answer.ledger) == what(simulated.ledger)


def test_a_ue_with_smaller_models_is_that_of_the_simulation(bundle: Bundle, tmp_path: Path) -> None:
    folder = write_variant(tmp_path / "small")

    async def run() -> Answer:
        async with served(bundle) as (_, port), ue_of(port, OnnxModels(variant=folder)) as ue:
            return await ue.ask(TABLES)

    answer = asyncio.run(run())
    model = Model(variant=str(folder))
    simulated = parse_scenario({**TABLES, "model": model.table()}).run(model.load())
    whole = parse_scenario(TABLES).run(bundle)
    assert answer.outcome == simulated.outcome == "delivered"
    assert answer.made is not None
    assert simulated.made is not None
    assert whole.made is not None
    np.testing.assert_array_equal(answer.made.values, simulated.made.values)
    assert (answer.made.values != whole.made.values).any()
    assert what(answer.ledger) == what(simulated.ledger)


def test_who_waits_for_a_slow_ue_holds_up_no_other(bundle: Bundle) -> None:
    go_on = threading.Event()

    class Slow(OnnxModels):
        def decode(self, *told: Any) -> Any:
            assert go_on.wait(30)
            return super().decode(*told)

    async def run() -> None:
        async with (
            served(bundle, workers=1) as (es, port),
            ue_of(port, Slow()) as slow,
            ue_of(port, bundle, owner="berta") as quick,
        ):
            waiting = asyncio.create_task(slow.ask(TABLES))
            while not es.running:
                await asyncio.sleep(0.01)
            try:
                same(await quick.ask(TABLES, deadline_s=20), TABLES, bundle)
            finally:
                go_on.set()
            assert (await waiting).outcome == "delivered"

    asyncio.run(run())


def test_the_same_request_many_times_at_once_is_made_once(bundle: Bundle) -> None:
    async def one(port: int) -> Answer:
        async with ue_of(port, bundle) as ue:
            return await ue.ask(TABLES, key="mine")

    async def run() -> tuple[list[Answer], int]:
        async with served(bundle) as (es, port):
            answers = await asyncio.gather(*(one(port) for _ in range(5)))
            return answers, es.begun

    answers, made = asyncio.run(run())
    assert made == 1
    for answer in answers:
        same(answer, TABLES, bundle)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "not one of this ES"),
        ("anna.9999999999.wrong", "not one of this ES"),
        (mint("another", "anna"), "not one of this ES"),
        (mint("secret", "anna", now_s=0), "the token ended"),
    ],
)
def test_without_the_right_token_nothing_is_served(token: str, said: str, bundle: Bundle) -> None:
    async def run() -> int:
        async with served(bundle) as (es, port):
            with pytest.raises(SessionError, match=said):
                async with ue_of(port, bundle, token) as ue:
                    await ue.ask(TABLES)
            return len(es.sessions)

    assert asyncio.run(run()) == 0


def test_what_cannot_be_is_told(bundle: Bundle) -> None:
    async def run() -> None:
        async with served(bundle) as (_, port), ue_of(port, bundle) as ue:
            with pytest.raises(SessionError, match="by its deadline"):
                await ue.ask({"request": {"prompt": "poppies", "steps": 300}}, deadline_s=0.5)
            with pytest.raises(SessionError, match="runs already"):
                await asyncio.gather(ue.ask(TABLES, key="one"), ue.ask(TABLES, key="one"))
            # The session goes on.
            same(await ue.ask(TABLES), TABLES, bundle)

    asyncio.run(run())


def test_the_two_commands(tmp_path: Path) -> None:
    megdt = [sys.executable, "-c", "from megdt.cli import main; main()"]
    serving = subprocess.Popen([*megdt, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        shown = serving.stdout.readline().split()
        assert shown[:3] == ["megdt", "ue", "PROMPT"]
        told = ["ue", "red poppies", *shown[3:], "--set", "request.steps=2", "--json"]
        done = subprocess.run([*megdt, *told], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["outcome"] == "delivered"
        assert Path(found["file"]).is_file()
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=20)
    done = subprocess.run([*megdt, *told], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr


def test_nobody_there_is_told(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def run() -> None:
        async with ue_of(port, bundle) as ue:
            for _ in range(2):  # at once, and where nobody tries any more
                with pytest.raises(SessionError, match="cannot be reached"):
                    await ue.ask(TABLES)

    asyncio.run(run())
