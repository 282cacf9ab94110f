"""Smaller sub-models for a UE: a recipe that fits its device, carried out, measured and written down.

    maker = Compressor("decoder", device=load_profile("phone"), size_px=512)
    maker.write(maker.choose(max_memory_mb=60, max_latency_s=0.005), Path("small"), minutes=5)

A recipe takes the bundle's model as it is, prunes it, decomposes it, or teaches a smaller one; then it is
written in float16 or int8. What comes of it is a variant: a folder that `OnnxModels` reads beside the bundle.
"""

from __future__ import annotations

import copy
import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from megdt.compression.distillation import (
    Batch,
    TrainingViews,
    draw_views,
    feature_loss,
    output_loss,
    train,
    weigh,
)
from megdt.compression.folder import check_folder, publish, staging
from megdt.compression.graph_cost import GraphCost, measure_graphs
from megdt.compression.quality_check import QualityCheck
from megdt.compression.recipes import ELASTIC, RECIPES, Method, Recipe
from megdt.compression.shrinking import decompose, inherit, prune
from megdt.compression.variant_page import describe_variant
from megdt.errors import RequestError
from megdt.link.energy import DeviceProfile
from megdt.models import FACTOR
from megdt.models.autoencoder import Decoder
from megdt.models.bundle import Bundle
from megdt.models.elastic import LARGEST, SIZES, cut
from megdt.models.flop_counting import count_flops
from megdt.models.manifest import FILE, Manifest, describe_graph, list_files, write_manifest
from megdt.models.onnx_export import Inputs, export_cut, export_whole
from megdt.models.onnx_models import EXPORTED, OUTPUTS, OnnxModels
from megdt.records import Precision

Progress = Callable[[int, int], None]

