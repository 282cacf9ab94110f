"""An edge server's control over HTTP: who may, what it says, what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.errors import SessionError
from megdt.models.bundle import Bundle
from megdt.models.cards import BUNDLE
from megdt.models.manifest import Manifest, describe_graph, write_manifest
from megdt.pictures import save_picture
from megdt.runtime.feed import WAITING, Feed
from megdt.runtime.limits import Limits
from megdt.runtime.tokens import check, mint
from megdt.runtime.ue import Ue
from megdt.worlds.garden import draw_view

pytest.importorskip("fastapi", reason="needs the extra serve")
httpx = pytest.importorskip("httpx", reason="needs the extra text")

from megdt.runtime.api import BURST, PATH, make_app  # noqa: E402
from megdt.runtime.certificate import write_certificate  # noqa: E402
from megdt.runtime.edge_server import EdgeServer  # noqa: E402
from tests.runtime.test_nodes import TABLES, served  # noqa: E402


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle()


def bearer(owner: str = "anna") -> dict[str, str]:
    return {"Authorization": f"Bearer {mint('secret', owner)}"}


def ask(es: EdgeServer, method: str, path: str, **more: Any) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(make_app(es))
        async with httpx.AsyncClient(transport=transport, base_url="http://es") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


@pytest.fixture
def es(bundle: Bundle) -> EdgeServer:
    return EdgeServer(bundle, key="secret")


def test_a_token_says_whose_it_is() -> None:
    token = mint("key", "anna", lifetime_s=10, now_s=1000)
    assert check("key", token, now_s=1005) == "anna"
    assert check("key", token, now_s=1035) == "anna", "clocks differ a little"
    with pytest.raises(SessionError, match="ended 50 s ago; mint a new one"):
        check("key", token, now_s=1060)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token.replace("anna", "bert"),
        lambda token: re.sub(r"\.\d+\.", ".1999999999.", token),
        lambda token: token[:-1],
        lambda token: "anna..",
        lambda token: "änna.1.é",
        lambda token: mint("another key", "anna", now_s=1000),
    ],
)
def test_a_token_that_was_changed_is_none(change: Any) -> None:
    with pytest.raises(SessionError, match="not one of this ES") as caught:
        check("key", change(mint("key", "anna", now_s=1000)), now_s=1000)
    assert caught.value.code == "token"


def test_tokens_are_short_lived() -> None:
    for owner, lifetime_s in (("anna", 1e6), ("anna", 0), ("an na", 60), ("", 60)):
        with pytest.raises(SessionError):
            mint("key", owner, lifetime_s=lifetime_s)
    with pytest.raises(SessionError, match="at most 86400 are taken"):
        check("key", mint("key", "anna", lifetime_s=86400, now_s=5000), now_s=0)


@pytest.mark.parametrize("path", ["/v1/ues", "/v1/requests", "/v1/events"])
def test_control_wants_a_token(es: EdgeServer, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}):
        answer = ask(es, "GET", path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_is_renewed(es: EdgeServer) -> None:
    answer = ask(es, "POST", "/v1/tokens", headers=bearer("bert"))
    assert check("secret", answer.json()["token"]) == "bert"
    assert ask(es, "POST", "/v1/tokens").status_code == 401


def test_who_asks_too_much_is_told_when_to_come_again(es: EdgeServer) -> None:
    async def run() -> list[Any]:
        transport = httpx.ASGITransport(make_app(es))
        async with httpx.AsyncClient(transport=transport, base_url="http://es") as client:
            told = [await client.get("/v1/requests", headers=bearer()) for _ in range(2 * BURST)]
            other = await client.get("/v1/requests", headers=bearer("bert"))
            return [*told, other]

    *answers, other = asyncio.run(run())
    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert all(int(a.headers["Retry-After"]) >= 1 for a in refused)
    assert other.status_code == 200, "one who asks too much is in nobody else's way"


def test_health_readiness_metrics_and_openapi(es: EdgeServer, bundle: Bundle) -> None:
    assert ask(es, "GET", "/healthz").json()["bundle"] == bundle.checksum
    assert ask(es, "GET", "/readyz").json()["ready"] is True
    es.stopping = True
    stopping = ask(es, "GET", "/readyz")
    assert (stopping.status_code, stopping.headers["Retry-After"]) == (503, "1")
    assert "megdt_sessions 0.0" in ask(es, "GET", "/metrics").text
    described = ask(es, "GET", "/openapi.json").json()
    for path in ("/v1/tokens", "/v1/ues", "/v1/requests", "/v1/events", "/readyz"):
        for told in described["paths"][path].values():
            assert told["description"]


def test_every_answer_keeps_to_itself(es: EdgeServer) -> None:
    for path in ("/ue/", "/healthz", "/models/decoder.fp32.onnx", "/nothing"):
        headers = ask(es, "GET", path).headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_of_the_bundle_only_what_browsers_run_is_given(es: EdgeServer) -> None:
    told = ask(es, "GET", "/v1/browser").json()
    assert told["models"]["decoder"]["weights"]["sha256"] == Bundle().card("decoder")["sha256"]
    assert ask(es, "GET", "/models/decoder.safetensors").status_code == 200
    for name in ("denoiser.safetensors", "..%2fbundle.py", "decoder.json"):
        assert ask(es, "GET", f"/models/{name}").status_code == 404


def test_browsers_are_given_a_variant_where_the_server_has_one(
    bundle: Bundle, tmp_path: Path
) -> None:
    graph = tmp_path / "decoder.int8.onnx"
    graph.write_bytes(b"a smaller decoder")
    told = Manifest(BUNDLE).model("decoder") | {"graphs": {"int8": describe_graph(graph)}}
    del told["weights"]
    write_manifest(tmp_path, {"bundle_sha256": bundle.checksum, "models": {"decoder": told}})
    es = EdgeServer(bundle, key="k", variant=tmp_path)
    models = ask(es, "GET", "/v1/browser").json()["models"]
    assert list(models["decoder"]["graphs"]) == ["int8"]
    assert "fp32" in models["encoder"]["graphs"]
    assert ask(es, "GET", "/models/decoder.int8.onnx").content == b"a smaller decoder"
    assert ask(es, "GET", "/models/encoder.int8.onnx").status_code == 200
    assert ask(es, "GET", "/models/decoder.safetensors").status_code == 404


def test_what_was_asked_is_listed_with_what_was_made(bundle: Bundle) -> None:
    garden, view = draw_view(10_700_004, size_px=256)
    picture = garden.render(view)
    tables = TABLES | {"plan": {"mechanism": "ue_to_es"}, "link": {"channel": "network"}}

    async def run() -> None:
        async with served(bundle) as (_, port):
            base = f"http://127.0.0.1:{port}"
            async with (
                httpx.AsyncClient(base_url=base, headers=bearer()) as client,
                Ue(
                    f"ws://127.0.0.1:{port}{PATH}", token=mint("secret", "anna"), models=bundle
                ) as ue,
            ):
                answer = await ue.ask(tables, picture=picture, key="mine")
                assert answer.outcome == "delivered"
                assert answer.made is None, "it was made at the ES"
                ues = (await client.get("/v1/ues")).json()
                assert [(u["owner"], u["device"], u["phase"]) for u in ues] == [
                    ("anna", "phone", "open")
                ]
                rows = (await client.get("/v1/requests")).json()
                assert [(r["key"], r["outcome"], r["mechanism"]) for r in rows] == [
                    ("mine", "delivered", "ue_to_es")
                ]
                assert rows[0]["bits"] == 8 * 4096
                png = await client.get(f"/v1/requests/{rows[0]['number']}/picture")
                assert png.content.startswith(b"\x89PNG")
                assert (await client.get("/v1/requests/99/picture")).status_code == 404
                metrics = (await client.get("/metrics")).text
                assert 'megdt_requests_total{outcome="delivered"} 1.0' in metrics
                assert 'megdt_feature_bits_total{direction="up"} 32768.0' in metrics

    asyncio.run(run())


def test_a_request_is_stopped_by_its_owner_alone(bundle: Bundle) -> None:
    long = {"request": {"prompt": "poppies", "steps": 300}}

    async def run() -> None:
        async with served(bundle) as (es, port):
            url = f"ws://127.0.0.1:{port}{PATH}"
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
                Ue(url, token=mint("secret", "anna"), models=bundle) as ue,
            ):
                asking = asyncio.create_task(ue.ask(long, key="mine"))
                while not es.running:
                    await asyncio.sleep(0.01)
                other = await client.delete("/v1/requests/mine", headers=bearer("bert"))
                assert other.status_code == 404
                own = await client.delete("/v1/requests/mine", headers=bearer())
                assert own.status_code == 204
                with pytest.raises(SessionError, match="cancelled over HTTP"):
                    await asking

    asyncio.run(run())


def test_another_page_opens_no_session(bundle: Bundle) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async def run(origins: tuple[str, ...], origin: str) -> int:
        async with served(bundle, origins=origins) as (_, port):
            headers = bearer()
            try:
                async with connect(
                    f"ws://127.0.0.1:{port}{PATH}", origin=origin.replace("PORT", str(port)),  # type: ignore[arg-type]
                    additional_headers=headers,
                ):  # fmt: skip
                    return 101
            except InvalidStatus as error:
                return error.response.status_code

    assert asyncio.run(run((), "https://evil.example")) == 403
    assert asyncio.run(run(("https://good.example",), "https://good.example")) == 101
    assert asyncio.run(run((), "http://127.0.0.1:PORT")) == 101


def test_beyond_its_sessions_who_comes_is_told_when_to_come_again(bundle: Bundle) -> None:
    limits = Limits(sessions=2)

    async def run() -> None:
        async with served(bundle, limits=limits) as (es, port):
            url = f"ws://127.0.0.1:{port}{PATH}"
            token = mint("secret", "anna")
            async with Ue(url, token=token, models=bundle) as one:
                await one.ask(TABLES)
                async with Ue(url, token=token, models=bundle) as two:
                    await two.ask(TABLES)
                    async with Ue(url, token=token, models=bundle) as three:
                        with pytest.raises(SessionError, match="deadline"):
                            await three.ask(TABLES, deadline_s=1.5)
                        # Once there is room it is let in, without being told again.
                        waiting = asyncio.create_task(three.ask(TABLES, deadline_s=30))
                        one.session.close()
                        one._wake.set()
                        assert (await waiting).outcome == "delivered"
            assert es.metrics.refused.labels("full")._value.get() >= 1

    asyncio.run(run())


def test_beyond_its_requests_a_ue_comes_again_later(bundle: Bundle) -> None:
    limits = Limits(running=1)

    async def run() -> list[Any]:
        async with served(bundle, limits=limits) as (_, port):
            url = f"ws://127.0.0.1:{port}{PATH}"

            async def one(seed: int) -> Any:
                async with Ue(url, token=mint("secret", "anna"), models=bundle) as ue:
                    tables = {"request": {**TABLES["request"], "rng_seed": seed}}
                    return await ue.ask(tables)

            return await asyncio.gather(*(one(seed) for seed in range(4)))

    answers = asyncio.run(run())
    assert [answer.outcome for answer in answers] == ["delivered"] * 4


def test_a_server_that_was_killed_is_asked_again(bundle: Bundle) -> None:
    """The second server knows neither session nor request: both begin anew, under the same key."""

    async def run() -> Any:
        async with served(bundle) as (_, port):
            ue = Ue(f"ws://127.0.0.1:{port}{PATH}", token=mint("secret", "anna"), models=bundle)
            await ue.__aenter__()
            assert (await ue.ask(TABLES)).outcome == "delivered"
            first = ue.session.id
        async with served(bundle, port=port) as (es, _):
            answer = await ue.ask(TABLES, deadline_s=30)
            assert ue.session.id != first
            assert es.begun == 1
            await ue.__aexit__()
            return answer

    assert asyncio.run(run()).outcome == "delivered"


def test_what_runs_is_finished_before_it_stops(bundle: Bundle) -> None:
    async def run() -> None:
        async with served(bundle) as (es, port):
            url = f"ws://127.0.0.1:{port}{PATH}"
            async with Ue(url, token=mint("secret", "anna"), models=bundle) as ue:
                asking = asyncio.create_task(ue.ask(TABLES))
                while not es.running:
                    await asyncio.sleep(0.01)
                draining = asyncio.create_task(es.drain(20))
                assert (await asking).outcome == "delivered"
                await draining
                with pytest.raises(SessionError):
                    await ue.ask(TABLES, deadline_s=2)

    asyncio.run(run())


def test_who_watches_slowly_misses_some_and_holds_up_nobody() -> None:
    async def run() -> None:
        feed = Feed()
        slow, quick = feed.watch({"now": 1}), feed.watch()
        assert (await anext(slow)).startswith("retry")
        assert "snapshot" in await anext(slow)
        await anext(quick)
        waiting = asyncio.create_task(anext(quick))
        for number in range(10 * WAITING):
            await asyncio.sleep(0)
            feed.tell("request", {"number": number})
            assert f'"number": {number}}}' in await waiting
            waiting = asyncio.create_task(anext(quick))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        seen = [await anext(slow) for _ in range(WAITING)]
        assert json.loads(seen[-1].split("data: ")[1])["number"] == 10 * WAITING - 1
        await slow.aclose()  # type: ignore[attr-defined]
        await quick.aclose()  # type: ignore[attr-defined]
        assert feed.watchers == 0

    asyncio.run(run())


MEGDT = [sys.executable, "-c", "from megdt.cli import main; main()"]


def test_over_tls_with_a_certificate_for_trying_out(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, ("localhost", "127.0.0.1"))
    assert key.stat().st_mode & 0o077 == 0
    options = [
        "--port",
        "0",
        "--key",
        "secret",
        "--log",
        "--cert",
        str(certificate),
        "--cert-key",
        str(key),
    ]
    serving = subprocess.Popen(
        [*MEGDT, "serve", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        url = serving.stdout.readline().split()[4]
        assert url.startswith("wss://")
        save_picture(tmp_path / "view.png", np.full((64, 64, 3), 120, np.uint8))
        told = ["ue", "--picture", "view.png", "--server", url, "--key", "secret", "--name", "cam-1",
                "--precision", "int8", "--channel", "network", "--json"]  # fmt: skip
        done = subprocess.run(
            [*MEGDT, *told, "--trust", str(certificate)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["text"].endswith(".")
        done = subprocess.run([*MEGDT, *told], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert "certificate" in done.stderr.lower()
        context = ssl.create_default_context(cafile=certificate)
        health = url.replace("wss", "https").replace(PATH, "/healthz")
        assert json.load(urllib.request.urlopen(health, context=context))["status"] == "alive"
    finally:
        began = time.monotonic()
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=20)
    assert serving.returncode == 0
    assert time.monotonic() - began < 10
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"connected", "request", "draining"} <= {line["event"] for line in lines}
    request = next(line for line in lines if line["event"] == "request")
    assert (request["owner"], request["mechanism"], request["outcome"]) == (
        "cam-1",
        "describe",
        "delivered",
    )


def test_the_token_command() -> None:
    done = subprocess.run(
        [*MEGDT, "token", "anna", "--key", "secret"], capture_output=True, text=True, check=True
    )
    assert check("secret", done.stdout.strip()) == "anna"


@pytest.mark.parametrize("command", ["serve", "up"])
def test_an_edge_server_without_torch_says_what_to_install(command: str) -> None:
    text = "import sys; sys.modules['torch'] = None; from megdt.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", text, command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: an edge server needs torch; pip install 'megdt[serve]'\n"


def test_a_ue_needs_no_torch() -> None:
    text = (
        "import sys; sys.modules['torch'] = None; sys.modules['numba'] = None;"
        "import megdt.runtime.ue, numpy as np; from megdt.models.onnx_models import OnnxModels;"
        "print(OnnxModels().decode(np.zeros((1, 4, 32, 32), np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 256, 256, 3)\n", "")
