"""Classifiers from weights files: data only, the right library, clear words where they do not fit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import vision_transformer
from torchvision.transforms.v2.functional import normalize

from sgdmix_albu.classifiers import (
    Judge,
    new_classifier,
    open_classifier,
    open_judge,
    read_checkpoint,
    save_classifier,
)
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return torchvision.models.mobilenet_v3_small(num_classes=7).eval()


@pytest.fixture
def weights(tmp_path: Path, network: nn.Module) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


def test_same_outputs_and_class_count_from_weights(weights: Path, network: nn.Module) -> None:
    state = torch.get_rng_state()
    classifier = open_classifier(weights, "mobilenet_v3_small")
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(classifier.model(images), network(images))
    assert (classifier.num_classes, classifier.class_names) == (7, None)
    assert not classifier.model.training


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_and_nested_checkpoints(tmp_path: Path, network: nn.Module, wrapper: str) -> None:
    names = list("abcdefg")
    parameters = {f"{wrapper}{key}": value for key, value in network.state_dict().items()}
    path = tmp_path / "checkpoint.pth"
    torch.save({"arch": "mobilenet_v3_small", "class_names": names, "epoch": 3, "state_dict": parameters}, path)
    classifier = open_classifier(path)
    assert (classifier.arch, classifier.class_names) == ("mobilenet_v3_small", tuple(names))
    assert torch.equal(classifier.model.classifier[3].weight, network.classifier[3].weight)


def test_safetensors_with_metadata(tmp_path: Path, network: nn.Module) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "weights.safetensors"
    notes = {"arch": "mobilenet_v3_small", "class_names": json.dumps(list("abcdefg"))}
    safetensors.save_file(network.state_dict(), path, metadata=notes)
    assert open_classifier(path).class_names == tuple("abcdefg")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot read the weights .*weights\.safetensors"):
        read_checkpoint(path)


def test_timm_is_taken_where_its_parameters_fit(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = tmp_path / "timm.pt"
    # Both libraries know the name; the parameters' names differ.
    torch.save(timm.create_model("efficientnet_b0", num_classes=5).state_dict(), path)
    classifier = open_classifier(path, "efficientnet_b0")
    assert type(classifier.model).__module__.startswith("timm.")
    assert classifier.num_classes == 5


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    for name, write in [("a.pt", torch.save), ("b.pt", lambda o, p: p.write_bytes(pickle.dumps(o)))]:
        write({"weight": Bomb()}, tmp_path / name)
        with pytest.raises(DataError, match="tensors only"):
            open_classifier(tmp_path / name, "resnet18")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "damaged"), (b"PK\x03\x04 not a zip", "damaged"), (None, "No such file")],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_classifier(path, "resnet18")


def test_a_file_without_parameters(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save([torch.zeros(2)], path)
    with pytest.raises(DataError, match=r"expected named parameters .* found list"):
        read_checkpoint(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match="holds no parameters"):
        read_checkpoint(path)


def test_another_architecture_is_refused_with_the_difference(weights: Path) -> None:
    with pytest.raises(DataError, match=r"torchvision's resnet18: \d+ parameters missing .*conv1\.weight|bn1"):
        open_classifier(weights, "resnet18")
    with pytest.raises(UnknownNameError, match=r"did you mean .*'resnet18'"):
        open_classifier(weights, "resnet_18")
    with pytest.raises(UnknownNameError):
        open_classifier(weights, "hf-hub:timm/resnet18")
    with pytest.raises(InvalidInputError, match="--arch"):
        open_classifier(weights)


def test_class_names_must_match_the_weights(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"class_names": ["a"], "state_dict": network.state_dict()}, path)
    with pytest.raises(DataError, match="names 1 classes, the weights have 7"):
        open_classifier(path, "mobilenet_v3_small")


def test_outputs_for_classes(tmp_path: Path, weights: Path) -> None:
    by_order = open_classifier(weights, "mobilenet_v3_small")
    assert by_order.outputs_for(list("tuvwxyz")) == list(range(7))
    assert by_order.outputs_for(["t", "u"]) is None
    (tmp_path / "names.txt").write_text("g\nf\ne\n\nd\nc\nb\na\n")
    by_name = open_classifier(weights, "mobilenet_v3_small", class_names=tmp_path / "names.txt")
    assert by_name.outputs_for(["a", "c"]) == [6, 4]
    assert by_name.outputs_for(["a", "owl"]) is None
    with pytest.raises(InvalidInputError, match=r"names\.txt \(g, f, e, \.\.\.\) is a class of the data \(owl"):
        open_judge(weights, ["owl", "tit"], arch="mobilenet_v3_small", class_names=tmp_path / "names.txt")
    with pytest.raises(DataError, match="cannot read the class names"):
        open_classifier(weights, "mobilenet_v3_small", class_names=tmp_path / "none.txt")


def test_what_a_judge_shows_is_standardized_as_torchvision_does() -> None:
    images = torch.rand(2, 3, 5, 4)
    expected = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(Judge(nn.Identity(), None, "imagenet").pixels(images), expected)


@pytest.fixture
def small_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's vision transformers with two narrow layers."""
    build = vision_transformer._vision_transformer
    narrow = {"num_layers": 2, "num_heads": 2, "hidden_dim": 24, "mlp_dim": 48}
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **options: build(**{**options, **narrow}))


