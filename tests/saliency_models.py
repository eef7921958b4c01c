"""Small real classifiers for the saliency tests: five classes, 32 x 32 images."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

CLASSES, SIZE = 5, 32


class SmallCNN(nn.Module):
    """Two convolutions with batch norm and dropout, so that mode and buffers matter. Any image size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN()


def vit() -> nn.Module:
    """timm's ViT, class token and one prefix."""
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=CLASSES, drop_rate=0.1
    )


def deit() -> nn.Module:
    """timm's distilled DeiT: two prefix tokens."""
    torch.manual_seed(0)
    return timm.models.deit.VisionTransformerDistilled(
        img_size=SIZE, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=CLASSES
    )


def timm_swin() -> nn.Module:
    torch.manual_seed(0)
    return timm.models.SwinTransformer(
        img_size=SIZE, patch_size=2, window_size=4, embed_dim=12, depths=(1, 2), num_heads=(2, 2), num_classes=CLASSES
    )


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(SIZE, 8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.1)  # torchvision starts it at zero
    return model


def torchvision_swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer([2, 2], 12, [1, 2], [2, 2], [4, 4], num_classes=CLASSES)


def images(count: int = 3, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> Tensor:
    """(count, 3, H, W) float in [0, 1]: noise with a bright disc somewhere."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, *size, generator=generator) * 0.5
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    for i in range(count):
        disc = (y - size[0] * 0.3) ** 2 + (x - size[1] * (0.3 + 0.1 * i)) ** 2 < (min(size) * 0.2) ** 2
        noise[i, :, disc] += 0.5
    return noise
