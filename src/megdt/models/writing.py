"""Texts: captions for the bundle, which writes offline, and a client of language models behind a server.

Models write by `write(prompt, image, *, rng_seed)`; `ServedModels` has a server do that. No torch here:
scenarios, which need none, check a server's address before anything runs.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError, ScenarioError, WriterError
from megdt.records import Side
from megdt.worlds.captions import Attributes, phrase

KEY = "MEGDT_WRITER_KEY"
"""Environment variable with the server's API key: nowhere else, so that no file ever holds it."""

MOST_TOKENS = 4096
MOST_SECONDS = 600.0

_TOKEN_CHARACTERS = 32
"""Of an answer for each token that it may take, at most; in English four are usual."""
_MOST_BYTES = 1 << 20
_SHOWN = 200
"""Characters of what a server says that an error repeats."""


def caption(said: Attributes, rng_seed: int) -> str:
    """A sentence about what a garden picture shows, in the caption grammar.

    >>> caption(Attributes(species="poppy", colour="red", sky="sunset"), 1)
    'A beautiful landscape with scarlet poppies before soft hills at sunset.'
    """
    words = phrase(said, np.random.default_rng(rng_seed), wording="description")
    return f"{words[:1].upper()}{words[1:]}."


@dataclass(frozen=True, kw_only=True)
class ServerWriter:
    """A client of a server that speaks OpenAI's chat completions, such as llama.cpp, vLLM or Ollama.

    The key is read from the environment (`KEY`) when something is written, sent as a bearer token,
    and kept nowhere.

    Args:
        base_url: What comes before /chat/completions, such as http://127.0.0.1:8080/v1.
        model: As the server calls it; left out for servers that have one only.
        max_tokens: The most that an answer may take.
        timeout_s: Until the whole answer has to be there.

    Raises:
        ScenarioError: If the address is none, holds a secret, or a number is out of its range.
    """

    base_url: str
    model: str | None = None
    max_tokens: int = 200
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        for name, value, low, high in (
            ("max_tokens", self.max_tokens, 1, MOST_TOKENS),
            ("timeout_s", self.timeout_s, 0.001, MOST_SECONDS),
        ):
            if not low <= value <= high:  # also catches nan
                raise ScenarioError(f"writer {name} is {value}, it goes from {low} to {high:g}")

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        """Ask the server.

        Args:
            prompt: What to write.
            image: What to write about, sent as PNG. [height, width, 3]
            rng_seed: Given on; whether it makes the answer repeatable is the server's affair.

        Raises:
            MissingExtraError: If httpx is not installed.
            WriterError: If there is no answer, or it is not a text within the limits.
        """
        asked: dict[str, Any] = {
            "messages": [{"role": "user", "content": _content(prompt, image)}],
            "max_tokens": self.max_tokens,
            "seed": rng_seed % 2**31,  # what every server takes
            "stream": False,
        }
        if self.model is not None:
            asked["model"] = self.model
        key = _read_key()
        status, body = self._post(asked, key)
        if status != 200:
            raise WriterError(self._explain(status, body, key))
        return self._read(body)

    def _post(self, asked: Mapping[str, Any], key: str) -> tuple[int, bytes]:
        """Status and body of the answer, within the time and a megabyte."""
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError(
                "a server that writes needs the package httpx; pip install 'megdt[text]'"
            ) from error
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        started = time.monotonic()
        try:
            with (
                httpx.Client(timeout=self.timeout_s) as client,
                client.stream("POST", self.address, json=asked, headers=headers) as response,
            ):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise WriterError(
                            f"the answer of {self.address} is longer than {_MOST_BYTES:,} bytes, "
                            "a text is not; set writer.base_url to a server of chat completions"
                        )
                    # The client's own limit is for each wait, and starts again with each byte.
                    if time.monotonic() - started > self.timeout_s:
                        raise httpx.ReadTimeout("too slow", request=response.request)
                return response.status_code, bytes(body)
        except httpx.TimeoutException as error:
            raise WriterError(
                f"{self.address} gave no whole answer in {self.timeout_s:g} s; set writer.timeout_s "
                "higher or writer.max_tokens lower, or see that the server is not overloaded"
            ) from error
        except httpx.ConnectError as error:
            raise WriterError(
                f"cannot connect to {self.address} ({_one_line(str(error))}); start the server, or "
                "set writer.base_url to where it is"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WriterError(
                f"{self.address} does not answer as an HTTP server "
                f"({_one_line(str(error) or type(error).__name__)}); set writer.base_url to a "
                "server of chat completions"
            ) from error

    def _explain(self, status: int, body: bytes, key: str) -> str:
        found = f"{self.address} answered {status}"
        if status in (401, 403):
            # Not what the server says: it may repeat the key.
            has = f"the key in {KEY} is refused" if key else f"there is no key in {KEY}"
            return f"{found}, and {has}; set {KEY} to a key of this server"
        said = _server_says(body, key)
        todo = {
            400: "see that writer.model and writer.max_tokens suit the server; it needs a model that sees where it is sent a picture",
            404: f"set writer.model, now {self.model!r}, to one that the server has, and writer.base_url to what comes before /chat/completions",
            429: "wait, or take a server with room",
        }.get(status)
        if todo is None and status < 400:
            todo = "redirects are not followed: set writer.base_url to where it leads"
        if todo is None:
            todo = (
                "see the server's log, and try again" if status >= 500 else "see the server's log"
            )
        return f"{found}{said}; {todo}"

    def _read(self, body: bytes) -> str:
        """The text of an answer."""
        expected = "expected are choices[0].message.content of a chat completion"
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise WriterError(
                f"{self.address} answered with {len(body)} bytes that are not JSON; {expected}; "
                "set writer.base_url to what comes before /chat/completions"
            ) from error
        choices = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(choices, list) or not choices:
            raise WriterError(
                f"{self.address} answered without choices; {expected}; see that writer.base_url is "
                "of an OpenAI-compatible server"
            )
        message = choices[0].get("message") if isinstance(choices[0], dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        text = text.strip() if isinstance(text, str) else ""
        if not text:
            raise WriterError(
                f"{self.address} answered with no text in its message; {expected}; set "
                f"writer.max_tokens, now {self.max_tokens}, higher, or take another writer.model"
            )
        most = _TOKEN_CHARACTERS * self.max_tokens
        if len(text) > most:
            raise WriterError(
                f"{self.address} answered with {len(text):,} characters, {self.max_tokens} tokens "
                f"have at most {most:,}; set writer.max_tokens higher, or take a server that keeps it"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise WriterError(
                f"{self.address} answered with half a character at position {error.start}, which no "
                "text codec carries; try again, or take another writer.model"
            ) from error
        return text


class ServedModels:
    """Models as they are, but for their texts, which a server writes.

    Args:
        models: For all else, and for what they count.
        server: That writes.
    """

    def __init__(self, models: object, server: ServerWriter) -> None:
        self._models, self._server = models, server

    def at(self, side: Side) -> ServedModels:
        """What a side has, where sides have their own."""
        own = getattr(self._models, "at", None)
        return self if own is None else ServedModels(own(side), self._server)

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        """See `ServerWriter.write`."""
        return self._server.write(prompt, image, rng_seed=rng_seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)


def _check_address(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    printable = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if parts.scheme not in ("http", "https") or not host or not printable:
        raise ScenarioError(
            f"writer base_url is {base_url!r}, expected an address such as "
            "http://127.0.0.1:8080/v1; set writer.base_url to one, or leave it out to write offline"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not repeated: what is in there may be secret.
        raise ScenarioError(
            f"writer base_url of {host} has a user, a query or a fragment, and scenarios are written "
            f"into results; give the address alone, and the key in the environment as {KEY}"
        )


def _read_key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise WriterError(
            f"{KEY} holds a space or a character that no key has; set it to the key alone"
        )
    return key


def _content(prompt: str, image: NDArray[np.uint8] | None) -> str | list[dict[str, Any]]:
    """A message; plain where there is no picture, since not every server takes parts."""
    if image is None:
        return prompt
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]


def _server_says(body: bytes, key: str) -> str:
    """The server's own reason, in brackets, without the key; empty where it gives none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    reason = found.get("error") if isinstance(found, dict) else None
    reason = reason.get("message") if isinstance(reason, dict) else reason
    if not isinstance(reason, str) or not reason.strip():
        return ""
    return f" ({_one_line(reason.replace(key, '***') if key else reason)})"


def _one_line(text: str) -> str:
    """Cut short, and without what could move a terminal's cursor."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
