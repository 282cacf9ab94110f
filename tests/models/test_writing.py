"""Texts, offline and from a server that the tests run themselves."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdt.errors import MissingExtraError, ScenarioError, WriterError
from megdt.models.bundle import Bundle
from megdt.models.writing import KEY, ServerWriter
from megdt.worlds.captions import _COLOURS, _SKIES, _SPECIES
from megdt.worlds.garden import draw_view

pytest.importorskip("httpx", reason="texts from a server need the package httpx")

SECRET = "sk-not-for-anybody"
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Answers(ThreadingHTTPServer):
    """A server that gives one answer, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.wait_s = 200, completion("Red poppies."), 0.0
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()
        if not self.server.wait_s:
            self.wfile.write(self.server.body)
            return
        for byte in self.server.body:  # one by one, so that each is in time
            time.sleep(self.server.wait_s)
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY, raising=False)
    with Answers() as answers:
        thread = threading.Thread(target=lambda: answers.serve_forever(0.01))
        thread.start()
        yield answers
        answers.shutdown()
        thread.join()


def words_for(forms: dict[str, tuple[str, ...]], text: str) -> set[str]:
    return {name for name, words in forms.items() if any(word in text.lower() for word in words)}


def test_offline_a_picture_is_told_as_its_classifier_names_it(bundle: Bundle) -> None:
    garden, view = draw_view(10_000_003)
    image = garden.render(view)
    truth = garden.truth(view)
    text = bundle.write("", image, rng_seed=1)
    assert text[0].isupper()
    assert text.endswith(".")
    assert truth.groups[0].species in words_for(_SPECIES, text)
    assert truth.groups[0].colour in words_for(_COLOURS, text)
    assert truth.conditions.sky in words_for(_SKIES, text)


def test_offline_texts_depend_on_picture_and_rng_seed_alone(bundle: Bundle) -> None:
    garden, view = draw_view(10_000_003)
    image = garden.render(view)
    texts = {seed: bundle.write("a", image, rng_seed=seed) for seed in range(8)}
    assert len(set(texts.values())) > 4
    assert texts[3] == bundle.write("b", image, rng_seed=3)
    twice = image.repeat(2, 0).repeat(2, 1)
    assert texts[3] == bundle.write("a", twice, rng_seed=3)


def test_offline_a_prompt_is_drawn_and_the_drawing_told(bundle: Bundle) -> None:
    text = bundle.write("a field of red poppies at night", rng_seed=0)
    assert "poppy" in words_for(_SPECIES, text)
    assert "red" in words_for(_COLOURS, text)
    assert "night" in words_for(_SKIES, text)


