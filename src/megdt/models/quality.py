"""How good a picture is, against its reference, and a set of pictures against a set.

A pair of pictures: PSNR, SSIM, MS-SSIM and a perceptual distance. Two sets: the kernel distance
(KID) and the Frechet distance, both on features of one small network that a machine without
network access can have. Their figures are no FID as published, which is on Inception features:
compare them only with figures on the same FEATURES, and only beside their floor.

Pictures are uint8 RGB. What optional packages bring is imported when used: torchmetrics (the extra
`metrics`), and the weights in stlpips-pytorch (installed without its dependencies).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from megdt.errors import MissingExtraError, OutputError, RequestError

FEATURES = "ST-LPIPS AlexNet conv5, average-pooled, 256 dimensions, times 64"
"""What `extract_features` gives, to be named wherever a figure on it is."""

# This network's activations are tiny: mean square 5e-5 on garden views, 3e-5 on photographs. KID's
# kernel has a scale of its own, and (x . y / 256 + 1)^3 would be a straight line there, blind to
# all but the mean. Times 64 the mean square is 0.1 to 0.2 and the kernel bends.
_FEATURE_GAIN = 64

# Below this the last reflection padding has nothing left to reflect.
_FEATURES_PX = 21
# The picture, halved four times, must still hold torchmetrics' window: 176 / 16 = 11 pixels.
_MS_SSIM_PX = 176
_SSIM_PX = 11
_BATCH_SIZE = 16


def psnr_db(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in decibels, peak 255; infinite for equal pictures.

    Args:
        image: [height, width, 3]
        reference: [height, width, 3]

    Raises:
        RequestError: If the two are not RGB pictures of one size.
    """
    _check_pictures(image[None], reference[None])
    power = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return float("inf") if power == 0 else float(10 * np.log10(255**2 / power))


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Structural similarity, 1 for equal pictures; Gaussian window of 11 pixels, sigma 1.5.

    Args:
        image: At least 11 pixels a side. [height, width, 3]
        reference: [height, width, 3]

    Raises:
        MissingExtraError: If torchmetrics is not installed.
        RequestError: If the two are not RGB pictures of one size, or too small.

    References:
        Wang et al., IEEE Transactions on Image Processing 13(4), 2004.
    """
    _check_pictures(image[None], reference[None], smallest_px=_SSIM_PX)
    measure = _torchmetrics().structural_similarity_index_measure
    return float(measure(_to_planes(image[None]), _to_planes(reference[None]), data_range=255.0))


def ms_ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Structural similarity over five scales, 1 for equal pictures.

    Args:
        image: At least 176 pixels a side. [height, width, 3]
        reference: [height, width, 3]

    Raises:
        MissingExtraError: If torchmetrics is not installed.
        RequestError: If the two are not RGB pictures of one size, or too small.

    References:
        Wang et al., Asilomar Conference on Signals, Systems and Computers, 2003.
    """
    _check_pictures(image[None], reference[None], smallest_px=_MS_SSIM_PX)
    measure = _torchmetrics().multiscale_structural_similarity_index_measure
    return float(measure(_to_planes(image[None]), _to_planes(reference[None]), data_range=255.0))


def perceptual_distance(
    images: NDArray[np.uint8], references: NDArray[np.uint8], *, batch_size: int = _BATCH_SIZE
) -> NDArray[np.float32]:
    """ST-LPIPS on AlexNet: how different people would find each pair, 0 for equal pictures.

    Args:
        images: At least 21 pixels a side. [batch, height, width, 3]
        references: [batch, height, width, 3]
        batch_size: Pairs that go through the network at once; memory only.

    Returns:
        One distance a pair. [batch]

    Raises:
        MissingExtraError: If stlpips_pytorch, whose weights these are, is not installed.
        RequestError: If the two are not RGB pictures of one shape, or too small.

    References:
        Ghildyal and Liu, Shift-tolerant Perceptual Similarity Metric, arXiv:2207.13686.
    """
    _check_pictures(images, references, smallest_px=_FEATURES_PX)
    parts = [slice(at, at + batch_size) for at in range(0, len(images), batch_size)]
    found = [PerceptualReference(references[part]).distance(images[part]) for part in parts]
    return np.concatenate(found)


