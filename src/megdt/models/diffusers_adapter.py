"""A diffusers pipeline as sub-models: text encoder, denoiser from any step to any other, autoencoder.

    models = DiffusersModels("stabilityai/sd-turbo")
    scenario.run(models)

Nothing of a pipeline's denoising is written again here. Its own call runs, with its embeddings given
and its scheduler behind one that shows it a part of the timesteps; so the parts of a generation, one
after the other, give the bits of the whole one. Nobody else imports diffusers.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from megdt.errors import BundleError, MechanismError, MissingExtraError, RequestError
from megdt.models.flop_counting import count_flops, shapes_of
from megdt.models.latent_coding import decode_latents, encode_images
from megdt.models.once import once
from megdt.models.partial_scheduler import (
    PartialScheduler,
    PlannedError,
    PlannedScheduler,
    add_noise,
    levels_of,
    nearest_step,
)
from megdt.models.pretrained import (
    DTYPES,
    INDEX,
    SCHEDULERS,
    check_memory,
    check_scheduler,
    find_folder,
    loaded_files,
    read_json,
    read_space,
    space_of,
    told_by_hub,
)
from megdt.records import Side, Style

try:
    import diffusers
    import torch
    import transformers
    from diffusers.utils.torch_utils import randn_tensor
    from torch import Tensor, nn
except ImportError:
    raise MissingExtraError(
        "a diffusers pipeline needs diffusers and transformers; pip install 'megdt[diffusers]'"
    ) from None

Progress = Callable[[int, int], None]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Family:
    """How pipelines of a class name what they know of the prompt."""

    embeds: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    """Of no prompt, for guidance; none where guidance is the denoiser's own."""
    packed: bool = False
    """Whether latents are two by two in one token."""


_POOLED = _Family(
    ("prompt_embeds", "pooled_prompt_embeds"),
    ("negative_prompt_embeds", "negative_pooled_prompt_embeds"),
)
FAMILIES = {
    "StableDiffusionPipeline": _Family(("prompt_embeds",), ("negative_prompt_embeds",)),
    "LatentConsistencyModelPipeline": _Family(("prompt_embeds",)),
    "StableDiffusionXLPipeline": _POOLED,
    "StableDiffusion3Pipeline": _POOLED,
    "FluxPipeline": _Family(("prompt_embeds", "pooled_prompt_embeds"), packed=True),
}
"""By the class that draws a picture of a prompt."""
IMAGE_TO_IMAGE = {
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "LatentConsistencyModelPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Pipeline",
    "FluxImg2ImgPipeline": "FluxPipeline",
}
"""Made of the same parts."""

_QUIET = threading.RLock()
"""One at a time sets how much the libraries say: it is theirs, not ours."""


