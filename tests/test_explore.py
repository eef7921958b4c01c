"""The page's looks: each is what the command writes, and what the transform does. Without gradio."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import pixels, write_tree
from PIL import Image

from sgdmix_albu.cli import main
from sgdmix_albu.errors import DataError, MissingExtraError, SGDMixError, UnknownNameError
from sgdmix_albu.explore import Choices, Explorer, Given, explore
from sgdmix_albu.explore.lines import command_line, python_lines
from sgdmix_albu.explore.page import open_page
from sgdmix_albu.explore.shown import shown, told
from sgdmix_albu.explore.wishes import saliency_settings
from sgdmix_albu.refine import RefinerCard
from sgdmix_albu.refine.folder import write_refiner
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings
from sgdmix_albu.torchvision import SGDMix

LIGHT = Choices(saliency="spectral_residual", mask="otsu")
CHOICES = [
    LIGHT,
    Choices(fill="source", candidates=3),
    replace(LIGHT, place="random", seed=5, candidates=4),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of three; read only."""
    return write_tree(tmp_path_factory.mktemp("my photographs"), classes=3, images=3)


def _explorer(data: Path, **given: Any) -> Explorer:
    return Explorer(Given(**{"data": str(data), "size": 48, **given}))


def _written(command: str, key: str, *more: str) -> np.ndarray:
    """What a command writes for an image."""
    assert main([*shlex.split(command)[1:], *more]) in (0, 1)  # 1: an image cannot be read
    return pixels((Path("out") / key).with_suffix(".png"))


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("choices", CHOICES, ids=["otsu", "source", "random"])
def test_the_command_writes_the_picture_shown(photographs: Path, choices: Choices) -> None:
    explorer = _explorer(photographs)
    looks = {key: explorer.look(key, choices) for key in ("class 0/002.png", "class 2/001.png")}
    assert len({look.target for look in looks.values()} - {None}) >= 1
    for key, look in looks.items():
        shutil.rmtree("out", ignore_errors=True)
        assert np.array_equal(_written(look.command, key), look.result.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("choices", CHOICES[:2], ids=["otsu", "source"])
def test_the_transform_gives_the_picture_shown(photographs: Path, choices: Choices) -> None:
    """Over a batch of the image and its candidates: of so few, all are candidates there too."""
    explorer = _explorer(photographs)
    look = explorer.look("class 0/002.png", replace(choices, candidates=50))
    items = {item.key: item for item in explorer.album.source.items}
    batch = torch.stack([explorer.album.pixels(items[key]).pixels for key in (look.key, *look.candidates)])
    namespace: dict[str, Any] = {}
    exec(look.python, namespace)
    assert look.target is not None
    assert torch.equal(namespace["mix"](batch)[0], look.result)


@pytest.mark.usefixtures("inside")
def test_an_image_that_cannot_be_read_is_told_and_left_out_as_a_run_does(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=3, images=3)
    (data / "class 1" / "000.jpg").write_text("no image")
    explorer = _explorer(data)
    look = explorer.look("class 0/000.png", LIGHT)  # of all candidates: so it is met
    assert list(explorer.unusable(LIGHT)) == ["class 1/000.jpg"]
    assert "Left out, because they cannot be used: class 1/000.jpg" in shown(look, explorer.unusable(LIGHT))
    few = replace(LIGHT, candidates=3)
    look = explorer.look("class 2/001.png", few)
    assert np.array_equal(_written(look.command, look.key), look.result.permute(1, 2, 0).numpy())
    with pytest.raises(DataError, match="000.jpg"):
        explorer.look("class 1/000.jpg", LIGHT)


def test_another_mask_asks_for_no_map_again(photographs: Path) -> None:
    explorer = _explorer(photographs)
    explorer.look("class 0/000.png", LIGHT)
    cost = explorer.album.maps(saliency_settings(explorer.given, LIGHT.saliency)).cost
    assert cost.images == 9
    explorer.look("class 0/000.png", replace(LIGHT, mask="guided"))
    explorer.look("class 0/001.png", replace(LIGHT, fill="source"))
    assert cost.images == 9


def test_an_image_without_an_object_is_left_alone_and_it_is_said_why(tmp_path: Path) -> None:
    data = write_tree(tmp_path, classes=2, images=2)
    Image.new("RGB", (48, 48), "grey").save(data / "class 0" / "grey.png")
    explorer = _explorer(data)
    look = explorer.look("class 0/grey.png", LIGHT)
    assert look.target is None
    assert look.unmixed == "the saliency map is flat"
    assert "This image stays as it is: the saliency map is flat." in shown(look, {})
    assert torch.equal(look.result, torch.full((3, 48, 48), 128, dtype=torch.uint8))


def test_what_others_named_is_shown_as_text(photographs: Path) -> None:
    look = replace(_explorer(photographs).look("class 0/000.png", LIGHT), key='<img src="x" onerror=alert(1)>')
    page = shown(look, {"<script>.png": "<b>"})
    assert "<img src=" not in page
    assert "<script>" not in page
    assert told("<b>") == '<p class="told" role="status">&lt;b&gt;</p>'


def test_images_are_found_by_a_part_of_their_name(photographs: Path) -> None:
    explorer = _explorer(photographs)
    assert explorer.find("CLASS 1/") == "class 1/000.png"
    assert explorer.beside(explorer.keys[-1], 1) == explorer.keys[0]
    with pytest.raises(UnknownNameError, match="no image is called 'owl'"):
        explorer.find("owl")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: _explorer(data, size=0), "size must be a side in pixels"),
        (lambda data: Choices(candidates=501), "candidates must be a positive integer .500 at the most., got 501"),
        (lambda data: _explorer(data).look("class 0/000.png", replace(LIGHT, fill="source", place="random")), "place"),
        (lambda data: Explorer(Given()), "expected either data or dataset"),
        (lambda data: _explorer(data, saliency=("nope",)), "unknown saliency backend 'nope'"),
        (lambda data: _explorer(data, saliency=("bank:nowhere",)), "nowhere"),
        (lambda data: _explorer(data, options={"session": "u2net"}), "none of salient_object, .* has an option 'sess"),
        (lambda data: _explorer(data, refiner=RefinerSettings(base="sd15")), "base needs a refiner"),
        (lambda data: _explorer(data, refiner=RefinerSettings("nobody")), "unknown refiner 'nobody'"),
        (lambda data: open_page(Given(data=str(data)), port=99999), "port must be a port, 1 to 65535"),
    ],
)
def test_what_means_nothing_is_refused(photographs: Path, call: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(SGDMixError, match=message):
        call(photographs)


def test_the_command_refuses_a_port_that_is_none(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["explore", str(photographs), "--port", "99999"])
    assert left.value.code == 2
    assert "--port: expected a whole number, 1 to 65535, got '99999'" in capsys.readouterr().err


@pytest.fixture
def refiner(tmp_path: Path) -> str:
    """A folder of a refiner for birds."""
    card = RefinerCard(
        key="birds",
        base="embedded:aviary",
        revision=None,
        architecture="sd",
        metaclass="bird",
        prompt="{token} {metaclass}",
        resolution=64,
        classes=("owl",),
        tokens=("<birds-000>",),
        strengths=(0.3,),
        steps=25,
        guidance=7.5,
    )
    write_refiner(tmp_path, card, {"unet.lora_A.weight": torch.ones(2, 2)}, {"text_encoder": torch.zeros(1, 4)})
    return str(tmp_path)


def test_the_code_says_how_the_refiner_works(refiner: str) -> None:
    """What the transform would do with it, by what get_refiner makes of the line; the command by its own parser."""
    how = {"base": "sd15/", "steps": 7, "guidance": 2.5, "device": "cpu", "dtype": "float32"}
    given = Given(dataset="aviary", size=48, refiner=RefinerSettings(refiner, **how))
    namespace: dict[str, Any] = {}
    exec(python_lines(given, replace(LIGHT, strength=0.35)), namespace)
    mix = namespace["mix"]
    assert (mix.refiner.steps, mix.refiner.guidance, mix.refiner.base, mix.strength) == (7, 2.5, how["base"], 0.35)
    assert (mix.refiner.device, mix.refiner.dtype) == (torch.device("cpu"), torch.float32)
    words = shlex.split(command_line(given, LIGHT))
    assert {name: words[words.index(f"--{name}") + 1] for name in how} == {name: str(how[name]) for name in how}


def test_the_defaults_are_those_of_the_transform() -> None:
    mix = SGDMix()
    for name in ("saliency", "mask", "fill", "place", "candidates", "strength", "preserve"):
        assert getattr(Choices(), name) == getattr(mix, name)


def test_a_prompt_is_what_the_refiner_says_that_all_are(refiner: str) -> None:
    """Of a folder nobody else knows what its classes are."""
    given = Given(data="photographs", options={"model": "clipseg"}, saliency=("text",))
    assert "prompt" not in saliency_settings(given, "text").options
    with_refiner = replace(given, refiner=RefinerSettings(refiner))
    assert saliency_settings(with_refiner, "text").options == {"prompt": "bird", "model": "clipseg"}


def test_the_backends_offered_need_nothing_that_is_not_there() -> None:
    assert Given().backends == ("salient_object", "manifold_ranking", "spectral_residual")
    through = Given(saliency=("bank:maps", "salient_object"), classifier=ClassifierSettings("model.pt"))
    assert through.backends == ("bank:maps", "salient_object", "manifold_ranking", "spectral_residual", "gradcam")


def test_without_gradio_the_error_is_the_command_that_installs_it(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("sgdmix_albu.registry.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'sgdmix-albu\[explore\]'"):
        explore(Given(data=str(photographs)))