class PerceptualReference:
    """References of `perceptual_distance` that are compared again and again.

    What the network sees in them is kept, which halves the cost of each comparison and takes some
    15 MB for a picture of 256 pixels.

    Args:
        references: At least 21 pixels a side. [batch, height, width, 3]

    Raises:
        MissingExtraError: If stlpips_pytorch, whose weights these are, is not installed.
        RequestError: If these are not RGB pictures, or too small.
    """

    def __init__(self, references: NDArray[np.uint8]) -> None:
        _check_pictures(references, smallest_px=_FEATURES_PX)
        self._shape = references.shape
        with torch.inference_mode():
            self._layers = [_normalise(layer) for layer in _layers(references)]

    def distance(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One distance a pair; see `perceptual_distance`. [batch]

        Raises:
            RequestError: If these are not RGB pictures of the references' shape.
        """
        _check_pictures(images, np.broadcast_to(np.uint8(0), self._shape))
        weights = _read_weights()
        distances = np.zeros(len(images), np.float32)
        with torch.inference_mode():
            for layer, (ours, theirs) in enumerate(zip(_layers(images), self._layers, strict=True)):
                difference = (_normalise(ours) - theirs) ** 2
                weighted = functional.conv2d(difference, weights[f"lin{layer}.model.1.weight"])
                distances += weighted.mean((1, 2, 3)).numpy()
        return distances


def extract_features(
    images: NDArray[np.uint8], batch_size: int = _BATCH_SIZE
) -> NDArray[np.float32]:
    """The FEATURES of pictures, for `kid`, `frechet_distance` and `compare_distributions`.

    Args:
        images: At least 21 pixels a side. [batch, height, width, 3]
        batch_size: Pictures that go through the network at once; memory only.

    Returns:
        [batch, 256]

    Raises:
        MissingExtraError: If stlpips_pytorch, whose weights these are, is not installed.
        RequestError: If these are not RGB pictures, or too small.
    """
    _check_pictures(images, smallest_px=_FEATURES_PX)
    features = np.zeros((len(images), 256), np.float32)
    for at in range(0, len(images), batch_size):
        part = slice(at, at + batch_size)
        with torch.inference_mode():
            features[part] = _layers(images[part])[-1].mean((2, 3)).numpy() * _FEATURE_GAIN
    return features


def kid(features_a: NDArray[Any], features_b: NDArray[Any]) -> float:
    """Kernel distance: the unbiased estimate of the squared maximum mean discrepancy.

    The kernel is (x . y / dimensions + 1)^3. Equal distributions give 0 in expectation whatever
    the number of samples, so an estimate may lie below 0.

    Args:
        features_a: [samples, dimensions]
        features_b: [other samples, dimensions]

    Raises:
        RequestError: If the two are not matrices of as many dimensions, or have one sample.

    References:
        Binkowski et al., Demystifying MMD GANs, arXiv:1801.01401.
    """
    a, b = _check_features(features_a, features_b)
    within = [
        # A sample against itself would bias the estimate: the diagonal does not count.
        (_kernel_sum(x, x) - np.sum((np.sum(x * x, 1) / x.shape[1] + 1) ** 3))
        / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return float(within[0] + within[1] - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def frechet_distance(features_a: NDArray[Any], features_b: NDArray[Any]) -> float:
    """Squared Frechet distance between the Gaussians that fit the two sets of features.

    |mean_a - mean_b|^2 + trace(A + B - 2 (A^1/2 B A^1/2)^1/2), A and B the covariances. It falls
    with the number of samples even between equal distributions; see `frechet_distance_unbiased`.

    Args:
        features_a: [samples, dimensions]
        features_b: [other samples, dimensions]

    Raises:
        RequestError: If the two are not matrices of as many dimensions, or have one sample.

    References:
        Heusel et al., arXiv:1706.08500, equation (6).
    """
    a, b = _check_features(features_a, features_b)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # A symmetric product has real roots even where few samples leave the covariances singular;
    # eigenvalues a rounding error below 0 are 0.
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    means = np.sum((a.mean(0) - b.mean(0)) ** 2)
    return max(0.0, float(means + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def frechet_distance_unbiased(
    features_a: NDArray[Any], features_b: NDArray[Any], *, rng_seed: int = 0
) -> float:
    """Frechet distance extrapolated to endless samples.

    The bias goes as 1 / samples. The distance is taken on random subsets, the same share of both
    sets, and a line through them read off at 1 / samples = 0. That line is straight only with
    several times more samples than dimensions. The estimate is noisier than the plain one and
    may lie below 0.

    Args:
        features_a: At least 4 samples. [samples, dimensions]
        features_b: At least 4 samples. [other samples, dimensions]
        rng_seed: Draws the subsets.

    Raises:
        RequestError: As `frechet_distance`, or if there are fewer than 4 samples.

    References:
        Chong and Forsyth, Effectively Unbiased FID, arXiv:1911.07023.
    """
    a, b = _check_features(features_a, features_b, fewest=4)
    rng = np.random.default_rng(rng_seed)
    inverse, distances = [], []
    # Several draws a size: a line through single ones swings far with the draw.
    for share in np.repeat(np.linspace(0.4, 1, 8), 6):
        n_a, n_b = round(share * len(a)), round(share * len(b))
        inverse.append((len(a) / n_a + len(b) / n_b) / 2)
        distances.append(
            frechet_distance(rng.choice(a, n_a, replace=False), rng.choice(b, n_b, replace=False))
        )
    return float(np.polyfit(inverse, distances, 1)[1])


@dataclass(frozen=True, kw_only=True)
class DistributionReport:
    """How far a set of pictures is from a reference set, and what that would read at best.

    A floor is the same figure between two random halves of the reference set, what two equal
    distributions read. Halves have fewer samples than the whole, so the Frechet floor, a bias
    that falls with the samples, is an upper bound of the floor at n_reference samples. KID has
    no bias: its floor is one draw of its noise, and wider than at n_reference samples.
    """

    features: str
    """What the figures are on; those on other features cannot be compared."""
    dimensions: int
    n: int
    """Pictures judged."""
    n_reference: int
    kid: float
    kid_floor: float
    frechet: float
    frechet_unbiased: float
    """Extrapolated to endless samples."""
    frechet_floor: float

    @property
    def enough_samples(self) -> bool:
        """Whether both covariances can have full rank: without, go by KID alone."""
        return min(self.n, self.n_reference) > self.dimensions


def compare_distributions(
    images_features: NDArray[Any],
    reference_features: NDArray[Any],
    *,
    features: str = FEATURES,
    rng_seed: int = 0,
) -> DistributionReport:
    """Compare two sets of features by KID and Frechet distance.

    Args:
        images_features: Of the pictures to judge, at least 4. [samples, dimensions]
        reference_features: At least 4. [other samples, dimensions]
        features: Their name, where they are not from `extract_features`.
        rng_seed: Draws the halves of the reference set and the subsets of the extrapolation.

    Raises:
        RequestError: If the two are not matrices of as many dimensions, or have too few samples.
    """
    ours, reference = _check_features(images_features, reference_features, fewest=4)
    halves = np.array_split(np.random.default_rng(rng_seed).permutation(reference), 2)
    return DistributionReport(
        features=features,
        dimensions=ours.shape[1],
        n=len(ours),
        n_reference=len(reference),
        kid=kid(ours, reference),
        kid_floor=kid(*halves),
        frechet=frechet_distance(ours, reference),
        frechet_unbiased=frechet_distance_unbiased(ours, reference, rng_seed=rng_seed),
        frechet_floor=frechet_distance(*halves),
    )


def inception_fid(
    images: NDArray[np.uint8], references: NDArray[np.uint8], *, weights: Path
) -> float:
    """FID as published, on 2048 Inception features, for those who have its weights.

    Args:
        images: [batch, height, width, 3]
        references: [other batch, height, width, 3]
        weights: The user's pt_inception-2015-12-05-6726825d.pth; nothing is downloaded.

    Raises:
        MissingExtraError: If torch-fidelity, whose network this is, is not installed.
        OutputError: If the file is missing or holds something else.
        RequestError: If these are not RGB pictures.
    """
    _check_pictures(images)
    _check_pictures(references)
    wanted = "give the path of pt_inception-2015-12-05-6726825d.pth from pytorch-fid"
    if not weights.is_file():
        raise OutputError(f"no Inception weights at {weights}; {wanted}")
    module = _import("torch_fidelity.feature_extractor_inceptionv3", "pip install torch-fidelity")
    try:
        # torch-fidelity reads the file anew and may trust it: refuse first what could run code.
        torch.load(weights, weights_only=True, map_location="cpu")
        network = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )
    except (UnpicklingError, RuntimeError, EOFError, TypeError) as error:
        raise OutputError(f"{weights} does not hold the Inception weights; {wanted}") from error
    features = []
    for pictures in (images, references):
        parts = (pictures[i : i + _BATCH_SIZE] for i in range(0, len(pictures), _BATCH_SIZE))
        planes = (torch.from_numpy(part.copy()).permute(0, 3, 1, 2) for part in parts)
        with torch.inference_mode():
            features.append(np.concatenate([network(part)[0].numpy() for part in planes]))
    return frechet_distance(*features)


@lru_cache(maxsize=1)
def _read_weights() -> dict[str, Tensor]:
    """The AlexNet of ST-LPIPS from the wheel that carries it.

    The package itself is never imported: it wants torchvision and IPython, for a few layers.
    """
    spec = importlib.util.find_spec("stlpips_pytorch")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        path = Path(folder) / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
        if path.is_file():
            weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
            return weights
    raise MissingExtraError(
        "perceptual features need the weights in stlpips_pytorch, which is not installed; "
        "pip install --no-deps stlpips-pytorch"
    )


def _layers(images: NDArray[np.uint8]) -> list[Tensor]:
    """What the five convolutions see in a batch, after their ReLU.

    AlexNet made shift-tolerant: every stride is 1, and blurred halvings do the rest. The first
    one comes before the ReLU, as these weights were trained.
    """
    weights = _read_weights()

    def convolve(x: Tensor, name: str, padding: int) -> Tensor:
        kernel, bias = weights[f"net.{name}.weight"], weights[f"net.{name}.bias"]
        return functional.conv2d(x, kernel, bias, padding=padding)

    def halve(x: Tensor) -> Tensor:
        # [1 2 1] along both axes; padded by 2 rather than 1, so that shifted borders count alike.
        blur = weights["net.slice1.1.filt"][:1].expand(x.shape[1], 1, 3, 3)
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, blur, stride=2, groups=x.shape[1])

    x = _to_planes(images) / 127.5 - 1
    x = (x - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    first = halve(convolve(x, "slice1.0", 2)).relu()
    x = halve(functional.max_pool2d(first, 3, stride=1))
    second = convolve(x, "slice2.5", 2).relu()
    x = halve(functional.max_pool2d(second, 3, stride=1))
    third = convolve(x, "slice3.9", 1).relu()
    fourth = convolve(third, "slice4.11", 1).relu()
    fifth = convolve(fourth, "slice5.13", 1).relu()
    return [first, second, third, fourth, fifth]


def _normalise(x: Tensor) -> Tensor:
    """Unit length at every place. The small number is the metric's own."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _kernel_sum(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum of the kernel over all pairs, some rows at a time: 10,000 samples squared are 800 MB."""
    rows = (a[i : i + 1024] for i in range(0, len(a), 1024))
    return sum(float(np.sum((part @ b.T / a.shape[1] + 1) ** 3)) for part in rows)


def _to_planes(images: NDArray[np.uint8]) -> Tensor:
    """Values 0 to 255. [batch, 3, height, width]"""
    # The copy as floats also straightens flipped views, which torch does not take.
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _check_pictures(*batches: NDArray[Any], smallest_px: int = 1) -> None:
    """Refuse what is not RGB, or not all of one shape; shapes are with the batch axis."""
    for pictures in batches:
        found = f"{pictures.dtype} {list(pictures.shape)}"
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise RequestError(
                f"pictures are {found}, expected uint8 [batch, height, width, 3]; convert them to "
                "8-bit RGB"
            )
        if pictures.shape != batches[0].shape:
            raise RequestError(
                f"pictures are {list(batches[0].shape)}, their references {list(pictures.shape)}; "
                "bring them to one shape"
            )
        if len(pictures) == 0 or min(pictures.shape[1:3]) < smallest_px:
            raise RequestError(
                f"pictures are {found}, this metric needs one or more of at least {smallest_px} "
                "pixels a side; use larger pictures"
            )


def _check_features(
    features_a: NDArray[Any], features_b: NDArray[Any], *, fewest: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise RequestError(
            f"features are {shapes}, expected [samples, dimensions] with as many dimensions; take "
            "both from one network"
        )
    if min(len(features_a), len(features_b)) < fewest:
        raise RequestError(
            f"features are {shapes}, this distance needs at least {fewest} samples on either "
            "side; add pictures"
        )
    return features_a.astype(np.float64), features_b.astype(np.float64)


def _torchmetrics() -> Any:
    return _import("torchmetrics.functional.image", 'pip install "megdt[metrics]"')


def _import(name: str, command: str) -> Any:
    """A module of an optional package, which may be absent and is slow to load."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingExtraError(
            f"this metric needs {package}, which cannot be imported ({error}); {command}"
        ) from error