def trained(arch: str, **options: Any) -> nn.Module:
    """With values that no new model has, in batch norms too."""
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=5, **options)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.01, 0.05)
    return model.eval()


def as_published(arch: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names of torchvision's own files: resnet50-0676ba61.pth, vit_b_16-c867db91.pth."""
    if arch == "resnet50":
        return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    return {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for name, value in weights.items()
    }


@pytest.mark.usefixtures("small_transformers")
@pytest.mark.parametrize(("arch", "options"), [("resnet50", {}), ("vit_b_16", {"image_size": 32})])
def test_files_that_torchvision_publishes(tmp_path: Path, arch: str, options: dict[str, int]) -> None:
    model = trained(arch, **options)
    published = as_published(arch, model.state_dict())
    assert published.keys() != model.state_dict().keys()
    torch.save(published, tmp_path / "weights.pth")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(open_classifier(tmp_path / "weights.pth", arch).model(images), model(images))


@pytest.mark.usefixtures("small_transformers")
@pytest.mark.parametrize("damage", [lambda weight: weight[:, :7], lambda weight: weight[None]])
def test_another_shape_under_an_older_name(tmp_path: Path, damage: Callable[[Tensor], Tensor]) -> None:
    published = as_published("vit_b_16", trained("vit_b_16", image_size=32).state_dict())
    name = "encoder.layers.encoder_layer_1.mlp.linear_1.weight"
    torch.save({**published, name: damage(published[name])}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"do not fit torchvision's vit_b_16: size mismatch for .*_1\.mlp\.0\.weight"):
        open_classifier(tmp_path / "weights.pth", "vit_b_16")


@pytest.mark.usefixtures("small_transformers")
def test_a_vision_transformer_opens_at_the_size_it_was_trained_at(tmp_path: Path) -> None:
    model = trained("vit_b_16", image_size=96)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found = open_classifier(tmp_path / "weights.pth", "vit_b_16")
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(found.model(images), model(images))
    with pytest.raises(DataError, match=r"do not fit torchvision's vit_b_32: .*'conv_proj\.weight'"):
        open_classifier(tmp_path / "weights.pth", "vit_b_32")


@pytest.mark.usefixtures("small_transformers")
def test_position_embeddings_are_interpolated(tmp_path: Path) -> None:
    """As torch.nn.functional does it, the class token's left alone."""
    model = trained("vit_b_16", image_size=96)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    new = new_classifier("vit_b_16", ["owl", "tit"], tmp_path / "weights.pth", size=64).model
    assert new(torch.rand(2, 3, 64, 64)).shape == (2, 2)
    before, after = model.state_dict(), new.state_dict()
    old, found = before.pop("encoder.pos_embedding"), after.pop("encoder.pos_embedding")
    grid = old[:, 1:].transpose(1, 2).unflatten(2, (6, 6))
    expected = F.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, torch.cat([old[:, :1], expected], 1))
    heads = {"heads.head.weight", "heads.head.bias"}
    assert all(torch.equal(after[name], value) for name, value in before.items() if name not in heads)
    same = new_classifier("vit_b_16", ["owl", "tit"], tmp_path / "weights.pth").model
    assert torch.equal(same.state_dict()["encoder.pos_embedding"], old)


@pytest.mark.usefixtures("small_transformers")
def test_a_size_that_patches_do_not_fill(tmp_path: Path) -> None:
    torch.save(trained("vit_b_16", image_size=32).state_dict(), tmp_path / "weights.pth")
    for weights in (None, tmp_path / "weights.pth"):
        with pytest.raises(InvalidInputError, match="vit_b_16 takes images whose side is a multiple of 16 .*, got 30"):
            new_classifier("vit_b_16", ["owl", "tit"], weights, size=30)
    assert new_classifier("vit_b_16", ["owl", "tit"], size=48).model(torch.rand(1, 3, 48, 48)).shape == (1, 2)
    assert new_classifier("resnet18", ["owl", "tit"], size=30).model.fc.out_features == 2


def under_other_names(network: nn.Module) -> dict[str, Tensor]:
    """As another library calls the same modules in the same order."""
    tensors, modules = network.state_dict(), {}
    for name in tensors:
        modules.setdefault(name.rpartition(".")[0], f"_stage{len(modules)}")
    return {f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in tensors.items()}


def test_other_names_in_the_same_order(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "weights.pth"
    torch.save(under_other_names(network), path)
    with pytest.warns(UserWarning, match=r"has other names than torchvision's .*: its 244 tensors were taken") as told:
        classifier = open_classifier(path, "mobilenet_v3_small")
    assert [Path(warning.filename).name for warning in told] == [Path(__file__).name]
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(classifier.model(images), network(images))
    assert classifier.num_classes == 7
    with pytest.warns(UserWarning, match="taken in their order"):
        new = new_classifier("mobilenet_v3_small", ["owl", "tit"], path).model
    assert torch.equal(new.features[0][0].weight, network.features[0][0].weight)


def _swapped(tensors: dict[str, Tensor], one: str, other: str) -> dict[str, Tensor]:
    """Two of them change places, names and all."""
    names = [{one: other, other: one}.get(name, name) for name in tensors]
    return {name: tensors[name] for name in names}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: _swapped(found, "_stage1.weight", "_stage1.bias"),
        lambda found: _swapped(found, "_stage1.running_mean", "_stage1.running_var"),
        lambda found: dict(list(found.items())[1:]),
        lambda found: {**found, "more.weight": torch.zeros(1)},
        lambda found: {**found, "_stage1.bias": torch.zeros(17)},
        lambda found: {name.replace("_stage1.running", "apart.running"): value for name, value in found.items()},
    ],
    ids=["weight and bias", "mean and variance", "one less", "one more", "shape", "one in two"],
)
def test_other_names_and_not_what_is_due(
    tmp_path: Path, network: nn.Module, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    torch.save(spoil(under_other_names(network)), tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"do not fit torchvision's mobilenet_v3_small: 210 parameters missing"):
        open_classifier(tmp_path / "weights.pth", "mobilenet_v3_small")


def test_safetensors_have_no_order(tmp_path: Path, network: nn.Module) -> None:
    save_file(under_other_names(network), tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="do not fit torchvision's mobilenet_v3_small"):
        open_classifier(tmp_path / "weights.safetensors", "mobilenet_v3_small")


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_file_says_what_pixels_its_model_expects(tmp_path: Path, network: nn.Module, kind: str) -> None:
    names, path = list("abcdefg"), tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    if kind == "torch":
        save_classifier(path, network, arch="mobilenet_v3_small", class_names=names, normalization=(MEAN, STD))
    else:
        notes = {"arch": "mobilenet_v3_small", "pixels": json.dumps({"mean": MEAN, "std": STD})}
        save_file(network.state_dict(), path, notes)
    assert open_classifier(path).normalization == (MEAN, STD)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(open_judge(path, names).logits(images), network(normalize(images, MEAN, STD)))
    assert torch.equal(open_judge(path, names, normalize="none").logits(images), network(images))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ({"mean": MEAN}, "'std' is missing"),
        ({"mean": MEAN, "std": (0.1, 0.0, 0.1)}, "'std': 1: expected a number from 1e-06 to"),
        ({"mean": MEAN[:2], "std": STD}, "'mean': expected at least 3 items, got 2"),
        ({"mean": (float("nan"), 0.0, 0.0), "std": STD}, "'mean': 0: expected a number"),
        ("imagenet", "expected an object"),
    ],
)
def test_pixels_that_mean_nothing(tmp_path: Path, network: nn.Module, pixels: Any, message: str) -> None:
    listed = {key: list(value) for key, value in pixels.items()} if isinstance(pixels, dict) else pixels
    torch.save({"pixels": listed, "state_dict": network.state_dict()}, tmp_path / "model.pt")
    with pytest.raises(DataError, match=rf"pixels in .*model.pt: .*{message}"):
        open_classifier(tmp_path / "model.pt", "mobilenet_v3_small")


def test_pretrained_networks_of_timm_say_what_pixels_they_expect(tmp_path: Path, network: nn.Module) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "timm.pth")
    torch.save(network.state_dict(), tmp_path / "torchvision.pth")
    assert new_classifier("test_resnet", ["owl"], tmp_path / "timm.pth").normalization == ((0.5,) * 3, (0.5,) * 3)
    assert new_classifier("test_resnet", ["owl"]).normalization is None  # trained from scratch: on any
    assert new_classifier("mobilenet_v3_small", ["owl"], tmp_path / "torchvision.pth").normalization is None


def test_a_new_classifier_says_nothing_of_how_slowly_it_begins() -> None:
    """Warnings are errors here."""
    assert new_classifier("googlenet", ["owl", "tit"]).model.fc.out_features == 2
