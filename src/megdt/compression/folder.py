"""The folder of a variant, which is whole or is not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megdt.errors import RequestError
from megdt.models.manifest import FILE, Manifest, is_variant


def check_folder(folder: Path, checksum: str) -> dict[str, Any]:
    """See that a variant may be written there.

    Args:
        folder: One that is not there or is empty, or a variant to go on with.
        checksum: Of the bundle that it is made of.

    Returns:
        The content of its manifest.

    Raises:
        RequestError: If it has something else in it.
    """
    try:
        if is_variant(folder):
            content = Manifest(folder).content
            if content.get("bundle_sha256") == checksum:
                return content
        elif not folder.exists() or not any(folder.iterdir()):
            return {"bundle_sha256": checksum, "models": {}}
    except NotADirectoryError:
        raise RequestError(f"{folder} is a file; take an empty folder or a new one") from None
    raise RequestError(
        f"{folder} has something else in it, and no {FILE} of this bundle; take an empty folder or a new one"
    )


@contextmanager
def replacing(folder: Path, checksum: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A copy to work on, with its manifest's content, that takes the folder's place in the end.

    Raises:
        RequestError: As of `check_folder`.
    """
    check_folder(folder, checksum)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        new, old = Path(name) / "new", Path(name) / "old"
        if folder.exists():
            shutil.copytree(folder, new)
        else:
            new.mkdir()
        yield new, check_folder(new, checksum)
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
