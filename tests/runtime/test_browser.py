"""A browser as a UE: headless Chromium drives the page of a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec
from megdt.models.bundle import Bundle
from megdt.pictures import save_picture
from megdt.records import Delivery, Feature
from megdt.worlds.garden import draw_view

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
pytest.importorskip("fastapi", reason="needs the extra serve")

from megdt.runtime.edge_server import EdgeServer  # noqa: E402
from megdt.runtime.serving import Server, address, listen  # noqa: E402
from megdt.runtime.tokens import mint  # noqa: E402
from megdt.runtime.vendor import missing  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
GOLDEN = Path(__file__).parent.parent / "golden" / "messages.json"

BROKEN = (
    "nothing", "two messages", "cut off", "an integer beyond 2**53 - 1",
    "an integer of 64 bits below", "bad UTF-8", "a text of 4 GiB", "bytes of 4 GiB",
    "a list of 4 Gi values", "a map of 4 Gi pairs", "lists 1,000 deep", "maps 1,000 deep",
    "an extension type", "a time stamp", "the type that MessagePack never uses",
)  # fmt: skip
"""Those of the golden frames that are no MessagePack of ours, whatever they would mean."""

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium"),
    pytest.mark.skipif(bool(missing()), reason="needs python -m megdt.runtime.vendor"),
]


@pytest.fixture(scope="module")
def es() -> EdgeServer:
    return EdgeServer(Bundle(), key="secret", workers=2)


@pytest.fixture(scope="module")
def base(es: EdgeServer) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    server = Server(es)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield address(listening, secure=False)
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, base: str) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, permissions=["camera"], color_scheme="dark"
    )
    errors: list[str] = []
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(f"{base}/#token={mint('secret', 'anna')}")
    opened.wait_for_selector("body[data-ready=yes]")
    opened.wait_for_selector("#connection[data-phase=open]")
    yield opened
    context.close()
    assert errors == []


def done(page: Any) -> str:
    page.wait_for_selector("body[data-state]:not([data-state=running])")
    return str(page.evaluate("document.body.dataset.state"))


def costs(page: Any) -> dict[str, str]:
    names = page.locator("#costs dt").all_inner_texts()
    return dict(zip(names, page.locator("#costs dd").all_inner_texts(), strict=True))


def pixels(page: Any) -> np.ndarray:
    """What the canvas shows. [height, width, 3]"""
    size, values = page.evaluate(
        """() => { const c = document.getElementById("picture");
        return [c.width, Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)]; }"""
    )
    return np.array(values, np.uint8).reshape(size, size, 4)[:, :, :3]


def test_a_prompt_by_keyboard_becomes_a_picture_on_this_device(page: Any, es: EdgeServer) -> None:
    assert page.evaluate("crossOriginIsolated")
    assert "token" not in page.url
    page.select_option("#codec", "int8")
    page.focus("#prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("white lilies at night")
    page.keyboard.press("Enter")
    assert done(page) == "delivered", page.inner_text("#said")
    assert page.evaluate("document.getElementById('picture').dataset.preview") == "shown"
    told = costs(page)
    assert told["Payload"] == "32.9 kbit"  # 4096 bytes and the prompt
    assert told["SNR"] == "10 dB"
    job = es.jobs[-1]
    assert (job.mechanism, job.prompt, job.owner) == ("es_to_ue", "white lilies at night", "anna")
    shown = pixels(page)
    assert shown.shape == (256, 256, 3)
    found = es.models.classify(shown[None])
    assert found, "the classifier names what is to be seen"
    assert shown.std() > 20


def test_decoding_in_the_browser_is_decoding_here(page: Any) -> None:
    latents = Bundle().encode(_view()[None])
    told = {"latent": latents.ravel().tolist(), "noise": 0.2}
    values = page.evaluate(
        """async ({latent, noise}) => {
        const {run, config} = window.megdt;
        const made = await run("decode", {latent: Float32Array.from(latent), height: 32, width: 32,
            noisePower: noise, precision: "fp32", model: config.models.decoder, exact: true});
        return Array.from(made.values); }""",
        told,
    )
    import torch

    with torch.inference_mode():
        wanted = Bundle()._decoder(torch.from_numpy(latents), torch.tensor([0.2])).numpy()
    assert np.abs(np.array(values, np.float32) - wanted.ravel()).max() < 1e-4


def _view(size_px: int = 256) -> np.ndarray:
    garden, view = draw_view(10_700_005, size_px=size_px)
    return garden.render(view)


def test_the_page_stays_live_while_it_decodes(page: Any) -> None:
    page.select_option("#size", "512")
    page.evaluate(
        """() => { window.tasks = [0];
        new PerformanceObserver((list) => list.getEntries().forEach((e) => window.tasks.push(e.duration)))
            .observe({entryTypes: ["longtask"]}); }"""
    )
    page.click("#make")
    assert done(page) == "delivered", page.inner_text("#said")
    assert pixels(page).shape == (512, 512, 3)
    assert page.evaluate("Math.max(...window.tasks)") < 100


def test_an_upload_is_described(page: Any, tmp_path: Path) -> None:
    save_picture(tmp_path / "view.png", _view(300))
    page.set_input_files("#upload", tmp_path / "view.png")
    page.wait_for_selector("#describe:enabled")
    page.click("#describe")
    assert done(page) == "delivered", page.inner_text("#said")
    assert page.inner_text("#said").endswith(".")
    assert len(page.inner_text("#said")) > 20


def test_what_the_camera_sees_goes_up_as_a_seed(page: Any, es: EdgeServer, base: str) -> None:
    page.click("#start-camera")
    page.wait_for_selector("#camera:visible")
    page.wait_for_selector("#send:enabled")
    page.click("#send")
    assert done(page) == "delivered", page.inner_text("#said")
    job = es.jobs[-1]
    assert job.mechanism == "ue_to_es"
    assert job.picture is not None
    # Chromium's fake camera is a green screen with a moving dial.
    assert job.picture[..., 1].mean() > job.picture[..., 0].mean()
    token = mint("secret", "anna")
    picture = page.request.get(
        f"{base}/v1/requests/{job.number}/picture", headers={"Authorization": f"Bearer {token}"}
    )
    assert picture.body().startswith(b"\x89PNG")


def test_a_connection_that_is_lost_comes_back(page: Any, es: EdgeServer) -> None:
    begun = es.begun
    page.click("#make")
    page.wait_for_selector("body[data-state=running]")
    for connections in (2, 3, 4):
        page.evaluate("window.megdt.session.socket.close()")
        # The page hears of the close later: until then it still says that it is open.
        until = time.monotonic() + 20
        while page.evaluate("window.megdt.session.connections") < connections:
            assert time.monotonic() < until, f"connection {connections} did not come"
            page.wait_for_timeout(20)
        page.wait_for_selector("#connection[data-phase=open]")
    assert done(page) == "delivered", page.inner_text("#said")
    assert es.begun == begun + 1


def test_a_lossy_link_is_told(page: Any) -> None:
    page.select_option("#codec", "int8")
    page.locator("#snr").fill("-10")
    assert page.inner_text("#snr-shown") == "-10 dB"
    page.select_option("#channel", "network")
    assert page.is_disabled("#snr")
    page.click("#make")
    assert done(page) == "delivered", page.inner_text("#said")
    assert costs(page)["Channel uses"].startswith("none")


def test_without_a_token_the_page_says_what_to_do(browser: Any, base: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{base}/ue/")
    page.wait_for_selector("#connection[data-phase=closed]")
    assert "the address that megdt serve prints" in page.inner_text("#said")
    context.close()


def test_golden_frames_mean_the_same_here(page: Any) -> None:
    rows = json.loads(GOLDEN.read_text())["messages"]
    read = page.evaluate(
        """async (frames) => {
        const {decode, encode} = await import("/ue/messagepack.js");
        const plain = (value) => value instanceof Uint8Array ? Array.from(value)
            : Array.isArray(value) ? value.map(plain)
            : value && typeof value === "object"
            ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)])) : value;
        return frames.map((hex) => {
            const bytes = Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
            const value = decode(bytes);
            return [plain(value), plain(decode(encode(value)))];
        }); }""",
        [row["frame"] for row in rows],
    )
    for row, (value, again) in zip(rows, read, strict=True):
        assert value == again
        data = row["message"].get("data")
        if data is None:
            assert value == row["message"], row["name"]
        else:
            assert value["data"] == list(bytes.fromhex(data) if isinstance(data, str) else data)


def test_golden_frames_that_are_none_are_refused_here(page: Any) -> None:
    rows = json.loads(GOLDEN.read_text())["refused"]
    broken = [row for row in rows if row["name"] in BROKEN]
    assert len(broken) == len(BROKEN)
    thrown = page.evaluate(
        """async (frames) => {
        const {decode} = await import("/ue/messagepack.js");
        return frames.map((hex) => {
            const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
            try { decode(bytes); return false; } catch { return true; }
        }); }""",
        [row["frame"] for row in broken],
    )
    assert thrown == [True] * len(broken)


@pytest.mark.parametrize("each", [False, True], ids=["one noise power", "one a symbol"])
def test_analog_seeds_are_read_as_here(page: Any, each: bool) -> None:
    rng = np.random.default_rng(1)
    shape = (4, 8, 8)
    sent = Feature(kind="seed", values=rng.standard_normal(shape).astype(np.float32))
    codec = AnalogSeedCodec(shape=shape)
    symbols = codec.encode(sent).symbols
    assert symbols is not None
    noise = rng.uniform(0.05, 0.3, symbols.size).astype(np.float32) if each else np.float32(0.1)
    drawn = rng.standard_normal((2, symbols.size)) * np.sqrt(noise / 2)
    noisy = (symbols + drawn[0] + 1j * drawn[1]).astype(np.complex64)
    wanted = codec.decode(Delivery(symbols=noisy, noise_power=noise if each else float(noise)))
    latent, power = page.evaluate(
        """async ({symbols, noises, noisePower, count}) => {
        const {decodeSeed} = await import("/ue/codecs.js");
        const found = decodeSeed({symbols, noises, noisePower}, count, "analog");
        return [Array.from(found.latent), found.noisePower]; }""",
        {
            "symbols": noisy.view(np.float32).tolist(),
            "noises": noise.tolist() if each else None,
            "noisePower": float(noise) if not each else 0,
            "count": 256,
        },
    )
    np.testing.assert_allclose(latent, wanted.values.ravel(), atol=2e-5)
    assert power == pytest.approx(wanted.noise_power, rel=1e-4)


def test_seeds_of_bytes_are_written_as_here(page: Any) -> None:
    values = np.linspace(-5, 5, 2001, dtype=np.float32)
    codec = QuantisedSeedCodec(shape=(1, 1, 2001))
    packet = codec.encode(Feature(kind="seed", values=values.reshape(1, 1, -1)))
    payload = page.evaluate(
        """async (latent) => {
        const {encodeSeed} = await import("/ue/codecs.js");
        return Array.from(encodeSeed(Float32Array.from(latent)).payload); }""",
        values.tolist(),
    )
    differ = np.array(payload, np.uint8).view(np.int8).astype(int) - np.frombuffer(
        packet.payload, np.int8
    )
    assert np.abs(differ).max() <= 1
    assert np.count_nonzero(differ) < 5
