"""An edge server on a socket: uvicorn, with a graceful stop and one JSON object a line for a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any

from megdt.errors import MissingExtraError, SessionError
from megdt.runtime.api import PATH, make_app
from megdt.runtime.edge_server import EdgeServer
from megdt.runtime.following import Follower
from megdt.runtime.parcels import largest_message

try:
    import uvicorn
except ImportError:
    raise MissingExtraError("an edge server needs uvicorn; pip install 'megdt[serve]'") from None

DRAIN_S = 30.0
"""That what runs may take to finish, once the server is told to stop."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: when, how grave, what, and all that was said with it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        told = {key: value for key, value in vars(record).items() if key not in _PLAIN}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **told,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """From now on, what the server does is written as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("megdt")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address; 127.0.0.1 for this machine alone.
        port: 0 takes a free one.

    Raises:
        SessionError: If that cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SessionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; take another --host or --port"
        ) from None


def address(listening: socket.socket, *, secure: bool) -> str:
    """Where a socket's server is found, such as http://127.0.0.1:8420."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' if secure else ''}://{shown}:{port}"


def session_url(base: str) -> str:
    """Where a UE connects to a server of this address."""
    return "ws" + base.removeprefix("http") + PATH


class Server(uvicorn.Server):
    """Finishes what runs before it stops; a second signal stops it at once.

    Args:
        es: What it serves.
        follower: Of the twin that its dashboard shows.
        certificate: Paths of certificate and key; none for plain HTTP.
        drain_s: What finishing may take.
    """

    def __init__(
        self, es: EdgeServer, follower: Follower | None = None, *, certificate: tuple[Path, Path] | None = None,
        drain_s: float = DRAIN_S,
    ) -> None:  # fmt: skip
        # Sessions have pings and credit of their own; a frame is at most as large as they take.
        more: dict[str, Any] = {}
        if certificate is not None:
            more = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
        config = uvicorn.Config(
            make_app(es, follower), log_level="warning", ws="websockets-sansio", server_header=False,
            ws_max_size=largest_message(es.sessions.limits), ws_ping_interval=None,
            ws_per_message_deflate=False, timeout_graceful_shutdown=2, **more,
        )  # fmt: skip
        super().__init__(config)
        self._es, self._drain_s = es, drain_s
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: drain, then stop."""
        if self._draining is None and sig in (signal.SIGTERM, signal.SIGINT):
            loop = asyncio.get_running_loop()
            self._draining = loop.create_task(self._drain())
        else:
            super().handle_exit(sig, frame)

    async def _drain(self) -> None:
        with contextlib.suppress(Exception):
            await self._es.drain(self._drain_s)
        self.should_exit = True
