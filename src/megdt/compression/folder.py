"""The folder of a variant: what is there stays whole until what replaces it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megdt.errors import RequestError
from megdt.models.manifest import FILE, Manifest, is_variant, write_manifest

PAGE = "README.md"
_NEW = ".new-"
"""How hidden folders begin, in which a part is made."""


def check_folder(folder: Path, checksum: str) -> dict[str, Any]:
    """See that a variant may be written there.

    Args:
        folder: One that can be made or is empty, or a variant to go on with.
        checksum: Of the bundle that it is made of.

    Returns:
        The content of its manifest.

    Raises:
        RequestError: If it has something else in it, or nothing can be written there.
    """
    folder = folder.resolve()
    nothing: dict[str, Any] = {"bundle_sha256": checksum, "models": {}}
    try:
        above = next(place for place in (folder, *folder.parents) if place.exists())
        tempfile.TemporaryFile(dir=above).close()
        if above != folder or all(path.name.startswith(_NEW) for path in folder.iterdir()):
            return nothing
    except OSError as error:
        raise RequestError(
            f"cannot write a folder {folder} ({error.strerror}); choose another by --out"
        ) from None
    if not is_variant(folder):
        raise RequestError(
            f"{folder} has something else in it than smaller models; take an empty folder or a new one"
        )
    content = Manifest(folder).content
    made_of = content.get("bundle_sha256")
    if made_of != checksum:
        raise RequestError(
            f"{folder} was made of bundle {str(made_of)[:12]}, this installation has {checksum[:12]}; take a "
            "new folder"
        )
    bare = [part for part, told in content["models"].items() if "card" not in told]
    if bare:
        raise RequestError(
            f"{folder / FILE} has no card of {', '.join(bare)}, so megdt compress did not write it; take a "
            "new folder"
        )
    return content


@contextmanager
def staging(folder: Path, checksum: str) -> Iterator[Path]:
    """A hidden folder inside, to make a part in; it is gone in the end.

    Raises:
        RequestError: As of `check_folder`.
    """
    check_folder(folder, checksum)
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=_NEW) as name:
            yield Path(name)
    finally:
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()


def publish(
    new: Path, folder: Path, content: dict[str, Any], page: str, *, replaced: list[str]
) -> None:
    """Put a part's files into its folder, the manifest last, by which they are found.

    Args:
        new: Of `staging`, with the files.
        folder: That they go into.
        content: Of the manifest to be.
        page: For people.
        replaced: Names of files that are to be gone.
    """
    made = sorted(new.iterdir())
    for path in made:
        path.replace(folder / path.name)
    (new / PAGE).write_text(page, encoding="utf-8")
    write_manifest(new, content)
    for name in (PAGE, FILE):
        (new / name).replace(folder / name)
    for name in set(replaced) - {path.name for path in made}:
        (folder / name).unlink(missing_ok=True)
