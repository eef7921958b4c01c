"""Every registered saliency backend keeps the contract of ``SaliencyBackend``: add a row here with a new one."""

from __future__ import annotations

import copy
import functools
import pickle
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saliency_models import CLASSES, cnn, images, vit
from tiny_segmenters import tiny_clipseg
from torch import Tensor, nn

from sgdmix_albu.errors import DataError, InvalidInputError, MissingExtraError
from sgdmix_albu.saliency import SaliencyBackend, get_backend, list_backends

TRAINING_FREE: dict[str, dict[str, Any]] = {"manifold_ranking": {}, "salient_object": {}, "spectral_residual": {}}

# Backends with a model: their options, as few steps as will do.
MODELLED: dict[str, dict[str, Any]] = {
    "deconvolution": {},
    "deep_lift": {},
    "deep_lift_shap": {"baselines": torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])},
    "feature_ablation": {},
    "gradcam": {},
    "gradient_shap": {"n_samples": 2},
    "guided_backprop": {},
    "guided_gradcam": {},
    "input_x_gradient": {},
    "integrated_gradients": {"n_steps": 3},
    "layer_activation": {},
    "layer_conductance": {"n_steps": 3},
    "layer_gradient_x_activation": {},
    "layer_integrated_gradients": {"n_steps": 3},
    "noise_tunnel": {"nt_samples": 2},
    "occlusion": {},
    "saliency": {},
    "shapley_value_sampling": {"n_samples": 1},
}
# Backends with a network of their own, whose weights are not on board.
SEGMENTERS: dict[str, dict[str, Any]] = {"rembg": {}, "text": {"prompt": "bird"}}
ROWS = {**TRAINING_FREE, **MODELLED, **SEGMENTERS}
ANY_SIZE = [name for name in ROWS if name != "deep_lift_shap"]  # its baselines here have one size
NO_CLASS = {*TRAINING_FREE, "layer_activation"}
LABELS = torch.tensor([1, 4, 0])


def make(name: str, **options: Any) -> SaliencyBackend:
    model = {"model": options.pop("model", None) or cnn()} if name in MODELLED else {}
    if name == "text":
        model = {"model": clipseg()}
    try:
        return get_backend(name, **ROWS[name], **model, **options)
    except (DataError, MissingExtraError) as error:
        if name != "rembg":
            raise
        pytest.skip(str(error))


@functools.cache
def clipseg() -> Path:
    return tiny_clipseg(Path(tempfile.mkdtemp()) / "clipseg")


def test_every_registered_backend_has_a_row() -> None:
    # Doctests and other tests may have registered names of their own in this process.
    own = [name for name in list_backends() if not name.startswith(("brightness", "test_"))]
    assert own == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_output(name: str) -> None:
    batch = images()
    before = batch.clone()
    backend = make(name)
    maps, coarse = backend(batch, LABELS), backend.coarse(batch, LABELS)
    assert maps.shape == (3, 32, 32)
    assert coarse.ndim == 3
    for each in (maps, coarse):
        assert each.dtype == torch.float32
        assert each.device == batch.device
        assert not each.requires_grad
        assert each.isfinite().all()
        assert each.min() >= 0
        assert each.max() <= 1
    # Each map is stretched by itself, or zero where nothing speaks for the class; all zero would prove nothing.
    tops = coarse.flatten(1).amax(1).round(decimals=5)
    assert set(tops.tolist()) in ({1.0}, {0.0, 1.0})
    assert not coarse.flatten(1).amin(1).any()
    assert torch.equal(batch, before)


