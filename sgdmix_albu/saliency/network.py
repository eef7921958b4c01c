"""A small network that sees where the object is: EfficientNet-Lite0 down to stride 32, a light way back to stride 2.

Encoder: Tan and Le, "EfficientNet" (ICML 2019), the Lite variant: no squeeze-and-excitation, ReLU6 throughout, so that
it is fast on a CPU. Decoder: features of each stride are added on the way up (Lin et al., "Feature Pyramid Networks",
CVPR 2017), with depthwise 5 x 5 convolutions, which see far and cost little. No normalisation layers: the encoder's are
folded into its convolutions, and the decoder does without.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 160  # pixels a side of what the network looks at, whatever the image's own size

# Kernel, expansion, channels, stride, blocks: EfficientNet-Lite0's stages, the last one cut to its first block.
_STAGES = ((3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 2, 3), (5, 6, 112, 1, 3), (5, 6, 192, 2, 1))
_TAPS = (0, 1, 2, 4, 5)  # the stages at strides 2, 4, 8, 16 and 32
_WIDTHS = (16, 32, 64, 96, 128)  # of the way back, at the same strides
_MEAN, _SCALE = 127.0, 128.0  # of the encoder's pixels, on 0..255
# A convolution of oneDNN with the ReLU6 in it, which torch.compile makes of the two; None where torch has no oneDNN.
FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


class SaliencyNetwork(nn.Module):
    """RGB images to logits of saliency, at half the resolution; 1.0 million parameters.

    Shapes:
        (B, 3, H, W) float in [0, 1], H and W multiples of 32, to (B, H/2, W/2) float.

    Example:
        >>> import torch
        >>> SaliencyNetwork().eval()(torch.rand(2, 3, 160, 160)).shape
        torch.Size([2, 80, 80])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, 32, 3, stride=2)
        stages, channels = [], 32
        for kernel, expansion, out, stride, blocks in _STAGES:
            first = _Block(channels, out, kernel, expansion, stride)
            stages.append(nn.Sequential(first, *(_Block(out, out, kernel, expansion, 1) for _ in range(blocks - 1))))
            channels = out
        self.stages = nn.ModuleList(stages)
        taps = [_STAGES[i][2] for i in _TAPS]
        self.sides = nn.ModuleList(_Unit(tap, width, 1, active=False) for tap, width in zip(taps, _WIDTHS, strict=True))
        self.whole = nn.Linear(taps[-1], _WIDTHS[-1])
        self.mixes = nn.ModuleList(_Mix(width, thin=i == 0) for i, width in enumerate(_WIDTHS))
        self.steps = nn.ModuleList(_Unit(coarse, fine, 1, active=False) for fine, coarse in pairwise(_WIDTHS))
        self.head = nn.Conv2d(_WIDTHS[0], 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; their sigmoid is the saliency."""
        x = self.stem((images * 255).sub_(_MEAN).div_(_SCALE))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        taps = [features[i] for i in _TAPS]
        # What the picture holds as a whole decides which of its things stands out.
        x = self.sides[-1](taps[-1]) + self.whole(taps[-1].mean((2, 3)))[:, :, None, None]
        x = self.mixes[-1](x)
        for i in reversed(range(len(_WIDTHS) - 1)):
            up = F.interpolate(self.steps[i](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.mixes[i](up.add_(self.sides[i](taps[i])))
        logits: Tensor = self.head(x)[:, 0]
        return logits


class _Unit(nn.Sequential):
    """A convolution and, where active, ReLU6."""

    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int = 1, depthwise: bool = False, active: bool = True
    ) -> None:
        convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=channels if depthwise else 1)
        # What goes out is as large as what comes in: there is no normalisation (He et al., ICCV 2015).
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if active else "linear")
        nn.init.constant_(convolution.bias, 0.0)  # type: ignore[arg-type]
        super().__init__(convolution, *([nn.ReLU6(inplace=True)] if active else []))

    def forward(self, x: Tensor) -> Tensor:
        if FUSED is None or torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
            seen: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return seen
        of: nn.Conv2d = self[0]  # type: ignore[assignment]
        after = ("hardtanh", [0.0, 6.0], "") if len(self) == 2 else ("none", [], "")
        fused: Tensor = FUSED(x, of.weight, of.bias, of.padding, of.stride, of.dilation, of.groups, *after)
        return fused


class _Block(nn.Module):
    """An inverted residual (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, channels: int, out: int, kernel: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.convs = nn.Sequential(
            *([_Unit(channels, inner, 1)] if expansion > 1 else []),
            _Unit(inner, inner, kernel, stride=stride, depthwise=True),
            _Unit(inner, out, 1, active=False),
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.convs(x)
        return seen.add_(x) if self.adds else seen


class _Mix(nn.Module):
    """Looks around in each channel, then across channels, and adds what it saw: nothing at first."""

    def __init__(self, width: int, *, thin: bool = False) -> None:
        super().__init__()
        around = [_Unit(width, width, 5, depthwise=True, active=False), _Unit(width, width, 1)]
        again = [] if thin else [_Unit(width, width, 5, depthwise=True, active=False)]
        self.convs = nn.Sequential(*around, *again, _Unit(width, width, 1, active=False))
        nn.init.zeros_(self.convs[-1][0].weight)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.convs(x).add_(x), inplace=True)
