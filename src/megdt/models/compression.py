"""Smaller sub-models for a UE: a recipe that fits its device, carried out, measured and written down.

    maker = Compressor("decoder", device=load_profile("phone"), size_px=512)
    maker.write(maker.choose(max_memory_mb=60, max_latency_s=0.005), Path("small"), minutes=5)

A recipe takes the bundle's model as it is, prunes it, decomposes it, or teaches a smaller one; then it is
written in float16 or int8. What comes of it is a variant: a folder that `OnnxModels` reads beside the bundle.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from megdt.errors import RequestError
from megdt.link.energy import DeviceProfile
from megdt.models import FACTOR
from megdt.models.autoencoder import Decoder
from megdt.models.bundle import Bundle
from megdt.models.compression_quality import Judge
from megdt.models.compression_recipes import ELASTIC, RECIPES, Method, Recipe
from megdt.models.distillation import (
    Lesson,
    draw_lessons,
    draw_views,
    feature_loss,
    output_loss,
    teach,
    weigh,
)
from megdt.models.elastic import LARGEST, SIZES, cut
from megdt.models.flop_counting import count_flops
from megdt.models.graph_cost import GraphCost, measure_graph
from megdt.models.manifest import FILE, Manifest, describe_graph, is_variant, write_manifest
from megdt.models.onnx_export import Inputs, export_cut, export_whole
from megdt.models.onnx_models import EXPORTED, OUTPUTS, OnnxModels
from megdt.models.shrinking import decompose, inherit, prune
from megdt.models.variant_page import describe_variant
from megdt.records import Precision

Progress = Callable[[int, int], None]

TAUGHT_ON, FITTED_ON = 5_000_000, 10_850_000
"""First seeds of the garden views; those from 10 million on are never trained on."""
_VIEWS, _FITTED = 600, 16
_RATES = {"student": 1e-3, "elastic": 1.5e-3}
"""Of learning, where more than what was cut away is to be mended."""
_WEIGHED = 8
"""Batches by which channels are weighed."""
_CALLED = ("flops_per_cell", "flops_per_item", "graphs")
"""What is said of the largest size for who knows of one alone."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one call of a sub-model takes that was made by a recipe."""

    recipe: Recipe
    flops: float
    latency_s: float
    """On the device, by its profile."""
    cost: GraphCost
    """On this machine."""


