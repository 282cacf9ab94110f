"""A folder as `megdt compress` writes it, of the bundle's own graphs."""

from __future__ import annotations

import shutil
from pathlib import Path

from megdt.models.cards import BUNDLE, Cards
from megdt.models.manifest import Manifest, write_manifest

DISTANCES = {"256": [0.001, 0.002, 0.003], "512": [0.002]}
"""That are said of their pictures."""


def write_variant(folder: Path, *, cards: bool = False) -> Path:
    """The bundle's encoder and decoder in int8, as if they were smaller ones.

    Args:
        folder: To be made.
        cards: Whether it says of them what a planner reads.
    """
    folder.mkdir()
    models = {}
    for name in ("decoder", "encoder"):
        told = dict(Manifest(BUNDLE).model(name))
        told["graphs"] = {"int8": told["graphs"]["int8"]}
        for file in (f"{name}.safetensors", f"{name}.int8.onnx"):
            shutil.copy(BUNDLE / file, folder)
        if cards:
            told["card"] = {"megabytes": 1.5, "distances_to_teacher": DISTANCES}
        models[name] = told
    write_manifest(folder, {"bundle_sha256": Cards().checksum, "models": models})
    return folder
