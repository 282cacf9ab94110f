"""Quality metrics: each against a closed form, a loop, or what must hold for any metric."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from megdt.errors import MegdtError, MissingExtraError, OutputError, RequestError
from megdt.models import quality

needs_stlpips = pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None,
    reason="its weights are not installed: pip install --no-deps stlpips-pytorch",
)
needs_torchmetrics = pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None,
    reason='torchmetrics is not installed: pip install "megdt[metrics]"',
)


def draw_picture(height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    """Smooth waves of colour, the same every time. [height, width, 3]"""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + k) * np.cos(y / (4 + k)) for k in range(3)]
    return np.stack([127 + 90 * w for w in waves], -1).astype(np.uint8)


def add_noise(picture: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


def draw_gaussian(n: int, dimensions: int, *, rng_seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(rng_seed).normal(size=(n, dimensions))


def one_line(error: pytest.ExceptionInfo[MegdtError]) -> bool:
    return len(str(error.value).splitlines()) == 1


def test_equal_pictures_have_infinite_psnr() -> None:
    assert quality.psnr_db(draw_picture(), draw_picture()) == float("inf")


def test_psnr_of_a_known_error_is_the_formula() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert quality.psnr_db(black, black + np.uint8(255)) == pytest.approx(0)
    assert quality.psnr_db(black, black + np.uint8(5)) == pytest.approx(20 * np.log10(51))


def test_psnr_does_not_wrap_around_where_bytes_would() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    brighter = grey + np.uint8(50)
    assert quality.psnr_db(grey, brighter) == quality.psnr_db(brighter, grey)


@needs_torchmetrics
def test_structural_similarity_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    picture = draw_picture(176, 176)
    for measure in (quality.ssim, quality.ms_ssim):
        values = [measure(add_noise(picture, deviation), picture) for deviation in (0, 10, 40)]
        assert values[0] == pytest.approx(1, abs=1e-5)
        assert values[0] > values[1] > values[2] > 0


@needs_torchmetrics
def test_the_smallest_pictures_that_the_messages_name_do_work() -> None:
    assert quality.ssim(*2 * [draw_picture(11, 11)]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(RequestError, match="at least 176 pixels") as error:
        quality.ms_ssim(*2 * [draw_picture(175, 200)])
    assert one_line(error)


def test_a_missing_torchmetrics_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(MissingExtraError, match=r'torchmetrics.*pip install "megdt\[m') as error:
        quality.ssim(draw_picture(), draw_picture())
    assert one_line(error)


def test_missing_perceptual_weights_are_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quality._read_weights.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps stlpips") as error:
        quality.extract_features(draw_picture()[None])
    assert one_line(error)


@needs_stlpips
def test_equal_pictures_have_no_perceptual_distance() -> None:
    pictures = np.stack([draw_picture(), draw_picture()[::-1]])
    assert np.all(quality.perceptual_distance(pictures, pictures) == 0)


@needs_stlpips
def test_perceptual_distance_rises_with_noise() -> None:
    noisy = np.stack([add_noise(draw_picture(), deviation) for deviation in (0, 5, 20, 60)])
    distances = quality.perceptual_distance(noisy, np.stack([draw_picture()] * 4))
    assert np.all(np.diff(distances) > 0)


@needs_stlpips
def test_perceptual_distance_is_what_st_lpips_gives() -> None:
    # From the package's own LPIPS(net="alex", variant="shift_tolerant"), its imports of
    # torchvision and IPython stubbed.
    picture = draw_picture()
    others = np.stack([add_noise(picture, 30), picture[::-1]])
    distances = quality.perceptual_distance(others, np.stack([picture] * 2))
    assert distances == pytest.approx([0.519436, 0.352974], abs=1e-5)


@needs_stlpips
def test_the_stlpips_package_is_read_but_never_imported() -> None:
    quality.extract_features(draw_picture()[None])
    assert "stlpips_pytorch" not in sys.modules


@needs_stlpips
def test_batches_do_not_change_features_or_distances() -> None:
    pictures = np.stack([add_noise(draw_picture(), deviation) for deviation in (0, 20, 60)])
    whole = quality.extract_features(pictures)
    assert whole.shape == (3, 256)
    assert whole.dtype == np.float32
    assert quality.extract_features(pictures, batch_size=2) == pytest.approx(whole, abs=1e-5)
    distances = quality.perceptual_distance(pictures, pictures[::-1])
    parted = quality.perceptual_distance(pictures, pictures[::-1], batch_size=2)
    assert parted == pytest.approx(distances, abs=1e-6)


@needs_stlpips
def test_the_smallest_picture_with_features_is_21_pixels() -> None:
    assert quality.extract_features(draw_picture(21, 21)[None]).shape == (1, 256)
    with pytest.raises(RequestError, match="at least 21 pixels") as error:
        quality.extract_features(draw_picture(20, 40)[None])
    assert one_line(error)


def test_kid_of_two_halves_of_one_gaussian_is_near_nothing() -> None:
    samples = draw_gaussian(600, 8)
    shifted = abs(quality.kid(samples[:300], samples[300:] + 0.5))
    assert abs(quality.kid(samples[:300], samples[300:])) < 0.05 * shifted


def test_kid_equals_a_loop_over_all_pairs() -> None:
    a, b = draw_gaussian(7, 3), draw_gaussian(5, 3, rng_seed=1) + 0.7

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def mean_within(x: NDArray[np.float64]) -> float:
        n = len(x)
        return float(np.mean([kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j]))

    across = np.mean([kernel(x, y) for x in a for y in b])
    assert quality.kid(a, b) == pytest.approx(mean_within(a) + mean_within(b) - 2 * across)


def test_kid_does_not_depend_on_how_its_rows_are_parted() -> None:
    a = draw_gaussian(1030, 2)
    gram = (a @ a.T / 2 + 1) ** 3
    assert quality._kernel_sum(a, a) == pytest.approx(gram.sum())


def test_frechet_distance_matches_the_closed_form() -> None:
    # Samples are whitened, so their mean and covariance are exactly the ones set here.
    white = draw_gaussian(50, 3)
    white = white - white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    a = white * [1, 2, 3] + [0, 0, 1]
    b = white * [2, 2, 5] + [2, 0, 0]
    # Diagonal covariances: the mean's squared distance plus that of the standard deviations.
    assert quality.frechet_distance(a, b) == pytest.approx((4 + 1) + (1 + 0 + 4))


def test_frechet_distance_of_covariances_that_do_not_commute_matches_the_product_root() -> None:
    a = draw_gaussian(40, 4) @ draw_gaussian(4, 4, rng_seed=1)
    b = draw_gaussian(40, 4, rng_seed=2) @ draw_gaussian(4, 4, rng_seed=3)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    means = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected = means + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert quality.frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_holds_with_fewer_samples_than_dimensions() -> None:
    few = draw_gaussian(5, 20)
    assert quality.frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert quality.frechet_distance(few, few + 1) == pytest.approx(20, rel=1e-5)


def test_the_unbiased_frechet_distance_is_nearer_to_nothing_for_equal_distributions() -> None:
    for rng_seed in range(3):
        a = draw_gaussian(300, 16, rng_seed=rng_seed)
        b = draw_gaussian(200, 16, rng_seed=rng_seed + 10)
        unbiased = quality.frechet_distance_unbiased(a, b)
        assert abs(unbiased) < 0.5 * quality.frechet_distance(a, b)


def test_the_unbiased_frechet_distance_depends_on_nothing_but_its_rng_seed() -> None:
    a, b = draw_gaussian(60, 4), draw_gaussian(40, 4, rng_seed=1)
    first = quality.frechet_distance_unbiased(a, b)
    assert quality.frechet_distance_unbiased(a, b) == first
    assert quality.frechet_distance_unbiased(a, b, rng_seed=1) != first


def test_a_report_sets_every_figure_beside_its_floor() -> None:
    reference, shifted = draw_gaussian(300, 8), draw_gaussian(200, 8, rng_seed=1) + 1
    report = quality.compare_distributions(shifted, reference)
    assert report.features == quality.FEATURES
    assert (report.n, report.n_reference, report.dimensions) == (200, 300, 8)
    assert report.kid > 10 * abs(report.kid_floor)
    assert report.frechet > 10 * report.frechet_floor
    assert report.frechet_unbiased == pytest.approx(8, rel=0.15)
    assert report.enough_samples
    assert report == quality.compare_distributions(shifted, reference)


def test_a_report_on_too_few_samples_says_so_and_has_its_figures_all_the_same() -> None:
    report = quality.compare_distributions(draw_gaussian(6, 16), draw_gaussian(50, 16))
    assert not report.enough_samples
    assert np.isfinite([report.kid, report.frechet, report.frechet_unbiased]).all()


def test_features_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(RequestError, match=r"\[9, 3\] and \[9, 4\]") as error:
        quality.kid(draw_gaussian(9, 3), draw_gaussian(9, 4))
    assert one_line(error)
    with pytest.raises(RequestError, match="at least 4 samples") as error:
        quality.compare_distributions(draw_gaussian(9, 3), draw_gaussian(3, 3))
    assert one_line(error)


def test_pictures_that_do_not_fit_are_refused_in_one_line() -> None:
    picture = draw_picture()
    others: list[NDArray[Any]] = [picture[:-1], picture[..., 0], picture[:0]]
    for other in others:
        with pytest.raises(RequestError, match="pictures are") as error:
            quality.psnr_db(picture, other)
        assert one_line(error)


def test_inception_fid_without_its_weights_file_is_one_line(tmp_path: Path) -> None:
    pictures = draw_picture()[None]
    with pytest.raises(OutputError, match="no Inception weights at") as error:
        quality.inception_fid(pictures, pictures, weights=tmp_path / "none.pth")
    assert one_line(error)


def test_inception_fid_without_torch_fidelity_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").touch()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    pictures = draw_picture()[None]
    with pytest.raises(MissingExtraError, match="pip install torch-fidelity") as error:
        quality.inception_fid(pictures, pictures, weights=tmp_path / "weights.pth")
    assert one_line(error)


class MeanColour:
    """Stands in for torch-fidelity's Inception network: three features, each colour's mean."""

    def __init__(
        self, name: str, features_list: list[str], *, feature_extractor_weights_path: str
    ) -> None:
        assert features_list == ["2048"]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        assert x.dtype == torch.uint8
        return (x.float().mean((2, 3)),)


def test_inception_fid_is_the_frechet_distance_on_what_torch_fidelity_extracts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(FeatureExtractorInceptionV3=MeanColour)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    images = np.random.default_rng(0).integers(0, 200, (20, 4, 4, 3)).astype(np.uint8)
    torch.save({}, tmp_path / "weights.pth")
    distance = quality.inception_fid(images, images + 10, weights=tmp_path / "weights.pth")
    assert distance == pytest.approx(300, rel=1e-4)
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    with pytest.raises(OutputError, match="does not hold the Inception weights") as error:
        quality.inception_fid(images, images, weights=tmp_path / "weights.pth")
    assert one_line(error)


@needs_stlpips
def test_a_kept_reference_gives_the_same_perceptual_distance() -> None:
    noisy = np.stack([add_noise(draw_picture(), n) for n in (5, 20)])
    clean = np.stack([draw_picture()] * 2)
    kept = quality.PerceptualReference(clean)
    for _ in range(2):
        assert np.array_equal(kept.distance(noisy), quality.perceptual_distance(noisy, clean))


@needs_stlpips
def test_a_kept_reference_refuses_pictures_of_another_shape() -> None:
    kept = quality.PerceptualReference(draw_picture()[None])
    with pytest.raises(RequestError, match=r"\[1, 40, 48, 3\]") as error:
        kept.distance(draw_picture(40, 48)[None])
    assert one_line(error)
