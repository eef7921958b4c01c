"""Weights files and lists of class names that nobody should have to trust: one error, and no memory for it."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from sgdmix_albu.classifiers import open_classifier, read_checkpoint
from sgdmix_albu.errors import DataError

ARCH = "mobilenet_v3_small"
NAMES = list("abcdefg")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(torchvision.models.mobilenet_v3_small(num_classes=7).state_dict())


class Call:
    """Pickled as a call, which unpickling makes."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def as_archive(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [as_archive, as_legacy])
def test_both_kinds_of_file_are_read(tmp_path: Path, state: dict[str, Tensor], save: Callable[..., None]) -> None:
    save({"state_dict": state, "class_names": NAMES}, tmp_path / "weights.pt")
    found = open_classifier(tmp_path / "weights.pt", ARCH)
    assert found.class_names == tuple(NAMES)
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())


@pytest.mark.parametrize("save", [as_archive, as_legacy])
@pytest.mark.parametrize("call", [Call(bytearray, 2**24), Call(__import__("_codecs").encode, b"0" * 9, "hex")])
def test_calls_that_ask_for_memory(
    tmp_path: Path, state: dict[str, Tensor], save: Callable[..., None], call: Call
) -> None:
    """PyTorch makes both of them; the tensors beside them are sound."""
    path = tmp_path / "weights.pt"
    save({"state_dict": state, "more": call}, path)
    if call.call[0] is bytearray:
        assert len(torch.load(path, weights_only=True)["more"]) == 2**24
    with pytest.raises(DataError, match=r"weights\.pt: not a file of dense tensors only"):
        read_checkpoint(path)


def test_a_packed_archive(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(2**22)}, tmp_path / "loose.pt")
    with zipfile.ZipFile(tmp_path / "loose.pt") as loose, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in loose.infolist():
            packed.writestr(entry.filename, loose.read(entry))
    assert path.stat().st_size < 2**16
    with pytest.raises(DataError, match="not a file of dense tensors only"):
        read_checkpoint(path)


@pytest.mark.parametrize("save", [as_archive, as_legacy])
def test_a_gigabyte_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., None]) -> None:
    path = tmp_path / "weights.pt"
    save({"weight": torch.zeros(9), "more": ["name" * 9] * 999}, path)
    assert list(read_checkpoint(path).tensors) == ["weight"]
    monkeypatch.setattr("sgdmix_albu.classifiers.weights._MOST_PICKLED", 1000)
    with pytest.raises(DataError, match="not a file of dense tensors only"):
        read_checkpoint(path)


NOT_DENSE: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.zeros(9, 9).to_sparse(),
    "compressed": lambda: torch.zeros(9, 9).to_sparse_csr(),
    "meta": lambda: torch.zeros(10**9, device="meta"),
}


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
@pytest.mark.parametrize("save", [as_archive, as_legacy])
@pytest.mark.parametrize("make", NOT_DENSE.values(), ids=NOT_DENSE.keys())
def test_tensors_that_are_not_dense(tmp_path: Path, make: Callable[[], Tensor], save: Callable[..., None]) -> None:
    path = tmp_path / "weights.pt"
    save({"weight": make(), "bias": torch.zeros(3)}, path)
    assert torch.load(path, weights_only=True)["bias"].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="not a file of dense tensors only"):
        read_checkpoint(path)


