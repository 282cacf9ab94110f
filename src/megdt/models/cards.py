"""The bundle's folder: which models there are, their cards and checksums. Needs NumPy alone."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import BundleError

BUNDLE = Path(__file__).parent / "bundle"
GENERATING = ("text_encoder", "denoiser", "encoder", "decoder")
"""The models that make a picture of a prompt."""

NAMES = (*GENERATING, "student", "sketch_adapter", "jscc", "gate", "classifier")

CARD_KEYS = ("task", "data", "recipe", "steps", "seconds", "parameters", "metrics", "sha256")


class Cards:
    """What is known of the models of one folder before any is loaded.

    Args:
        folder: NAME.safetensors and NAME.json for each of NAMES; the package's own by default.
    """

    def __init__(self, folder: Path = BUNDLE) -> None:
        self.folder = folder

    def card(self, name: str) -> dict[str, Any]:
        """The model card: data, steps, seconds, metrics, checksum.

        Raises:
            BundleError: If it is missing or not a card.
        """
        path = self.folder / f"{name}.json"
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"no readable model card at {path} ({error.__class__.__name__}); reinstall megdt "
                "or train the model with its recipe"
            ) from error
        found: dict[str, Any] = card if isinstance(card, dict) else {}
        for key in CARD_KEYS:
            if key not in found:
                raise BundleError(f"{path} has no {key!r}; train the model again with its recipe")
        return found

    @cached_property
    def checksum(self) -> str:
        """One checksum over those of the models that make a picture, so that it names the maker."""
        parts = "".join(self.card(name)["sha256"] for name in GENERATING)
        return hashlib.sha256(parts.encode()).hexdigest()

    def read(self, name: str) -> bytes:
        """The file of a model's weights.

        Raises:
            BundleError: If it is missing, or has another checksum than its card says.
        """
        return read_checked(self.folder / f"{name}.safetensors", self.card(name)["sha256"])


def read_checked(path: Path, sha256: str) -> bytes:
    """A file that must have this checksum.

    Raises:
        BundleError: If it is missing, or has another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"cannot read {path} ({error.strerror}); reinstall megdt or train the model with its recipe"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{path} has checksum {found[:12]}, its card says {sha256[:12]}; the file is damaged or "
            "not the card's, reinstall megdt"
        )
    return content


def read_header(content: bytes) -> tuple[dict[str, dict[str, Any]], int]:
    """Where each tensor of a safetensors file is, and where their bytes begin."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return header, 8 + length


def read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, by name."""
    header, begin = read_header(content)
    kinds = {"F16": "<f2", "F32": "<f4"}
    return {
        name: np.frombuffer(
            content, kinds[told["dtype"]], math.prod(told["shape"]), begin + told["data_offsets"][0]
        ).reshape(told["shape"])
        for name, told in header.items()
    }