class DiffusersModels:
    """The sub-models of a pipeline; arrays go in and out as NumPy, with a leading batch axis.

    What is guided is guided as the pipeline does it, by the embeddings of an empty prompt. Pictures are
    not looked at by a safety checker.

    Args:
        name: A folder, or a name on the hub.
        dtype: That the networks compute in, one of DTYPES.
        scheduler: One of SCHEDULERS, or None for the pipeline's own.
        ue_autoencoder: Folder or hub name of another autoencoder for these latents, such as a tiny one, that UEs
            have; None for the pipeline's own.
        device: Where they run.

    Raises:
        BundleError: If there is no such pipeline, or it cannot be split.
    """

    def __init__(
        self, name: str, *, dtype: str = "float32", scheduler: str | None = None,
        ue_autoencoder: str | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        if dtype not in DTYPES:
            raise BundleError(f"dtype is {dtype!r}, take {', '.join(DTYPES)}")
        dtype_of: torch.dtype = getattr(torch, dtype)
        if scheduler is not None and scheduler not in SCHEDULERS:
            raise BundleError(f"scheduler is {scheduler!r}, take {', '.join(SCHEDULERS)}")
        self.name, self.folder = name, find_folder(name)
        self.space = read_space(self.folder)
        index = read_json(self.folder / INDEX)
        kind = str(index.get("_class_name"))
        self._class = IMAGE_TO_IMAGE.get(kind, kind)
        if self._class not in FAMILIES:
            raise BundleError(
                f"model {name} is a {kind}, which cannot be split; take one of {', '.join(FAMILIES)}"
            )
        if "text_encoder" in index and (index["text_encoder"] or [None])[0] is None:
            raise BundleError(
                f"model {name} refines what another has drawn, and has no text encoder of its own for that; "
                "take the base model"
            )
        if scheduler is not None:
            check_scheduler(self.folder, scheduler)
        self._family = FAMILIES[self._class]
        self._dtype, self._scheduler, self._ue_autoencoder = (
            dtype_of,
            scheduler,
            ue_autoencoder,
        )
        self.device = torch.device(device)
        self._count = threading.local()
        self._lock, self._tokenizers = threading.RLock(), threading.Lock()
        self._plans: dict[tuple[int, int], Any] = {}

    @property
    def flops(self) -> float:
        """Floating point operations of all networks so far, as far as this thread has called them:
        convolutions, matrix products and attention, two for each multiply-add.
        """
        return float(getattr(self._count, "flops", 0.0))

    @once
    def checksum(self) -> str:
        """Over configuration and weights of all parts, another scheduler and another dtype; not over a UE's own
        autoencoder, since both ends compare it.
        """
        chosen = (self._scheduler or "", "" if self._dtype == torch.float32 else str(self._dtype))
        digest = hashlib.sha256("".join(chosen).encode())
        folder = self._weights.parent
        for path in loaded_files(folder):
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def load(self, *names: str) -> None:
        """Read all parts now instead of when they are first used, whatever names the bundle has."""
        _ = self._pipeline if set(names) - {"encoder", "decoder"} else self._vae

    def embed(self, prompts: Sequence[str]) -> Array:
        """All that the text encoders say of prompts, one after the other. [batch, embedding]"""
        positive, _ = self._encode_prompts(list(prompts), guided=False)
        parts = [to_numpy(part).reshape(len(prompts), -1) for part in positive]
        return np.concatenate(parts, 1)

    def denoise(
        self, prompt_embeds: Array, rng_seeds: Sequence[int], *, size_px: int, steps: int,
        guidance_scale: float, handoff_step: int | None = None, progress: Progress | None = None,
    ) -> Array:  # fmt: skip
        """Draw latents, as the pipeline's call does with `output_type="latent"`.

        With a handoff_step they are scaled to about unit variance by a power of two, which loses no bit, and `finish`
        scales them back.

        Args:
            prompt_embeds: Of `embed`. [batch, embedding]
            rng_seeds: One for each picture.
            size_px: Height and width of the picture to come.
            steps: Of the whole generation.
            guidance_scale: How strongly the prompt leads; up to 1 there is no guidance.
            handoff_step: Stop after so many steps.
            progress: Told the steps done and the steps in all.

        Returns:
            [batch, latent_channels, size_px / factor, size_px / factor]

        Raises:
            RequestError: If the pipeline takes no such size, or its scheduler cannot be stopped.
        """
        if handoff_step is not None:
            self._check_stoppable()
        latents = self._run(
            prompt_embeds, _generators(rng_seeds), size_px=size_px, steps=steps,
            guidance_scale=guidance_scale, stop=handoff_step, progress=progress,
        )  # fmt: skip
        if handoff_step is not None:
            latents = latents / self._handoff_scale(size_px, steps, handoff_step)
        return to_numpy(latents)

    def finish(
        self, latents: Array, prompts: Sequence[str], rng_seeds: Sequence[int], *,
        noise_power: float, steps: int, handoff_step: int, guidance_scale: float,
        progress: Progress | None = None,
    ) -> tuple[Array, float]:  # fmt: skip
        """Run the steps that are left, with the same denoiser.

        Where the air has left noise, it goes on from the earlier step whose level is the nearest.

        Args:
            latents: As `denoise` handed them over. [batch, latent_channels, height, width]
            prompts: What they show.
            rng_seeds: Of `denoise`, whose chances go on.
            noise_power: Mean square of the noise that the air has left on them since.
            steps: Of the whole generation.
            handoff_step: How many of them have been run.
            guidance_scale: As of `denoise`.
            progress: Told the steps done and the steps in all.

        Returns:
            [batch, latent_channels, height, width], and the level from which they were denoised, as
            the noise's share in signal and noise.
        """
        self._check_stoppable()
        size_px = latents.shape[-1] * self.space.factor
        levels = self._levels(size_px, steps)
        scale = self._handoff_scale(size_px, steps, handoff_step)
        given = torch.tensor(latents, device=self.device) * scale
        signal, noise = levels[handoff_step]
        start, share = handoff_step, noise / (signal + noise)
        if noise_power > 0:
            raised = math.hypot(noise, math.sqrt(noise_power) * scale)
            start = nearest_step(levels[: handoff_step + 1], signal, raised)
            given, share = given * (levels[start][0] / signal), raised / (signal + raised)
        if start == steps:
            return to_numpy(given), share
        generators = _generators(rng_seeds)
        randn_tensor(given.shape, generator=generators, dtype=self._dtype)  # that it began with
        finished = self._run(
            self.embed(prompts), generators, size_px=size_px, steps=steps,
            guidance_scale=guidance_scale, start=start, latents=given, replay=True,
            progress=progress,
        )  # fmt: skip
        return to_numpy(finished), share

    def edit(
        self, latents: Array, prompt_embeds: Array, rng_seeds: Sequence[int], *, strength: float,
        steps: int, guidance_scale: float, confidence: Array | None = None,
        progress: Progress | None = None,
    ) -> Array:  # fmt: skip
        """Draw latents anew as a prompt says, as the family's image-to-image pipeline does.

        But for latent consistency models, whose own one spaces its steps anew by the strength.

        Args:
            latents: [batch, latent_channels, height, width]
            prompt_embeds: Of `embed`. [batch, embedding]
            rng_seeds: One for each.
            strength: Share of the steps that are run.
            steps: Denoising steps from noise alone.
            guidance_scale: How strongly the prompt leads.
            confidence: 1 where the latent is kept as far as `strength` allows, 0 where there is nothing
                to keep, which is drawn from noise alone; all is kept when left out.
                [batch, height, width]
            progress: Told the steps done and the steps in all.

        Returns:
            [batch, latent_channels, height, width]
        """
        size_px = latents.shape[-1] * self.space.factor
        scheduler = self._planned(size_px, steps)
        first = self._first_of_edit(scheduler, steps, strength)
        hidden = confidence is not None and bool((confidence < 1).any())
        if first == len(scheduler.timesteps) and not hidden:
            return latents
        given = torch.tensor(latents, device=self.device, dtype=self._dtype)
        generators = _generators(rng_seeds)
        noise = randn_tensor(
            given.shape, generator=generators, device=self.device, dtype=self._dtype
        )

        def noised(step: int) -> Tensor:
            if step == len(scheduler.timesteps):
                return given
            return add_noise(copy.deepcopy(scheduler), given, noise, step)

        start, keep = first, None
        if confidence is not None and hidden:
            # What is not there has to be drawn from the beginning.
            keep = torch.tensor(confidence, device=self.device, dtype=self._dtype)[:, None]
            given, start = given * (keep > 0), 0

        def blend(step: int, drawn: Tensor) -> Tensor:
            if keep is None or step > first:
                return drawn
            return keep * noised(step) + (1 - keep) * drawn

        begun = noised(start)
        drawn = self._run(
            prompt_embeds, generators, size_px=size_px, steps=steps,
            guidance_scale=guidance_scale, start=start, latents=begun,
            blend=None if keep is None else blend, progress=progress,
        )  # fmt: skip
        return to_numpy(drawn)

    def decode(self, latents: Array, noise_power: Array | None = None) -> NDArray[np.uint8]:
        """Pictures of latents; what noise the air has left on them is not told to such a decoder.
        [batch, height, width, 3]
        """
        del noise_power
        return decode_latents(self._vae, torch.tensor(latents, device=self.device))

    def encode(self, images: NDArray[np.uint8]) -> Array:
        """Latents of pictures, the mean of each; see `Bundle.encode`.

        Raises:
            RequestError: If a side is not a multiple of the autoencoder's factor.
        """
        batch = torch.tensor(images, device=self.device)
        return to_numpy(encode_images(self._vae, batch, self.space.factor))

    def at(self, side: Side) -> DiffusersModels:
        """What a side has: UEs may have an autoencoder of their own."""
        return self if self._ue_autoencoder is None or not side.is_ue else self._at_ue

    def enlarge(
        self, latents: Array, prompt_embeds: Array, rng_seeds: Sequence[int], *, size_px: int,
        steps: int, guidance_scale: float, progress: Progress | None = None,
    ) -> Array:  # fmt: skip
        """Not of a pipeline, which draws at the size that is wanted."""
        raise self._cannot("draw a first, coarse grid", "es_to_ue")

    def redraw(
        self, sketches: NDArray[np.uint8], prompt_embeds: Array | None, rng_seeds: Sequence[int], *,
        style: Style, steps: int, guidance_scale: float, progress: Progress | None = None,
    ) -> Array:  # fmt: skip
        """Not of a pipeline, which knows no sketches."""
        raise self._cannot("draw a picture again from a sketch", "es_to_ue")

    def fuse(self, latents: Array, confidence: Array, age_s: Array, noise_power: Array) -> Array:
        """Not of a pipeline, for whose latents no gate has been trained."""
        raise self._cannot("fuse two sides' latents", "sequential")

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        """Not of a pipeline; name a server in `[writer]`."""
        raise self._cannot("write", "es_to_ue")

    def _cannot(self, what: str, instead: str) -> MechanismError:
        return MechanismError(
            f"model {self.name} cannot {what}; take mechanism {instead}, or the bundle"
        )

    @once
    def _weights(self) -> Path:
        """The pipeline's index, with all weights beside it."""
        if Path(self.name).expanduser().is_dir():
            return self.folder / INDEX
        with told_by_hub(self.name):
            return Path(diffusers.DiffusionPipeline.download(self.name)) / INDEX

    @once
    def _vae(self) -> nn.Module:
        return self._read_autoencoder(str(self._weights.parent), subfolder="vae")

    @once
    def _at_ue(self) -> DiffusersModels:
        assert self._ue_autoencoder is not None
        return cast(DiffusersModels, _AtUe(self, self._ue_autoencoder))

    def _read_autoencoder(self, place: str, **where: str) -> nn.Module:
        with told_by_hub(place), _quiet():
            load: Any = diffusers.AutoModel.from_pretrained
            vae = load(place, **where, dtype=self._dtype)
        if self._dtype == torch.float16 and vae.config.get("force_upcast"):
            vae = vae.float()  # it overflows
        return self._watch(vae.to(self.device).eval())

    @once
    def _pipeline(self) -> Any:
        folder = self._weights.parent
        check_memory(folder, self._dtype.itemsize, self.name)
        more: dict[str, Any] = {}
        kind = getattr(diffusers, self._class)
        if "safety_checker" in inspect.signature(kind.__init__).parameters:
            more = {"safety_checker": None, "requires_safety_checker": False}
        vae = self._vae
        try:
            with _quiet():
                pipe = kind.from_pretrained(folder, vae=vae, dtype=self._dtype, **more)
        except (OSError, ValueError, RuntimeError) as error:
            line = " ".join(str(error).split())
            raise BundleError(
                f"model {self.name} cannot be loaded ({line[:200]}); fetch it again"
            ) from None
        if self._scheduler is not None:
            other = getattr(diffusers, SCHEDULERS[self._scheduler])
            pipe.scheduler = other.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        with _quiet():  # about half precision on processors
            pipe.to(self.device)
        for part in pipe.components.values():
            if isinstance(part, nn.Module) and part is not self._vae:
                self._watch(part)
        return pipe

    def _encode_prompts(
        self, prompts: list[str], *, guided: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the family's call takes, of prompts and of none."""
        pipe, family = self._pipeline, self._family
        takes = inspect.signature(pipe.encode_prompt).parameters
        told: dict[str, Any] = {
            "prompt": prompts, "prompt_2": None, "prompt_3": None, "device": self.device,
            "num_images_per_prompt": 1, "do_classifier_free_guidance": guided,
        }  # fmt: skip
        with self._tokenizers, torch.no_grad():  # which do not stand two threads at once
            made = pipe.encode_prompt(**{name: told[name] for name in told if name in takes})
        if not family.negatives:
            positive = list(made[: len(family.embeds)])
            negative: list[Tensor] = []
        else:
            positive, negative = list(made[0::2]), list(made[1::2]) if guided else []
        return positive, negative

    @once
    def _blank(self) -> tuple[list[Tensor], list[Tensor]]:
        """The embeddings of an empty prompt, and those by which is guided.

        They are always the same, so nobody is charged for making them once.
        """
        before = self.flops
        blank = self._encode_prompts([""], guided=bool(self._family.negatives))
        self._count.flops = before
        return blank

    def _told(self, prompt_embeds: Array, guidance_scale: float) -> dict[str, Tensor]:
        """What the pipeline's call takes of a prompt."""
        blank, negative = self._blank
        shapes = [part.shape[1:] for part in blank]
        sizes = [math.prod(shape) for shape in shapes]
        if prompt_embeds.shape[1] != sum(sizes):
            raise RequestError(
                f"prompt_embeds have {prompt_embeds.shape[1]} values, those of model {self.name} "
                f"{sum(sizes)}; embed the prompt with it"
            )
        count = len(prompt_embeds)
        parts = np.split(prompt_embeds, np.cumsum(sizes)[:-1], axis=1)
        told = {
            name: torch.tensor(part.reshape(count, *shape), device=self.device, dtype=self._dtype)
            for name, part, shape in zip(self._family.embeds, parts, shapes, strict=True)
        }
        if guidance_scale > 1 and self._family.negatives:
            for name, nothing in zip(self._family.negatives, negative, strict=True):
                told[name] = nothing.expand(count, *nothing.shape[1:])
        return told

    def _run(
        self, prompt_embeds: Array, generators: list[torch.Generator], *, size_px: int, steps: int,
        guidance_scale: float, start: int = 0, stop: int | None = None,
        latents: Tensor | None = None, replay: bool = False,
        blend: Callable[[int, Tensor], Tensor] | None = None, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """Steps of the pipeline's call. [batch, latent_channels, height, width]

        Args:
            prompt_embeds: [batch, embedding]
            generators: Of the chances from here on.
            size_px: Height and width.
            steps: Of the whole generation.
            guidance_scale: How strongly the prompt leads.
            start: The first step that is run.
            stop: The first that is not.
            latents: To go on from; drawn where left out. [batch, latent_channels, height, width]
            replay: Take from the generators what the steps before have taken.
            blend: Told the steps done and the latents, gives the latents to go on from.
            progress: Told the steps done and the steps in all.
        """
        multiple = self.space.factor * (2 if self._family.packed else 1)
        if size_px % multiple:
            raise RequestError(
                f"size_px is {size_px}, model {self.name} draws multiples of {multiple}; take "
                f"{size_px // multiple * multiple}"
            )
        told = self._told(prompt_embeds, guidance_scale)
        pipe = copy.copy(self._pipeline)
        own = type(pipe.scheduler).from_config(pipe.scheduler.config)
        side = size_px // self.space.factor
        shape = (len(prompt_embeds), self.space.channels, side, side)
        shown = PartialScheduler(
            own, start, stop, given=latents is not None,
            replay=(shape, generators, self._dtype) if replay else None,
        )  # fmt: skip
        # Not by the pipeline's own setter, which writes it down in the configuration.
        object.__setattr__(pipe, "scheduler", shown)
        total = (steps if stop is None else stop) - start
        last: list[Tensor] = []

        def after(_: Any, step: int, __: Any, kept: dict[str, Any]) -> dict[str, Any]:
            if blend is not None:
                unpacked = self._unpack(kept["latents"], side)
                kept["latents"] = self._pack(blend(start + step + 1, unpacked))
            last[:] = [kept["latents"]]
            if progress is not None:
                progress(min(step + 1, total), total)
            return kept

        try:
            made = pipe(
                **told, height=size_px, width=size_px, num_inference_steps=steps,
                guidance_scale=guidance_scale, generator=generators,
                latents=None if latents is None else self._pack(latents.to(self._dtype)),
                output_type="latent", return_dict=False, callback_on_step_end=after,
            )[0]  # fmt: skip
        except ValueError as error:
            line = " ".join(str(error).split())
            raise RequestError(f"model {self.name} takes no such request: {line}") from None
        # A consistency model's call gives what it takes for the clean latent; who goes on wants the noisy one.
        return self._unpack(made if stop is None else last[0], side)

    def _pack(self, latents: Tensor) -> Tensor:
        if not self._family.packed:
            return latents
        packed: Tensor = self._pipeline._pack_latents(latents, *latents.shape)
        return packed

    def _unpack(self, latents: Tensor, side: int) -> Tensor:
        if not self._family.packed:
            return latents
        pixels = side * self.space.factor
        unpacked: Tensor = self._pipeline._unpack_latents(
            latents, pixels, pixels, self.space.factor
        )
        return unpacked

    def _planned(self, size_px: int, steps: int) -> Any:
        """The scheduler as it is once the pipeline has set its timesteps."""
        known = self._plans.get((size_px, steps))
        if known is not None:
            return known
        pipe = copy.copy(self._pipeline)
        own = type(pipe.scheduler).from_config(pipe.scheduler.config)
        object.__setattr__(pipe, "scheduler", PlannedScheduler(own))
        blank, _ = self._blank
        told = dict(zip(self._family.embeds, blank, strict=True))
        with contextlib.suppress(PlannedError):
            pipe(
                **told, height=size_px, width=size_px, num_inference_steps=steps, guidance_scale=1.0,
                generator=_generators([0]),
            )  # fmt: skip
        self._plans[size_px, steps] = own
        return own

    def _first_of_edit(self, scheduler: Any, steps: int, strength: float) -> int:
        """The place of the first timestep that is run, as the family's image-to-image pipeline rounds it."""
        kind = getattr(diffusers, next(k for k, v in IMAGE_TO_IMAGE.items() if v == self._class))
        own = SimpleNamespace(scheduler=copy.deepcopy(scheduler))
        run, _ = kind.get_timesteps(own, steps, strength, self.device)
        return len(scheduler.timesteps) - len(run)

    def _check_stoppable(self) -> None:
        kind = type(self._pipeline.scheduler).__name__
        if kind not in SCHEDULERS.values():
            raise RequestError(
                f"model {self.name} has a {kind}, which remembers earlier steps, so no other machine can "
                "go on from one; set model.scheduler to euler or ddim, or take mechanism es_to_ue"
            )

    def _levels(self, size_px: int, steps: int) -> list[tuple[float, float]]:
        """How much of the picture and how much noise is in a latent before each step, and at the end."""
        return levels_of(self._planned(size_px, steps))

    def _handoff_scale(self, size_px: int, steps: int, handoff_step: int) -> float:
        """The power of two that is nearest to the spread of latents at a step."""
        spread = math.hypot(*self._levels(size_px, steps)[handoff_step])
        return float(2.0 ** round(math.log2(spread)))

    def _watch(self, part: nn.Module) -> nn.Module:
        """From now on, add to `flops` what each call of a part takes."""
        counted = dict[Any, float]()

        def watch(name: str) -> None:
            method = getattr(part, name)

            def count(*args: Any, **kwargs: Any) -> Any:
                made = method(*args, **kwargs)
                call = name, shapes_of((args, kwargs))
                if call not in counted:
                    with _quiet():
                        counted[call] = count_flops(part, name, args, kwargs)
                self._count.flops = self.flops + counted[call]
                return made

            setattr(part, name, count)

        for name in ("encode", "decode") if hasattr(part, "decode") else ("forward",):
            watch(name)
        return part


class _AtUe:
    """Models as they are, but for an autoencoder of the UE's own.

    Args:
        models: For all else.
        autoencoder: Folder or hub name.

    Raises:
        BundleError: If its latents are of another shape.
    """

    def __init__(self, models: DiffusersModels, autoencoder: str) -> None:
        self._models = models
        self._vae = models._read_autoencoder(str(Path(autoencoder).expanduser()))
        config: Any = self._vae.config
        space, wanted = space_of(config, autoencoder), models.space
        if space != wanted:
            raise BundleError(
                f"autoencoder {autoencoder} has latents of {space.channels} channels for {space.factor} pixels, "
                f"{models.name} of {wanted.channels} for {wanted.factor}; take one that was made for it"
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def decode(self, latents: Array, noise_power: Array | None = None) -> NDArray[np.uint8]:
        del noise_power
        return decode_latents(self._vae, torch.tensor(latents, device=self._models.device))

    def encode(self, images: NDArray[np.uint8]) -> Array:
        batch = torch.tensor(images, device=self._models.device)
        return to_numpy(encode_images(self._vae, batch, self._models.space.factor))


def to_numpy(tensor: Tensor) -> Array:
    """Whatever type it has, as float32."""
    return tensor.detach().float().cpu().numpy()


def _generators(rng_seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in rng_seeds]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries show while they load, or say of a copy that has no weights."""
    loggers = diffusers.utils.logging, transformers.utils.logging
    with _QUIET:
        before = [logger.get_verbosity() for logger in loggers]
        for logger in loggers:
            logger.set_verbosity_error()
            logger.disable_progress_bar()
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.set_verbosity(level)
                logger.enable_progress_bar()
