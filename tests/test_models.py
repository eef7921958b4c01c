"""Classifiers from weights files: data only, the right library, clear words where they do not fit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms.v2.functional import normalize

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.models import load_classifier, open_classifier, read_checkpoint, standardized


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


def test_wrapped_and_nested_checkpoints(tmp_path: Path, network: nn.Module) -> None:
    names = list("abcdefg")
    parameters = {f"module._orig_mod.{key}": value for key, value in network.state_dict().items()}
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
        with pytest.raises(DataError, match="tensors alone"):
            load_classifier(tmp_path / name, "resnet18")
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
        load_classifier(path, "resnet18")


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
        load_classifier(weights, "resnet18")
    with pytest.raises(UnknownNameError, match=r"did you mean .*'resnet18'"):
        load_classifier(weights, "resnet_18")
    with pytest.raises(UnknownNameError):
        load_classifier(weights, "hf-hub:timm/resnet18")
    with pytest.raises(InvalidInputError, match="--arch"):
        load_classifier(weights)


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
    with pytest.raises(DataError, match="cannot read the class names"):
        open_classifier(weights, "mobilenet_v3_small", class_names=tmp_path / "none.txt")


def test_standardized_equals_torchvision() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(standardized(images), expected)
