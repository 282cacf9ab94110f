"""The UE's decoder in a browser, against the architecture of diffusers' AutoencoderTiny there.

    pip install diffusers onnx onnxscript
    python -m megdt.runtime.vendor
    python benchmarks/browser.py [--turns 9] [--out benchmarks/browser.json]

One page of headless Chromium, ONNX Runtime Web in WebAssembly with two threads, a latent of a
256 x 256 picture; they take turns. The peer has random weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import torch
from playwright.sync_api import sync_playwright

from megdt.models.cards import BUNDLE
from megdt.runtime.vendor import PAGES

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
THREADS = 2

PAGE = """<!doctype html><title>decoders</title><script type="module">
import * as ort from "./vendor/ort.wasm.min.mjs";
ort.env.wasm.wasmPaths = new URL("./vendor/", location.href).href;
ort.env.wasm.numThreads = THREADS;
const ours = (precision) => ort.InferenceSession.create(`decoder.${precision}.onnx`, {
  executionProviders: ["wasm"], externalData: [{ path: "decoder.safetensors", data: "decoder.safetensors" }] });
const sessions = { fp32: await ours("fp32"), int8: await ours("int8"),
  tiny: await ort.InferenceSession.create("tiny.onnx", { executionProviders: ["wasm"] }) };
const latents = new ort.Tensor("float32", Float32Array.from({ length: 4096 }, () => 2 * Math.random() - 1), [1, 4, 32, 32]);
const noise_power = new ort.Tensor("float32", [0], [1]);
window.decode = async (name) => {
  const began = performance.now();
  await sessions[name].run(name === "tiny" ? { latents } : { latents, noise_power });
  return performance.now() - began;
};
document.body.dataset.ready = crossOriginIsolated;
</script><body>"""


class Isolated(SimpleHTTPRequestHandler):
    """Threads of WebAssembly want a page that shares its process with no other."""

    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *told: Any) -> None:
        """Nothing."""


def prepare(folder: Path) -> None:
    """The page, the libraries, our graphs, and the peer's."""
    from diffusers.models import AutoencoderTiny

    (folder / "index.html").write_text(PAGE.replace("THREADS", str(THREADS)))
    (folder / "vendor").symlink_to(PAGES / "vendor")
    for name in ("decoder.safetensors", "decoder.fp32.onnx", "decoder.int8.onnx"):
        (folder / name).symlink_to(BUNDLE / name)
    torch.onnx.export(
        AutoencoderTiny().decoder.eval(), (torch.zeros(1, 4, 32, 32),), folder / "tiny.onnx",
        input_names=["latents"], dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


def measure(turns: int) -> dict[str, list[float]]:
    """Milliseconds of each decoder, by turn; the first two do not count."""
    times: dict[str, list[float]] = {"fp32": [], "int8": [], "tiny": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        prepare(Path(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Isolated, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_selector("body[data-ready=true]", state="attached", timeout=120_000)
        for turn in range(-2, turns):
            for name, found in times.items():
                took = page.evaluate("name => window.decode(name)", name)
                if turn >= 0:
                    found.append(took)
        chromium.close()
        server.shutdown()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    times = measure(arguments.turns)
    medians = {name: round(statistics.median(found), 1) for name, found in times.items()}
    by_turn = {
        name: [peer / own for peer, own in zip(times["tiny"], times[name], strict=True)]
        for name in ("fp32", "int8")
    }
    found = {
        "machine": f"{platform.machine()}, {THREADS} threads",
        "median_ms": medians,
        "times_faster": {n: round(statistics.median(ratios), 2) for n, ratios in by_turn.items()},
    }
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
