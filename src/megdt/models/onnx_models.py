"""What a UE runs, without torch: the bundle's autoencoder and student through ONNX Runtime, its gate on NumPy.

`onnx_export.py` makes the graphs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import BundleError, MissingExtraError, RequestError
from megdt.models import FACTOR, SHIFT
from megdt.models.cards import BUNDLE, Cards, read_arrays
from megdt.models.gate_numpy import NumpyGate
from megdt.models.manifest import Manifest, open_variant
from megdt.models.size_control import SizeController
from megdt.records import Precision

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_LATENTS = ("batch", 4, "height", "width")
EXPORTED: dict[str, dict[str, tuple[str | int, ...]]] = {
    "decoder": {"latents": _LATENTS, "noise_power": ("batch",)},
    "encoder": {"pictures": ("batch", 3, "8*height", "8*width")},
    "student": {"latents": ("batch", 4, 32, 32), "sigma": ("batch",)},
}
"""Models that there are graphs of, with their inputs and the axes of these."""
OUTPUTS: dict[str, tuple[str | int, ...]] = {
    "decoder": ("batch", 3, "8*height", "8*width"),
    "encoder": _LATENTS,
    "student": ("batch", 4, 32, 32),
}
"""The axes of what comes out."""


_SMALL = np.zeros((1, 4, 32, 32), np.float32)


def check_precision(name: str) -> Precision:
    """A precision by its name.

    Raises:
        BundleError: If there are no graphs of it.
    """
    for known in get_args(Precision):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise BundleError(
        f"precision is {name!r}, networks compute in {', '.join(get_args(Precision))}; take one of "
        "these"
    )


class OnnxModels(Cards):
    """A UE's part of the bundle: decodes, encodes, fuses, and runs the last denoising steps.

    Args:
        folder: As of `Bundle`, with graphs beside the weights.
        precision: That the graphs compute in; the gate always computes in float64.
        threads: Processor cores that they take; all when left out.
        variant: A folder that `compression` has written, whose models are taken where it has one, in
            the precision that it has.
        max_latency_s: That a call of a model that has several sizes may take: it is run at the largest that has kept
            it lately, and at its largest where this is left out.

    Raises:
        BundleError: If the variant was made of another bundle.
        RequestError: If there is a limit and nothing to choose by it.
    """

    def __init__(
        self, folder: Path = BUNDLE, *, precision: Precision = "fp32", threads: int | None = None,
        variant: Path | None = None, max_latency_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder)
        if max_latency_s is not None and not 0 < max_latency_s < math.inf:
            raise RequestError(f"max_latency_s is {max_latency_s:g}, a limit is a number above 0")
        self._variant = None if variant is None else open_variant(variant, self.checksum)
        self.precision, self._threads, self._limited = precision, threads, max_latency_s is not None
        self.manifest = Manifest(folder)
        self._count = threading.local()
        self._controllers = {name: SizeController(max_latency_s) for name in EXPORTED}
        self._sessions: dict[tuple[str, int], InferenceSession] = {}
        if max_latency_s is not None and not any(
            len(self.manifest_of(name).sizes(name)) > 1 for name in EXPORTED
        ):
            raise RequestError(
                "max_latency_s is of models of several sizes, and here is none; give a folder of megdt compress "
                "--method elastic, or leave it out"
            )

    @property
    def flops(self) -> float:
        """As of `Bundle`: what this thread's calls have taken so far, and the same numbers."""
        return float(getattr(self._count, "flops", 0.0))

    def load(self, *names: str) -> None:
        """Read models now instead of when they are first used.

        Raises:
            BundleError: If a file is missing, damaged or of another architecture.
        """
        for name in set(names) & EXPORTED.keys():
            sizes = self.manifest_of(name).sizes(name)
            for size in range(len(sizes)):
                self._session(name, size)
            if self._limited and len(sizes) > 1 and name == "decoder":
                # So that the first call that counts is at the size that keeps the limit.
                for _ in range(2):
                    self.decode(_SMALL)

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Latents to pictures; see `Bundle.decode`. [batch, 8 * height, 8 * width, 3]"""
        batch, _, height, width = latents.shape
        power = np.zeros(batch, np.float32) if noise_power is None else noise_power
        images = self._run("decoder", latents, power, cells=height * width)
        pixels = np.clip(np.rint(images * 127.5 + 127.5), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures to latents of unit variance; see `Bundle.encode`. [batch, 4, height / 8, width / 8]

        Raises:
            RequestError: If a side is not a multiple of 8.
        """
        height, width = images.shape[1:3]
        if height % FACTOR or width % FACTOR:
            raise RequestError(
                f"images are {height} x {width} pixels, the autoencoder needs multiples of "
                f"{FACTOR}; crop them to {height // FACTOR * FACTOR} x {width // FACTOR * FACTOR}"
            )
        batch = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)
        return self._run("encoder", batch, cells=height * width // FACTOR**2)

    def finish(
        self,
        latents: NDArray[np.float32],
        prompts: Sequence[str],
        rng_seeds: Sequence[int],
        *,
        noise_power: float,
        steps: int,
        handoff_step: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        """The last denoising steps, by the student; see `Bundle.finish`."""
        del prompts, rng_seeds, guidance_scale
        handed, sigmas = _plan_steps(noise_power, steps, handoff_step)
        x = latents * np.float32(handed)
        for index, (now, then) in enumerate(pairwise(sigmas)):
            level = np.full(len(x), now, np.float32)
            flow = self._run("student", x, level, cells=x.shape[2] * x.shape[3])
            x = x + np.float32(then - now) * flow
            if progress is not None:
                progress(index + 1, len(sigmas) - 1)
        return x, float(sigmas[0])

    def fuse(
        self,
        latents: NDArray[np.float32],
        confidence: NDArray[np.float32],
        age_s: NDArray[np.float32],
        noise_power: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Several sides' latents of one view as one; see `Bundle.fuse`. [batch, 4, height, width]"""
        fused = self._gate.fuse(latents, confidence, age_s, noise_power)
        self._count.flops = self.flops + self._gate.flops(latents.shape)
        return fused

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Not on a UE without torch."""
        raise BundleError(
            "models without torch decode, encode, fuse and run the last steps; take a mechanism that "
            "leaves the rest to the ES, or pip install 'megdt[sim]'"
        )

    embed = denoise = enlarge = redraw = edit = write = _refuse

    def _run(self, name: str, *inputs: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
        sizes = self.manifest_of(name).sizes(name)
        flops = [
            len(inputs[0]) * (told["flops_per_cell"] * cells + told["flops_per_item"])
            for told in sizes
        ]
        size = self._controllers[name].pick(flops)
        session = self._session(name, size)
        given = dict(zip(EXPORTED[name], map(np.ascontiguousarray, inputs), strict=True))
        begun = time.perf_counter()
        output: NDArray[np.float32] = session.run(None, given)[0]
        self._controllers[name].update(flops[size], time.perf_counter() - begun)
        self._count.flops = self.flops + flops[size]
        return output

    def manifest_of(self, name: str) -> Manifest:
        """Where a model's graphs are told of: the variant's manifest if it has it, else the bundle's."""
        of_variant = self._variant is not None and name in self._variant.content["models"]
        return self._variant if self._variant is not None and of_variant else self.manifest

    @cached_property
    def _gate(self) -> NumpyGate:
        return NumpyGate(read_arrays(self.read("gate")))

    def _session(self, name: str, size: int) -> InferenceSession:
        if (name, size) not in self._sessions:
            self._sessions[name, size] = self._open(name, size)
        return self._sessions[name, size]

    def _open(self, name: str, size: int) -> InferenceSession:
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError:
            raise MissingExtraError(
                "models without torch need onnxruntime; pip install onnxruntime"
            ) from None
        manifest = self.manifest_of(name)
        path = manifest.graph(name, self.precision, size)
        manifest.weights(name)  # sees that they are the manifest's
        if manifest is self.manifest:
            weights = manifest.model(name)["weights"]
            if weights["sha256"] != self.card(name)["sha256"]:
                raise BundleError(
                    f"{path} was made of other weights than {weights['file']}; reinstall megdt, or write it "
                    "with recipes/graphs.py"
                )
        options = SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own, of many kinds
            raise BundleError(
                f"{path} cannot be opened ({' '.join(str(error).split())[:160]}); write a new folder with "
                "megdt compress"
            ) from error
        found = {given.name: len(given.shape) for given in session.get_inputs()}
        if found != {given: len(axes) for given, axes in EXPORTED[name].items()}:
            raise BundleError(
                f"{path} takes {', '.join(found)}, a {name} takes {', '.join(EXPORTED[name])}; write a new "
                "folder with megdt compress"
            )
        return session


def _plan_steps(
    noise_power: float, steps: int, handoff_step: int
) -> tuple[float, NDArray[np.float32]]:
    """What latents that crossed are multiplied by, and the noise levels from there to 0.

    In float32, as `generation.take_from_air` and `generation.finish_latents` do it.
    """
    even = np.linspace(1, 0, steps + 1, dtype=np.float32)
    planned = np.float32(SHIFT) * even / (1 + np.float32(SHIFT - 1) * even)
    sigma = float(planned[handoff_step])
    spread = math.hypot(1 - sigma, sigma)
    signal, noise = 1 - sigma, math.hypot(sigma, spread * noise_power**0.5)
    level = noise / (signal + noise)
    from_where = (planned[:-1] + planned[1:]) / 2
    from_where[-1] = 0
    later = planned[1:][from_where < level]
    return spread / (signal + noise), np.concatenate(([np.float32(level)], later)).astype(
        np.float32
    )
