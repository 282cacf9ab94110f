"""Where a diffusers pipeline lies, and what its latents are, without diffusers or torch.

Both ends have to know a seed's shape before anything is loaded, so that is read from the pipeline's
configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from megdt.errors import BundleError, MissingExtraError
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.models.cards import read_header

INDEX = "model_index.json"
_LONGEST_HEADER = 2**26
DTYPES = ("float32", "float16", "bfloat16")
"""That networks of a pipeline may compute in."""
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
}
"""That know a latent by its step alone, so that another machine can go on from it."""
_FLOWING = ("StableDiffusion3", "Flux")
"""Families whose latents are on straight ways between picture and noise, so that only `flow` steps them."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """What the autoencoder's latents are; the bundle's where nothing is said."""

    channels: int = LATENT_CHANNELS
    factor: int = FACTOR
    """Pixels along the side of the square that one latent stands for."""


def read_space(folder: Path) -> LatentSpace:
    """The latents of a pipeline, or of an autoencoder alone.

    Raises:
        BundleError: If its autoencoder has none that `diffusers_adapter` knows.
    """
    if is_autoencoder(folder):
        header = read_tensors(find_halves(folder)[1])
        check_numbered(header, str(folder))
        # Each enlargement of the decoder is followed by a convolution without an offset.
        weights = {name for name in header if name.count(".") == 1 and name.endswith(".weight")}
        bare = [name for name in weights if name.replace("weight", "bias") not in header]
        first = min(weights, key=lambda name: int(name.split(".")[0]))
        shape = header[first]["shape"]
        if len(shape) != 4:
            raise BundleError(
                f"{folder} has a {first} of {len(shape)} axes, not of 4; fetch it again"
            )
        return LatentSpace(channels=shape[1], factor=2 ** len(bare))
    return space_of(read_json(folder / "vae" / "config.json"), str(folder))


def read_tensors(path: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of its tensors; they themselves are not read.

    Raises:
        BundleError: If it is no such file.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(8)
            length = int.from_bytes(begin, "little")
            if begin == b"version ":
                raise BundleError(f"{path} only points to its weights; fetch them by git lfs pull")
            if length > _LONGEST_HEADER:
                raise ValueError("no header")
            header, _ = read_header(begin + file.read(length))
            for told in header.values():
                if not (isinstance(told["dtype"], str) and all(n >= 0 for n in told["shape"])):
                    raise ValueError("no tensor")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is not a safetensors file ({error.__class__.__name__}); fetch it again"
        ) from None
    return header


def check_scheduler(folder: Path, scheduler: str) -> None:
    """See that a scheduler steps what a pipeline's denoiser predicts.

    Raises:
        BundleError: If not.
    """
    kind = str(read_json(folder / INDEX).get("_class_name"))
    flows = kind.startswith(_FLOWING)
    if flows != (scheduler == "flow"):
        fitting = ["flow"] if flows else [name for name in SCHEDULERS if name != "flow"]
        raise BundleError(
            f"scheduler is {scheduler!r}, a {kind} is stepped by "
            f"{', '.join(fitting)}; take one of these, or leave it out"
        )


def space_of(config: Mapping[str, Any], name: str) -> LatentSpace:
    """The latents of an autoencoder, by its configuration.

    Raises:
        BundleError: If they are none that `diffusers_adapter` knows.
    """
    # AutoencoderKL and AutoencoderTiny call it differently.
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    channels = config.get("latent_channels")
    if not (isinstance(blocks, list) and isinstance(channels, int)):
        raise BundleError(
            f"{name} has the autoencoder {config.get('_class_name')}, whose latents are not pictures "
            "of one size; take a Stable Diffusion, SDXL, SD3 or Flux pipeline"
        )
    return LatentSpace(channels=channels, factor=2 ** (len(blocks) - 1))


def find_halves(folder: Path) -> tuple[Path, Path]:
    """The weights of a tiny autoencoder's encoder and decoder.

    Raises:
        BundleError: If there are none, or several.
    """
    found = [sorted(folder.glob(f"*_{half}.safetensors")) for half in ("encoder", "decoder")]
    if [len(paths) for paths in found] != [1, 1]:
        raise BundleError(
            f"{folder} has {len(found[0])} encoders and {len(found[1])} decoders; expected one "
            "NAME_encoder.safetensors and one NAME_decoder.safetensors"
        )
    return found[0][0], found[1][0]


def check_numbered(names: Iterable[str], place: str) -> None:
    """See that the weights of a tiny autoencoder are numbered as its layers.

    Raises:
        BundleError: If they are not.
    """
    for name in names:
        if not name.split(".")[0].isdecimal():
            raise BundleError(
                f"{place} has weights {name!r}, those of a tiny autoencoder are numbered as its layers; take "
                "the files as taesd publishes them"
            )


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder has a tiny autoencoder and no pipeline; see `tiny_autoencoder`."""
    return not (folder / INDEX).is_file() and any(folder.glob("*_decoder.safetensors"))