TRAINED_ON, CALIBRATED_ON = 5_000_000, 10_850_000
"""First seeds of the garden views; those from 10 million on are never trained on."""
_VIEWS, _CALIBRATION_VIEWS = 600, 16
_RATES: dict[Method, float] = {"distill": 1e-3, "elastic": 1.5e-3}
"""Of learning, where more than what was cut away is to be mended."""
_LARGE_VIEWS = 16
"""Of 512 pixels, by which it is told what a planner is to expect there."""
_WEIGHED = 8
"""Batches by which channels are weighed."""
_CALLED = ("flops_per_cell", "flops_per_item", "graphs")
"""What is said of the largest size for who knows of one alone."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one call takes of a sub-model that a recipe makes."""

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
        rng_seed: Draws what is learnt from.

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
        self._checks = {256: QualityCheck(self._bundle, part)}
        if part == "decoder":  # a student knows one grid
            self._checks[512] = QualityCheck(self._bundle, part, count=_LARGE_VIEWS, size_px=512)
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
        self, *, max_memory_mb: float | None = None, max_latency_s: float | None = None,
        method: Method | None = None, precision: Precision | None = None,
    ) -> Estimate:  # fmt: skip
        """The recipe that keeps most of the picture within both limits.

        Args:
            max_memory_mb: That opening and running the graph may add to a process; None for no limit.
            max_latency_s: Of one call on the device; None for no limit.
            method: Of which the recipes are tried; all when left out.
            precision: That the graph is to compute in; the recipe's own when left out.

        Raises:
            RequestError: If none does, or a limit is no number above 0.
        """
        for name, limit in (("max_memory_mb", max_memory_mb), ("max_latency_s", max_latency_s)):
            if limit is not None and not 0 < limit < math.inf:
                raise RequestError(f"{name} is {limit:g}, a limit is a number above 0")
        smallest: tuple[float, Estimate] | None = None
        for recipe in self.recipes(method):
            found = self.estimate(
                recipe if precision is None else replace(recipe, precision=precision)
            )
            share = max(
                found.cost.memory_mb / (max_memory_mb or math.inf),
                found.latency_s / (max_latency_s or math.inf),
            )
            if share <= 1:
                return found
            if smallest is None or share <= smallest[0]:
                smallest = share, found
        assert smallest is not None
        limits = [] if max_memory_mb is None else [f"{max_memory_mb:g} MB"]
        limits += [] if max_latency_s is None else [f"{max_latency_s:g} s"]
        nearest = smallest[1]
        raise RequestError(
            f"no recipe for the {self.part} keeps {' and '.join(limits)}: the nearest, {nearest.recipe}, takes "
            f"{nearest.cost.memory_mb:.0f} MB and {nearest.latency_s:.2g} s of device {self.device.name} at "
            f"{self.size_px} pixels; allow as much, or take a smaller --size"
        )

    def estimate(self, recipe: Recipe) -> Estimate:
        """What a recipe's model takes, before it is trained: that changes its numbers alone."""
        model, shapes = self.build(recipe), self.shapes
        flops = self._flops(model, shapes)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if recipe.method == "elastic":
                paths = self._write_sizes(model, recipe.precision, folder)
            else:
                paths = [folder / "graph.onnx"]
                paths[0].write_bytes(self._export(model, recipe.precision))
            cost = measure_graphs(paths, shapes)
        return Estimate(
            recipe=recipe, flops=flops, latency_s=self.device.compute_s(flops), cost=cost
        )

    def build(self, recipe: Recipe) -> nn.Module:
        """A recipe's model, not trained yet."""
        made_as = replace(recipe, precision="fp32")  # its numbers are not of a precision yet
        if made_as not in self._made:
            self._made[made_as] = self._build(recipe)
        return self._made[made_as]

    def train(
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

        Raises:
            RequestError: If it may take no time.
        """
        if steps is None and not 0 < minutes < math.inf:
            raise RequestError(f"minutes is {minutes:g}, training takes a number above 0")
        rng = np.random.default_rng(self.rng_seed)
        begun = time.monotonic()
        loss = self._loss_of_sizes(rng) if method == "elastic" else self._loss
        taken = train(
            model, loss, self._views.draw_batches(rng), seconds=60 * minutes, steps=steps,
            rate=_RATES.get(method, 3e-4), progress=progress,
        )  # fmt: skip
        took_s = round(time.monotonic() - begun)
        return {"steps": taken, "seconds": took_s, "views": len(self._views)}

    def write(
        self, estimate: Estimate, folder: Path, *, minutes: float = 5.0, steps: int | None = None,
        model: nn.Module | None = None, progress: Progress | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Carry out a recipe and write it into a variant; its other sub-models stay.

        What is in the folder stays as it was until all of it is done.

        Args:
            estimate: Of `choose` or `estimate`.
            folder: Made where there is none.
            minutes: To train it, as of `train`; a model that is taken as it is needs none.
            steps: As of `train`.
            model: Of `build`, where it has been trained before.
            progress: As of `train`.

        Returns:
            The model's card, as it stands in the manifest.

        Raises:
            RequestError: If the folder has something else in it, or as of `train`.
        """
        check_folder(folder, self._bundle.checksum)
        recipe, trained = estimate.recipe, {"steps": 0, "seconds": 0, "views": 0}
        if model is None:
            model = copy.deepcopy(self.build(recipe))
            if recipe.method != "none":
                trained = self.train(
                    model, recipe.method, minutes=minutes, steps=steps, progress=progress
                )
        with staging(folder, self._bundle.checksum) as new:
            entry = self._write_part(estimate, model, new, trained)
            (new / FILE).unlink()
            # What is there may have changed while this one was made.
            content = check_folder(folder, self._bundle.checksum)
            before = content["models"].get(self.part, {})
            content["models"][self.part] = entry
            page = describe_variant(content)
            publish(new, folder, content, page, replaced=list_files(before))
        card: dict[str, Any] = entry["card"]
        return card

    def _write_part(
        self, estimate: Estimate, model: nn.Module, folder: Path, trained: dict[str, int]
    ) -> dict[str, Any]:
        """Into an empty folder; what its manifest says of it."""
        recipe = estimate.recipe
        entry: dict[str, Any] = {"inputs": EXPORTED[self.part], "output": OUTPUTS[self.part]}
        content = {"bundle_sha256": self._bundle.checksum, "models": {self.part: entry}}
        if recipe.method == "elastic":
            paths = self._write_sizes(model, recipe.precision, folder)
            self._describe_sizes(model, recipe.precision, folder, content, paths)
        else:
            paths = [folder / f"{self.part}.{recipe.precision}.onnx"]
            paths[0].write_bytes(self._export(model, recipe.precision))
            graphs = {recipe.precision: describe_graph(paths[0])}
            entry |= {**self._rates(model), "graphs": graphs}
        write_manifest(folder, content)
        entry["card"] = self._measure(estimate, model, folder, paths, trained)
        return entry

    def _measure(
        self, estimate: Estimate, model: nn.Module, folder: Path, paths: list[Path],
        trained: dict[str, int],
    ) -> dict[str, Any]:  # fmt: skip
        shapes, teacher = self.shapes, Manifest(self._bundle.folder)
        before = measure_graphs([teacher.graph(self.part, "fp32")], shapes)
        now = measure_graphs(paths, shapes)
        models = OnnxModels(self._bundle.folder, variant=folder)
        files = (*folder.glob(f"{self.part}.*"), *folder.glob(f"{self.part}-*.onnx"))
        return {
            "recipe": str(estimate.recipe),
            "size_px": 256 if self.part == "student" else self.size_px,
            "parameters": _count(model),
            "parameters_of_teacher": _count(self._teacher),
            "megabytes": sum(path.stat().st_size for path in files) / 1e6,
            "megabytes_of_teacher": 4 * _count(self._teacher) / 1e6,
            "gigaflops": estimate.flops / 1e9,
            "gigaflops_of_teacher": self._flops(self._teacher, shapes) / 1e9,
            "latency_s": {
                self.device.name: estimate.latency_s,
                "this machine": now.seconds,
                "this machine, teacher in fp32": before.seconds,
            },
            "energy_j": {self.device.name: self.device.compute_j(estimate.latency_s)},
            "memory_mb": now.memory_mb,
            "memory_mb_of_teacher": before.memory_mb,
            "quality": self._checks[256].measure(models),
            "distances_to_teacher": self._distances(models),
            "trained": {**trained, "rng_seed": self.rng_seed},
        }

    def _distances(self, models: OnnxModels) -> dict[str, list[float]]:
        """By pictures' size: what the twin's planner reads; none where they cannot be measured, or need not."""
        if self.part == "encoder":  # who is sent a seed encodes nothing
            return {}
        found = {str(size): check.distances(models) for size, check in self._checks.items()}
        return {size: distances for size, distances in found.items() if distances is not None}

    def _write_sizes(self, model: nn.Module, precision: Precision, folder: Path) -> list[Path]:
        """One file of weights, and a graph of each size that is made of its part of them."""
        path = folder / f"{self.part}.safetensors"
        weights = {name: values.half() for name, values in model.state_dict().items()}
        path.write_bytes(save({name: values.contiguous() for name, values in weights.items()}))
        graphs = []
        for size in SIZES:
            smaller = size.make()
            smaller.load_state_dict({k: values.float() for k, values in cut(weights, size).items()})
            graph = folder / f"{self.part}-{size.width}x{size.blocks}.{precision}.onnx"
            fitted = self._calibrate() if precision == "int8" else None
            graph.write_bytes(export_cut(smaller, self.part, precision, path, calibration=fitted))
            graphs.append(graph)
        return graphs

    def _describe_sizes(
        self, model: nn.Module, precision: Precision, folder: Path, content: dict[str, Any],
        paths: list[Path],
    ) -> None:  # fmt: skip
        """Into the manifest, each with what it shows."""
        weights = folder / f"{self.part}.safetensors"
        entry = content["models"][self.part]
        checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
        entry["weights"] = {"file": weights.name, "sha256": checksum}
        sizes = []
        for size, path in zip(SIZES, paths, strict=True):
            smaller = size.make()
            told = {
                "size": str(size), **self._rates(smaller),
                "graphs": {precision: describe_graph(path)},
            }  # fmt: skip
            # Looked at while it is the only one.
            entry |= {"sizes": [told], **{key: told[key] for key in _CALLED}}
            write_manifest(folder, content)
            told["quality"] = self._checks[256].measure(
                OnnxModels(self._bundle.folder, variant=folder)
            )
            sizes.append(told)
        entry["sizes"] = sizes

    def _build(self, recipe: Recipe) -> nn.Module:
        if recipe.method == "low_rank":
            return decompose(self._teacher, recipe.keep)
        if recipe.method == "none":
            return self._teacher
        batches = self._views.draw_batches(np.random.default_rng(self.rng_seed))
        inputs = [self._inputs(batch) for batch in islice(batches, _WEIGHED)]
        if recipe.method == "prune":
            return prune(self._teacher, inputs, recipe.keep)
        size = LARGEST if recipe.method == "elastic" else recipe.size
        assert size is not None
        assert isinstance(self._teacher, Decoder)
        student = size.make()
        inherit(student, self._teacher, inputs)
        return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the sub-model is called with."""
        encodes = self.part == "encoder"
        return (batch.image,) if encodes else (batch.received, batch.noise_power)

    def _loss(self, model: Callable[..., Tensor], batch: Batch) -> Tensor:
        if self.part == "encoder":
            return nn.functional.mse_loss(model(batch.image), batch.latent)
        told, shown = batch.noise_power, batch.decoded
        if (told > 0).any():
            with torch.no_grad():
                shown = self._teacher(batch.received, told)
        # Half of what is to be seen, half of what the teacher shows of it.
        wanted = (batch.image + shown) / 2
        decoded = model(batch.received, told)
        loss = output_loss(decoded, wanted, weigh(batch.image, told), told)
        return loss + feature_loss(decoded, wanted, self._encoder)

    def _loss_of_sizes(self, rng: np.random.Generator) -> Callable[[nn.Module, Batch], Tensor]:
        """Of two sizes at a time, which share what the smaller one has."""
        shapes = {size: size.make() for size in SIZES}

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            losses = []
            for index in rng.choice(len(SIZES), 2, replace=False):
                size = SIZES[index]
                weights = cut(dict(model.named_parameters()), size)
                losses.append(self._loss(_call(shapes[size], weights), batch))
            return torch.stack(losses).mean()

        return loss

    def _export(self, model: nn.Module, precision: Precision) -> bytes:
        fitted = self._calibrate() if precision == "int8" else None
        return export_whole(model, self.part, precision, calibration=fitted)

    def _calibrate(self) -> Iterator[Inputs]:
        """Inputs as the model meets them: with the noise of the air, or of the steps before."""
        rng = np.random.default_rng(0)
        pictures = draw_views(range(CALIBRATED_ON, CALIBRATED_ON + _CALIBRATION_VIEWS))
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

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the inputs of one call, at the size that limits and latencies are of."""
        return self._shapes(self.size_px)

    @cached_property
    def _encoder(self) -> nn.Module:
        return _plain(self._bundle, "encoder")

    @cached_property
    def _views(self) -> TrainingViews:
        return TrainingViews(self._bundle, range(TRAINED_ON, TRAINED_ON + _VIEWS))


def _plain(bundle: Bundle, part: str) -> nn.Module:
    """A model of the bundle without what counts its operations."""
    bundle.load(part)
    loaded: nn.Module = getattr(bundle, f"_{part}")
    model = type(loaded)()
    model.load_state_dict(loaded.state_dict())
    model.eval().requires_grad_(part != "encoder")
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _count(model: nn.Module) -> int:
    return sum(values.numel() for values in model.parameters())


def _call(model: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Tensor]:
    def call(*given: Tensor) -> Tensor:
        made: Tensor = functional_call(model, weights, given)
        return made

    return call
