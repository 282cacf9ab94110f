"""Pipelines cut into sub-models, against the same pipelines in one piece."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

import diffusers

from megdt.errors import BundleError, MechanismError, RequestError, ScenarioError
from megdt.models import pretrained
from megdt.models.diffusers_adapter import IMAGE_TO_IMAGE, DiffusersModels
from megdt.models.pretrained import SCHEDULERS
from megdt.records import Side
from megdt.scenario import Scenario, parse_scenario
from tests.models.tiny_pipelines import PIPELINES, write_pipeline

# Inside diffusers, which has not followed NumPy in all its schedulers.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, STEPS, GUIDANCE = "red poppies at sunset", 4, 3.0
SMALL: dict[str, Any] = {"size_px": 64, "steps": STEPS, "guidance_scale": GUIDANCE}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pipelines")
    return {name: write_pipeline(name, place) for name in PIPELINES}


@pytest.fixture(scope="session")
def cut(folders: dict[str, Path]) -> dict[str, DiffusersModels]:
    """Each pipeline as sub-models, read again from its folder."""
    return {name: DiffusersModels(str(folder)) for name, folder in folders.items()}


def whole(folder: Path, *, size_px: int = 256, rng_seed: int = 7, **more: Any) -> Any:
    """What the pipeline makes in one piece."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    scheduler = more.pop("scheduler", None)
    if scheduler is not None:
        kind = getattr(diffusers, SCHEDULERS[scheduler])
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    return pipe(
        PROMPT, height=size_px, width=size_px, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(rng_seed), **more,
    ).images  # fmt: skip


def scenario(folder: Path, mechanism: str, **request: Any) -> Scenario:
    return parse_scenario(
        {
            "request": {
                "prompt": PROMPT, "steps": STEPS, "guidance_scale": GUIDANCE, "rng_seed": 7, **request
            },
            "plan": {"mechanism": mechanism},
            "codecs": {"seed": "float32"},
            "link": {"snr_db": 30, "coding": "ideal"},
            "model": {"name": str(folder)},
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_split_at_every_boundary_it_is_the_whole_pipeline(
    name: str, folders: dict[str, Path], cut: dict[str, DiffusersModels]
) -> None:
    (wanted,) = whole(folders[name])
    runs = [scenario(folders[name], "es_to_ue")]
    runs += [
        scenario(folders[name], "es_to_ue_steps", handoff_step=step) for step in range(1, STEPS + 1)
    ]
    for run in runs:
        result = run.run(cut[name])
        assert result.outcome == "delivered"
        np.testing.assert_array_equal(result.image, np.array(wanted))
        assert result.image is not None
        assert result.image.std() > 1


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "flow"])
def test_schedulers_that_draw_go_on_with_the_same_chances(
    scheduler: str, folders: dict[str, Path]
) -> None:
    models = DiffusersModels(str(folders["sd"]), scheduler=scheduler)
    wanted = whole(folders["sd"], size_px=64, scheduler=scheduler, output_type="latent")
    embeds = models.embed([PROMPT])
    np.testing.assert_array_equal(models.denoise(embeds, [7], **SMALL), wanted)
    for step in range(1, STEPS + 1):
        handed = models.denoise(embeds, [7], handoff_step=step, **SMALL)
        if scheduler == "euler" and step == 1:
            assert 0.5 < handed.std() < 2  # of noise at level 4
        finished, _ = models.finish(
            handed, [PROMPT], [7], noise_power=0.0, steps=STEPS, handoff_step=step,
            guidance_scale=GUIDANCE,
        )  # fmt: skip
        np.testing.assert_array_equal(finished, wanted)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_half_precision_crosses_without_a_loss(name: str, folders: dict[str, Path]) -> None:
    models = DiffusersModels(str(folders[name]), dtype="bfloat16")
    embeds = models.embed([PROMPT])
    wanted = models.denoise(embeds, [7], **SMALL)
    handed = models.denoise(embeds, [7], handoff_step=2, **SMALL)
    finished, _ = models.finish(
        handed, [PROMPT], [7], noise_power=0.0, steps=STEPS, handoff_step=2, guidance_scale=GUIDANCE
    )
    np.testing.assert_array_equal(finished, wanted)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("strength", [0.5, 0.6])
