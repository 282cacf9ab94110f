"""E2U split among the denoising steps: what each side runs, and what the air does in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megdt.errors import RequestError, ScenarioError
from megdt.mechanisms.single_user import denoise_last
from megdt.mechanisms.stages import Job
from megdt.models.bundle import Bundle
from megdt.records import Feature, Request, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.trial import demonstrate, generate
from tests.plain_models import PlainModels

STEPS = 6


def scenario(
    mechanism: str = "es_to_ue_steps",
    *,
    seed: str = "float32",
    snr_db: float = 10.0,
    mode: str = "fair",
    **request: Any,
) -> Scenario:
    link = {"snr_db": snr_db} | ({"coding": "abstract"} if mode == "fair" else {})
    return parse_scenario(
        {
            "request": {"prompt": "red poppies at dusk", "steps": STEPS, **request},
            "plan": {"mechanism": mechanism, "mode": mode},
            "codecs": {"seed": seed},
            "link": link,
        }
    )


def flops(result: Result, side: Side) -> float:
    return sum(c.flops for c in result.ledger.computations if c.side == side and c.task == "run")


def test_each_side_runs_its_share_and_the_seed_alone_comes_down(models: PlainModels) -> None:
    result = scenario(handoff_step=4).run(models)
    assert [(s, c.side) for c in result.ledger.computations if c.task == "run" for s in [c.stage]] == [
        ("ask", "UE"), ("embed", "ES"), ("denoise_first", "ES"), ("denoise_last", "UE"),
        ("decode", "UE"),
    ]  # fmt: skip
    assert [(c.kind, c.to_side) for c in result.ledger.crossings] == [
        ("prompt", "ES"),
        ("seed", "UE"),
    ]
    assert models.handed_over == 4
    assert models.finished == (0.0, STEPS, 4)
    assert (result.image == models.decode(result.features["denoise_last"].values[None])[0]).all()


def test_what_the_air_adds_is_told_to_the_student_and_gone_after_it(models: PlainModels) -> None:
    result = scenario(seed="analog", handoff_step=4).run(models)
    assert models.finished is not None
    power = result.arrived["denoise_first", Side.UE].noise_power
    assert models.finished[0] == power > 0
    assert result.features["denoise_last"].noise_power == 0
    assert result.features["denoise_last"].redrawn_from == 0.5  # as these models say
    assert models.noise_power == 0
    clean = scenario(seed="int8", handoff_step=4).run(models)
    assert clean.features["denoise_last"].redrawn_from == 0


def test_three_quarters_of_the_steps_are_the_es_s_where_nothing_else_is_said() -> None:
    assert [Request(prompt="x", steps=n).es_steps for n in (1, 2, 24, 50)] == [1, 2, 18, 38]
    assert Request(prompt="x", handoff_step=3).es_steps == 3


@pytest.mark.parametrize("handoff_step", [0, -1, STEPS + 1])
def test_a_handoff_outside_the_steps_is_refused(handoff_step: int) -> None:
    with pytest.raises(
        RequestError, match=f"handoff_step is {handoff_step}, .* all of the 6 steps"
    ):
        scenario(handoff_step=handoff_step)


@pytest.mark.parametrize("codec", ["progressive", "jscc", "hybrid"])
def test_codecs_that_know_clean_latents_alone_are_refused(codec: str) -> None:
    with pytest.raises(ScenarioError, match=rf"seed is '{codec}', but es_to_ue_steps hands over"):
        scenario(seed=codec)
    scenario("es_to_ue", seed=codec)


def test_a_large_view_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RequestError, match=r"size_px is 320, .* split at 256 pixels alone"):
        scenario(size_px=320).run(bundle)


def test_with_all_steps_at_the_es_it_is_es_to_ue_bit_for_bit(bundle: Bundle) -> None:
    split = scenario(handoff_step=STEPS).run(bundle)
    whole = scenario("es_to_ue").run(bundle)
    assert (split.features["denoise_last"].values == whole.features["denoise"].values).all()
    assert split.image is not None
    assert (split.image == whole.image).all()
    assert flops(split, Side.UE) == flops(whole, Side.UE)


def test_each_side_is_charged_for_its_steps(bundle: Bundle) -> None:
    ran = {step: scenario(handoff_step=step).run(bundle) for step in (1, 4, STEPS)}
    es, ue = ({k: flops(r, side) for k, r in ran.items()} for side in (Side.ES, Side.UE))
    teacher, student = (es[4] - es[1]) / 3, (ue[1] - ue[4]) / 3
    assert es[STEPS] - es[4] == pytest.approx(2 * teacher)
    assert ue[4] - ue[STEPS] == pytest.approx(2 * student)
    # Twice for guidance, and 8 times as many operations each.
    assert student < teacher / 16


def test_what_crosses_has_unit_variance_at_any_step(bundle: Bundle) -> None:
    for step in (1, 3, STEPS):
        first = scenario(handoff_step=step).run(bundle).features["denoise_first"].values
        assert 0.8 < first.std() < 1.25


def test_the_student_goes_on_as_the_teacher_would(bundle: Bundle) -> None:
    whole = scenario("es_to_ue", steps=12).run(bundle).features["denoise"].values
    result = scenario(handoff_step=9, steps=12).run(bundle)
    handed, finished = (result.features[f"denoise_{n}"].values for n in ("first", "last"))
    error = ((finished - whole) ** 2).mean()
    assert error < 0.25 * ((handed - whole) ** 2).mean()
    assert error < 0.05


def test_steps_that_the_air_has_undone_are_run_again(bundle: Bundle) -> None:
    request = scenario(handoff_step=5).request
    values = np.random.default_rng(0).standard_normal((4, 32, 32)).astype(np.float32)
    told: list[tuple[int, int]] = []

    def count(noise_power: float) -> tuple[int, float]:
        told.clear()
        job = Job(request=request, models=bundle, progress=lambda *step: told.append(step))
        feature = Feature(kind="seed", values=values, noise_power=noise_power)
        prompt = Feature(kind="prompt", values=request.prompt)
        level = denoise_last(job, feature, prompt).redrawn_from
        assert told == [(n + 1, len(told)) for n in range(len(told))]
        return len(told), level

    counts, levels = zip(*map(count, (0.0, 1e-3, 0.3, 10.0)), strict=True)
    assert counts == (1, 1, 2, 4)
    assert levels == tuple(sorted(levels))
    assert levels[-1] == pytest.approx(0.77, abs=0.02)


def test_noise_of_the_air_is_denoised_with_the_rest(bundle: Bundle) -> None:
    whole = scenario("es_to_ue").run(bundle)
    plain = scenario("es_to_ue", seed="analog", snr_db=0.0).run(bundle)
    split = scenario(seed="analog", snr_db=0.0, handoff_step=STEPS - 1).run(bundle)
    wanted = whole.features["denoise"].values
    noisy = plain.arrived["denoise", Side.UE]
    mended = split.features["denoise_last"].values
    # Wiener's gain is the best that a factor does against noise.
    gain = 1 / (1 + noisy.noise_power)
    assert ((mended - wanted) ** 2).mean() < 0.6 * ((gain * noisy.values - wanted) ** 2).mean()


def test_paper_mode_counts_its_noise_alike(bundle: Bundle) -> None:
    result = scenario(seed="analog", mode="paper", snr_db=10.0).run(bundle)
    assert result.arrived["denoise_first", Side.UE].noise_power == pytest.approx(0.1, rel=0.5)
    assert result.features["denoise_last"].redrawn_from > 0.2


def test_a_trial_is_judged_by_what_the_ue_makes_where_the_air_changes_nothing(
    bundle: Bundle,
) -> None:
    lossless = generate(scenario(handoff_step=4), bundle, baseline=None, progress=None)
    assert lossless.psnr_db == np.inf
    whole = scenario("es_to_ue").run(bundle)
    assert whole.image is not None
    assert (lossless.error_free != whole.image).any()
    noisy = generate(scenario(seed="analog", snr_db=0.0), bundle, baseline="webp", progress=None)
    assert noisy.psnr_db is not None
    assert noisy.psnr_db < 40
    # The ES has finished the baseline's picture itself: it is judged by that.
    assert noisy.baseline is not None
    assert (noisy.baseline.error_free == whole.image).all()
    assert noisy.baseline.result.features["embed"] is noisy.result.features["embed"]
    prompt = generate(scenario(), bundle, baseline="prompt", progress=None)
    assert prompt.baseline is not None
    assert prompt.baseline.psnr_db == np.inf


def test_a_demonstration_runs_it(bundle: Bundle) -> None:
    result = demonstrate(scenario(), bundle)[1]
    assert result.image is not None
    assert result.image.shape == (256, 256, 3)
