"""Pipelines of all families with random weights, small enough for tests, written to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz "
WIDTH, WORDS = 32, 77


def clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=WORDS)


def clip(kind: type, *, eos_token_id: int = 1) -> Any:
    return kind(
        CLIPTextConfig(
            bos_token_id=0, eos_token_id=eos_token_id, pad_token_id=1, hidden_size=WIDTH, projection_dim=WIDTH,
            intermediate_size=48, num_attention_heads=4, num_hidden_layers=3, vocab_size=64,
        )
    )  # fmt: skip


def t5(width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=64, d_model=width, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0,
            eos_token_id=1,
        )
    )  # fmt: skip


def t5_tokenizer() -> T5Tokenizer:
    words = ["<pad>", "</s>", "<unk>", "▁", *LETTERS.strip()]
    return T5Tokenizer(vocab=[(word, -float(n)) for n, word in enumerate(words)], extra_ids=0)


def autoencoder(channels: int, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, layers_per_block=1,
        norm_num_groups=4, sample_size=64, **more,
    )  # fmt: skip


def unet(cross: int, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=cross,
        norm_num_groups=4, attention_head_dim=4, **more,
    )  # fmt: skip


def stable_diffusion() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        text_encoder=clip(CLIPTextModel), tokenizer=clip_tokenizer(), unet=unet(WIDTH),
        vae=autoencoder(4), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        text_encoder=clip(CLIPTextModel), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(),
        unet=unet(
            2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        vae=autoencoder(4, scaling_factor=0.13025),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
    )  # fmt: skip


def sd3() -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        text_encoder=clip(CLIPTextModelWithProjection), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(2 * WIDTH), tokenizer_3=t5_tokenizer(),
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, caption_projection_dim=WIDTH, joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH, out_channels=16, pos_embed_max_size=96,
        ),
        vae=autoencoder(
            16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def flux() -> FluxPipeline:
    return FluxPipeline(
        text_encoder=clip(CLIPTextModel), tokenizer=clip_tokenizer(), text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        ),
        vae=autoencoder(
            16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    )  # fmt: skip


def lcm() -> LatentConsistencyModelPipeline:
    return LatentConsistencyModelPipeline(
        text_encoder=clip(CLIPTextModel), tokenizer=clip_tokenizer(),
        unet=unet(WIDTH, time_cond_proj_dim=16), vae=autoencoder(4), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False, scheduler=LCMScheduler(),
    )  # fmt: skip


PIPELINES = {"lcm": lcm, "sd": stable_diffusion, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def write_pipeline(name: str, folder: Path) -> Path:
    """One of PIPELINES, with weights that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = PIPELINES[name]()
        pipe.save_pretrained(folder / name)
    return folder / name
