"""Tables of a scenario that are nobody else's: devices, world and writer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from megdt.errors import ScenarioError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.models.pretrained import LatentSpace, find_folder, is_autoencoder, read_space
from megdt.models.writing import ServerWriter
from megdt.records import (
    Side,
)

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle
    from megdt.models.diffusers_adapter import DiffusersModels
    from megdt.models.tiny_autoencoder import TinyAutoencoder


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

    def __post_init__(self) -> None:
        for key in ("scheduler", "ue_autoencoder"):
            value = getattr(self, key)
            if self.name is None and value is not None:
                raise ScenarioError(
                    f"[model] {key} is {value!r} and no pipeline is named; set model.name to one, or "
                    f"leave model.{key} out"
                )
        _ = self.space
        if self.is_autoencoder:
            for key in ("scheduler", "ue_autoencoder"):
                if (value := getattr(self, key)) is not None:
                    raise ScenarioError(
                        f"[model] {key} is {value!r}, and {self.name} is an autoencoder alone; leave "
                        f"model.{key} out"
                    )

    def table(self) -> dict[str, Any]:
        """Its keys, without those that are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @cached_property
    def space(self) -> LatentSpace:
        """What its latents are."""
        return LatentSpace() if self.name is None else read_space(find_folder(self.name))

    @property
    def is_autoencoder(self) -> bool:
        """Whether nothing is named but an autoencoder, which draws no picture."""
        return self.name is not None and is_autoencoder(find_folder(self.name))

    def load(self) -> Bundle | DiffusersModels | TinyAutoencoder:
        """The sub-models; their weights are read when they are first used.

        Raises:
            BundleError: If the pipeline cannot be split.
            MissingExtraError: If what they need is not installed.
        """
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
