"""What runs without torch: the graphs of a folder, as server, Python UE and browser read of them.

`manifest.json` says of each sub-model what goes in and out, what a call costs, and of each precision the
file, its checksum and what it loses. Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

from megdt.errors import BundleError
from megdt.records import Precision

FILE = "manifest.json"


def graph_name(name: str, precision: Precision) -> str:
    """The file of a graph, beside the manifest."""
    return f"{name}.{precision}.onnx"


def _check_model(name: str, told: dict[str, Any]) -> None:
    """See that what is said of a model, or of a size of it, can be gone by.

    Raises:
        ValueError, TypeError, KeyError: If not.
    """
    rates = [told[key] for key in ("flops_per_cell", "flops_per_item")]
    if not all(isinstance(rate, int | float) and 0 <= rate < math.inf for rate in rates):
        raise ValueError("flops")
    if not sum(rates) > 0 or not told["graphs"]:
        raise ValueError("flops or graphs")
    for graph in told["graphs"].values():
        _check_file(name, graph)


def _check_file(name: str, told: dict[str, Any]) -> None:
    """Its name begins with the part's, so that files of two folders are not taken for each other."""
    if not told["file"].startswith((f"{name}.", f"{name}-")) or "/" in told["file"]:
        raise ValueError("file")
    if not isinstance(told["sha256"], str):
        raise TypeError("sha256")


def list_files(told: dict[str, Any]) -> list[str]:
    """The files of a sub-model, by what a manifest says of it."""
    graphs = [
        graph
        for size in (told, *told.get("sizes", []))
        for graph in size.get("graphs", {}).values()
    ]
    weights = [told["weights"]] if "weights" in told else []
    return list(dict.fromkeys(file["file"] for file in (*graphs, *weights)))


class Manifest:
    """What a folder's manifest says; it is read when it is first asked.

    Args:
        folder: Of the manifest and the graphs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def content(self) -> dict[str, Any]:
        """All of it.

        Raises:
            BundleError: If it cannot be read.
        """
        path = self.folder / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for name, told in found["models"].items():
                for size in (told, *told.get("sizes", [])):
                    _check_model(name, size)
                if "sizes" in told and not told["sizes"]:
                    raise ValueError("no sizes")
                if "weights" in told:
                    _check_file(name, told["weights"])
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise BundleError(
                f"no readable {FILE} in {self.folder} ({error.__class__.__name__}); reinstall megdt, or "
                "write a new folder with megdt compress"
            ) from error
        content: dict[str, Any] = found
        return content

    def model(self, name: str) -> dict[str, Any]:
        """What is said of a sub-model: inputs, output, flops_per_cell, flops_per_item, graphs.

        Raises:
            BundleError: If there is nothing.
        """
        try:
            told: dict[str, Any] = self.content["models"][name]
        except KeyError:
            raise BundleError(
                f"{self.folder / FILE} has no {name!r}, it has {', '.join(self.content['models'])}"
            ) from None
        return told

    def sizes(self, name: str) -> list[dict[str, Any]]:
        """The sizes that a sub-model can be run at, the smallest first; most have one.

        Raises:
            BundleError: If there is no such sub-model.
        """
        told = self.model(name)
        found: list[dict[str, Any]] = told.get("sizes", [told])
        return found

    def graph(self, name: str, precision: Precision, size: int = -1) -> Path:
        """The file of a graph, which is the one that the manifest speaks of.

        Args:
            name: Of the sub-model.
            precision: That it computes in; where there is one graph alone, that one is taken.
            size: Place among its sizes.

        Raises:
            BundleError: If there is none, or it is another.
        """
        graphs: dict[str, dict[str, Any]] = self.sizes(name)[size]["graphs"]
        told = graphs.get(precision) or (next(iter(graphs.values())) if len(graphs) == 1 else None)
        if told is None:
            raise BundleError(
                f"{self.folder} has no {name} in {precision}, it has {', '.join(graphs)}; take one of these, or "
                "write a new folder with megdt compress"
            )
        return self._checked(told)

    def weights(self, name: str) -> Path | None:
        """The file that a sub-model's graphs take weights from, where these are not in them.

        Raises:
            BundleError: If it is missing, or it is another.
        """
        told = self.model(name).get("weights")
        return None if told is None else self._checked(told)

    def _checked(self, told: dict[str, Any]) -> Path:
        path: Path = self.folder / told["file"]
        try:
            if path.parent != self.folder:
                raise FileNotFoundError  # of another folder
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except (OSError, ValueError):
            found = ""
        if found != told["sha256"]:
            raise BundleError(
                f"{path} is missing or is not the one of {FILE} beside it; reinstall megdt, or write a "
                "new folder with megdt compress"
            )
        return path


def is_variant(folder: Path) -> bool:
    """Whether a folder has smaller sub-models of a bundle, as `compression` writes them."""
    try:
        return "bundle_sha256" in json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def open_variant(folder: Path, checksum: str) -> Manifest:
    """The manifest of a variant.

    Args:
        folder: That `compression` has written.
        checksum: Of the bundle that the other models come from.

    Raises:
        BundleError: If there is none, or it was made of another bundle.
    """
    manifest = Manifest(folder)
    made_of = manifest.content.get("bundle_sha256")
    if made_of is None:
        raise BundleError(f"{folder} is no folder of smaller models; write one with megdt compress")
    if made_of != checksum:
        raise BundleError(
            f"{folder} was made of bundle {str(made_of)[:12]}, this installation has {checksum[:12]}; write "
            "a new one with megdt compress"
        )
    return manifest


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a folder's manifest."""
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def describe_graph(path: Path, **facts: Any) -> dict[str, Any]:
    """What a manifest says of a graph."""
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    return {"file": path.name, "bytes": len(content), "sha256": checksum, **facts}
