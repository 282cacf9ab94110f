"""Smaller sub-models that a UE may run in place of the bundle's, as the planner counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.models import FACTOR
from megdt.models.cards import Cards
from megdt.models.manifest import open_variant
from megdt.models.pretrained import as_path
from megdt.twin.ways import Costs, Way

_PLANNED = ("decoder", "student")
"""What a UE that is sent a seed runs; it encodes nothing."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SmallerModel:
    """One sub-model of a variant.

    Args:
        part: Of the bundle, whose place it takes.
        memory_mb: Of its weights, as its files have them.
        flops_per_cell: Operations of a call, for each cell of the latent grid.
        flops_per_item: Those that come on top.
        distances: By pictures' size, ST-LPIPS of pictures to those of the bundle's own, rising.
    """

    part: str
    memory_mb: float
    flops_per_cell: float
    flops_per_item: float
    distances: tuple[tuple[int, tuple[float, ...]], ...]

    def flops(self, size_px: int) -> float:
        """Of a call for a picture of this size."""
        return self.flops_per_cell * (size_px // FACTOR) ** 2 + self.flops_per_item


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What `megdt compress` has written into a folder, as a choice of the planner's.

    Args:
        folder: That a scenario names as `[model] variant`.
        models: Decoder and student, as far as they are in it.
    """

    folder: Path
    models: tuple[SmallerModel, ...]

    @property
    def name(self) -> str:
        """For people."""
        return self.folder.name

    def serves(self, way: Way, size_px: int) -> bool:
        """Whether it has something that this way needs at a UE, and was measured at this size.

        A UE that holds the whole model draws with the bundle's own autoencoder, and has room for its decoder.
        """
        used = self._used(way)
        whole = "encoder" in way.ue_models
        return bool(used) and not whole and all(size_px in dict(m.distances) for m in used)

    def memory_mb(self, costs: Costs, way: Way) -> float:
        """Of all that the UE holds then, `Costs.memory_mb` with these in place of the bundle's."""
        smaller = {model.part: model.memory_mb for model in self._used(way)}
        return sum(smaller.get(part, costs.model_mb(part)) for part in way.ue_models)

    def ue_flops(self, costs: Costs, way: Way, size_px: int) -> Floats:
        """Operations of the UE. [snr]

        Each of these ways calls the decoder once. Students that are made smaller have the operations of the
        bundle's (`compression.recipes`).
        """
        _, found = costs.flops(way, size_px)
        for model in self._used(way):
            if model.part == "decoder":
                found = found - costs.decoder_flops(size_px) + model.flops(size_px)
        return found

    def distance(self, costs: Costs, way: Way, size_px: int) -> Floats:
        """ST-LPIPS of each measured picture to the error-free one of the whole models. [snr, pictures]

        Distances of link and model add up, nearly (measured by studies/compression/planned.py). Which of them
        meet is not known, and what is hard for one is rather hard for the other, so the furthest go together.
        """
        found = costs.distance(way, size_px)
        ranks = found.argsort(axis=1).argsort(axis=1)
        for model in self._used(way):
            known = np.array(dict(model.distances)[size_px])
            found = found + known[((ranks + 0.5) * known.size / found.shape[1]).astype(int)]
        return found

    def _used(self, way: Way) -> list[SmallerModel]:
        return [model for model in self.models if model.part in way.ue_models]


def read_variant(folder: Path) -> Variant:
    """What a folder of smaller sub-models takes and gives.

    Args:
        folder: That `megdt compress` has written.

    Raises:
        BundleError: If it is no such folder, or of another bundle.
        TwinError: If it does not say how far pictures are from those of the whole sub-models.
    """
    folder = as_path(str(folder)).resolve()  # so that it is found from other folders too
    content = open_variant(folder, Cards().checksum).content
    return Variant(
        folder=folder,
        models=tuple(
            _read_model(folder, part, content["models"][part])
            for part in _PLANNED
            if part in content["models"]
        ),
    )


def _read_model(folder: Path, part: str, told: dict[str, Any]) -> SmallerModel:
    try:
        card = told["card"]
        model = SmallerModel(
            part=part,
            memory_mb=float(card["megabytes"]),
            flops_per_cell=float(told["flops_per_cell"]),
            flops_per_item=float(told["flops_per_item"]),
            distances=tuple(
                (int(size), tuple(sorted(float(value) for value in values)))
                for size, values in card["distances_to_teacher"].items()
            ),
        )
        values = [value for _, found in model.distances for value in found]
        if not values or not all(
            0 <= value < math.inf
            for value in (*values, model.memory_mb, model.flops_per_cell, model.flops_per_item)
        ):
            raise ValueError("not what was measured")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise TwinError(
            f"{folder} does not say what its {part} takes and how far its pictures are from those of the bundle's; "
            "write it anew with megdt compress, with stlpips-pytorch installed"
        ) from None
    return model