def test_an_edit_is_that_of_image_to_image(
    name: str, strength: float, folders: dict[str, Path], cut: dict[str, DiffusersModels]
) -> None:
    models = cut[name]
    picture = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    latents = models.encode(picture)
    kind = next(k for k, v in IMAGE_TO_IMAGE.items() if v == models._class)
    pipe = getattr(diffusers, kind).from_pretrained(folders[name])
    pipe.set_progress_bar_config(disable=True)
    given = torch.from_numpy(latents)
    wanted = pipe(
        PROMPT, image=given, strength=strength, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        generator=[torch.Generator().manual_seed(7)], output_type="latent",
        **({"height": 64, "width": 64} if name in ("sd3", "flux") else {}),
    ).images  # fmt: skip
    found = models.edit(
        latents,
        models.embed([PROMPT]),
        [7],
        strength=strength,
        steps=STEPS,
        guidance_scale=GUIDANCE,
    )
    np.testing.assert_array_equal(found, models._unpack(wanted, 8))
    assert np.abs(found - latents).mean() > 0.05


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "HeunDiscreteScheduler"])
def test_an_edit_counts_steps_as_the_scheduler_does(
    scheduler: str, folders: dict[str, Path]
) -> None:
    models = DiffusersModels(str(folders["sd"]))
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folders["sd"])
    pipe.set_progress_bar_config(disable=True)
    for each in (models._pipeline, pipe):
        each.scheduler = getattr(diffusers, scheduler).from_config(each.scheduler.config)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    wanted = pipe(
        PROMPT, image=torch.from_numpy(latents), strength=0.6, num_inference_steps=6,
        guidance_scale=GUIDANCE, generator=[torch.Generator().manual_seed(7)], output_type="latent",
    ).images  # fmt: skip
    found = models.edit(
        latents, models.embed([PROMPT]), [7], strength=0.6, steps=6, guidance_scale=GUIDANCE
    )
    np.testing.assert_array_equal(found, wanted)


def test_what_is_hidden_is_drawn_anew(cut: dict[str, DiffusersModels]) -> None:
    models = cut["sd"]
    latents = np.zeros((1, 4, 8, 8), np.float32)
    seen = np.ones((1, 8, 8), np.float32)
    seen[:, :, 4:] = 0
    told: dict[str, Any] = {"strength": 0.25, "steps": STEPS, "guidance_scale": 1.0}
    embeds = models.embed([PROMPT])
    drawn = models.edit(latents, embeds, [7], confidence=seen, **told)
    other = models.edit(latents + 5 * (1 - seen[:, None]), embeds, [7], confidence=seen, **told)
    np.testing.assert_array_equal(drawn, other)  # what was hidden is not looked at
    kept, anew = np.abs(drawn[..., :4]).mean(), np.abs(drawn[..., 4:]).mean()
    assert anew > 1.5 * kept
    still = told | {"strength": 0.0}
    assert (models.edit(latents, embeds, [7], **still) == latents).all()
    filled = models.edit(latents, embeds, [7], confidence=seen, **still)
    assert np.abs(filled[..., :4] - latents[..., :4]).max() < 1e-6 < np.abs(filled[..., 4:]).mean()


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_noise_of_the_air_is_denoised_from_the_level_that_it_makes(
    name: str, cut: dict[str, DiffusersModels]
) -> None:
    models = cut[name]
    handed = models.denoise(models.embed([PROMPT]), [7], handoff_step=3, **SMALL)
    told: list[int] = []
    shares = []
    for power in (0.0, 1e-6, 0.5, 50.0):
        told.clear()
        _, share = models.finish(
            handed, [PROMPT], [7], noise_power=power, steps=STEPS, handoff_step=3,
            guidance_scale=GUIDANCE, progress=lambda step, steps: told.append(steps),
        )  # fmt: skip
        shares.append((share, len(told)))
    assert shares == sorted(shares)
    assert shares[0][1] == shares[1][1] == 1
    assert shares[-1][1] > 1
    done = models.denoise(models.embed([PROMPT]), [7], handoff_step=STEPS, **SMALL)
    for power, steps in ((1e-6, 0), (0.5, 1)):
        told.clear()
        models.finish(
            done, [PROMPT], [7], noise_power=power, steps=STEPS, handoff_step=STEPS,
            guidance_scale=GUIDANCE, progress=lambda step, steps: told.append(steps),
        )  # fmt: skip
        assert min(len(told), 1) == steps