@pytest.mark.parametrize("save", [as_archive, as_legacy])
def test_a_tensor_that_is_larger_than_its_file(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "weights.pt"
    save({"weight": torch.zeros(1).expand(10**6, 10**6), "bias": torch.zeros(3)}, path)
    with pytest.raises(
        DataError, match=rf"^'weight' in {path} has the shape \(1000000, 1000000\), for which \d+ bytes"
    ):
        read_checkpoint(path)


def test_a_bias_for_more_classes_than_there_are_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """The file is true, the zeros are in it; a model of as many classes would take a thousand times its size."""
    bias = torch.zeros(10**5)
    weights = {name: value for name, value in state.items() if name != "classifier.3.weight"}
    torch.save({**weights, "classifier.3.bias": bias}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"1 parameters missing .*1 of another shape \('classifier\.3\.bias' \(1000,\)"):
        open_classifier(tmp_path / "weights.pt", ARCH)


def test_a_transformer_for_images_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    build = torchvision.models.vision_transformer._vision_transformer

    def narrow(**options: Any) -> Any:
        sizes.append(options.get("image_size", 224))
        return build(**{**options, "num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8})

    monkeypatch.setattr(torchvision.models.vision_transformer, "_vision_transformer", narrow)
    torch.save({"encoder.pos_embedding": torch.zeros(1, 10**6, 1)}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="do not fit torchvision's vit_b_16"):
        open_classifier(tmp_path / "weights.pt", "vit_b_16")
    assert sizes == [224]


NOTES: list[tuple[dict[str, Any], str]] = [
    ({"class_names": {"a": 1}}, "class_names .*: expected a list, got an object of 1"),
    ({"class_names": "abcdefg"}, "class_names .*: expected a list, got 'abcdefg'"),
    ({"class_names": [*NAMES[:6], ["g"]]}, "class_names .*: 6: expected a string, got a list of 1"),
    ({"class_names": [*NAMES[:6], "g" * 10**5]}, "class_names .*: 6: expected at most 1000 characters, got 100000"),
    ({"class_names": NAMES[:6]}, "names 6 classes, the weights have 7"),
]


@pytest.mark.parametrize(("notes", "reason"), [*NOTES, ({"arch": ["a"]}, "arch .*: expected a string, got a list")])
def test_notes_of_another_kind(tmp_path: Path, state: dict[str, Tensor], notes: dict[str, Any], reason: str) -> None:
    torch.save({"state_dict": state, **notes}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=reason):
        open_classifier(tmp_path / "weights.pt", ARCH)


def test_names_that_are_numbers(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"state_dict": state, "class_names": tuple(range(7))}, tmp_path / "weights.pt")
    assert open_classifier(tmp_path / "weights.pt", ARCH).class_names == tuple("0123456")


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        *((json.dumps(notes["class_names"]), reason.removeprefix("class_names .*: ")) for notes, reason in NOTES),
        ("[" * 10**5, "not JSON: .+"),
        ("[NaN]", "not JSON: NaN is no number"),
        ("[" + "9" * 5000 + "]", "not JSON: .+"),
    ],
)
def test_notes_of_safetensors(tmp_path: Path, state: dict[str, Tensor], notes: str, reason: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, tmp_path / "weights.safetensors", metadata={"class_names": notes})
    with pytest.raises(DataError, match=reason):
        open_classifier(tmp_path / "weights.safetensors", ARCH)


def of_safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        of_safetensors(b"{}", 2**60),
        of_safetensors(b"[1, 2]"),
        of_safetensors(b'{"__metadata__": {"class_names": ["a"]}}'),
        of_safetensors(b'{"a": {"dtype": "F32", "shape": [1000000000, 1000000000], "data_offsets": [0, 16]}}'),
        of_safetensors(b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1000000000000]}}'),
        of_safetensors(b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}'),
        b"",
    ],
)
def test_headers_of_safetensors(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="^cannot read the weights"):
        read_checkpoint(tmp_path / "weights.safetensors")


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "folder": (Path.mkdir, "it is a folder, not a file"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "No such file or directory"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize(("make", "reason"), NO_FILES.values(), ids=NO_FILES.keys())
def test_what_is_no_file(tmp_path: Path, state: dict[str, Tensor], make: Callable[[Path], object], reason: str) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        make(tmp_path / name)
        with pytest.raises(DataError, match=f"^cannot read {tmp_path / name}: {reason}"):
            read_checkpoint(tmp_path / name)
    torch.save(state, tmp_path / "sound.pt")
    make(tmp_path / "names.txt")
    with pytest.raises(DataError, match=f"^cannot read the class names {tmp_path / 'names.txt'}: {reason}"):
        open_classifier(tmp_path / "sound.pt", ARCH, class_names=tmp_path / "names.txt")


def test_files_of_a_terabyte(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """With holes: they take no space on disk."""
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "names.txt").touch()
    os.truncate(tmp_path / "names.txt", 2**40)
    with pytest.raises(DataError, match=r"^cannot read the class names .*names\.txt: it has 1099511627776 bytes"):
        open_classifier(tmp_path / "weights.pt", ARCH, class_names=tmp_path / "names.txt")
    os.truncate(tmp_path / "weights.pt", 2**40)
    with pytest.raises(DataError, match=r"^cannot read the weights .*weights\.pt: it has 1099511627776 bytes"):
        read_checkpoint(tmp_path / "weights.pt")


def test_class_names_that_are_no_text(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "names\x1b.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError) as error:
        open_classifier(tmp_path / "weights.pt", ARCH, class_names=tmp_path / "names\x1b.txt")
    assert str(error.value).startswith(rf"cannot read the class names {tmp_path}/names\x1b.txt: 'utf-8' codec")


def test_pickles_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for save in (as_archive, as_legacy, lambda content, path: path.write_bytes(pickle.dumps({"a": 1}))):
        save({"weight": torch.arange(4.0)}, path)
        content = path.read_bytes()
        for length in range(0, len(content), max(1, len(content) // 40)):
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match="cannot read the weights"):
                read_checkpoint(path)
