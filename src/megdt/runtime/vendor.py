"""What the web pages need of others: ONNX Runtime Web and uPlot, from the npm registry, checked.

They are too large to be kept with the code (14 MB), so they are fetched once, by version and hashes:

python -m megdt.runtime.vendor
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from megdt.errors import OutputError

PAGES = Path(__file__).parent.parent / "browser"
FOLDER = PAGES / "vendor"
PACKAGES = {
    "onnxruntime-web@1.30.0": {
        "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
    "uplot@1.6.32": {
        "uPlot.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    },
}
"""Files of each package's folder dist, with their SHA-256."""


def missing(folder: Path = FOLDER) -> list[str]:
    """Files that are not there, or not what they are to be."""
    return [
        name for files in PACKAGES.values() for name, wanted in files.items()
        if not (folder / name).is_file() or _hash(folder / name) != wanted
    ]  # fmt: skip


def fetch(folder: Path = FOLDER) -> None:
    """Fetch what is missing; nothing of the packages is run.

    Raises:
        OutputError: If npm is not there or fails, or a file has another hash than it had.
    """
    lacking = missing(folder)
    for package, files in PACKAGES.items():
        if not set(lacking).isdisjoint(files):
            _fetch(package, files, folder)


def _fetch(package: str, files: Mapping[str, str], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise OutputError(f"the web pages need {package}, and npm to fetch it; install npm")
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [npm, "pack", package, "--ignore-scripts", "--pack-destination", place],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = list(Path(place).glob("*.tgz"))
        if done.returncode or not found:
            raise OutputError(f"npm pack {package} failed: {' '.join(done.stderr.split())[-200:]}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(found[0]) as archive:
            for name, wanted in files.items():
                member = archive.extractfile(f"package/dist/{name}")
                content = b"" if member is None else member.read()
                if hashlib.sha256(content).hexdigest() != wanted:
                    raise OutputError(f"{name} of {package} is not the file that it was")
                (folder / name).write_bytes(content)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    fetch()