def test_a_server_is_asked_as_openai_specifies(server: Answers) -> None:
    server.body = completion(" Red poppies.\n")
    writer = ServerWriter(base_url=server.base_url + "/", model="small", max_tokens=7)
    assert writer.write("what grows?", rng_seed=2**40 + 5) == "Red poppies."
    ((path, key, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert key is None
    assert body == {
        "model": "small",
        "messages": [{"role": "user", "content": "what grows?"}],
        "max_tokens": 7,
        "seed": 5,
        "stream": False,
    }


def test_a_picture_goes_as_png_beside_the_prompt(server: Answers) -> None:
    ServerWriter(base_url=server.base_url).write("look", PICTURE, rng_seed=0)
    ((_, _, body),) = server.asked
    assert "model" not in body
    text, picture = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "look"}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (sent == PICTURE).all()


def test_the_key_is_sent_and_shown_nowhere(
    server: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEY, f"{SECRET}\n")
    caplog.set_level(logging.DEBUG)
    writer = ServerWriter(base_url=server.base_url)
    writer.write("x", rng_seed=0)
    assert server.asked[0][1] == f"Bearer {SECRET}"
    said = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    server.body = json.dumps(said).encode()
    for server.status in (400, 401, 403, 404, 500):
        with pytest.raises(WriterError) as caught:
            writer.write("x", rng_seed=0)
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert SECRET not in caplog.text + repr(writer)
    monkeypatch.setenv(KEY, f"two {SECRET}")
    with pytest.raises(WriterError, match="holds a space") as caught:
        writer.write("x", rng_seed=0)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"", f"answered 401, and there is no key in {KEY}; set {KEY} to a key of this server"),
        (
            404,
            b'{"error": {"message": "model not found\\u001b[2J"}}',
            r"answered 404 \(model not found \[2J\); set writer.model, now 'small', to one that",
        ),
        (404, b'{"error": "no such route"}', r"answered 404 \(no such route\); set writer.model"),
        (400, b'{"error": {"message": "no vision"}}', r"400 \(no vision\); see that writer.model"),
        (429, b"[]", "answered 429; wait, or take a server with room"),
        (500, b"oops", "answered 500; see the server's log, and try again"),
        (302, b"", "answered 302; redirects are not followed"),
        (418, b'{"error": 3}', "answered 418; see the server's log$"),
        (200, b"<html>", "answered with 6 bytes that are not JSON; expected are choices"),
        (200, b"[" * 100_000, "bytes that are not JSON"),
        (200, b"[]", "answered without choices"),
        (200, b'{"choices": []}', "answered without choices"),
        (200, b'{"choices": [3]}', "answered with no text in its message"),
        (200, b'{"choices": [{"message": []}]}', "answered with no text in its message"),
        (200, completion(None), "answered with no text in its message"),
        (200, completion(" \n"), "set writer.max_tokens, now 3, higher, or take another"),
        (200, completion("a" * 97), "answered with 97 characters, 3 tokens have at most 96"),
        (200, completion("ok \ud800"), "half a character at position 3"),
        (200, b" " * (1 << 20) + b" ", "is longer than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_text_is_one_clear_line(
    server: Answers, status: int, body: bytes, message: str
) -> None:
    server.status, server.body = status, body
    writer = ServerWriter(base_url=server.base_url, model="small", max_tokens=3)
    with pytest.raises(WriterError, match=message) as caught:
        writer.write("x", rng_seed=0)
    assert str(caught.value).isprintable()
    assert f"{server.base_url}/chat/completions" in str(caught.value)


def test_an_answer_that_drips_is_too_late_all_the_same(server: Answers) -> None:
    server.wait_s = 0.05
    started = time.monotonic()
    with pytest.raises(WriterError, match=r"gave no whole answer in 0\.2 s; set writer.timeout_s"):
        ServerWriter(base_url=server.base_url, timeout_s=0.2).write("x", rng_seed=0)
    assert time.monotonic() - started < 2


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WriterError, match=r"cannot connect to .*; start the server, or set"):
            ServerWriter(base_url=address).write("x", rng_seed=0)


def test_a_server_that_speaks_something_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(WriterError, match="does not answer as an HTTP server"):
            ServerWriter(base_url=address).write("x", rng_seed=0)
        thread.join()


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'megdt\[text\]'"):
        ServerWriter(base_url="http://127.0.0.1:1").write("x", rng_seed=0)


@pytest.mark.parametrize(
    ("base_url", "message"),
    [
        ("ftp://a/v1", "is 'ftp://a/v1', expected an address such as http://127"),
        ("127.0.0.1:8080", "expected an address such as"),
        ("http://", "expected an address such as"),
        ("http://a:99999/v1", "expected an address such as"),
        ("http://[::1/v1", "expected an address such as"),
        ("http://a/v 1", "expected an address such as"),
        ("http://a/\nv1", "expected an address such as"),
        (f"http://me:{SECRET}@a/v1", f"of a has a user, .* environment as {KEY}"),
        (f"https://a/v1?key={SECRET}", "has a user, a query or a fragment"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(base_url: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        ServerWriter(base_url=base_url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"max_tokens": 0}, {"max_tokens": 5000}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}],
)
def test_a_number_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ScenarioError, match=f"writer {name} is .*, it goes from"):
        ServerWriter(base_url="http://a", **wrong)
