"""Which layer is looked at, and tokens as maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from saliency_models import cnn, deit, images, timm_swin, torchvision_swin, torchvision_vit, vit
from torch import nn

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.layers import find_layer
from sgdmix_albu.saliency.tokens import find_layout, from_grid, to_grid


def resnet() -> nn.Module:
    return torchvision.models.resnet18(num_classes=5)


def vgg() -> nn.Module:
    return torchvision.models.vgg11(num_classes=5, init_weights=False)


def densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 2), 8, num_classes=5)


def mobilenet() -> nn.Module:
    """Its last convolution comes after the pooling and sees no map."""
    return timm.create_model("mobilenetv3_small_050", num_classes=5)


def convnext() -> nn.Module:
    return timm.create_model("convnext_atto", num_classes=5, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))


# Expected by reading each architecture: the last map before pooling; the norm before the last attention for class
# tokens; the last norm where tokens are averaged.
EXPECTED: list[tuple[Callable[[], nn.Module], int, str]] = [
    (cnn, 32, "features"),
    (resnet, 64, "layer4"),
    (vgg, 64, "features.19"),
    (densenet, 64, "features"),
    (mobilenet, 64, "blocks"),
    (convnext, 64, "norm_pre"),
    (vit, 32, "blocks.1.norm1"),
    (deit, 32, "blocks.1.norm1"),
    (torchvision_vit, 32, "encoder.layers.encoder_layer_1.ln_1"),
    (timm_swin, 32, "norm"),
    (torchvision_swin, 32, "norm"),
]


@pytest.mark.parametrize(("make", "size", "layer"), EXPECTED, ids=lambda part: getattr(part, "__name__", str(part)))
def test_default_layer(make: Callable[[], nn.Module], size: int, layer: str) -> None:
    assert find_layer(make().eval(), None, images(2, (size, size))) == layer


def test_falls_back_where_the_last_map_is_a_single_cell() -> None:
    assert find_layer(resnet().eval(), None, images(1, (32, 32))) == "layer3"


@pytest.mark.parametrize("layer", ["features.0", "module"])
def test_layer_by_name_and_by_module(layer: str) -> None:
    model = cnn()
    given_layer = model.features[0] if layer == "module" else layer
    assert get_backend("gradcam", model=model, target=1, layer=given_layer).coarse(images()).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("feature", r"layer 'feature' is not in SmallCNN; did you mean 'features.*last first: features, features.5"),
        (nn.ReLU(), r"the ReLU passed as layer is not in SmallCNN\. Layers with a feature map"),
        ("head.3", r"layer 'head.3' of SmallCNN gives no feature map\. Layers with"),
    ],
)
def test_layer_that_does_not_fit(layer: str | nn.Module, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_backend("gradcam", model=cnn(), target=1, layer=layer)(images())


def test_layer_beside_the_way() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.unused = cnn(), nn.Conv2d(3, 4, 3)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            self.unused(batch)
            return self.model(batch)

    for name in ("gradcam", "layer_gradient_x_activation"):
        with pytest.raises(InvalidInputError, match="score of Beside does not depend on the layer 'unused'"):
            get_backend(name, model=Beside(), target=1, layer="unused")(images())


def test_no_layer_fits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(InvalidInputError, match="Sequential has no feature map; use a convolutional network"):
        get_backend("gradcam", model=model, target=1)(images())


@pytest.mark.parametrize("name", ["gradcam", "integrated_gradients"])
def test_a_model_that_takes_no_images_is_named(name: str) -> None:
    """Not in torch's words, which are about the matrices inside."""
    with pytest.raises(InvalidInputError, match=r"Linear does not take images \(\d+, 3, 32, 32\); expected"):
        get_backend(name, model=nn.Linear(3, 5), target=1)(images())


@settings(max_examples=60, deadline=None)
@given(
    patch=st.integers(2, 16),
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    prefix=st.integers(0, 5),
    more=st.data(),
)
def test_tokens_become_the_map_they_were(patch: int, rows: int, columns: int, prefix: int, more: st.DataObject) -> None:
    height = rows * patch + more.draw(st.integers(0, patch - 1))
    width = columns * patch + more.draw(st.integers(0, patch - 1))
    layout = find_layout((2, prefix + rows * columns, 4), (height, width))
    assert layout is not None
    if layout.prefix == prefix:  # with few tokens, another split can fit as well
        assert layout.height * layout.width == rows * columns
    tokens = torch.rand(2, prefix + rows * columns, 4)
    grid = to_grid(tokens, layout)
    assert grid.shape == (2, 4, layout.height, layout.width)
    assert torch.equal(grid[1, 2, -1, 0], tokens[1, layout.prefix + (layout.height - 1) * layout.width, 2])
    assert torch.equal(from_grid(grid, tokens, layout), tokens)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 8, 4, 6), "nchw"), ((2, 4, 6, 96), "nhwc"), ((2, 96, 4, 6), "nchw")],
)
def test_four_dimensional_layouts(shape: tuple[int, ...], kind: str) -> None:
    layout = find_layout(shape, (64, 96))
    assert layout is not None
    assert (layout.kind, layout.height, layout.width) == (kind, 4, 6)
    output = torch.rand(shape)
    assert torch.equal(from_grid(to_grid(output, layout), output, layout), output)


@pytest.mark.parametrize("shape", [(2, 10), (2, 8, 1, 1), (2, 1, 96), (2, 3, 11, 8), (2, 90, 90, 90, 3)])
def test_what_is_no_map(shape: tuple[int, ...]) -> None:
    assert find_layout(shape, (64, 96)) is None
