"""Spectral residual: what is unexpected in an image's spectrum, without a model.

Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgdmix_albu.mixing.colour import Reading
from sgdmix_albu.saliency.base import SaliencyBackend

_SIZE = 64  # the paper's working resolution
_SIGMA = 2.5  # the smoothing of the authors' published code, in pixels of the 64 x 64 map
_LEAST_ROWS = 96  # enough samples for an anti-aliased 64


class SpectralResidual(SaliencyBackend):
    r"""Spectral residual saliency of grey images at 64 x 64 (Hou and Zhang 2007, equations 4 to 6).

    With the spectrum ``X`` of the 64 x 64 grey image, ``L = log |X|`` and the 3 x 3 mean filter ``h``, the
    residual is ``R = L - h * L`` and the saliency ``g * |IFFT(exp(R + i arg X))|^2``, ``g`` a Gaussian.
    Since ``exp(R + i arg X) = X / exp(h * L)``, no angle is taken.

    Works on any range, standardised images included: the map does not change under ``a * image + b``, a > 0.

    Departures from the paper: images are squashed to 64 x 64 (as in OpenCV) rather than scaled to a width or
    height of 64; the spectrum is treated as the periodic function it is, where the authors' code repeats its
    border; grey is stretched to [0, 1] first, for the invariance; coefficients below a millionth of the
    largest, which are rounding errors, are left out; computed in float64, so that the map does not depend on the
    processor, the threads or the batch. Large images are subsampled before they are averaged.

    Args:
        microbatch: The most images worked on at once; None for 16 on a CPU and all on a GPU.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 90, 120, generator=torch.Generator().manual_seed(0))
        >>> SpectralResidual()(images).shape, SpectralResidual().coarse(images).shape
        (torch.Size([2, 90, 120]), torch.Size([2, 64, 64]))
    """

    wants_rgb = False
    uses_labels = False
    at_once = (16, None)

    def attribute(self, inputs: Tensor, target: object = None) -> Tensor:
        """Captum's interface: the maps as attributions of the inputs' shape.

        Args:
            inputs: (B, C, H, W) images.
            target: Accepted because Captum's methods take it, and not used: there is no model.

        Returns:
            (B, C, H, W) float32 in [0, 1], the same in every channel.
        """
        return self(inputs)[:, None].expand(inputs.shape)

    def _prepare(self, images: Tensor, reading: Reading | None) -> Tensor:
        return images  # converted after subsampling, which spares a pass over the full images

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        grey = _stretched_grey(images)
        spectrum = torch.fft.rfft2(grey)
        power = spectrum.real.square() + spectrum.imag.square()
        floor = 1e-12 * power.amax((1, 2), keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
        log_amplitude = (power + floor).log() / 2
        whitened = spectrum * _local_mean(log_amplitude).neg().exp()
        energy = torch.fft.irfft2(whitened, s=grey.shape[1:]).square()
        blur = _gaussian(_SIZE, _SIGMA, grey.device)
        # A flat image has only rounding errors left to be surprised by.
        return torch.where(grey.amax((1, 2), keepdim=True) == 0, 0, blur @ energy @ blur.T)


def _stretched_grey(images: Tensor) -> Tensor:
    """(B, C, H, W) of any dtype to (B, 64, 64) grey in [0, 1], zeros where an image is constant."""
    height, width = images.shape[-2:]
    rows, row_weights = _sampling(height, images.device)
    columns, column_weights = _sampling(width, images.device)
    samples = images[:, :, rows, columns].to(torch.float64)
    grey = row_weights @ samples.mean(1) @ column_weights.T
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    rounding = 1e-6 * samples[:, :, :: _SIZE // 4, :: _SIZE // 4].abs().amax((1, 2, 3))[:, None, None]
    # Broken pixels compare false, so they come through and are reported.
    return torch.where(high - low <= rounding, 0, (grey - low) / (high - low))


def _sampling(length: int, device: torch.device) -> tuple[slice, Tensor]:
    """Which samples of an axis to read, and the (64, samples) weights of anti-aliased bilinear resizing."""
    step = max(1, length // _LEAST_ROWS)
    start = (step - 1) // 2
    at = torch.arange(start, length, step, dtype=torch.float64, device=device) + 0.5
    centre = (torch.arange(_SIZE, dtype=torch.float64, device=device) + 0.5) * length / _SIZE
    # Near the border a centre may lie outside the samples; the nearest one then stands for it.
    last = start + (len(at) - 1) * step
    centre = centre.clamp(start + 0.5, last + 0.5)
    reach = max(length / _SIZE, step)
    weights = (1 - (at - centre[:, None]).abs() / reach).clamp_min(0)
    return slice(start, None, step), weights / weights.sum(1, keepdim=True)


def _local_mean(half: Tensor) -> Tensor:
    """3 x 3 mean over a periodic (n, n) spectrum of a real image, given and returned as its (n, n/2 + 1) half."""
    mirrored = half[:, (-torch.arange(half.shape[1], device=half.device)) % half.shape[1]]
    wide = torch.cat([mirrored[..., 1:2], half, mirrored[..., -2:-1]], dim=-1)
    across = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return (across + across.roll(1, 1) + across.roll(-1, 1)) / 9


def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    """Smoothing along one axis as a (size, size) matrix whose rows sum to 1, so the border does not darken."""
    at = torch.arange(size, dtype=torch.float64, device=device)
    distance = (at - at[:, None]) / sigma
    # Cut off at 4 sigma: beyond it the weights are denormal numbers, which make the product ten times slower.
    weights = torch.where(distance.abs() <= 4, (-(distance**2) / 2).exp(), 0)
    return weights / weights.sum(1, keepdim=True)