def test_a_ue_may_have_a_tiny_autoencoder(folders: dict[str, Path], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tiny = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
        )  # fmt: skip
    tiny.save_pretrained(tmp_path / "tiny")
    models = DiffusersModels(str(folders["sd"]), ue_autoencoder=str(tmp_path / "tiny"))
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    with torch.no_grad():
        image = tiny.decode(torch.from_numpy(latents)).sample
    wanted = ((image * 0.5 + 0.5).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    at_ue, at_es = models.at(Side.UE), models.at(Side.ES)
    np.testing.assert_array_equal(at_ue.decode(latents)[0], wanted.astype(np.uint8))
    assert (at_es.decode(latents) != at_ue.decode(latents)).any()
    picture = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    assert at_ue.encode(picture).shape == (1, 4, 8, 8)
    with pytest.raises(BundleError, match=r"4 channels for 8 pixels, .* of 16 for 8"):
        DiffusersModels(str(folders["flux"]), ue_autoencoder=str(tmp_path / "tiny")).at(Side.UE)


def test_operations_are_counted_as_torch_counts_them(cut: dict[str, DiffusersModels]) -> None:
    models = cut["sd"]
    embeds = models.embed([PROMPT])

    def spent(steps: int, guidance_scale: float) -> float:
        before = models.flops
        models.denoise(embeds, [7], size_px=64, steps=steps, guidance_scale=guidance_scale)
        return models.flops - before

    assert spent(4, 1.0) == 2 * spent(2, 1.0) > 0
    assert spent(2, 3.0) == 2 * spent(2, 1.0)
    before = models.flops
    models.decode(np.zeros((1, 4, 8, 8), np.float32))
    small = models.flops - before
    models.decode(np.zeros((1, 4, 16, 8), np.float32))
    # Attention in the middle makes it grow a little faster than the picture.
    assert 2 * small < models.flops - before - small < 2.5 * small


def test_threads_read_one_pipeline_and_embed_alike(folders: dict[str, Path]) -> None:
    models = DiffusersModels(str(folders["sd"]))
    prompts = ["a", "red poppies", "one blue lily under a grey sky", "tulips " * 9] * 4
    with ThreadPoolExecutor(8) as pool:
        pipes = list(pool.map(lambda _: id(models._pipeline), range(8)))
        found = list(pool.map(lambda prompt: models.embed([prompt]), prompts))
    assert len(set(pipes)) == 1
    for prompt, embeds in zip(prompts, found, strict=True):
        np.testing.assert_array_equal(embeds, models.embed([prompt]))


def test_parts_that_are_named_are_read_and_no_other(folders: dict[str, Path]) -> None:
    models = DiffusersModels(str(folders["sd"]))
    models.load("decoder")
    assert "_pipeline" not in vars(models)
    assert models.decode(np.zeros((1, 4, 8, 8), np.float32)).shape == (1, 64, 64, 3)
    assert models.checksum == DiffusersModels(str(folders["sd"])).checksum
    assert models.checksum != DiffusersModels(str(folders["sdxl"])).checksum


def test_what_cannot_be_is_said_in_one_line(
    folders: dict[str, Path], cut: dict[str, DiffusersModels], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sd = cut["sd"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match="not on this machine and the hub cannot be reached"):
        DiffusersModels("megdt-tests/no-such-model")
    with pytest.raises(BundleError, match="neither a folder nor a name on the hub"):
        DiffusersModels("nowhere")
    with pytest.raises(BundleError, match="has no model_index"):
        DiffusersModels(str(tmp_path))
    other = tmp_path / "other"
    (other / "vae").mkdir(parents=True)
    (other / "vae" / "config.json").write_text('{"block_out_channels": [8], "latent_channels": 4}')
    (other / "model_index.json").write_text('{"_class_name": "StableDiffusionInpaintPipeline"}')
    with pytest.raises(BundleError, match="InpaintPipeline, which cannot be split"):
        DiffusersModels(str(other))
    with pytest.raises(BundleError, match="scheduler is 'heun', take ddim"):
        DiffusersModels(str(folders["sd"]), scheduler="heun")
    with pytest.raises(BundleError, match="dtype is 'int8', take float32"):
        DiffusersModels(str(folders["sd"]), dtype="int8")
    with monkeypatch.context() as little:
        little.setattr(pretrained, "free_bytes", lambda: 1000)
        with pytest.raises(BundleError, match=r"GB of memory are free; .* or model.dtype bfloat16"):
            DiffusersModels(str(folders["sd"])).load("denoiser")
    embeds, flux = sd.embed([PROMPT]), cut["flux"]
    flux_embeds, blank = flux.embed([PROMPT]), np.zeros((1, 2, 4, 8, 8), np.float32)
    with pytest.raises(RequestError, match="embed the prompt with it"):
        sd.denoise(embeds[:, 1:], [7], **SMALL)
    with pytest.raises(RequestError, match="draws multiples of 16; take 64"):
        flux.denoise(flux_embeds, [7], **(SMALL | {"size_px": 72}))
    with pytest.raises(MechanismError, match="cannot fuse"):
        sd.fuse(blank, blank[:, :, 0], blank[:, :, 0, 0, 0], blank[:, :, 0, 0, 0])


def test_what_does_not_fit_is_said_before_anything_is_read(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"'flow', a StableDiffusionPipeline is stepped by ddim"):
        DiffusersModels(str(folders["sd"]), scheduler="flow")
    named = {"request": {"prompt": PROMPT}}
    flux = {"name": str(folders["flux"])}
    for model, message in (
        (flux | {"scheduler": "euler"}, "is stepped by flow; take one of these"),
        (flux | {"scheduler": "heun"}, "scheduler is 'heun', take one of ddim"),
        (flux | {"dtype": "int8"}, "dtype is 'int8', take one of float32"),
        ({"dtype": "float16"}, "no pipeline is named"),
    ):
        with pytest.raises((BundleError, ScenarioError), match=message):
            parse_scenario({**named, "model": model})
    refiner = tmp_path / "refiner"
    shutil.copytree(folders["sdxl"], refiner)
    index = json.loads((refiner / "model_index.json").read_text())
    index["text_encoder"] = [None, None]
    (refiner / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match="refines what another has drawn"):
        DiffusersModels(str(refiner))


def test_only_what_is_read_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "sd"
    shutil.copytree(folders["sd"], copy)
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    shutil.copy(unet, unet.with_suffix(".bin"))
    (copy / "README.md").write_text("A pipeline.")
    plain = DiffusersModels(str(folders["sd"]))
    assert DiffusersModels(str(copy)).checksum == plain.checksum
    assert DiffusersModels(str(copy), dtype="bfloat16").checksum != plain.checksum
    unet.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BundleError, match="only points to its weights; fetch them by git lfs pull"):
        DiffusersModels(str(copy)).load("denoiser")
    unet.write_bytes(b"\xff" * 100)
    with pytest.raises(BundleError, match=r"is not a safetensors file .*; fetch it again"):
        DiffusersModels(str(copy)).load("denoiser")


def test_why_the_hub_gives_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub import errors

    answer = httpx.Response(401, request=httpx.Request("GET", "https://huggingface.co/a/b"))
    for error, message in (
        (errors.GatedRepoError("no", response=answer), r"is gated; .* log in with hf auth login"),
        (
            errors.RepositoryNotFoundError("no", response=answer),
            "has no model a/b that this account",
        ),
        (ConnectionError("no"), "not on this machine and the hub cannot be reached"),
    ):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        pretrained.find_folder.cache_clear()
        with pytest.raises(BundleError, match=message):
            DiffusersModels("a/b")


def test_a_scheduler_that_remembers_is_not_stopped(folders: dict[str, Path]) -> None:
    models = DiffusersModels(str(folders["sd"]))
    pipe = models._pipeline
    pipe.scheduler = diffusers.PNDMScheduler.from_config(pipe.scheduler.config)
    embeds = models.embed([PROMPT])
    assert np.isfinite(models.denoise(embeds, [7], **SMALL)).all()
    with pytest.raises(RequestError, match="PNDMScheduler, which remembers earlier steps"):
        models.denoise(embeds, [7], handoff_step=2, **SMALL)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"plan": {"mechanism": "parallel"}}, "has no sub-models; take one of es_to_ue"),
        ({"codecs": {"seed": "hybrid"}}, "learnt the bundle's latents; take one of float32"),
    ],
)
def test_a_scenario_says_what_a_pipeline_does_not(
    tables: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    named = {"request": {"prompt": PROMPT}, "model": {"name": str(folders["sd"])}}
    with pytest.raises(ScenarioError, match=message):
        parse_scenario({**named, **tables})
    with pytest.raises(ScenarioError, match="no pipeline is named"):
        parse_scenario({"request": {"prompt": PROMPT}, "model": {"scheduler": "euler"}})
    assert parse_scenario(named).seed_shape == (4, 32, 32)
    named["model"] = {"name": str(folders["flux"])}
    assert parse_scenario(named).seed_shape == (16, 32, 32)