@pytest.mark.parametrize("name", MODELLED)
def test_transformer(name: str) -> None:
    if name in ("deep_lift", "deep_lift_shap"):
        pytest.skip("DeepLift's rules do not cover attention; Captum says so itself")
    maps = make(name, model=vit()).coarse(images(), LABELS)
    assert maps.flatten(1).amax(1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("name", ROWS)
def test_batch_equals_loop(name: str) -> None:
    batch, backend = images(), make(name)
    loop = torch.cat([backend.coarse(batch[i : i + 1], LABELS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(backend.coarse(batch, LABELS), loop, rtol=1e-3, atol=1e-3)
    small = make(name, microbatch=2)
    torch.testing.assert_close(small.coarse(batch, LABELS), loop, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ROWS)
def test_empty_batch(name: str) -> None:
    assert make(name)(images(0), LABELS[:0]).shape == (0, 32, 32)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ROWS)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    whole = (images() * 255).round() / 255
    batch = (whole * 255).to(torch.uint8) if dtype == torch.uint8 else whole.to(dtype)
    same = (batch.double() / 255 if dtype == torch.uint8 else batch.double()).float()
    backend = make(name)
    maps = backend.coarse(batch, LABELS)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, backend.coarse(same, LABELS), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ROWS)
def test_memory_format_and_views(name: str) -> None:
    batch, backend = images(), make(name)
    expected = backend.coarse(batch, LABELS)
    for other in (batch.contiguous(memory_format=torch.channels_last), batch.flip(3).contiguous().flip(3)):
        torch.testing.assert_close(backend.coarse(other, LABELS), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_height_and_width_are_not_confused(name: str) -> None:
    assert make(name)(images(2, (24, 40)), LABELS[:2]).shape == (2, 24, 40)


@pytest.mark.parametrize("name", TRAINING_FREE)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, -1.8])  # the last as ImageNet's statistics make it
def test_constant_image_gives_zeros(name: str, value: float) -> None:
    batch = torch.full((2, 3, 24, 40), value)
    batch[1, 0] += 0.1  # one colour, but not grey
    assert not make(name)(batch).any()


@pytest.mark.parametrize("name", ROWS)
def test_pickles(name: str) -> None:
    backend = make(name)
    expected = backend.coarse(images(), LABELS)
    torch.testing.assert_close(pickle.loads(pickle.dumps(backend)).coarse(images(), LABELS), expected)
    torch.testing.assert_close(copy.deepcopy(backend).coarse(images(), LABELS), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ROWS)
def test_inside_other_gradient_modes(name: str, context: Any) -> None:
    backend = make(name)
    expected = backend.coarse(images(), LABELS)
    with context():
        maps = backend.coarse(images().requires_grad_(context is torch.enable_grad), LABELS)
    assert not maps.requires_grad
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("name", ROWS)
def test_inside_autocast(name: str) -> None:
    backend = make(name)
    expected = backend.coarse(images(), LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        maps = backend.coarse(images(), LABELS)
    assert maps.dtype == torch.float32
    if name not in MODELLED:
        assert torch.equal(maps, expected)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a user could find changed."""
    return {
        "modes": [module.training for module in model.modules()],
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "trained": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [
            {key: list(value) for key, value in vars(module).items() if "hooks" in key and value is not None}
            for module in model.modules()
        ],
        "full": [module._is_full_backward_hook for module in model.modules()],
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1]),  # noqa: NPY002
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = state(model)
    yield
    assert _plain(state(model)) == _plain(before)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def used_model() -> nn.Module:
    """In training, partly frozen, with gradients and hooks of the user's."""
    model = cnn().train()
    model.features[1].eval()
    model.features[0].weight.requires_grad_(False)
    model.head[3].bias.grad = torch.ones(CLASSES)
    model.features[2].register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize("name", MODELLED)
def test_model_is_left_as_it_was_even_in_the_middle_of_training(name: str) -> None:
    model, twin = used_model(), used_model()
    batch = images()
    torch.manual_seed(5)
    loss = model(batch).logsumexp(1).sum()
    torch.manual_seed(5)
    twin(batch).logsumexp(1).sum().backward()
    with unchanged(model):
        make(name, model=model)(batch, LABELS)
    loss.backward()  # the graph made before is still whole
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert _plain(ours.grad) == _plain(theirs.grad)


@pytest.mark.parametrize("name", MODELLED)
def test_model_is_left_as_it_was_after_an_error(name: str) -> None:
    model = used_model()
    backend = make(name, model=model)
    backend.coarse(images(), LABELS)

    def fail(module: nn.Module, inputs: Any) -> None:
        raise ArithmeticError("no luck")

    handle = model.head[3].register_forward_pre_hook(fail)
    with unchanged(model), pytest.raises(ArithmeticError, match="no luck"):
        backend(images(), LABELS)
    handle.remove()


@pytest.mark.parametrize("name", [name for name in MODELLED if name not in NO_CLASS])
def test_class_matters(name: str) -> None:
    model = cnn()
    predicted = model.eval()(images()).argmax(1)
    maps = [make(name, model=model, target=target).coarse(images()) for target in ("predicted", 2, 3)]
    torch.testing.assert_close(maps[0], make(name, model=model).coarse(images(), predicted), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        maps[1], make(name, model=model).coarse(images(), torch.full((3,), 2)), rtol=1e-3, atol=1e-3
    )
    assert not torch.allclose(maps[1], maps[2], atol=1e-2)


@pytest.mark.parametrize("name", [name for name in MODELLED if name not in NO_CLASS])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "got no labels"),
        (torch.tensor([0, 1, 5]), "class 5 was requested, but SmallCNN has classes 0 to 4"),
        (torch.tensor([0, -1, 2]), "class -1 was requested"),
        (torch.rand(3, 5), r"expected \(B,\) integer labels, got torch.float32 \(3, 5\)"),
    ],
)
def test_labels_that_do_not_fit(name: str, labels: Tensor | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make(name)(images(), labels)


@pytest.mark.parametrize("name", ROWS)
def test_labels_are_asked_for_where_a_class_is_explained(name: str) -> None:
    assert make(name).uses_labels == (name not in {*NO_CLASS, *SEGMENTERS})


@pytest.mark.parametrize("name", MODELLED)
def test_model_is_named_when_it_is_missing(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}' looks through a classifier: give its weights, --model FILE"):
        get_backend(name)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_model_is_refused_where_none_is_used(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}' has no option 'model'"):
        get_backend(name, model=cnn())


@pytest.mark.parametrize("name", ROWS)
def test_wrong_option_lists_the_right_ones(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"has no option 'stepps'.* Its options: .*microbatch"):
        make(name, stepps=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ROWS)
def test_gpu_equals_cpu(name: str) -> None:
    expected = make(name).coarse(images(), LABELS)
    on_gpu = make(name, **({"model": cnn().cuda()} if name in MODELLED else {}))
    maps = on_gpu.coarse(images().cuda(), LABELS.cuda())
    assert maps.device.type == "cuda"
    assert on_gpu.coarse(images(), LABELS).device.type == "cpu"
    if name not in ("gradient_shap", "noise_tunnel"):  # other random numbers there
        torch.testing.assert_close(maps.cpu(), expected, rtol=1e-2, atol=1e-2)
