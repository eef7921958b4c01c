"""What can be refused is refused before any work: outputs, devices and packages, for every command alike."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sgdmix_albu.audit import run_audit, run_drift
from sgdmix_albu.bank import make_bank
from sgdmix_albu.cli import main
from sgdmix_albu.devices import present_device
from sgdmix_albu.errors import DataError, InvalidInputError, MissingExtraError
from sgdmix_albu.expand import generate, verify
from sgdmix_albu.io.outputs import check_output, local_output
from sgdmix_albu.recipes import fine_grained
from sgdmix_albu.recipes.command import guarded
from sgdmix_albu.refine import finetune, get_refiner

# With data that are not there: whoever looks at the output first has not read an image.
WRITES = {
    "mix": "mix nowhere {out}",
    "generate": "generate nowhere {out} --refiner none",
    "generate --dry-run": "generate nowhere {out} --refiner none --dry-run",
    "audit": "audit nowhere {out}",
    "drift": "drift nowhere {out} --refiner aviary",
    "bank": "bank nowhere {out}",
    "distil": "distil nowhere {out}/file.safetensors --teacher manifold_ranking",
    "finetune": "finetune nowhere {out} --metaclass bird --base embedded:aviary",
    "demo": "demo {out}",
    "pull": f"pull owner/name@{40 * 'a'} {{out}}",
    "recipe": "recipe {out} --dataset aviary --size 32",
    "recipe --write-train": "recipe --dataset aviary --size 32 --write-train {out}",
}
TAKE_URLS = {"mix", "generate", "generate --dry-run"}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says that it refuses; nothing is written."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        words = line.split()
        code = guarded(lambda: fine_grained.main(words[1:])) if words[0] == "recipe" else main(words)
        said = capsys.readouterr().err.strip().splitlines()
        assert (code, len(said)) == (2, 1), said
        assert sorted(tmp_path.rglob("*")) == before
        return said[0]

    return run


@pytest.mark.parametrize("command", WRITES)
def test_outputs(command: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write file/out" in (message := refused(WRITES[command].format(out="file/out")))
    assert message.endswith("/file is a file")
    # An operating system that refuses, whoever asks: nobody makes a folder there.
    assert "cannot write /proc/sgdmix" in refused(WRITES[command].format(out="/proc/sgdmix"))
    assert "pathlib takes one of its slashes" in refused(WRITES[command].format(out="s3:/bucket/out"))
    if command in TAKE_URLS:
        assert "cannot open nosuch://bucket/out: Protocol not known" in refused(
            WRITES[command].format(out="nosuch://bucket/out")
        )
    else:
        message = refused(WRITES[command].format(out="s3://bucket/out"))
        assert "cannot write s3://bucket/out" in message
        assert "expected a path on this machine, not a URL" in message


def test_every_command_that_writes_is_in_the_table() -> None:
    from sgdmix_albu.cli import parser

    commands = next(action.choices for action in parser()._actions if isinstance(action.choices, dict))
    writing = {name for name, command in commands.items() if any(one.dest == "out" for one in command._actions)}
    assert writing - {"verify"} == {name.split()[0] for name in WRITES} - {"recipe"}


def test_a_file_url_is_a_folder_here(tmp_path: Path) -> None:
    assert local_output(f"file://{tmp_path}/a/b") == tmp_path / "a" / "b"
    for out in ("memory://somewhere", f"file://{tmp_path}/a", f"local://{tmp_path}/a"):
        check_output(out)
    check_output(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "locked").mkdir()
    with pytest.raises(DataError, match="is a file"):
        check_output("/dev/null")


@pytest.mark.parametrize(
    "line",
    [
        "generate photos out --refiner aviary --device {device}",
        "distil photos out.safetensors --teacher manifold_ranking --device {device}",
        "recipe --dataset aviary --size 32 --device {device}",
    ],
)
def test_devices(line: str, refused: Callable[..., str]) -> None:
    assert "expected a device such as 'cpu', 'cuda' or 'mps', got 'mars'" in refused(line.format(device="mars"))
    absent = "cuda:99" if torch.cuda.is_available() else "cuda"
    for device in (absent, "xpu" if not torch.xpu.is_available() else "mps"):
        assert "must be one that this machine has (cpu" in (message := refused(line.format(device=device)))
        assert message.endswith(f"got {device!r}")


def test_a_device_that_is_there() -> None:
    assert present_device(None).type in ("cpu", torch.accelerator.current_accelerator(check_available=True) or "cpu")
    assert present_device("cpu") == torch.device("cpu")
    with pytest.raises(InvalidInputError):
        present_device("meta")


def test_a_weight_of_saliency_without_saliency(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"saliency_weight needs saliency \(--saliency\), got only 5.0"):
        finetune("nowhere", metaclass="bird", out=tmp_path / "r", saliency_weight=5.0)


@pytest.mark.parametrize("package", ["diffusers", "transformers", "safetensors"])
def test_packages(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before weights, teachers or images are looked at."""
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    message = rf"{package} is needed and is not installed; run: pip install 'sgdmix-albu\[diffusion\]'"
    with pytest.raises(MissingExtraError, match=message):
        get_refiner("aviary", finetuned=False)
    with pytest.raises(MissingExtraError, match=message):
        finetune("nowhere", metaclass="bird", base="embedded:aviary", out=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("finetune nowhere out --metaclass bird --base owner/name --revision {commit}", "nowhere"),
        (
            "finetune photos out --metaclass bird --base embedded:aviary",
            "expected images of each class, found none of 'tit'",
        ),
        ("finetune flat out --metaclass bird --base embedded:aviary", "flat"),
        ("finetune whole out --metaclass bird --base flat", "with model_index.json, found none in"),
        (
            "finetune photos photos2 --metaclass bird --base owner/name --revision {commit}",
            "found 'theirs' in it",
        ),
        ("finetune photos file/out --metaclass bird --base owner/name --revision {commit}", "cannot write file/out"),
    ],
)
def test_finetune_looks_at_output_and_data_before_the_base(
    line: str, message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    """A base of the hub takes minutes to come. Nothing is said to begin."""
    for name in ("photos/owl", "photos/tit", "flat", "photos2/theirs", "whole/owl"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "whole" / "owl" / "1.png")
    (tmp_path / "file").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "owl" / "1.png")
    assert message in refused(line.format(commit=40 * "a"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(3, "out"), "expected a path or a URL, got 3"),
        (lambda: generate("in", None), "expected a path or a URL, got None"),
        (lambda: generate("in", "out", settings={}), r"expected settings=Settings\(...\) or None, got {}"),
        (
            lambda: generate("in", "out", refiner="r"),
            r"expected refiner=RefinerSettings\(...\) or None, got 'r",
        ),
        (lambda: generate("in", "out", teacher=3), r"expected teacher=ClassifierSettings\(...\) or None, got 3"),
        (lambda: verify(3), "expected a path or a URL, got 3"),
        (lambda: run_audit(3, out="out"), "expected a path or a URL, got 3"),
        (lambda: make_bank("in", None), "expected a path or a URL, got None"),
        (lambda: finetune("in", metaclass="bird", out=None), "expected a path or a URL, got None"),
        (lambda: get_refiner(None), "expected a refiner's key, its folder or owner/name of the Hub, got None"),
        (lambda: run_drift("in", refiner=3, out="out"), "expected a refiner's key, its folder"),
    ],
)
def test_what_is_no_path_and_no_settings(
    call: Callable[[], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []
