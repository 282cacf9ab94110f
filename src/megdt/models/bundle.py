"""The bundle: the models that come with the package, on torch.

A model is loaded when it is first used, so a UE that only decodes never reads the denoiser.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdt.errors import BundleError, MissingExtraError, RequestError

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load
    from torch import Tensor, nn
except ImportError:
    raise MissingExtraError("the models need torch; pip install 'megdt[sim]'") from None

from megdt.models import FACTOR
from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.cards import BUNDLE, Cards, read_checked
from megdt.models.classifier import LABELS, SceneClassifier, classify, probe_features
from megdt.models.denoiser import Denoiser, _Attention
from megdt.models.gate import FeatureGate
from megdt.models.generation import (
    GRID,
    REFINE_FROM,
    edit_latents,
    enlarge_latents,
    finish_latents,
    generate_latents,
    handoff_level,
    measure_spread,
    refine_latents,
    take_from_air,
)
from megdt.models.jscc import (
    MULTIPLE,
    build_jscc,
    normalise_power,
    tell,
)
from megdt.models.lockstep import round_to_grid
from megdt.models.outpainting import outpaint_latents
from megdt.models.sketching import STYLES, SketchAdapter
from megdt.models.student import Student
from megdt.models.text_encoder import EMBEDDING, TextEncoder, split_words
from megdt.models.tiny_autoencoder import TinyAutoencoder
from megdt.models.writing import caption
from megdt.records import MIN_SIZE_PX, Request, Style
from megdt.worlds.captions import Attributes

Model = TypeVar("Model", bound=nn.Module)


class Bundle(Cards):
    """Models from one folder of safetensors files and cards.

    Arrays go in and come out as NumPy, with a leading batch axis.

    Args:
        folder: NAME.safetensors and NAME.json for each of NAMES; the package's own by default.
        device: Where the models run.
    """

    def __init__(self, folder: Path = BUNDLE, *, device: str = "cpu") -> None:
        super().__init__(folder)
        self.device = torch.device(device)
        self._count = threading.local()

    @property
    def flops(self) -> float:
        """Floating point operations of all networks so far, as far as this thread has called them:
        stages that run at once are each charged for their own.

        Each multiply-add counts as 2. Convolutions, matrix products and attention are counted, what
        is done element by element is not.
        """
        return float(getattr(self._count, "flops", 0.0))

    def load(self, *names: str) -> None:
        """Read models now instead of when they are first used, so that no stage is charged for it.

        Raises:
            BundleError: If a file is missing, damaged or of another architecture.
        """
        for name in names:
            getattr(self, f"_{name}")

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed prompts. [batch, embedding]"""
        with torch.inference_mode():
            return _to_numpy(self._text_encoder(prompts))

    def denoise(
        self,
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        handoff_step: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Draw latents; see `generation.generate_latents`. [batch, 4, size_px / 8, size_px / 8]

        With a handoff_step they are scaled to unit variance, as all that crosses the air, and
        `finish` scales them back.
        """
        latents = generate_latents(
            self._denoiser,
            self._encoder,
            self._decoder,
            torch.from_numpy(prompt_embeds).to(self.device),
            rng_seeds,
            size_px=size_px,
            steps=steps,
            guidance_scale=guidance_scale,
            handoff_step=handoff_step,
            progress=progress,
        )
        if handoff_step is not None:
            latents = latents / measure_spread(handoff_level(steps, handoff_step))
        return _to_numpy(latents)

    def enlarge(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        size_px: int,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Draw latents of 256 pixels on finer grids; see `generation.enlarge_latents`.

        What `denoise` gives at 256 pixels, enlarged, is bit for bit what it gives at `size_px`.

        Returns:
            [batch, 4, size_px / 8, size_px / 8]
        """
        larger = enlarge_latents(
            self._denoiser,
            self._encoder,
            self._decoder,
            torch.tensor(latents, device=self.device),
            torch.tensor(prompt_embeds, device=self.device),
            rng_seeds,
            size_px=size_px,
            steps=steps,
            guidance_scale=guidance_scale,
            progress=progress,
        )
        return _to_numpy(larger)

    def finish(
        self,
        latents: NDArray[np.float32],
        prompts: Sequence[str],
        rng_seeds: Sequence[int],
        *,
        noise_power: float,
        steps: int,
        handoff_step: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        """Run the last denoising steps with the student, as its guidance and without a prompt.

        Args:
            latents: As `denoise` handed them over. [batch, 4, 32, 32]
            prompts: Not read: the student has learnt to go on from the latents alone.
            rng_seeds: Not read: nothing is left to chance.
            noise_power: Mean square of the noise that the air has left on them since.
            steps: Denoising steps of the whole generation.
            handoff_step: How many of them have been run.
            guidance_scale: Not read: the student goes as guidance would.
            progress: Told the steps done and the steps in all.

        Returns:
            [batch, 4, 32, 32], and the noise level from which they were denoised.
        """
        del prompts, rng_seeds, guidance_scale
        batch = torch.tensor(latents, device=self.device)
        given, level = take_from_air(batch, noise_power, handoff_level(steps, handoff_step))
        finished = finish_latents(self._student, given, level, steps=steps, progress=progress)
        return _to_numpy(finished), level

    def redraw(
        self,
        sketches: NDArray[np.uint8],
        prompt_embeds: NDArray[np.float32] | None,
        rng_seeds: Sequence[int],
        *,
        style: Style,
        steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Draw latents of pictures that would have these sketches.

        Args:
            sketches: RGB, of the size of the pictures to come. [batch, size_px, size_px, 3]
            prompt_embeds: None where there is no prompt. [batch, embedding]
            rng_seeds: One for each picture.
            style: What the sketches keep.
            steps: Denoising steps on the first grid.
            guidance_scale: How strongly sketch and prompt lead.
            progress: Told the steps done and the steps in all.

        Returns:
            [batch, 4, size_px / 8, size_px / 8]
        """
        batch = torch.tensor(sketches, device=self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if prompt_embeds is None:
            prompt_embeds = np.zeros((len(batch), EMBEDDING), np.float32)
        told = torch.zeros(len(batch), len(STYLES), device=self.device)
        told[:, STYLES.index(style)] = 1
        with torch.inference_mode():
            features = self._sketch_adapter(batch, told, grid=GRID)
        latents = generate_latents(
            self._denoiser,
            self._encoder,
            self._decoder,
            torch.from_numpy(prompt_embeds).to(self.device),
            rng_seeds,
            size_px=sketches.shape[1],
            steps=steps,
            guidance_scale=guidance_scale,
            features=features,
            progress=progress,
        )
        return _to_numpy(latents)

    def edit(
        self,
        latents: NDArray[np.float32],
        prompt_embeds: NDArray[np.float32],
        rng_seeds: Sequence[int],
        *,
        strength: float,
        steps: int,
        guidance_scale: float,
        confidence: NDArray[np.float32] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Draw latents anew as prompts say; see `generation.edit_latents`."""
        return _to_numpy(
            edit_latents(
                self._denoiser,
                torch.tensor(latents, device=self.device),
                torch.tensor(prompt_embeds, device=self.device),
                rng_seeds,
                strength=strength,
                steps=steps,
                guidance_scale=guidance_scale,
                confidence=None
                if confidence is None
                else torch.tensor(confidence, device=self.device),
                progress=progress,
            )
        )

    def outpaint(
        self,
        latents: NDArray[np.float32],
        seen: NDArray[np.bool_],
        prompt_embeds: NDArray[np.float32],
        rng_seed: int,
        *,
        steps: int,
        guidance_scale: float,
        repeats: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Draw what has not been seen of one panorama; see `outpainting.outpaint_latents`."""
        return _to_numpy(
            outpaint_latents(
                self._denoiser,
                torch.tensor(latents, device=self.device),
                torch.tensor(seen, device=self.device),
                torch.tensor(prompt_embeds, device=self.device),
                rng_seed,
                steps=steps,
                guidance_scale=guidance_scale,
                repeats=repeats,
                progress=progress,
            )
        )

    def fuse(
        self,
        latents: NDArray[np.float32],
        confidence: NDArray[np.float32],
        age_s: NDArray[np.float32],
        noise_power: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Fuse several sides' latents of one view, on the grid that all copies of the gate share.

        Args:
            latents: [batch, sources, 4, height, width]
            confidence: 1 where a source sees, 0 where not. [batch, sources, height, width]
            age_s: How long ago each was seen. [batch, sources]
            noise_power: Mean square of the noise on each. [batch, sources]

        Returns:
            [batch, 4, height, width]
        """
        given = (latents, confidence, age_s, noise_power)
        with torch.inference_mode():
            fused = self._gate(
                *(torch.tensor(g, dtype=torch.float64, device=self.device) for g in given)
            )
        return round_to_grid(_to_numpy(fused))

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Decode latents.

        Args:
            latents: [batch, 4, height, width]
            noise_power: Mean square of the noise on each latent; none when left out. [batch]

        Returns:
            RGB. [batch, 8 * height, 8 * width, 3]
        """
        power = None if noise_power is None else torch.from_numpy(noise_power).to(self.device)
        batch = torch.tensor(latents, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            image = self._decoder(batch, power)
            pixels = (image * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        images: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return images

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode pictures.

        Args:
            images: RGB, height and width multiples of 8. [batch, height, width, 3]

        Returns:
            Latents of unit variance. [batch, 4, height / 8, width / 8]

        Raises:
            RequestError: If a side is not a multiple of 8.
        """
        height, width = images.shape[1:3]
        if height % FACTOR or width % FACTOR:
            raise RequestError(
                f"images are {height} x {width} pixels, the autoencoder needs multiples of "
                f"{FACTOR}; crop them to {height // FACTOR * FACTOR} x {width // FACTOR * FACTOR}"
            )
        batch = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            return _to_numpy(self._encoder(batch))

    def write(self, prompt: str, image: NDArray[np.uint8] | None = None, *, rng_seed: int) -> str:
        """A sentence about the garden that a picture shows, offline; see `writing.caption`.

        Without a picture one of 256 pixels is drawn as the prompt says: the sentence is about that.

        Args:
            prompt: What to draw; not read where there is a picture.
            image: RGB, square. [height, width, 3]
            rng_seed: Draws the picture, and the words.
        """
        if image is None:
            latents = self.denoise(
                self.embed([prompt]),
                [rng_seed],
                size_px=MIN_SIZE_PX,
                steps=Request.steps,
                guidance_scale=Request.guidance_scale,
            )
            image = self.decode(latents)[0]
        found = self.classify(_shrink(image)[None])
        named = {name: LABELS[name][index[0]] for name, index in found.items()}
        return caption(Attributes(**named), rng_seed)

    def classify(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Name species, colour and sky of 256-pixel pictures; see `classifier.classify`."""
        return classify(self._classifier, images)

    def probe_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the classifier decides by, as features; see `classifier.probe_features`."""
        return probe_features(self._classifier, images)

    @cached_property
    def _gate(self) -> FeatureGate:
        return self._load("gate", FeatureGate()).double()

    @cached_property
    def _jscc(self) -> nn.ModuleDict:
        """The joint source-channel code's two networks, "encoder" and "decoder"."""
        return self._load("jscc", build_jscc(self.card("jscc")))

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return self._load("text_encoder", TextEncoder())

    @cached_property
    def _denoiser(self) -> Denoiser:
        return self._load("denoiser", Denoiser())

    @cached_property
    def _student(self) -> Student:
        return self._load("student", Student())

    @cached_property
    def _encoder(self) -> Encoder:
        return self._load("encoder", Encoder())

    @cached_property
    def _decoder(self) -> Decoder:
        return self._load("decoder", Decoder())

    @cached_property
    def _sketch_adapter(self) -> SketchAdapter:
        return self._load("sketch_adapter", SketchAdapter())

    @cached_property
    def _classifier(self) -> SceneClassifier:
        return self._load("classifier", SceneClassifier())

    def _load(self, name: str, model: Model) -> Model:
        weights = read_weights(self.folder / f"{name}.safetensors", self.card(name)["sha256"])
        try:
            result = model.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise BundleError(
                f"{name}.safetensors in {self.folder} is of another architecture; train it again "
                f"with recipes/{name}.py of this version"
            ) from error
        # Counters of batch normalisation are only for training, and not in the file.
        wrong = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
        wrong += result.unexpected_keys
        if wrong:
            raise BundleError(
                f"{name}.safetensors in {self.folder} and its architecture differ in {wrong[0]!r}; "
                f"train it again with recipes/{name}.py of this version"
            )
        # channels_last is the faster layout for convolutions, a third on the CPU.
        model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.eval()
        for part in model.children() if isinstance(model, nn.ModuleDict) else (model,):
            self._count_flops(part)
        return model

    def _count_flops(self, model: nn.Module) -> None:
        """From now on, add to `flops` what each call of the model takes."""
        forward, counted = model.forward, dict[Any, int]()

        def count(*args: Any, **kwargs: Any) -> Any:
            call = (*map(_shape, args), *((key, _shape(value)) for key, value in kwargs.items()))
            if call in counted:
                output = forward(*args, **kwargs)
            else:
                with _watch(model, *args) as flops:
                    output = forward(*args, **kwargs)
                counted[call] = sum(flops)
            self._count.flops = self.flops + counted[call]
            return output

        model.forward = count


class Jscc:
    """The joint code's networks on NumPy, one seed at a time.

    Args:
        bundle: Where they come from.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._model = bundle._jscc
        self._bundle = bundle

    @property
    def flops(self) -> float:
        """Floating point operations so far, as `Bundle.flops` counts them."""
        return self._bundle.flops

    def encode(
        self,
        latent: NDArray[np.float32],
        coarse: NDArray[np.float32] | None,
        *,
        noise_power: float,
        maps: int,
        coarse_bits: int,
    ) -> NDArray[np.float32]:
        """A seed as maps of symbols at unit mean power.

        Args:
            latent: [channels, height, width]
            coarse: What the receiver has of it, if anything. [channels, height, width]
            noise_power: Told to both ends, for symbols of unit power.
            maps: How many to make.
            coarse_bits: Of the coarse seed.

        Returns:
            [maps, ceil(height / 2), ceil(width / 2)]
        """
        height, width = latent.shape[1:]
        told = self._tell(noise_power, maps, coarse_bits, latent.shape)
        with torch.inference_mode():
            symbols = self._model["encoder"](_pad(latent), _pad(_or_zeros(coarse, latent)), told)
            cut = symbols[:, :, : -(-height // 2), : -(-width // 2)].contiguous()
            return _to_numpy(normalise_power(cut, torch.tensor([float(maps)]))[0, :maps])

    def decode(
        self,
        values: NDArray[np.float32],
        shares: NDArray[np.float32],
        coarse: NDArray[np.float32] | None,
        *,
        shape: tuple[int, int, int],
        noise_power: float,
        maps: int,
        coarse_bits: int,
    ) -> tuple[NDArray[np.float32], float]:
        """The seed, and the noise power that the picture's decoder is to be told.

        Args:
            values: Maps of symbols as they arrived, one after the other.
            shares: Of the signal in the power of each value.
            coarse: The coarse seed, if there is one. [channels, height, width]
            shape: Of the seed.
            noise_power: Told to both ends, for symbols of unit power.
            maps: How many were sent.
            coarse_bits: Of the coarse seed.

        Returns:
            [channels, height, width], and one number.
        """
        _, height, width = shape
        small = (maps, -(-height // 2), -(-width // 2))
        found = [_pad_maps(part.reshape(small), shape) for part in (values, shares)]
        told = self._tell(noise_power, maps, coarse_bits, shape)
        before = _pad(_or_zeros(coarse, np.zeros(shape, np.float32)))
        with torch.inference_mode():
            mended, power = self._model["decoder"](*found, before, told)
        return _to_numpy(mended[0, :, :height, :width]), float(power)

    def refine(
        self, latent: NDArray[np.float32], noise_power: float, *, steps: int
    ) -> NDArray[np.float32]:
        """Denoise a latent that came with noise of this power; see `generation.refine_latents`.

        Args:
            latent: [4, height, width]
            noise_power: Mean square of its noise.
            steps: Denoising steps.

        Returns:
            [4, height, width]; unchanged where the grid is finer than the denoiser knows at that
            noise.
        """
        sigma = noise_power**0.5 / (1 + noise_power**0.5)
        if latent.shape[-1] > GRID and sigma > REFINE_FROM:
            return latent
        batch = torch.from_numpy(latent)[None] * (1 - sigma)
        return _to_numpy(refine_latents(self._bundle._denoiser, batch, sigma, steps=steps)[0])

    @staticmethod
    def _tell(noise_power: float, maps: int, coarse_bits: int, shape: tuple[int, ...]) -> Tensor:
        return tell(
            torch.tensor([noise_power], dtype=torch.float32),
            torch.tensor([float(maps)]),
            torch.tensor([coarse_bits / math.prod(shape)]),
            channels=shape[0],
        )


def _or_zeros(coarse: NDArray[np.float32] | None, like: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(like) if coarse is None else coarse


def _pad(latent: NDArray[np.float32]) -> Tensor:
    """A batch of one, its borders repeated up to the networks' multiple."""
    low, right = (-n % MULTIPLE for n in latent.shape[1:])
    padded = np.pad(latent, ((0, 0), (0, low), (0, right)), mode="edge")
    return torch.from_numpy(padded)[None].contiguous(memory_format=torch.channels_last)


def _pad_maps(maps: NDArray[np.float32], shape: tuple[int, int, int]) -> Tensor:
    """All maps for a latent of this shape, zeros where nothing was sent. [1, 4 * channels, h, w]"""
    channels, height, width = shape
    tall, wide = (-(-n // MULTIPLE) * MULTIPLE // 2 for n in (height, width))
    padded = np.zeros((1, 4 * channels, tall, wide), np.float32)
    padded[0, : maps.shape[0], : maps.shape[1], : maps.shape[2]] = maps
    return torch.from_numpy(padded)


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as the classifier takes it. [256, 256, 3]"""
    wanted = (MIN_SIZE_PX, MIN_SIZE_PX)
    if image.shape[:2] == wanted:
        return image
    return np.array(Image.fromarray(image).resize(wanted, Image.Resampling.BOX))


@lru_cache
def load_jscc(folder: Path = BUNDLE) -> Jscc:
    """The joint code of a bundle, or of an autoencoder that lies beside it, read once.

    Raises:
        BundleError: If it was trained for another autoencoder.
    """
    bundle = Bundle(folder)
    of = bundle.card("jscc").get("autoencoder_sha256")
    if of is not None and of != TinyAutoencoder(str(folder)).checksum:
        raise BundleError(
            f"the joint code in {folder} was trained for another autoencoder; train it again with "
            "recipes/own_jscc.py"
        )
    return Jscc(bundle)


@lru_cache
def load_bundle(folder: Path = BUNDLE) -> Bundle:
    """A bundle for what has none of its own, such as a codec; its models are read once."""
    return Bundle(folder)


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file that must have this checksum; numbers come back as float32.

    Raises:
        BundleError: If the file is missing, not safetensors, or has another checksum.
    """
    content = read_checked(path, sha256)
    try:
        return {name: tensor.float() for name, tensor in load(content).items()}
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file ({error}); reinstall megdt") from error


def _to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _shape(argument: Any) -> Any:
    """All of an argument that the operations of a call depend on."""
    if isinstance(argument, Tensor):
        return argument.shape
    if argument is None or isinstance(argument, int):
        return argument
    if isinstance(argument[0], Tensor):
        return tuple(map(_shape, argument))
    return len(argument), _longest(argument)


def _longest(prompts: Sequence[str]) -> int:
    return max(1, *(len(split_words(prompt)) for prompt in prompts))


@contextmanager
def _watch(model: nn.Module, *args: Any) -> Iterator[list[int]]:
    """The floating point operations of a call, layer by layer, once it is over."""
    flops: list[int] = []
    if isinstance(model, TextEncoder):
        # Not layer by layer: hooks would keep torch from running its fused transformer.
        flops.append(_text_flops(model, *args))
        yield flops
        return

    owner = threading.get_ident()

    def add(layer: nn.Module, args: Any, output: Tensor) -> None:
        if threading.get_ident() != owner:
            return  # the same model at work for somebody else
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # Every number that comes out is a sum over the weights of one output channel.
            flops.append(2 * output.numel() * layer.weight[0].numel())
        elif isinstance(layer, _Attention):
            # Queries by keys, and what comes of it by values; the rest of it is layers itself.
            flops.append(4 * output.numel() * output[0, 0].numel())

    hooks = [layer.register_forward_hook(add) for layer in model.modules() if layer is not model]
    try:
        yield flops
    finally:
        for hook in hooks:
            hook.remove()


def _text_flops(model: TextEncoder, prompts: Sequence[str]) -> int:
    """Floating point operations of embedding prompts: each is as long as the longest."""
    width = model.position.shape[1]
    tokens = 1 + _longest(prompts)
    token = 0
    for block in model.blocks.layers:
        attention = 2 * width * 4 * width + 4 * tokens * width
        token += attention + 4 * width * block.linear1.out_features
    return len(prompts) * (tokens * token + 2 * model.project.weight.numel())
