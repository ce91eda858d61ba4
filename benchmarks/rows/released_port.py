"""The released inpainting network as its common PyTorch port writes it: what a training step is compared with.

After BoyuanJiang/context_encoder_pytorch (train.py, model.py), whose structure is kept: a bottleneck of 4 x 4
convolutions, a sigmoid and BCELoss, the discriminator on real, on detached and again on generated images with gradients
of its own weights too, three backward passes, the band's weights as a matrix built in every step, Adam as it comes,
float32, contiguous maps, losses read as numbers in every step. Two numbers differ, neither of which costs time: the
weight 0.999 of L2 counts once and the generator's rate is ten times the discriminator's, as in the release's train.lua.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FILL = (117, 104, 123)  # of 255: R, G, B of hidden pixels
OVERLAP_PIXELS = 4
OVERLAP_WEIGHT = 10.0
L2_WEIGHT = 0.999
DISCRIMINATOR_RATE = 2e-4


@dataclass(frozen=True)
class Widths:
    """Channels of the first convolution and units of the bottleneck."""

    channels: int = 64
    units: int = 4000


class PortGenerator(nn.Module):
    """B x 3 x 128 x 128 in [-1, 1] to the middle B x 3 x 64 x 64."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        c, units = widths.channels, widths.units
        self.main_encode = nn.Sequential(
            nn.Conv2d(3, c, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            *_down(c, c),
            *_down(c, 2 * c),
            *_down(2 * c, 4 * c),
            *_down(4 * c, 8 * c),
            nn.Conv2d(8 * c, units, 4, bias=False),
            nn.BatchNorm2d(units),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.main_decode = nn.Sequential(
            nn.ConvTranspose2d(units, 8 * c, 4, 1, 0, bias=False),
            nn.BatchNorm2d(8 * c),
            nn.ReLU(True),
            *_up(8 * c, 4 * c),
            *_up(4 * c, 2 * c),
            *_up(2 * c, c),
            nn.ConvTranspose2d(c, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The fill."""
        return self.main_decode(self.main_encode(images))


class PortDiscriminator(nn.Module):
    """B x 3 x 64 x 64 in [-1, 1] to B probabilities of being real."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        c = widths.channels
        self.main = nn.Sequential(
            nn.Conv2d(3, c, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            *_down(c, 2 * c),
            *_down(2 * c, 4 * c),
            *_down(4 * c, 8 * c),
            nn.Conv2d(8 * c, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The probabilities."""
        return self.main(images).view(-1)


class Port:
    """Both networks with their optimisers; one `step` is one iteration of the port's loop."""

    def __init__(self, device: torch.device, widths: Widths) -> None:
        self.generator = PortGenerator(widths).apply(_initialise).to(device)
        self.discriminator = PortDiscriminator(widths).apply(_initialise).to(device)
        self.criterion = nn.BCELoss()
        betas = (0.5, 0.999)
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), DISCRIMINATOR_RATE, betas)
        self.of_generator = torch.optim.Adam(self.generator.parameters(), 10 * DISCRIMINATOR_RATE, betas)

    def step(self, images: Tensor) -> dict[str, float]:
        """B x 3 x 128 x 128 in [-1, 1] on the device; the losses, named as ours are."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            return self._step(images)

    def _step(self, images: Tensor) -> dict[str, float]:
        real = images[:, :, 32:96, 32:96].clone()
        seen = _filled(images)
        ones = torch.ones(len(images), device=images.device)
        self.discriminator.zero_grad()
        loss_real = self.criterion(self.discriminator(real), ones)
        loss_real.backward()
        fake = self.generator(seen)
        loss_fake = self.criterion(self.discriminator(fake.detach()), torch.zeros_like(ones))
        loss_fake.backward()
        self.of_discriminator.step()

        self.generator.zero_grad()
        adversarial = self.criterion(self.discriminator(fake), ones)
        reconstruction = ((fake - real).pow(2) * _weights(real)).mean()
        total = (1 - L2_WEIGHT) * adversarial + L2_WEIGHT * reconstruction
        total.backward()
        self.of_generator.step()
        return {
            "discriminator": (loss_real + loss_fake).item(),
            "generator": total.item(),
            "reconstruction": reconstruction.item(),
            "adversarial": adversarial.item(),
        }


def _filled(images: Tensor) -> Tensor:
    seen = images.clone()
    inside = slice(32 + OVERLAP_PIXELS, 96 - OVERLAP_PIXELS)
    for channel, value in enumerate(FILL):
        seen[:, channel, inside, inside] = 2 * value / 255 - 1
    return seen


def _weights(real: Tensor) -> Tensor:
    weights = real.clone().fill_(OVERLAP_WEIGHT)
    inside = slice(OVERLAP_PIXELS, 64 - OVERLAP_PIXELS)
    weights[:, :, inside, inside] = 1
    return weights


def _down(before: int, after: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 4, 2, 1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True)]


def _up(before: int, after: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
