"""A diffusers pipeline in one piece against the same one cut into sub-models.

    pip install 'megdt[diffusers]'
    python benchmarks/pipeline_split.py [--size 512] [--steps 8] [--repeats 5] [--out benchmarks/pipeline_split.json]

A Stable Diffusion pipeline with random weights, since time does not depend on them: text encoder and
autoencoder as large as those of version 1.5, a U-Net of an eighth of its operations. The runs take turns,
and the pictures have to be the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from megdt.models.diffusers_adapter import DiffusersModels

PROMPT, GUIDANCE = "a field of red poppies at sunset", 7.5


def write_pipeline(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz "
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    text = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionPipeline(
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77),
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(128, 256, 512, 512), layers_per_block=1, cross_attention_dim=768,
            sample_size=64,
        ),
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    size, steps, half = arguments.size, arguments.steps, arguments.steps // 2
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        write_pipeline(Path(name))
        pipe: Any = diffusers.StableDiffusionPipeline.from_pretrained(name)
        models = DiffusersModels(name)
        models.load("denoiser")
    pipe.set_progress_bar_config(disable=True)
    drawn: dict[str, Any] = {"size_px": size, "steps": steps, "guidance_scale": GUIDANCE}

    def whole() -> NDArray[np.uint8]:
        made = pipe(
            PROMPT, height=size, width=size, num_inference_steps=steps, guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(0), output_type="np",
        )  # fmt: skip
        pixels: NDArray[np.uint8] = (made.images * 255).round().astype(np.uint8)
        return pixels

    def cut() -> NDArray[np.uint8]:
        return models.decode(models.denoise(models.embed([PROMPT]), [0], **drawn))

    def cut_twice() -> NDArray[np.uint8]:
        handed = models.denoise(models.embed([PROMPT]), [0], handoff_step=half, **drawn)
        told = {"steps": steps, "handoff_step": half, "guidance_scale": GUIDANCE}
        finished, _ = models.finish(handed, [PROMPT], [0], noise_power=0.0, **told)
        return models.decode(finished)

    runs: dict[str, Callable[[], NDArray[np.uint8]]] = {
        "whole": whole, "cut": cut, "cut twice": cut_twice,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    wanted = whole()
    for repeat in range(arguments.repeats + 1):
        # Another first one each time, so that none always follows the same.
        names = [*runs][repeat % 3 :] + [*runs][: repeat % 3]
        for name in names:
            started = time.perf_counter()
            made = runs[name]()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
            assert (made == wanted).all(), f"{name} makes another picture"
    median = {name: float(np.median(s)) for name, s in seconds.items()}
    found = {
        "machine": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}",
        "size_px": size, "steps": steps, "repeats": arguments.repeats, "seconds": median,
        "cut_over_whole": median["cut"] / median["whole"],
        "cut_twice_over_whole": median["cut twice"] / median["whole"],
    }  # fmt: skip
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
