"""What is installed, what is missing, and the command that installs it.

Only the standard library is imported here, so that it can speak where everything else is missing.
"""

from __future__ import annotations

import importlib
import platform
import sys
from dataclasses import dataclass
from importlib import metadata

# Import name, package, the command that installs it.
_NEEDED = (
    ("numpy", "numpy", "pip install numpy"),
    ("onnxruntime", "onnxruntime", "pip install onnxruntime"),
    ("constriction", "constriction", "pip install constriction"),
    ("simpy", "simpy", "pip install simpy"),
    ("msgspec", "msgspec", "pip install msgspec"),
    ("websockets", "websockets", "pip install websockets"),
    ("PIL", "pillow", "pip install pillow"),
    ("rich", "rich", "pip install rich"),
    ("typer", "typer", "pip install typer"),
)
_OPTIONAL = (
    ("torch", "torch", "pip install torch==2.13.0"),
    ("numba", "numba", "pip install 'megdt[sim]'"),
    ("safetensors", "safetensors", "pip install 'megdt[sim]'"),
    ("jaxtyping", "jaxtyping", "pip install 'megdt[sim]'"),
    # The wheel needs these of the system; generating and decoding need neither.
    ("skia", "skia-python", "pip install skia-python; apt-get install libegl1 libgl1"),
    # Not imported here: it takes seconds, and a version tells enough.
    (None, "sionna-no-rt", "pip install 'megdt[channels]'"),
    (None, "sionna-rt", "pip install 'megdt[rt]'; apt-get install libllvm15"),
    ("pillow_jxl", "pillow-jxl-plugin", "pip install 'megdt[images]'"),
    ("sigmf", "sigmf", "pip install 'megdt[sigmf]'"),
    ("httpx", "httpx", "pip install 'megdt[text]'"),
    ("sqlalchemy", "sqlalchemy", "pip install 'megdt[postgres]'"),
    ("psycopg", "psycopg", "pip install 'megdt[postgres]'"),
    ("starlette", "starlette", "pip install 'megdt[serve]'"),
    ("uvicorn", "uvicorn", "pip install 'megdt[serve]'"),
    ("cryptography", "cryptography", "pip install 'megdt[serve]'"),
    ("prometheus_client", "prometheus-client", "pip install 'megdt[serve]'"),
    ("onnx", "onnx", "pip install 'megdt[export]'"),
    ("onnxscript", "onnxscript", "pip install 'megdt[export]'"),
    (None, "torch-pruning", "pip install 'megdt[compress]'"),
    (None, "tensorly", "pip install 'megdt[compress]'"),
    (None, "diffusers", "pip install 'megdt[diffusers]'"),
    (None, "transformers", "pip install 'megdt[diffusers]'"),
    (None, "accelerate", "pip install 'megdt[diffusers]'"),
    ("torchmetrics", "torchmetrics", "pip install torchmetrics"),
    # Its declared dependencies want a torchvision that megdt does not need; it is never imported.
    (None, "stlpips_pytorch", "pip install --no-deps stlpips-pytorch"),
    ("skimage", "scikit-image", "pip install scikit-image"),
    ("sklearn", "scikit-learn", "pip install scikit-learn"),
    ("matplotlib", "matplotlib", "pip install matplotlib"),
)
_PURPOSE = {
    "torch": "all that generates",
    "numba": "simulated links",
    "safetensors": "all that generates",
    "jaxtyping": "all that generates",
    "skia-python": "the garden world",
    "sionna-no-rt": "channels of TR 38.901",
    "sionna-rt": "the city world",
    "pillow-jxl-plugin": "JPEG XL",
    "sigmf": "recordings",
    "httpx": "texts from a server",
    "sqlalchemy": "a twin's store in PostgreSQL",
    "psycopg": "a twin's store in PostgreSQL",
    "starlette": "an edge server",
    "uvicorn": "an edge server",
    "cryptography": "a certificate for trying out",
    "prometheus-client": "an edge server",
    "onnx": "a UE's models written anew",
    "onnxscript": "a UE's models written anew",
    "torch-pruning": "models made smaller for a UE",
    "tensorly": "models made smaller for a UE",
    "diffusers": "Stable Diffusion, SDXL, SD3 and Flux",
    "transformers": "Stable Diffusion, SDXL, SD3 and Flux",
    "accelerate": "Stable Diffusion, SDXL, SD3 and Flux",
    "torchmetrics": "SSIM and MS-SSIM",
    "stlpips_pytorch": "perceptual distance, KID and Frechet distance",
    "scikit-image": "studies",
    "scikit-learn": "studies",
    "matplotlib": "plots",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One part of the installation."""

    part: str
    found: str
    """Version, or what is wrong."""
    ok: bool
    needed: bool
    """Whether megdt works at all without it."""
    fix: str
    """A command that mends it."""


def examine() -> list[Finding]:
    """Look at every part: the interpreter, needed packages, the bundle, optional packages."""
    version = platform.python_version()
    found = [
        Finding(
            part="python", found=version, ok=sys.version_info >= (3, 11), needed=True,
            fix="install Python 3.11 or newer",
        )
    ]  # fmt: skip
    found += [_package(*row, needed=True) for row in _NEEDED]
    found.append(_bundle(complete=all(finding.ok for finding in found)))
    found += [_package(*row, needed=False) for row in _OPTIONAL]
    return found


def _package(module: str | None, package: str, fix: str, *, needed: bool) -> Finding:
    part = package if needed else f"{package} ({_PURPOSE[package]})"
    try:
        found, ok = metadata.version(package), True
        if module is not None:
            importlib.import_module(module)
    except metadata.PackageNotFoundError:
        found, ok = "missing", False
    except (ImportError, OSError) as error:
        found, ok = f"does not import: {' '.join(str(error).split())}", False
    return Finding(part=part, found=found, ok=ok, needed=needed, fix=fix)


def _bundle(*, complete: bool) -> Finding:
    found, ok = "cannot be checked before the packages above are there", False
    if complete:
        from megdt.errors import BundleError
        from megdt.models.cards import NAMES, Cards

        try:
            for name in NAMES:
                Cards().read(name)
            found, ok = f"{len(NAMES)} models, checksums right", True
        except BundleError as error:
            found = str(error)
    return Finding(part="bundle", found=found, ok=ok, needed=True, fix="install megdt again")