def as_path(name: str) -> Path:
    """Where a name would lie on this machine, whatever it is.

    Raises:
        BundleError: If no place can have it.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"model {name[:60]!r} is no place of a folder ({error}); name a folder, or OWNER/NAME on the hub"
        ) from None
    return path


@lru_cache
def find_folder(name: str) -> Path:
    """The folder of a pipeline, with its configuration; weights may come later.

    Args:
        name: A folder that `save_pretrained` has written, or that has a tiny autoencoder, or a name on the Hugging Face hub, whose
            configuration is then fetched, or taken from where it was fetched to before.

    Raises:
        BundleError: If there is none.
        MissingExtraError: If the hub is named and its client is not installed.
    """
    folder = as_path(name)
    if folder.is_dir():
        if not ((folder / INDEX).is_file() or is_autoencoder(folder)):
            raise BundleError(
                f"{folder} has no {INDEX}, so it is no pipeline's folder, and no manifest of megdt compress; "
                "write it with the save_pretrained of a diffusers pipeline"
            )
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise BundleError(
            f"model {name!r} is neither a folder nor a name on the hub; such a name is "
            "OWNER/NAME, as stabilityai/sd-turbo"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(
            f"model {name} is on the hub; pip install 'megdt[diffusers]'"
        ) from None
    with told_by_hub(name):
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model"]))


def is_cached(name: str) -> bool:
    """Whether a name is of a model on the hub that was fetched before; nothing is fetched to find out."""
    try:
        if not _HUB_NAME.fullmatch(name) or Path(name).exists():
            return False
    except OSError:  # longer than any name of a file
        return False
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    try:
        places = [try_to_load_from_cache(name, file) for file in (INDEX, "config.json")]
    except (OSError, ValueError):  # no name that the hub would take
        return False
    return any(isinstance(place, str) for place in places)


class told_by_hub:  # noqa: N801
    """Says in one line why the hub does not give a model.

    Args:
        name: Of the model.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from huggingface_hub import errors

        name = self._name
        if isinstance(error, OSError | ValueError) and Path(name).expanduser().exists():
            line = " ".join(str(error).split())
            raise BundleError(f"{name} cannot be loaded ({line[:200]}); fetch it again") from None
        if isinstance(error, errors.GatedRepoError):
            raise BundleError(
                f"model {name} is gated; accept its licence at https://huggingface.co/{name}, and log in "
                "with hf auth login"
            ) from None
        if isinstance(error, errors.RepositoryNotFoundError):
            raise BundleError(
                f"the hub has no model {name} that this account may see; check the name"
            ) from None
        if isinstance(error, OSError | ValueError | errors.HfHubHTTPError):
            raise BundleError(
                f"model {name} is not on this machine and the hub cannot be reached; fetch it once with a "
                f"network, by hf download {name}, or name a folder"
            ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A configuration.

    Raises:
        BundleError: If it is missing, or none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"no readable configuration at {path} ({error.__class__.__name__}); write the pipeline "
            "again with its save_pretrained"
        ) from None
    return found if isinstance(found, dict) else {}


def check_memory(folder: Path, itemsize: int, name: str) -> None:
    """See that a pipeline's weights go into the memory that is free.

    Raises:
        BundleError: If not.
    """
    weights = [path for path in loaded_files(folder) if path.suffix in _WEIGHTS]
    needed = sum(p.stat().st_size * itemsize / _stored_itemsize(p) for p in weights)
    free = free_bytes()
    if free is not None and needed > free:
        raise BundleError(
            f"model {name} takes {needed / 1e9:,.1f} GB at {itemsize} bytes a weight, and "
            f"{free / 1e9:,.1f} GB of memory are free; take a smaller model"
            + (", or model.dtype bfloat16" if itemsize > 2 else "")
        )


_WEIGHTS = (".safetensors", ".bin")
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")


def loaded_files(folder: Path) -> list[Path]:
    """The files of a pipeline that are read: configurations and words, and of weights those that diffusers takes
    where no variant is named.
    """
    index = read_json(folder / INDEX)
    parts = [folder / name for name in index if name not in _LEFT_OUT and (folder / name).is_dir()]
    found = [folder / INDEX]
    for part in parts:
        # Files of a variant, such as NAME.fp16.safetensors, hold the same again.
        plain = [p for p in sorted(part.iterdir()) if p.name.count(".") == 1]
        for kind in _WEIGHTS:
            if weights := [p for p in plain if p.suffix == kind]:
                found += weights
                break
        found += [p for p in part.iterdir() if p.suffix in (".json", ".txt", ".model")]
    return sorted(found)


def free_bytes() -> int | None:
    """Memory that is free, where the system tells: of the machine, and of what holds this process."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    told = dict(line.split(":", 1) for line in lines)
    free = 1024 * int(told["MemAvailable"].split()[0])
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{n}").read_text() for n in ("max", "current"))
        return min(free, int(most) - int(used))
    except (OSError, ValueError):  # without such limits
        return free


def _stored_itemsize(file: Path) -> int:
    if file.suffix != ".safetensors":
        return 4
    kinds = {told.get("dtype") for told in read_tensors(file).values()}
    return 2 if kinds & {"F16", "BF16"} else 4
