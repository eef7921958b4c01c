"""Grad-CAM against its equations, the other methods against Captum used by hand, and the model's care."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import captum.attr as ca
import pytest
import torch
from saliency_models import CLASSES, cnn, deit, images, timm_swin, torchvision_swin, torchvision_vit, vit
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.saliency import get_backend, list_backends, normalize_maps
from sgdmix_albu.saliency import modelled as modelled_module
from sgdmix_albu.saliency.attributions import METHODS

LABELS = torch.tensor([1, 4, 0])


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, normalize_maps(expected), rtol=1e-3, atol=1e-4)


def hand_gradcam(model: nn.Module, layer: nn.Module, channels_first: Callable[[Tensor], Tensor]) -> Tensor:
    """Selvaraju et al. 2017, equations 1 and 2, one image at a time."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    maps = []
    for image, label in zip(images(), LABELS, strict=True):
        score = model.eval()(image[None])[0, label]
        activations = seen.pop()
        gradient = torch.autograd.grad(score, activations)[0]
        a, g = channels_first(activations)[0], channels_first(gradient)[0]
        alpha = g.mean(dim=(1, 2))
        maps.append(sum(alpha[k] * a[k] for k in range(len(alpha))).clamp_min(0).detach())
    handle.remove()
    return torch.stack(maps)


def patches(prefix: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: tokens[:, prefix:].transpose(1, 2).reshape(1, -1, 4, 4)


CAMS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[Tensor], Tensor]]] = {
    "cnn": (cnn, "features", lambda maps: maps),
    "vit": (vit, "blocks.1.norm1", patches(1)),
    "deit": (deit, "blocks.1.norm1", patches(2)),
    "torchvision vit": (torchvision_vit, "encoder.layers.encoder_layer_1.ln_1", patches(1)),
    "timm swin": (timm_swin, "norm", lambda maps: maps.permute(0, 3, 1, 2)),
    "torchvision swin": (torchvision_swin, "norm", lambda maps: maps.permute(0, 3, 1, 2)),
}


@pytest.mark.parametrize("name", CAMS)
def test_gradcam_equals_its_equations(name: str) -> None:
    make, layer, channels_first = CAMS[name]
    model = make()
    expected = hand_gradcam(model, model.get_submodule(layer), channels_first)
    assert expected.flatten(1).amax(1).gt(0).any()
    close(get_backend("gradcam", model=model).coarse(images(), LABELS), expected)


def test_gradcam_keeps_no_graph_before_its_layer() -> None:
    model = cnn()
    asked: dict[str, bool] = {}
    for name in ("0", "3"):
        layer = model.features.get_submodule(name)
        layer.register_forward_hook(lambda m, i, output, name=name: asked.update({name: output.requires_grad}))
    model.head[3].register_forward_hook(lambda m, i, output: asked.update(head=output.requires_grad))
    get_backend("gradcam", model=model)(images().requires_grad_(), LABELS)
    assert asked == {"0": False, "3": False, "head": True}


def test_autocast_is_respected() -> None:
    """A model in mixed-precision training is explained at that speed, not in float32."""
    model, seen = cnn(), []
    model.features[0].register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        get_backend("gradcam", model=model)(images(), LABELS)
    assert set(seen) == {torch.bfloat16}