class Compressor:
    """Makes smaller ones of a sub-model.

    Args:
        part: One of RECIPES.
        device: That is to run it.
        size_px: Height and width of the pictures that limits and latencies are of; the student's are of its own
            grid.
        bundle: Whose model it is; the package's own by default.
        rng_seed: Draws what is taught.

    Raises:
        RequestError: If there is no such part, or the size is not a multiple of 8.
    """

    def __init__(
        self, part: str, *, device: DeviceProfile, size_px: int = 512, bundle: Bundle | None = None,
        rng_seed: int = 0,
    ) -> None:  # fmt: skip
        if part not in RECIPES:
            raise RequestError(
                f"part is {part!r}, what a UE runs is {', '.join(RECIPES)}; take one of these"
            )
        if size_px % FACTOR or size_px < FACTOR:
            raise RequestError(f"size_px is {size_px}, it is a multiple of {FACTOR}")
        self.part, self.device, self.size_px, self.rng_seed = part, device, size_px, rng_seed
        self._bundle = bundle or Bundle()
        self._teacher: nn.Module = _plain(self._bundle, part)
        self._judge = Judge(self._bundle, part)
        self._made: dict[Recipe, nn.Module] = {}

    def recipes(self, method: Method | None = None) -> tuple[Recipe, ...]:
        """Those of a method, or all.

        Raises:
            RequestError: If the sub-model cannot be made smaller in that way.
        """
        elastic = (ELASTIC,) if method == "elastic" and self.part == "decoder" else ()
        found = tuple(r for r in RECIPES[self.part] if method in (None, r.method)) + elastic
        if not found:
            methods = dict.fromkeys(recipe.method for recipe in RECIPES[self.part])
            raise RequestError(
                f"method is {method!r}, for the {self.part} there are {', '.join(methods)}; take one of these"
            )
        return found

    def choose(
        self, *, max_memory_mb: float, max_latency_s: float, method: Method | None = None
    ) -> Need:
        """The first recipe that keeps both limits.

        Args:
            max_memory_mb: That opening and running the graph may add to a process.
            max_latency_s: Of one call on the device.
            method: Of which the recipes are tried; all when left out.

        Raises:
            RequestError: If none does.
        """
        least: Need | None = None
        for recipe in self.recipes(method):
            need = self.need(recipe)
            if need.latency_s <= max_latency_s and need.cost.memory_mb <= max_memory_mb:
                return need
            if least is None or need.latency_s <= least.latency_s:
                least = need
        assert least is not None
        raise RequestError(
            f"no recipe keeps {max_memory_mb:g} MB and {max_latency_s:g} s: the smallest, {least.recipe}, takes "
            f"{least.cost.memory_mb:.0f} MB and {least.latency_s:.2g} s of device {self.device.name} at "
            f"{self.size_px} pixels; allow as much, or take a smaller size"
        )

    def need(self, recipe: Recipe) -> Need:
        """What a recipe's model takes, before it is taught: that changes its numbers alone."""
        model = self.build(recipe)
        flops = self._flops(model, self._shapes(self.size_px))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.onnx"
            path.write_bytes(self._export(model, recipe.precision))
            cost = measure_graph(path, self._shapes(self.size_px))
        return Need(recipe=recipe, flops=flops, latency_s=self.device.compute_s(flops), cost=cost)

    def build(self, recipe: Recipe) -> nn.Module:
        """A recipe's model, not taught yet."""
        if recipe not in self._made:
            self._made[recipe] = self._build(recipe)
        return self._made[recipe]

    def teach(
        self, model: nn.Module, method: Method, *, minutes: float, steps: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, int]:  # fmt: skip
        """Let a model learn from the bundle's, in place: its outputs, and what an encoder sees in them.

        Args:
            model: Of `build`, or a copy.
            method: By which it was made.
            minutes: That it may take, where no steps are given.
            steps: After which it ends whatever the time, so that the same machine comes to the same numbers.
            progress: Told the percent done and 100.

        Returns:
            Steps, seconds and views.
        """
        rng = np.random.default_rng(self.rng_seed)
        begun = time.monotonic()
        loss = self._loss_of_sizes(rng) if method == "elastic" else self._loss
        lessons = draw_lessons(self._views, self._encoder, rng)
        taken = teach(
            model, loss, lessons, seconds=60 * minutes, steps=steps, rate=_RATES.get(method, 3e-4),
            progress=progress,
        )  # fmt: skip
        took_s = round(time.monotonic() - begun)
        return {"steps": taken, "seconds": took_s, "views": len(self._views)}

    def write(
        self, need: Need, folder: Path, *, minutes: float = 5.0, steps: int | None = None,
        model: nn.Module | None = None, progress: Progress | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Carry out a recipe and write it into a variant; its other sub-models stay.

        Args:
            need: Of `choose` or `need`.
            folder: Made where there is none.
            minutes: To teach it, as of `teach`; a model that is taken as it is needs none.
            steps: As of `teach`.
            model: Of `build`, where it has been taught before.
            progress: As of `teach`.

        Returns:
            The model's card, as it stands in the manifest.

        Raises:
            RequestError: If the folder has something else in it.
        """
        content = _begin(folder, self._bundle.checksum)
        recipe, taught = need.recipe, {"steps": 0, "seconds": 0, "views": 0}
        if model is None:
            model = copy.deepcopy(self.build(recipe))
            if recipe.method != "none":
                taught = self.teach(
                    model, recipe.method, minutes=minutes, steps=steps, progress=progress
                )
        for left in (*folder.glob(f"{self.part}.*"), *folder.glob(f"{self.part}-*.onnx")):
            left.unlink()
        entry: dict[str, Any] = {"inputs": EXPORTED[self.part], "output": OUTPUTS[self.part]}
        content["models"][self.part] = entry
        if recipe.method == "elastic":
            entry["sizes"] = self._write_sizes(model, recipe.precision, folder, content, entry)
        else:
            path = folder / f"{self.part}.{recipe.precision}.onnx"
            path.write_bytes(self._export(model, recipe.precision))
            entry |= {**self._rates(model), "graphs": {recipe.precision: describe_graph(path)}}
        write_manifest(folder, content)
        card = self._measure(need, model, folder, taught)
        entry["card"] = card
        write_manifest(folder, content)
        (folder / "README.md").write_text(describe_variant(content), encoding="utf-8")
        return card

    def _measure(
        self, need: Need, model: nn.Module, folder: Path, taught: dict[str, int]
    ) -> dict[str, Any]:
        shapes, teacher = self._shapes(self.size_px), Manifest(self._bundle.folder)
        before = measure_graph(teacher.graph(self.part, "fp32"), shapes)
        now = measure_graph(Manifest(folder).graph(self.part, need.recipe.precision), shapes)
        files = (*folder.glob(f"{self.part}.*"), *folder.glob(f"{self.part}-*.onnx"))
        return {
            "recipe": str(need.recipe),
            "size_px": self.size_px,
            "parameters": _count(model),
            "parameters_of_teacher": _count(self._teacher),
            "megabytes": sum(path.stat().st_size for path in files) / 1e6,
            "megabytes_of_teacher": 4 * _count(self._teacher) / 1e6,
            "gigaflops": need.flops / 1e9,
            "gigaflops_of_teacher": self._flops(self._teacher, shapes) / 1e9,
            "latency_s": {
                self.device.name: need.latency_s,
                "this machine": now.seconds,
                "this machine, teacher in fp32": before.seconds,
            },
            "energy_j": {self.device.name: self.device.compute_j(need.latency_s)},
            "memory_mb": now.memory_mb,
            "memory_mb_of_teacher": before.memory_mb,
            "quality": self._judge.judge(OnnxModels(self._bundle.folder, variant=folder)),
            "taught": {**taught, "rng_seed": self.rng_seed},
        }

    def _write_sizes(
        self, model: nn.Module, precision: Precision, folder: Path, content: dict[str, Any],
        entry: dict[str, Any],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """One file of weights, and a graph of each size that is made of its part of them."""
        path = folder / f"{self.part}.safetensors"
        weights = {name: values.half() for name, values in model.state_dict().items()}
        path.write_bytes(save({name: values.contiguous() for name, values in weights.items()}))
        entry["weights"] = {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        sizes = []
        for size in SIZES:
            smaller = size.make()
            smaller.load_state_dict({k: values.float() for k, values in cut(weights, size).items()})
            graph = folder / f"{self.part}-{size.width}x{size.blocks}.{precision}.onnx"
            fitted = self._calibrate() if precision == "int8" else None
            graph.write_bytes(export_cut(smaller, self.part, precision, path, calibration=fitted))
            told = {
                "size": str(size), **self._rates(smaller),
                "graphs": {precision: describe_graph(graph)},
            }  # fmt: skip
            # Judged while it is the only one.
            entry |= {"sizes": [told], **{key: told[key] for key in _CALLED}}
            write_manifest(folder, content)
            told["quality"] = self._judge.judge(OnnxModels(self._bundle.folder, variant=folder))
            sizes.append(told)
        return sizes

    def _build(self, recipe: Recipe) -> nn.Module:
        if recipe.method == "low_rank":
            return decompose(self._teacher, recipe.keep)
        if recipe.method == "none":
            return self._teacher
        lessons = draw_lessons(self._views, self._encoder, np.random.default_rng(self.rng_seed))
        inputs = [self._given(lesson) for lesson in islice(lessons, _WEIGHED)]
        if recipe.method == "prune":
            return prune(self._teacher, inputs, recipe.keep)
        size = LARGEST if recipe.method == "elastic" else recipe.size
        assert size is not None
        assert isinstance(self._teacher, Decoder)
        student = size.make()
        inherit(student, self._teacher, inputs)
        return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _given(self, lesson: Lesson) -> tuple[Tensor, ...]:
        """What the sub-model is called with."""
        encodes = self.part == "encoder"
        return (lesson.image,) if encodes else (lesson.latent, lesson.noise_power)

    def _loss(self, model: Callable[..., Tensor], lesson: Lesson) -> Tensor:
        told = lesson.noise_power
        if self.part == "encoder":
            with torch.no_grad():
                latent = self._encoder(lesson.image)
            return nn.functional.mse_loss(model(lesson.image), latent)
        with torch.no_grad():
            shown = self._teacher(lesson.latent, told)
        # Half of what is to be seen, half of what the teacher shows of it.
        wanted = (lesson.image + shown) / 2
        decoded = model(lesson.latent, told)
        loss = output_loss(decoded, wanted, weigh(lesson.image, told), told)
        return loss + feature_loss(decoded, wanted, self._encoder)

    def _loss_of_sizes(self, rng: np.random.Generator) -> Callable[[nn.Module, Lesson], Tensor]:
        """Of two sizes at a time, which share what the smaller one has."""
        shapes = {size: size.make() for size in SIZES}

        def loss(model: nn.Module, lesson: Lesson) -> Tensor:
            losses = []
            for index in rng.choice(len(SIZES), 2, replace=False):
                size = SIZES[index]
                weights = cut(dict(model.named_parameters()), size)
                losses.append(self._loss(_call(shapes[size], weights), lesson))
            return torch.stack(losses).mean()

        return loss

    def _export(self, model: nn.Module, precision: Precision) -> bytes:
        fitted = self._calibrate() if precision == "int8" else None
        return export_whole(model, self.part, precision, calibration=fitted)

    def _calibrate(self) -> Iterator[Inputs]:
        """Inputs as the model meets them: with the noise of the air, or of the steps before."""
        rng = np.random.default_rng(0)
        pictures = draw_views(range(FITTED_ON, FITTED_ON + _FITTED))
        for picture, latent in zip(pictures, self._bundle.encode(pictures), strict=True):
            noise = rng.standard_normal(latent.shape).astype(np.float32)
            if self.part == "encoder":
                yield {"pictures": picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1}
            elif self.part == "decoder":
                power = np.full(1, rng.choice([0.0, 0.0, 0.1, 1.0]), np.float32)
                yield {"latents": (latent + power**0.5 * noise)[None], "noise_power": power}
            else:
                sigma = np.full(1, rng.uniform(0.05, 0.7), np.float32)
                yield {
                    "latents": ((1 - sigma) * latent + sigma * noise)[None],
                    "sigma": sigma,
                }

    def _flops(self, model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> float:
        given = tuple(torch.zeros(shape) for shape in shapes.values())
        return count_flops(model, "forward", given, {})

    def _rates(self, model: nn.Module) -> dict[str, float]:
        """Operations by the size of what is worked on, as `OnnxModels` charges them."""
        if self.part == "student":  # it knows one grid alone
            return {
                "flops_per_cell": 0.0,
                "flops_per_item": self._flops(model, self._shapes(256)),
            }
        small, large = (self._flops(model, self._shapes(size)) for size in (256, 512))
        cells = 256**2 // FACTOR**2
        slope = (large - small) / (3 * cells)
        return {"flops_per_cell": slope, "flops_per_item": small - slope * cells}

    def _shapes(self, size_px: int) -> dict[str, tuple[int, ...]]:
        """Of one call's inputs."""
        side = size_px // FACTOR
        shapes: dict[str, dict[str, tuple[int, ...]]] = {
            "decoder": {"latents": (1, 4, side, side), "noise_power": (1,)},
            "encoder": {"pictures": (1, 3, size_px, size_px)},
            "student": {"latents": (1, 4, 32, 32), "sigma": (1,)},
        }
        return shapes[self.part]

    @cached_property
    def _encoder(self) -> nn.Module:
        return _plain(self._bundle, "encoder")

    @cached_property
    def _views(self) -> NDArray[np.uint8]:
        return draw_views(range(TAUGHT_ON, TAUGHT_ON + _VIEWS))


def _plain(bundle: Bundle, part: str) -> nn.Module:
    """A model of the bundle without what counts its operations."""
    bundle.load(part)
    loaded: nn.Module = getattr(bundle, f"_{part}")
    model = type(loaded)()
    model.load_state_dict(loaded.state_dict())
    model.eval().requires_grad_(part != "encoder")
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _begin(folder: Path, checksum: str) -> dict[str, Any]:
    """The content of a variant's manifest to go on with."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_variant(folder):
        content = Manifest(folder).content
        if content.get("bundle_sha256") == checksum:
            return content
    elif not any(folder.iterdir()):
        return {"bundle_sha256": checksum, "models": {}}
    raise RequestError(
        f"{folder} has something else in it, and no {FILE} of this bundle; take an empty folder or a new one"
    )


def _count(model: nn.Module) -> int:
    return sum(values.numel() for values in model.parameters())


def _call(model: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Tensor]:
    def call(*given: Tensor) -> Tensor:
        made: Tensor = functional_call(model, weights, given)
        return made

    return call
