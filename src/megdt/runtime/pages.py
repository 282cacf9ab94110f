"""Web pages of an edge server: a browser as a UE, with the models that it runs."""

import mimetypes
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from megdt.link.energy import load_profile
from megdt.models.onnx_models import OnnxModels
from megdt.runtime.vendor import PAGES

Asgi = Callable[..., Awaitable[None]]

HEADERS = {
    # Threads of WebAssembly want a page that shares its process with no other.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        "connect-src 'self'; img-src 'self' blob: data:; style-src 'self'; style-src-attr "
        "'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
DEVICE = "phone"
"""What a browser is taken for, until it is measured."""

_SERVED = ("decoder", "encoder")
_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}


class Guarded:
    """An application whose answers all have these headers."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer."""

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, told)


def add_pages(app: FastAPI, variant: Path | None = None) -> None:
    """Let an application show the pages.

    They run the bundle's models: a server of others tells a browser so when it greets.

    Args:
        app: Of `make_app`.
        variant: Folder of smaller models for browsers.
    """
    for suffix, kind in _TYPES.items():
        mimetypes.add_type(kind, suffix)
    models = OnnxModels(variant=variant)
    manifests = {name: models.manifest_of(name) for name in _SERVED}
    served = {name: manifest.model(name) for name, manifest in manifests.items()}
    files: dict[str, bytes] = {}  # as they were checked, whatever becomes of the folder
    for name, manifest in manifests.items():
        graphs = [manifest.graph(name, precision) for precision in served[name]["graphs"]]
        for path in (*graphs, manifest.weights(name)):
            if path is not None:
                files[path.name] = path.read_bytes()
    told = {
        "bundle": models.checksum,
        "device": asdict(load_profile(DEVICE)),
        "models": served,
        "preview": models.manifest.content["preview"],
    }

    @app.get("/v1/browser")
    async def browser() -> dict[str, Any]:
        """What a page has to know to be a UE: nothing of it is secret."""
        return told

    @app.get("/models/{file}", response_class=Response)
    async def model(file: str) -> Response:
        """A graph or the weights of a model that runs in a browser."""
        if file not in files:
            return Response(status_code=404)
        # Pages ask by the weights' checksum, so what they have of them stays what it is.
        keep = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(files[file], headers=keep, media_type="application/octet-stream")

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/ue/")

    app.mount("/ue", StaticFiles(directory=PAGES, html=True))
    app.add_middleware(Guarded)
