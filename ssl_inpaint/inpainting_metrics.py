"""Scores of filled holes, on exactly the hidden pixels of images in [0, 1] (paper, table 1).

Every score is computed image by image and then averaged over the images, so that it does not depend on the batches.
What a method returns outside of the hole is not looked at: the given pixels stand there.

"mean L1" is the mean of |e| and "mean L2" that of e^2, over hidden pixels and colours; where holes differ in size the
mean over images is not that over pixels. "PSNR (dB)" is the mean over images of -10 log10(mean e^2), as in table 1
(never below -10 log10 of "mean L2", by Jensen); a perfect fill, and any above, counts as 100 dB. "SSIM" is the map of
Wang et al. (2004), Gaussian window of deviation 1.5 pixels, averaged over hidden pixels; the window of a pixel near the
edge of the hole also sees visible ones, alike for all methods. "LPIPS (whole square)" (Zhang et al. 2018, AlexNet) is
the only one of the whole image, and only computed where torchvision's weights lie on this machine: none are fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "mean L1": False,
    "mean L2": False,
    "PSNR (dB)": True,
    "SSIM": True,
    "LPIPS (whole square)": False,
}
MOST_DECIBELS = 100.0  # an error of 1e-5: 8-bit images have none between that and zero
WINDOW_PIXELS = 11  # of SSIM: 3.5 deviations to either side
LPIPS_PIXELS = 32  # a side, below which AlexNet has no map left
OUTSIDE = 1e-4  # rounding beyond [0, 1] that is let pass

Perceptual = Callable[[Tensor, Tensor], Tensor]  # B x 3 x H x W twice, in [0, 1], to B distances


class HiddenPixelScores:
    """Adds up the scores of batch after batch."""

    def __init__(self, perceptual: Perceptual | None = None) -> None:
        self._perceptual = perceptual
        self._scores: dict[str, list[float]] = {}
        self.images = 0  # how many so far

    def update(self, filled: Tensor, truth: Tensor, holes: Tensor) -> None:
        """Adds B x 3 x H x W filled images, the true ones, and B x 1 x H x W bool, True where pixels were missing.

        ValueError for shapes that do not fit, images below 11 pixels a side (32 with LPIPS), values that are not finite
        or outside [0, 1], and images with nothing hidden, by their numbers among all that were added.
        """
        self._check(filled, truth, holes)
        composite = torch.where(holes, filled, truth)
        found = image_scores(composite, truth, holes)
        if self._perceptual is not None:
            found["LPIPS (whole square)"] = self._perceptual(composite.clamp(0, 1), truth.clamp(0, 1))
        for name, values in found.items():
            self._scores.setdefault(name, []).extend(values.tolist())
        self.images += len(truth)

    def compute(self) -> dict[str, float]:
        """The means over all images so far, by name; ValueError where there are none."""
        if not self.images:
            raise ValueError("No image was scored: there is no mean.")
        return {name: math.fsum(values) / self.images for name, values in self._scores.items()}

    def each(self) -> dict[str, np.ndarray]:
        """The scores of the images one by one, N float64 by name."""
        return {name: np.array(values) for name, values in self._scores.items()}

    def _check(self, filled: Tensor, truth: Tensor, holes: Tensor) -> None:
        is_batch = truth.ndim == 4 and truth.shape[1] == 3 and filled.shape == truth.shape
        if not is_batch or holes.dtype != torch.bool or holes.shape != (len(truth), 1, *truth.shape[2:]):
            raise ValueError(
                f"Filled images {tuple(filled.shape)}, true ones {tuple(truth.shape)} and holes {tuple(holes.shape)} "
                f"{holes.dtype}: they must be B x 3 x H x W twice and B x 1 x H x W bool."
            )
        smallest = LPIPS_PIXELS if self._perceptual is not None else WINDOW_PIXELS
        if min(truth.shape[2:]) < smallest:
            raise ValueError(
                f"Images of {truth.shape[2]} x {truth.shape[3]} pixels: the scores need {smallest} a side."
            )
        self._refuse(~holes.flatten(1).any(dim=1), "have nothing hidden: leave them out")
        for what, values in (("true pixels", truth), ("filled pixels", torch.where(holes, filled, truth))):
            is_right = torch.isfinite(values) & (values >= -OUTSIDE) & (values <= 1 + OUTSIDE)
            self._refuse(~is_right.flatten(1).all(dim=1), f"have {what} that are not finite or outside [0, 1]")

    def _refuse(self, is_wrong: Tensor, complaint: str) -> None:
        if is_wrong.any():
            numbers = ", ".join(str(self.images + n) for n in is_wrong.nonzero().flatten().tolist())
            raise ValueError(f"Of the images, counted from 0, numbers {numbers} {complaint}.")


def image_scores(filled: Tensor, truth: Tensor, holes: Tensor) -> dict[str, Tensor]:
    """Score name to B float64, for images that agree where nothing is hidden, with something hidden in each."""
    filled, truth = filled.double(), truth.double()
    errors = filled - truth
    squared = _hidden_mean(errors**2, holes)
    return {
        "mean L1": _hidden_mean(errors.abs(), holes),
        "mean L2": squared,
        "PSNR (dB)": -10 * squared.clamp(min=10 ** (-MOST_DECIBELS / 10)).log10(),
        "SSIM": _hidden_mean(_ssim_map(filled, truth).double(), holes),
    }


def lpips_file() -> Path:
    """Where torchvision keeps the AlexNet that LPIPS reads, whether it is there or not."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name


def open_lpips(device: torch.device) -> Perceptual | None:
    """LPIPS on that device; None where `lpips_file` is not there. The linear heads come with torchmetrics."""
    if not lpips_file().is_file():
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).net.to(device)

    @torch.no_grad()
    def distances(filled: Tensor, truth: Tensor) -> Tensor:
        found: Tensor = network(filled.to(device), truth.to(device), normalize=True)
        return found.flatten().double().cpu()

    return distances


def _hidden_mean(values: Tensor, holes: Tensor) -> Tensor:
    """The mean over hidden pixels and channels of each of B x C x H x W."""
    hidden = torch.where(holes, values, 0.0).sum(dim=(1, 2, 3))
    return hidden / (holes.sum(dim=(1, 2, 3)) * values.shape[1])


def _ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """B x 3 x H x W, the similarity of the windows around each pixel, mirrored at the border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = []  # one by one, so that no digit depends on the batch; in float32, for float64 takes fifty times as long
    for image, other in zip(images.float()[:, None], others.float()[:, None], strict=True):
        _, similarities = structural_similarity_index_measure(
            image, other, sigma=1.5, kernel_size=WINDOW_PIXELS, data_range=1.0, return_full_image=True
        )
        found.append(similarities)
    return torch.cat(found) if found else images