def by_hand(name: str, model: nn.Module) -> Tensor:
    """Captum as its own documentation uses it, with the reduction over channels that the table promises."""
    inputs = images().requires_grad_()
    layer = model.features
    call: dict[str, Callable[[], Tensor]] = {
        "saliency": lambda: ca.Saliency(model).attribute(inputs, target=LABELS).abs().amax(1),
        "guided_backprop": lambda: ca.GuidedBackprop(model).attribute(inputs, target=LABELS).abs().amax(1),
        "deconvolution": lambda: ca.Deconvolution(model).attribute(inputs, target=LABELS).abs().amax(1),
        "input_x_gradient": lambda: ca.InputXGradient(model).attribute(inputs, target=LABELS).abs().sum(1),
        "integrated_gradients": lambda: (
            ca.IntegratedGradients(model).attribute(inputs, target=LABELS, n_steps=6).abs().sum(1)
        ),
        "deep_lift": lambda: ca.DeepLift(model).attribute(inputs, target=LABELS).abs().sum(1),
        "guided_gradcam": lambda: ca.GuidedGradCam(model, layer).attribute(inputs, target=LABELS).abs().amax(1),
        "occlusion": lambda: (
            ca.Occlusion(model)
            .attribute(inputs, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), target=LABELS)
            .sum(1)
            .clamp_min(0)
        ),
        "layer_activation": lambda: ca.LayerActivation(model, layer).attribute(inputs).abs().sum(1),
        "layer_gradient_x_activation": lambda: (
            ca.LayerGradientXActivation(model, layer).attribute(inputs, target=LABELS).sum(1).clamp_min(0)
        ),
        "layer_conductance": lambda: (
            ca.LayerConductance(model, layer).attribute(inputs, target=LABELS, n_steps=6).sum(1).clamp_min(0)
        ),
        "layer_integrated_gradients": lambda: (
            ca.LayerIntegratedGradients(model, layer).attribute(inputs, target=LABELS, n_steps=6).sum(1).clamp_min(0)
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call[name]().detach()


@pytest.mark.parametrize(
    "name",
    [
        "saliency",
        "guided_backprop",
        "deconvolution",
        "input_x_gradient",
        "integrated_gradients",
        "deep_lift",
        "guided_gradcam",
        "occlusion",
        "layer_activation",
        "layer_gradient_x_activation",
        "layer_conductance",
        "layer_integrated_gradients",
    ],
)
def test_equals_captum_by_hand(name: str) -> None:
    model = cnn().eval()
    steps = {"n_steps": 6} if "integrated" in name or "conductance" in name else {}
    close(get_backend(name, model=model, **steps).coarse(images(), LABELS), by_hand(name, model))


def test_saliency_equals_the_gradient() -> None:
    model, inputs = cnn().eval(), images().requires_grad_()
    score = model(inputs)[torch.arange(3), LABELS].sum()
    gradient = torch.autograd.grad(score, inputs)[0]
    close(get_backend("saliency", model=model).coarse(images(), LABELS), gradient.abs().amax(1))


def test_feature_ablation_equals_covering_each_cell() -> None:
    model = cnn().eval()
    drops = torch.zeros(3, 32, 32)
    with torch.no_grad():
        whole = model(images())[torch.arange(3), LABELS]
        for y in range(0, 32, 4):
            for x in range(0, 32, 4):
                covered = images()
                covered[:, :, y : y + 4, x : x + 4] = 0
                less = whole - model(covered)[torch.arange(3), LABELS]
                drops[:, y : y + 4, x : x + 4] = less[:, None, None]
    close(get_backend("feature_ablation", model=model).coarse(images(), LABELS), drops.clamp_min(0))


def test_every_row_of_the_table_is_registered() -> None:
    assert {*METHODS, "gradcam"} <= set(list_backends())


@pytest.mark.parametrize("name", ["noise_tunnel", "gradient_shap", "shapley_value_sampling"])
def test_random_methods_repeat_themselves_whatever_the_seed(name: str) -> None:
    backend = get_backend(name, model=cnn())
    torch.manual_seed(1)
    first = backend.coarse(images(), LABELS)
    torch.manual_seed(2)
    assert torch.equal(backend.coarse(images(), LABELS), first)


# ---- ready attribution objects


def ready(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    return {
        "integrated gradients": (ca.IntegratedGradients(model), {"n_steps": 4}),
        "method of the model": (ca.Saliency(model.forward), {}),
        "function": (ca.InputXGradient(lambda x: model(x)), {}),
        "layer": (ca.LayerGradCam(model, model.features[4]), {"relu_attributions": True}),
        "layer activation": (ca.LayerActivation(model, model.features), {}),
        "noise tunnel": (ca.NoiseTunnel(ca.InputXGradient(model)), {"nt_samples": 3}),
        "occlusion": (ca.Occlusion(model), {"sliding_window_shapes": (3, 16, 16)}),
        "not in the table": (ca.InternalInfluence(model, model.features[0]), {"n_steps": 3}),
    }


@pytest.mark.parametrize("name", ready(cnn()))
def test_ready_attribution(name: str) -> None:
    model = cnn().eval()
    attribution, options = ready(model)[name]
    if "function" not in name:
        model.train()  # a model within reach is looked after
    maps = get_backend(attribution, **options).coarse(images(), LABELS)
    assert model.training == ("function" not in name)
    assert maps.amax() == pytest.approx(1)
    assert get_backend(attribution, target="predicted", **options)(images()).shape == (3, 32, 32)


def test_ready_attribution_equals_the_named_backend() -> None:
    model = cnn()
    ours = get_backend(ca.LayerGradCam(model, model.features), relu_attributions=True).coarse(images(), LABELS)
    torch.testing.assert_close(ours, get_backend("gradcam", model=model).coarse(images(), LABELS))


def test_ready_attribution_refusals() -> None:
    model = cnn()
    with pytest.raises(InvalidInputError, match=r"AttributionBackend\(DeepLiftShap\) needs baselines="):
        get_backend(ca.DeepLiftShap(model))
    with pytest.raises(InvalidInputError, match=r"has no option 'steps'; did you mean 'n_steps'.* Its options: target"):
        get_backend(ca.IntegratedGradients(model), steps=3)
    with pytest.raises(InvalidInputError, match=r"wrapped model \(DataParallel\)"):
        get_backend(ca.Saliency(nn.DataParallel(model)))
    with pytest.raises(SGDMixError, match=r"LayerActivation gave attributions of shape \(3, 5\), which is no map"):
        get_backend(ca.LayerActivation(model, model.head))(images(), LABELS)


# ---- the model's care


def test_preprocess() -> None:
    normalize = v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    expected = get_backend("gradcam", model=cnn()).coarse(normalize(images()), LABELS)
    ours = get_backend("gradcam", model=cnn(), preprocess=normalize)
    torch.testing.assert_close(ours.coarse(images(), LABELS), expected)


def test_model_in_another_dtype() -> None:
    maps = get_backend("gradcam", model=cnn().to(torch.float64)).coarse(images(), LABELS)
    torch.testing.assert_close(maps, get_backend("gradcam", model=cnn()).coarse(images(), LABELS), atol=1e-4, rtol=1e-3)


class Output(nn.Module):
    """A classifier that returns what ``wrap`` makes of the logits."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.wrap = cnn(), wrap

    def forward(self, batch: Tensor) -> Any:
        return self.wrap(self.model(batch))


def test_object_with_logits() -> None:
    model = Output(lambda logits: types.SimpleNamespace(logits=logits, loss=None))
    torch.testing.assert_close(
        get_backend("gradcam", model=model, layer="model.features").coarse(images(), LABELS),
        get_backend("gradcam", model=cnn()).coarse(images(), LABELS),
    )


@pytest.mark.parametrize(
    ("wrap", "came"),
    [(lambda y: y[..., None], r"shape \(\d+, 5, 1\)"), (lambda y: [y], "list"), (lambda y: {}, "dict")],
)
def test_output_that_is_no_logits(wrap: Callable[[Tensor], Any], came: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"expected Output to give \(B, K\) logits, got {came}"):
        get_backend("saliency", model=Output(wrap))(images(), LABELS)


def test_wrappers_are_taken_off() -> None:
    expected = get_backend("gradcam", model=cnn()).coarse(images(), LABELS)
    in_place = cnn()
    in_place.compile()
    for model in (nn.DataParallel(cnn()), torch.compile(cnn()), torch.compile(nn.DataParallel(cnn())), in_place):
        torch.testing.assert_close(get_backend("gradcam", model=model).coarse(images(), LABELS), expected)
    assert in_place._compiled_call_impl is not None


def test_distributed_model_in_the_middle_of_training(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(cnn())
        backend = get_backend("gradcam", model=model)
        for _ in range(2):  # a second round fails if the first one upset the reducer
            loss = F.cross_entropy(model(images()), LABELS)
            backend(images(), LABELS)
            loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_models_that_cannot_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="to be a torch.nn.Module, got function"):
        get_backend("gradcam", model=lambda batch: batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(cnn().eval(), images())
    with pytest.raises(InvalidInputError, match="scripted model"):
        get_backend("gradcam", model=scripted)
    import torch.distributed.fsdp as fsdp

    monkeypatch.setattr(fsdp, "FSDPModule", type(cnn()))
    with pytest.raises(InvalidInputError, match="FSDP"):
        get_backend("gradcam", model=cnn())


class OnGPU(nn.Module):
    """A model whose weights say that they are on a GPU."""

    def parameters(self, recurse: bool = True) -> Any:
        yield types.SimpleNamespace(
            device=torch.device("cuda"), dtype=torch.float32, requires_grad=False, is_floating_point=lambda: True
        )


def test_gpu_model_inside_a_loader_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelled_module, "get_worker_info", lambda: object())
    with pytest.raises(InvalidInputError, match=r"DataLoader worker.*num_workers=0, or saliency='spectral_residual'"):
        get_backend("gradcam", model=OnGPU())(images(), LABELS)


@pytest.mark.parametrize("target", ["labels", -1, 1.5, None])
def test_target_that_means_nothing(target: Any) -> None:
    with pytest.raises(InvalidInputError, match="target must be 'label', 'predicted' or a class index"):
        get_backend("gradcam", model=cnn(), target=target)


def test_target_out_of_range() -> None:
    with pytest.raises(InvalidInputError, match=f"class {CLASSES} was requested"):
        get_backend("gradcam", model=cnn(), target=CLASSES)(images())


def test_deep_lift_says_what_it_cannot_do() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 5, 3), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InvalidInputError, match="uses each activation module once only"):
        get_backend("deep_lift", model=model)(images(), LABELS)


def test_buffers_changed_in_evaluation_are_put_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = cnn()
            self.register_buffer("calls", torch.zeros(()))
            self.last = None

        def forward(self, batch: Tensor) -> Tensor:
            self.calls += 1
            self.last = batch
            return self.model(batch)

    model = Counting()
    get_backend("gradcam", model=model)(images(), LABELS)
    assert model.calls == 0
    assert model.last is None


@pytest.mark.parametrize("name", ["saliency", "integrated_gradients"])
def test_another_model_in_its_place_is_asked_for_its_own_class(name):
    """An averaged copy of a network takes the network's place."""
    ones, twos = cnn(), cnn()
    twos.head[-1].bias.data[1] += 9  # another class than that of the first
    backend = get_backend(name, model=ones, target="predicted")
    backend.model = twos
    wanted = get_backend(name, model=twos, target="predicted")
    torch.testing.assert_close(backend(images(6)), wanted(images(6)), rtol=0, atol=0)
    assert set(backend.settings()) == {"layer", "model", "name", "options", "preprocess", "target"}
