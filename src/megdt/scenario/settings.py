"""Tables of a scenario that are nobody else's: devices, world and writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdt.codecs.jscc import CARD
from megdt.errors import BundleError, ScenarioError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.models.cards import BUNDLE
from megdt.models.pretrained import (
    DTYPES,
    SCHEDULERS,
    LatentSpace,
    as_path,
    check_scheduler,
    find_folder,
    is_autoencoder,
    is_cached,
    read_space,
)
from megdt.models.writing import ServerWriter
from megdt.records import (
    Side,
)

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle
    from megdt.models.diffusers_adapter import DiffusersModels
    from megdt.models.tiny_autoencoder import TinyAutoencoder
    from megdt.models.variant import VariantModels


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What the sides are: names of `link.energy.DEVICES`, or paths of profiles."""

    es: str = "edge_gpu"
    ue: str = "phone"

    def profiles(self, sides: Iterable[Side]) -> dict[Side, DeviceProfile]:
        """The profiles by side; all UEs are alike."""
        ue, es = load_profile(self.ue), load_profile(self.es)
        return {side: ue if side.is_ue else es for side in sides}


@dataclass(frozen=True, kw_only=True)
class World:
    """What the sides of a scenario see: a garden, drawn from the request's rng_seed.

    Raises:
        ScenarioError: If a number is out of its range.
    """

    ues: int = 4
    """Cameras, where there are many; evenly along the garden, which goes on a little at both ends."""
    spacing_m: float = 2.0
    """From one camera to the next; each sees 4 m."""
    memory_days: float = 3.0
    """How long ago the ES saw what it remembers."""
    hidden: float = 0.0
    """Share of each view that something before the camera hides."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("ues", 1, 64), ("spacing_m", 0.125, 100), ("memory_days", 0, 10_000), ("hidden", 0, 0.9),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ScenarioError(f"[world] {name} is {value}, it goes from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Whose sub-models generate: the bundle's, or a pipeline's; see `models.diffusers_adapter`.

    Raises:
        ScenarioError: If something is chosen of a pipeline and none is named.
        BundleError: If there is no such pipeline.
    """

    name: str | None = None
    """Of a folder, or on the Hugging Face hub; the bundle where left out."""
    dtype: str = "float32"
    scheduler: str | None = None
    """The pipeline's own where left out."""
    ue_autoencoder: str | None = None
    """Folder or hub name of another autoencoder for the UE, such as a tiny one."""
    variant: str | None = None
    """Folder of `megdt compress`, with smaller ones of the bundle's for the UE."""

    def __post_init__(self) -> None:
        if self.variant is not None and self.name is not None:
            raise ScenarioError(
                f"[model] variant is {self.variant!r}, which is of the bundle, and name is {self.name!r}; set "
                "one of them"
            )
        for key in _PLACES:
            value = getattr(self, key)
            if value is not None and as_path(value).is_dir():
                # So that it is found from other folders too.
                object.__setattr__(self, key, str(as_path(value).resolve()))
        if self.dtype not in DTYPES:
            raise ScenarioError(f"[model] dtype is {self.dtype!r}, take one of {', '.join(DTYPES)}")
        if self.scheduler is not None and self.scheduler not in SCHEDULERS:
            raise ScenarioError(
                f"[model] scheduler is {self.scheduler!r}, take one of {', '.join(SCHEDULERS)}"
            )
        for key in ("dtype", "scheduler", "ue_autoencoder"):
            value = getattr(self, key)
            if self.name is None and value != getattr(Model, key):
                raise ScenarioError(
                    f"[model] {key} is {value!r} and no pipeline is named; set model.name to one, or "
                    f"leave model.{key} out"
                )
        _ = self.space
        if self.is_autoencoder:
            for key in ("dtype", "scheduler", "ue_autoencoder"):
                if (value := getattr(self, key)) != getattr(Model, key):
                    raise ScenarioError(
                        f"[model] {key} is {value!r}, and {self.name} is an autoencoder alone; leave "
                        f"model.{key} out"
                    )
        elif self.name is not None and self.scheduler is not None:
            check_scheduler(find_folder(self.name), self.scheduler)

    def table(self) -> dict[str, Any]:
        """Its keys, without those that are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def told(self) -> dict[str, Any]:
        """Its keys for a file that others may read: of a folder the last name alone."""
        table = self.table()
        folders = {key: table[key] for key in _PLACES if Path(table.get(key, "")).is_absolute()}
        return {**table, **{key: Path(folder).name for key, folder in folders.items()}}

    @cached_property
    def space(self) -> LatentSpace:
        """What its latents are."""
        return LatentSpace() if self.name is None else read_space(find_folder(self.name))

    @property
    def code(self) -> Path:
        """The folder with the joint source-channel code of its latents, if there is one; see
        `codecs.jscc`.
        """
        return BUNDLE if self.name is None else find_folder(self.name)

    @property
    def has_code(self) -> bool:
        """Whether there is one."""
        return (self.code / CARD.name).is_file()

    @property
    def is_autoencoder(self) -> bool:
        """Whether nothing is named but an autoencoder, which draws no picture."""
        return self.name is not None and is_autoencoder(find_folder(self.name))

    def load(self) -> Bundle | DiffusersModels | TinyAutoencoder | VariantModels:
        """The sub-models; their weights are read when they are first used.

        Raises:
            BundleError: If the pipeline cannot be split.
            MissingExtraError: If what they need is not installed.
        """
        if self.variant is not None:
            from megdt.models.variant import VariantModels

            return VariantModels(Path(self.variant))
        if self.name is None:
            from megdt.models.bundle import Bundle

            return Bundle()
        if self.is_autoencoder:
            from megdt.models.tiny_autoencoder import TinyAutoencoder

            return TinyAutoencoder(self.name)
        from megdt.models.diffusers_adapter import DiffusersModels

        return DiffusersModels(
            self.name, dtype=self.dtype, scheduler=self.scheduler,
            ue_autoencoder=self.ue_autoencoder,
        )  # fmt: skip


_PLACES = ("name", "ue_autoencoder", "variant")
"""Keys of [model] that say where something lies."""


def take_model(tables: Mapping[str, Any], given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The tables that a file holds, with the models that its reader gives.

    What a file names is not fetched, nor is a folder of that name opened: it may come from anybody. A model of the
    hub that is on this machine already is taken.

    Args:
        tables: Of a scenario.
        given: Keys of [model].
        source: The file, for the message.

    Raises:
        BundleError: If the file names a model, and it is neither given nor here.
    """
    told = tables.get("model", {})
    for key in _PLACES if isinstance(told, Mapping) else ():
        value = told.get(key)
        if value is None or key in given or (isinstance(value, str) and is_cached(value)):
            continue
        if (key == "variant" and "name" in given) or (key == "name" and "variant" in given):
            other = (
                "a folder of megdt compress" if key == "variant" else "a pipeline or an autoencoder"
            )
            raise BundleError(f"{source} was made with {other}, {value!r}; give that by --model")
        how = "--model" if key in ("name", "variant") else f"--set model.{key}=PLACE"
        raise BundleError(
            f"{source} was made with model.{key} {value!r}, which a file may not open by itself; say where it "
            f"lies by {how}"
        )
    model = {**(told if isinstance(told, Mapping) else {}), **given}
    return {**tables, **({"model": model} if model else {})}


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Who writes texts at the ES: the models themselves, or a server; see `writing.ServerWriter`.

    Raises:
        ScenarioError: If there is a model without a server, or `ServerWriter` refuses a value.
    """

    base_url: str | None = None
    model: str | None = None
    max_tokens: int = ServerWriter.max_tokens
    timeout_s: float = ServerWriter.timeout_s

    def __post_init__(self) -> None:
        if self.base_url is None and self.model is not None:
            raise ScenarioError(
                f"writer model is {self.model!r} and no server is named; set writer.base_url to "
                "the one that has it, or leave writer.model out to write offline"
            )
        _ = self.server

    @property
    def server(self) -> ServerWriter | None:
        """The server, if one is to write."""
        if self.base_url is None:
            return None
        return ServerWriter(
            base_url=self.base_url,
            model=self.model,
            max_tokens=self.max_tokens,
            timeout_s=self.timeout_s,
        )
