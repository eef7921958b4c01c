"""Pushing and pulling: the real client of the hub against a stand-in of its HTTP API on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from expand_helpers import REAL, contents, expand, write_tree
from hub_server import Hub, served

from sgdmix_albu.audit.drift_result import Cell
from sgdmix_albu.cli import main
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.hub import pull_expanded, push_to_hub
from sgdmix_albu.hub.cards import model_card
from sgdmix_albu.refine import RefinerCard, get_refiner
from sgdmix_albu.refine.folder import write_refiner

pytest.importorskip("huggingface_hub", minversion="1.0", reason="the extra hub asks for 1.0")

# The client hands large files to httpx in a way of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FILES = ("refiner.json", "unet_lora.safetensors", "tokens.safetensors")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with served(monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.fixture
def refiner(tmp_path: Path) -> Path:
    """A refiner's folder, with what a fine-tuning leaves beside it."""
    folder = tmp_path / "refiner"
    card = RefinerCard(
        key="ants",
        base="organisation/sd15",
        revision="a" * 40,
        architecture="sd",
        metaclass="ant",
        prompt="a photo of a {token} {metaclass}",
        resolution=64,
        classes=("fire ant", "<b>|`evil`"),
        tokens=("<ants-000>", "<ants-001>"),
        strengths=(0.3, 0.7),
        steps=25,
        guidance=7.5,
        training={"steps": 120, "rank": 10, "images": 40},
    )
    folder.mkdir()
    write_refiner(folder, card, {"unet.lora_A.weight": torch.ones(2, 2)}, {"text_encoder": torch.zeros(2, 4)})
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state.safetensors").write_bytes(b"optimiser")
    (folder / "log.jsonl").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def expanded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Class folders and shards; read only."""
    root = tmp_path_factory.mktemp("expanded")
    data = write_tree(root / "data", classes=2, images=3)
    for name, settings in (("folders", {}), ("shards", {"shards": True})):
        expand(data, root / name, type(REAL)("spectral_residual", "otsu", fill="source", multiplier=2, **settings))
    return {name: root / name for name in ("folders", "shards")}


def _drift(folder: Path) -> Path:
    cells = [
        {"preserve": "none", "strength": 0.0, "timestep": None, "drifted": 1, "count": 50, "added": 0},
        {"preserve": "soft", "strength": 0.7, "timestep": 700, "drifted": 5, "count": 50, "added": 4},
    ]
    folder.mkdir()
    (folder / "drift.json").write_text(json.dumps({"cells": cells, "folder": "/secret"}))
    return folder


def test_a_refiner_there_and_back(hub: Hub, refiner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drift = _drift(tmp_path / "drift")
    options = ["--license", "cc-by-4.0", "--about", "Ants from my garden", "--drift", str(drift), "--private"]
    assert main(["push", str(refiner), "me/ants", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"url": f"{hub.url}/me/ants", "commit": hub.repositories["model", "me/ants"][-1][0]}
    assert [one.get("visibility") or one.get("private") for one in hub.created] in (
        ["private"],
        [True],
    )  # as 1.0 has it
    (_, begun), (_, tree) = hub.repositories["model", "me/ants"]  # one commit with everything
    assert set(begun) == {".gitattributes"}
    assert set(tree) == {".gitattributes", "README.md", *FILES}

    taken = get_refiner("me/ants", revision=told["commit"])
    assert {name: (taken.folder / name).read_bytes() for name in FILES} == {name: tree[name] for name in FILES}
    assert {name: (refiner / name).read_bytes() for name in FILES} == {name: tree[name] for name in FILES}
    assert taken.revision == "a" * 40  # the base's own, not the refiner's
    assert get_refiner(f"me/ants@{told['commit']}", base="b/c", revision="b" * 40).revision == "b" * 40

    readme = tree["README.md"].decode()
    head = readme.split("---\n")[1]
    assert "license: cc-by-4.0\n" in head
    assert "base_model: organisation/sd15\n" in head
    assert "library_name: sgdmix-albu\n" in head
    assert "Ants from my garden" in readme
    assert "| 0.7 | soft | 5 of 50 (10%, 95% interval 4% to 21%) |" in readme  # scipy's Wilson interval
    assert 'get_refiner("me/ants", revision="COMMIT")' in readme
    assert r"| \<b\>\|\`evil\` | `<ants-001>` |" in readme
    assert "secret" not in readme


@pytest.mark.parametrize("layout", ["folders", "shards"])
def test_an_expanded_set_there_and_back(
    hub: Hub, expanded: dict[str, Path], tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push_to_hub(expanded[layout], "me/set", license="other")
    pulled = tmp_path / "pulled"
    assert main(["pull", f"me/set@{pushed.commit}", str(pulled)]) == 0
    tree = contents(pulled)
    readme = tree.pop("README.md").decode()
    kept = {name: content for name, content in contents(expanded[layout]).items() if not name.startswith(".sgdmix")}
    assert {name: content for name, content in tree.items() if name != ".sgdmix-run.json"} == kept
    if layout == "folders":
        from torchvision.datasets import ImageFolder

        assert ImageFolder(str(pulled)).classes == ["class 0", "class 1"]  # not the client's own folder .cache
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert (pulled / ".sgdmix-run.json").read_bytes() == (expanded[layout] / ".sgdmix-run.json").read_bytes()
    assert "12 images of 2 classes, made from 6 photographs" in readme
    assert "| class 0 | 6 |" in readme

    # As others read it, from the hub: the card's configs say which files are images.
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    rows = datasets.load_dataset("me/set", revision=pushed.commit, split="train", cache_dir=str(tmp_path / "datasets"))
    assert len(rows) == 12
    image = rows[0]["image"] if layout == "folders" else rows[0]["png"]
    assert image.size in {(40, 48), (48, 40), (96, 72)}
    if layout == "folders":
        assert sorted(rows["label_index"]) == [0] * 6 + [1] * 6


@pytest.mark.parametrize("where", ["lfs", "commit"])
def test_a_push_that_breaks_off_leaves_nothing(hub: Hub, refiner: Path, where: str) -> None:
    hub.breaks_at = where
    with pytest.raises(DataError, match="cannot push to 'me/ants'"):
        push_to_hub(refiner, "me/ants", license="other")
    assert set(hub.tree("model", "me/ants")) == {".gitattributes"}
    hub.breaks_at = None
    pushed = push_to_hub(get_refiner(refiner), "me/ants", license="other")  # the same goes on
    assert set(hub.tree("model", "me/ants", pushed.commit)) >= {*FILES, "README.md"}


def test_what_was_changed_is_not_pushed(hub: Hub, refiner: Path, expanded: dict[str, Path], tmp_path: Path) -> None:
    (refiner / "tokens.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match="was changed after it was written"):
        push_to_hub(refiner, "me/ants", license="other")
    copy = shutil.copytree(expanded["folders"], tmp_path / "copy")
    next(copy.rglob("*.png")).write_bytes(b"other")
    with pytest.raises(DataError, match="is not as it was written"):
        push_to_hub(copy, "me/set", license="other")
    assert hub.repositories == {}


def test_what_was_changed_on_the_hub_is_refused(hub: Hub, expanded: dict[str, Path], tmp_path: Path) -> None:
    commit = push_to_hub(expanded["folders"], "me/set", license="other").commit
    tree = hub.tree("dataset", "me/set", commit)
    name = next(name for name in tree if name.endswith(".png"))
    tree[name] = tree[name][:-1] + b"?"
    with pytest.raises(DataError, match=f"is not what was pushed: {name}"):
        pull_expanded("me/set", tmp_path / "pulled", revision=commit)
    commit = hub.commit("dataset", "me/set", [{"key": "deletedFile", "value": {"path": "metadata.jsonl"}}])
    with pytest.raises(DataError, match="is not what was pushed: it is not finished"):
        pull_expanded("me/set", tmp_path / "pulled", revision=commit)
    assert [*tmp_path.glob(".*"), *tmp_path.glob("pulled")] == []


def test_a_pull_that_breaks_off_is_resumed(
    hub: Hub, expanded: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = push_to_hub(expanded["folders"], "me/set", license="other").commit
    tree = hub.tree("dataset", "me/set", commit)
    name = max(name for name in tree if name.endswith(".png"))
    held, command = tree[name], ["pull", f"me/set@{commit}", str(tmp_path / "pulled")]
    hub.lost = name
    assert main(command) == 2
    assert "cannot fetch 'me/set'" in capsys.readouterr().err
    assert not (tmp_path / "pulled").exists()
    (part,) = tmp_path.glob(".sgdmix-pull-*")
    assert [*part.glob("class 0/*.png")]
    hub.lost, hub.sent = None, []
    assert main(command) == 0
    assert hub.sent == [name]  # only what was missing
    assert (tmp_path / "pulled" / name).read_bytes() == held


def test_a_card_of_ones_own_stays_unless_it_is_to_go(hub: Hub, refiner: Path) -> None:
    push_to_hub(refiner, "me/ants", license="other")
    push_to_hub(refiner, "me/ants", license="mit")  # a card of ours gives way
    for own in (b"# My ants", hub.tree("model", "me/ants")["README.md"].replace(b"## Use", b"Mine.\n\n## Use")):
        hub.tree("model", "me/ants")["README.md"] = own
        with pytest.raises(DataError, match=r"'me/ants' has its own README.md: .*; pass overwrite to replace it"):
            push_to_hub(refiner, "me/ants", license="apache-2.0")
        assert hub.tree("model", "me/ants")["README.md"] == own
    push_to_hub(refiner, "me/ants", license="apache-2.0", overwrite=True)
    assert b"license: apache-2.0" in hub.tree("model", "me/ants")["README.md"]


def test_other_files_of_a_repository_stay_unless_they_are_to_go(hub: Hub, refiner: Path) -> None:
    push_to_hub(refiner, "me/ants", license="other")
    hub.tree("model", "me/ants")["notes.txt"] = b"mine"
    with pytest.raises(DataError, match=r"has other files, such as notes.txt; pass overwrite"):
        push_to_hub(refiner, "me/ants", license="apache-2.0")
    assert "notes.txt" in hub.tree("model", "me/ants")
    push_to_hub(refiner, "me/ants", license="apache-2.0", overwrite=True)
    assert "notes.txt" not in hub.tree("model", "me/ants")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"license": "My own!"}, InvalidInputError, "expected a licence as the hub names it, such as apache-2.0"),
        ({"license": None}, InvalidInputError, "expected a licence .* got None"),
        ({"repository": "ants"}, InvalidInputError, r"expected a hub id \(owner/name\), got 'ants'"),
        ({"folder": "tests"}, DataError, "expected a folder that sgdmix finetune, generate or mix wrote"),
        ({"drift": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_what_means_nothing_is_refused_before_the_hub_is_asked(
    refiner: Path, change: dict[str, Any], error: type[SGDMixError], message: str
) -> None:
    wanted = {"folder": refiner, "repository": "me/ants", "license": "other", **change}
    with pytest.raises(error, match=message):
        push_to_hub(**wanted)


@pytest.mark.parametrize("revision", ["main", "v1", "a" * 39])
def test_only_a_commit_is_pulled(tmp_path: Path, revision: str) -> None:
    with pytest.raises(InvalidInputError, match="40 hexadecimal digits"):
        pull_expanded("me/set", tmp_path / "pulled", revision=revision)
    with pytest.raises(InvalidInputError, match="40 hexadecimal digits"):
        get_refiner(f"me/ants@{revision}")
    with pytest.raises(DataError, match="a hub id needs its commit: OWNER/NAME@COMMIT"):
        get_refiner("me/ants")


def test_a_card_names_no_folder_of_this_machine(refiner: Path) -> None:
    from dataclasses import replace

    from sgdmix_albu.refine import read_refiner

    card = replace(read_refiner(refiner), base="/home/me/models/sd15", revision=None)
    text = model_card(card, repository="me/ants", licence="other", cells=[Cell("none", 0.0, None, 0, 10)])
    assert "/home/me" not in text
    assert "| base model | `sd15` |" in text
    assert "base_model:" not in text
