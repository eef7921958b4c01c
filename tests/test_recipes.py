"""The recipes: parts that never overlap, measures by hand, the loop, and a run of each."""

from __future__ import annotations

import json
import math
import pickle
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from official import WRITERS
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from sgdmix_albu.classifiers import Classifier, new_classifier, open_classifier, open_judge
from sgdmix_albu.cli import main as sgdmix
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.recipes import background, command, few_shot, fine_grained, long_tail
from sgdmix_albu.recipes import parts as parts_module
from sgdmix_albu.recipes.checks import check_model
from sgdmix_albu.recipes.command import guarded
from sgdmix_albu.recipes.measures import by_frequency, measure
from sgdmix_albu.recipes.parts import Part, halved_parts, held_out, long_tailed, official_parts
from sgdmix_albu.recipes.settings import Settings, diff_mix, diff_mix_few_shot, diff_mix_long_tail
from sgdmix_albu.recipes.training import Machine, crops, fit, predict, resized_crops, standardised
from sgdmix_albu.synthetic import SyntheticMix, SyntheticPool

CPU = Machine(torch.device("cpu"))
RECIPES = {"fine_grained": fine_grained, "few_shot": few_shot, "long_tail": long_tail, "background": background}
QUICK = ["--size", "32", "--arch", "resnet18", "--epochs", "2", "--batch-size", "32"]
CHEAP = ["--refiner", "none", "--saliency", "spectral_residual", "--mask", "otsu", "--multiplier", "1"]

labels_of_a_set = st.lists(st.integers(2, 12), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@given(labels_of_a_set, st.floats(0.01, 0.9), st.integers(0, 9))
def test_held_out(targets: list[int], share: float, seed: int) -> None:
    kept, held = held_out(targets, share, seed)
    assert sorted(kept + held) == list(range(len(targets)))
    assert held_out(targets, share, seed) == (kept, held)
    total, away = Counter(targets), Counter(targets[row] for row in held)
    for label, count in total.items():
        assert 1 <= away[label] < count
        assert abs(away[label] - share * count) <= 1


@given(labels_of_a_set, st.integers(1, 4), st.integers(0, 9))
def test_few_shot(targets: list[int], shots: int, seed: int) -> None:
    few = partial(parts_module.few_shot, kind="validation")
    if min(Counter(targets).values()) < shots:
        with pytest.raises(DataError, match=rf"{shots} shots were requested, class \d has \d validation images"):
            few(targets, shots, seed)
        return
    rows = few(targets, shots, seed)
    assert len(set(rows)) == len(rows)
    assert set(Counter(targets[row] for row in rows).values()) == {shots}
    more = [row for row in range(len(targets)) if min(Counter(targets).values()) > shots]
    if more:
        assert set(rows) <= set(few(targets, shots + 1, seed))


@pytest.mark.parametrize(("classes", "each", "imbalance"), [(10, 50, 0.1), (200, 30, 0.01), (5, 8, 1.0)])
def test_long_tailed_profile(classes: int, each: int, imbalance: float) -> None:
    """Equation of Cui et al. (CVPR 2019): n_k = n mu^k with mu^(C - 1) the imbalance."""
    targets = [label for label in range(classes) for _ in range(each)]
    counts = Counter(targets[row] for row in long_tailed(targets, imbalance, seed=3))
    ratio = imbalance ** (1 / (classes - 1))
    exact = [each * ratio**label for label in range(classes)]
    assert all(counts[label] == max(math.floor(exact[label] + 1e-6), 1) for label in range(classes))


def test_long_tailed_orders_classes_by_size() -> None:
    targets = [0] * 4 + [1] * 20 + [2] * 12
    counts = Counter(targets[row] for row in long_tailed(targets, 0.25, seed=0))
    assert counts == {1: 12, 2: 6, 0: 3}  # the mean is 12 images
    with pytest.raises(InvalidInputError, match=r"imbalance must lie in \(0, 1\], got 0"):
        long_tailed(targets, 0, seed=0)


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_official_sets_share_no_photograph(tmp_path: Path, name: str, seed: int) -> None:
    root = WRITERS[name](tmp_path)
    parts = official_parts(name, str(root), size=32, seed=seed)
    paths = [set(part.paths or ()) for part in (parts.train, parts.val, parts.test)]
    assert all(paths)
    assert len(set.union(*paths)) == sum(map(len, paths))
    assert parts.train.classes == parts.val.classes == parts.test.classes
    assert set(parts.val.targets) == set(parts.train.targets)
    image, label = parts.val[0]
    with Image.open((parts.val.paths or [])[0]) as expected:
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert label == parts.val.targets[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_halves_of_flowers(tmp_path: Path, seed: int) -> None:
    """Half of all 24 images, 8 of each class, judge; of the other half one of each chooses the epoch."""
    root = WRITERS["flowers"](tmp_path)
    parts = halved_parts("flowers", str(root), seed=seed)
    each = [Counter(part.targets) for part in (parts.train, parts.val, parts.test)]
    assert each == [dict.fromkeys(range(3), count) for count in (3, 1, 4)]
    keys = [*parts.train.source_keys, *parts.val.source_keys, *parts.test.source_keys]
    assert len(set(keys)) == len(keys) == len(list((root / "jpg").iterdir()))


def test_long_tails_of_flowers_are_cut_from_half_of_all_images(tmp_path: Path) -> None:
    data = [str(WRITERS["flowers"](tmp_path)), "--layout", "flowers", "--imbalance", "0.3"]
    out = tmp_path / "run"
    assert long_tail.main([*QUICK, *data, "--epochs", "1", str(out)]) == 0
    # of 3 images each: 3, 3 * 0.3 ** (1 / 2) = 1.6 and 0.9
    assert json.loads((out / "result.json").read_text())["images"] == {"train": 5, "val": 3, "test": 12}
    assert long_tail.THRESHOLDS["flowers"] == (30, 10)


def test_folder_or_embedded() -> None:
    with pytest.raises(InvalidInputError, match="'cub' needs its folder: DATA"):
        official_parts("cub", None, size=32, seed=0)
    with pytest.raises(InvalidInputError, match="'flowers' needs its folder: DATA"):
        halved_parts("flowers", None, seed=0)
    with pytest.raises(InvalidInputError, match="'aviary' is embedded: leave DATA out"):
        official_parts("aviary", "birds", size=32, seed=0)


class _Labels:
    classes, group_names = ("a", "b", "c"), ("left", "right")

    def __init__(self, targets: list[int], groups: list[int]) -> None:
        self.targets, self.groups = targets, groups
        self.source_keys = [str(row) for row in range(len(targets))]

    def __len__(self) -> int:
        return len(self.targets)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=30))
def test_measures_against_plain_loops(rows: list[tuple[int, int, int]]) -> None:
    part = Part(_Labels([target for _, target, _ in rows], [group for _, _, group in rows]))
    predictions = np.array([guess for guess, _, _ in rows])
    found = measure(predictions, part)

    def share(chosen: list[tuple[int, int, int]]) -> float:
        return sum(guess == target for guess, target, _ in chosen) / len(chosen)

    classes = {label: [row for row in rows if row[1] == label] for label in {row[1] for row in rows}}
    groups = {group: [row for row in rows if row[2] == group] for group in {row[2] for row in rows}}
    assert found["accuracy"] == pytest.approx(share(rows))
    assert found["class mean"] == pytest.approx(sum(map(share, classes.values())) / len(classes))
    assert found["worst group"] == pytest.approx(min(map(share, groups.values())))
    for group, chosen in groups.items():
        assert found[("left", "right")[group]] == pytest.approx(share(chosen))
    seen = [0] * 21 + [1] * 20 + [2] * 4  # more than 20 are many, fewer than 5 few
    kinds = by_frequency(predictions, part, seen, many=20, few=5)
    assert kinds == {
        kind: pytest.approx(share(classes[label]))
        for label, kind in enumerate(["many", "medium", "few"])
        if label in classes
    }


def _task(count: int = 60, seed: int = 0) -> TensorDataset:
    """Three classes that a linear model parts."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return TensorDataset(torch.randn(count, 8, generator=generator) + 3 * torch.eye(8)[labels], labels)


def _right(task: TensorDataset) -> Any:
    return lambda predictions: {"accuracy": float((predictions == task.tensors[1].numpy()).mean())}


def test_the_loop_keeps_the_weights_of_the_chosen_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    val = _task(30, seed=1)
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    turn, seen = iter([0.2, 0.9, 0.9, 0.1]), []

    def judge(predictions: np.ndarray) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"accuracy": next(turn)}

    kept: list[dict[str, torch.Tensor]] = []

    def keep(model: nn.Module) -> None:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})

    settings = Settings(4, 16, 0.1, 0.0, 0.0)
    history = fit(model, _task(), val, settings, judge, "accuracy", machine=CPU, seed=0, keep=keep)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())  # the first of equals
    assert not torch.equal(seen[1]["weight"], seen[2]["weight"])
    assert [one["weight"].tolist() for one in kept] == [one["weight"].tolist() for one in seen[:2]]
    assert "validation accuracy 90.0%" in capsys.readouterr().out


def test_the_loss_is_smoothed_cross_entropy() -> None:
    """With no learning the mean loss of the epoch is the equation's, over whole batches."""
    task = _task(48)
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    history = fit(model, task, task, Settings(1, 16, 0.0, 0.0, 0.0), _right(task), "accuracy", machine=CPU, seed=0)
    logs = torch.log_softmax(model(task.tensors[0]).detach().double(), 1)
    one_hot = torch.eye(3)[task.tensors[1]]
    expected = -((0.9 * one_hot + 0.1 / 3) * logs).sum(1).mean()
    assert history[0]["loss"] == pytest.approx(float(expected), abs=1e-5)


def test_learning_rate_rises_then_falls_as_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    task = _task(40)
    fit(nn.Linear(8, 3), task, task, Settings(10, 10, 0.5, 0.0, 0.0), _right(task), "accuracy", machine=CPU, seed=0)
    # torch's own cosine, and the first tenth of it held down
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    expected = []
    for number in range(40):
        expected.append(cosine.get_last_lr()[0] * min((number + 1) / 4, 1))
        optimizer.step()
        cosine.step()
    assert rates[:40] == pytest.approx(expected)


def test_the_loop_learns_and_repeats_itself() -> None:
    task, other = _task(), _task(30, seed=5)

    def run(seed: int) -> tuple[Any, nn.Module]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        settings = Settings(12, 59, 0.2, 1e-4, 0.0)  # 60 images: a batch of one would have no variance
        return fit(model, task, other, settings, _right(other), "accuracy", machine=CPU, seed=seed), model

    history, model = run(1)
    assert history == run(1)[0]
    assert history != run(2)[0]
    best = max(epoch["accuracy"] for epoch in history)
    assert best > 0.85
    assert _right(other)(predict(model, other, 7, CPU))["accuracy"] == best
    amp = Machine(torch.device("cpu"), amp=True)
    assert (predict(model, other, 7, amp) == predict(model, other, 7, CPU)).mean() > 0.9


def test_a_loss_that_is_no_number() -> None:
    task, far = _task(), TensorDataset(torch.full((10, 8), torch.inf), torch.zeros(10, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="the loss is nan in epoch 1; a smaller --learning-rate may help"):
        fit(nn.Linear(8, 3), far, task, Settings(2, 10, 0.1, 0.0, 0.0), _right(task), "accuracy", machine=CPU, seed=0)


@pytest.mark.parametrize("views", [crops, resized_crops])
def test_views(views: Any) -> None:
    train, judge = views(28)
    image = Image.new("RGB", (60, 40), (124, 116, 104))  # ImageNet's mean
    assert train(image).size == judge(image).size == (28, 28)
    assert judge(image) == judge(image)
    pixels = standardised(judge, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))(image)
    assert pixels.shape == (3, 28, 28)
    assert pixels.abs().max() < 0.02
    pickle.dumps(standardised(train, ((0.5,) * 3, (0.5,) * 3)))


def test_the_loader_fits_the_machine() -> None:
    loader = Machine(torch.device("cuda"), workers=2).loader(_task(), 5)
    assert (loader.pin_memory, loader.num_workers, loader.persistent_workers, loader.batch_size) == (True, 2, True, 5)
    loader = CPU.loader(_task(), 5)
    assert (loader.pin_memory, loader.num_workers, loader.persistent_workers) == (False, 0, False)


@pytest.mark.parametrize("arch", ["resnet50", "vit_b_16"])
def test_the_two_architectures_from_a_file_of_weights(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(1)
    size = 32
    begun = new_classifier(arch, [f"class {number}" for number in range(1000)], size=size)
    pretrained = begun.model
    assert begun.sha256 is None
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    classifier = new_classifier(arch, ["owl", "tit", "jay"], tmp_path / "weights.pth")
    model = classifier.model
    assert len(str(classifier.sha256)) == 64
    assert model.training
    same = [
        name
        for name, value in model.state_dict().items()
        if value.shape == pretrained.state_dict()[name].shape and torch.equal(value, pretrained.state_dict()[name])
    ]
    head = {"resnet50": "fc", "vit_b_16": "heads.head"}[arch]
    assert set(model.state_dict()) - set(same) == {f"{head}.weight", f"{head}.bias"}
    task = TensorDataset(torch.rand(3, 3, size, size), torch.tensor([0, 1, 2]))
    settings = diff_mix("cub", arch)
    assert settings.label_smoothing == 0.1
    short = Settings(1, 3, settings.learning_rate, settings.weight_decay, 0.0)
    history = fit(model, task, task, short, _right(task), "accuracy", machine=CPU, seed=0)
    assert math.isfinite(history[0]["loss"])


def test_a_head_that_is_not_linear(tmp_path: Path) -> None:
    torch.save(new_classifier("squeezenet1_1", ["a", "b"]).model.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InvalidInputError, match="squeezenet1_1 does not end in a linear layer of 2 outputs"):
        new_classifier("squeezenet1_1", ["a", "b", "c"], tmp_path / "weights.pth")


@pytest.fixture
def small_aviary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few species, so that a run takes seconds."""
    defaults = Aviary.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(Aviary.__init__, "__kwdefaults__", {**defaults, "species": 4, "per_species": 24})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Counts what is trained on: synthetic images by place, and the epochs that the set is told."""
    seen: Counter[Any] = Counter()
    image, set_epoch = SyntheticPool.image, SyntheticMix.set_epoch

    def counted(self: SyntheticPool, place: int) -> Image.Image:
        seen["synthetic"] += 1
        return image(self, place)

    def told(self: SyntheticMix, epoch: int) -> None:
        seen[epoch] += 1
        set_epoch(self, epoch)

    monkeypatch.setattr(SyntheticPool, "image", counted)
    monkeypatch.setattr(SyntheticMix, "set_epoch", told)
    return seen


@pytest.mark.usefixtures("small_aviary")
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_smoke(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], looked_at: Counter[Any]) -> None:
    """The steps of the docs on the embedded birds, without a refiner: write, expand, train on both."""
    recipe = [*QUICK, "--dataset", "aviary"] + (["--shots", "8"] if name == "few_shot" else [])
    tree, expanded, out = (str(tmp_path / each) for each in ("tree", "expanded", "run"))
    assert RECIPES[name].main([*recipe, "--write-train", tree]) == 0
    assert f"sgdmix generate {tree} EXPANDED" in capsys.readouterr().out
    assert sgdmix(["generate", tree, expanded, *CHEAP]) == 0
    assert RECIPES[name].main([*recipe, "--synthetic", expanded, out, "--p", "1"]) == 0

    result = json.loads(Path(out, "result.json").read_text())
    images = len(list(Path(tree).rglob("*.png")))
    rows = [json.loads(line) for line in Path(expanded, "metadata.jsonl").read_text().splitlines()]
    assert result["images"]["train"] == images
    assert result["synthetic"] == len(list(Path(expanded).rglob("*.png"))) == len(rows) > 0
    drawn = images // min(32, images) * min(32, images)  # batches are whole
    assert looked_at == {"synthetic": 2 * drawn, 1: 1, 2: 1}
    assert result["settings"]["p"] == 1.0
    assert result["settings"]["mode"] == ("balanced" if name == "long_tail" else "pool")
    assert result["settings"]["label_smoothing"] == 0.1
    assert len(result["history"]) == 2
    choose = {"long_tail": "class mean", "background": "worst group"}.get(name, "accuracy")
    assert result["chosen_by"] == choose
    assert result["chosen"][choose] == max(epoch[choose] for epoch in result["history"])
    extra = {
        "long_tail": {"many", "medium", "few"},
        "background": {"at home", "elsewhere", "worst group"},
    }.get(name, set())
    assert set(result["test"]) == {"accuracy", "class mean"} | extra
    trained = open_classifier(Path(out, "model.pt"))
    assert trained.class_names is not None
    assert len(trained.class_names) == 4
    said = capsys.readouterr().out
    assert "will not be stored" not in said  # OUT is given
    sources = len({row["source"] for row in rows})
    assert f"synthetic: {len(rows)} images, made from {sources} of the {images} training images\n" in said
    assert f"test accuracy {' ' * 12}{result['test']['accuracy']:6.1%}" in said


@pytest.mark.usefixtures("small_aviary")
def test_pretrained_weights_under_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Taken in their order, pixels as timm says of the network; and the file of the run knows both."""
    arch = "test_resnet"
    network = timm.create_model(arch, num_classes=9)
    torch.save({f"_{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.pth")
    recipe = [*QUICK, "--dataset", "aviary", "--arch", arch, "--weights", str(tmp_path / "weights.pth")]
    recipe += ["--learning-rate", "0.01", "--shots", "6", "--epochs", "1"]
    with pytest.warns(UserWarning, match="weights.pth has other names than timm's test_resnet"):
        assert few_shot.main([*recipe, str(tmp_path / "run")]) == 0
    assert "pixels: mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5\n" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["pixels"] == {"mean": [0.5] * 3, "std": [0.5] * 3}

    test = Aviary("test", size=32)
    square = [image.resize((37, 37), Image.Resampling.BILINEAR).crop((2, 2, 34, 34)) for image, _ in test]
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in square]).permute(0, 3, 1, 2)
    judge = open_judge(tmp_path / "run" / "model.pt", test.classes)
    right = judge.names(pixels, torch.tensor(test.targets)).double().mean()
    assert float(right) == pytest.approx(result["test"]["accuracy"])

    options = ["--mean", "0.4", "0.5", "0.6", "--std", "0.2", "0.3", "0.25"]
    with pytest.warns(UserWarning, match="in their order"):
        assert few_shot.main([*recipe, str(tmp_path / "own"), *options]) == 0
    assert open_classifier(tmp_path / "own" / "model.pt").normalization == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.mark.usefixtures("small_aviary")
def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    def run(out: str, seed: int) -> Any:
        shots = ["--dataset", "aviary", "--shots", "6", "--seed", str(seed), str(tmp_path / out)]
        assert few_shot.main([*QUICK, *shots]) == 0
        return json.loads((tmp_path / out / "result.json").read_text())

    one, two, other = run("one", 0), run("two", 0), run("other", 1)
    assert one["history"] == two["history"]
    assert one["test"] == two["test"]
    assert one["history"] != other["history"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_one_tree_for_many_seeds(tmp_path: Path, name: str) -> None:
    """--split-seed alone says which images are in it."""
    data = [str(WRITERS["cub"](tmp_path)), "--layout", "cub"]
    data += {"few_shot": ["--shots", "1"], "background": ["--shifted", str(WRITERS["waterbirds"](tmp_path))]}.get(
        name, []
    )
    trees = []
    for tree, seeds in enumerate([[], ["--seed", "1"], ["--split-seed", "1"], ["--split-seed", "2"]]):
        assert RECIPES[name].main([*data, *seeds, "--write-train", str(tmp_path / str(tree))]) == 0
        trees.append({path.name for path in (tmp_path / str(tree)).rglob("*.jpg")})
    assert trees[0] == trees[1]
    assert len({frozenset(tree) for tree in trees}) > 1


@pytest.mark.usefixtures("small_aviary")
def test_processes_and_lower_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes load, and stay for the second epoch; numbers are coarser."""
    recipe = [*QUICK, "--dataset", "aviary", "--mode", "source", "--p", "1"]
    expanded = tmp_path / "expanded"
    assert fine_grained.main([*recipe, "--write-train", str(tmp_path / "tree")]) == 0
    assert sgdmix(["generate", str(tmp_path / "tree"), str(expanded), *CHEAP]) == 0
    kinds: list[torch.dtype] = []
    smoothed = torch.nn.functional.cross_entropy

    def noted(scores: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        kinds.append(scores.dtype)
        return smoothed(scores, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", noted)
    out = tmp_path / "run"
    machine = ["--workers", "2", "--amp", "--synthetic", str(expanded), str(out)]
    assert fine_grained.main([*recipe, *machine]) == 0
    assert set(kinds) == {torch.bfloat16}
    history = json.loads((out / "result.json").read_text())["history"]
    assert [math.isfinite(epoch["loss"]) for epoch in history] == [True, True]


def test_on_official_layouts(tmp_path: Path) -> None:
    """CUB, judged on Waterbirds' backgrounds; and Waterbirds itself."""
    cub, birds = WRITERS["cub"](tmp_path), WRITERS["waterbirds"](tmp_path)
    crossed = [str(cub), "--layout", "cub", "--shifted", str(birds), str(tmp_path / "crossed")]
    assert background.main([*QUICK, "--epochs", "1", *crossed]) == 0
    result = json.loads((tmp_path / "crossed/result.json").read_text())
    assert result["images"] == {"train": 9, "val": 3, "test": 6}
    assert result["chosen_by"] == "accuracy"
    assert "waterbird on land" in result["test"]
    # A bird on which it was trained, before another background, is no test of it.
    table = birds / "metadata.csv"
    text = table.read_text()
    bird = "003.Sooty_Albatross/Sooty_Albatross_0000_7013.jpg"
    assert f"{bird},0,0," in text
    table.write_text(text.replace(f"{bird},0,0,", f"{bird},0,2,"))
    with pytest.raises(
        DataError, match=f"1 of the 7 test images are training or validation images too, such as {bird}"
    ):
        background.main([*QUICK, *crossed])
    table.write_text(text)
    straight = [str(birds), "--layout", "waterbirds", str(tmp_path / "straight")]
    assert background.main([*QUICK, "--epochs", "1", *straight]) == 0
    result = json.loads((tmp_path / "straight/result.json").read_text())
    assert result["images"] == {"train": 12, "val": 6, "test": 6}
    assert result["chosen_by"] == "worst group"


def test_images_that_do_not_train_are_refused_by_name(tmp_path: Path) -> None:
    """Expanding all of CUB's training images would bring those that choose the epoch into training."""
    root, options = WRITERS["cub"](tmp_path), [*QUICK, "--layout", "cub"]
    write_tree(get_dataset("cub", root=root), tmp_path / "all")
    expanded = str(tmp_path / "expanded")
    assert sgdmix(["generate", str(tmp_path / "all"), expanded, *CHEAP]) == 0
    with pytest.raises(DataError, match=r"made from 3 images that are not among the training images"):
        fine_grained.main([*options, str(root), "--synthetic", expanded])


def test_targets_that_do_not_train_are_refused_too(tmp_path: Path) -> None:
    root = WRITERS["folders"](tmp_path)
    expanded, options = tmp_path / "expanded", [*QUICK, str(root), "--layout", "folders"]
    assert sgdmix(["generate", str(root / "train"), str(expanded), *CHEAP]) == 0
    assert fine_grained.main([*options, "--epochs", "1", "--synthetic", str(expanded)]) == 0
    rows = [json.loads(line) for line in (expanded / "metadata.jsonl").read_text().splitlines()]
    rows[-1]["target"] = "owl/test 3.jpg"
    (expanded / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"made from 1 images that are not .*, such as owl/test 3\.jpg"):
        fine_grained.main([*options, "--synthetic", str(expanded)])


def test_images_that_do_not_train_are_refused_by_content(tmp_path: Path) -> None:
    """The test images of this folder have the names of training images."""
    root = WRITERS["folders"](tmp_path)
    names = [{path.relative_to(root / split) for path in (root / split).rglob("*.jpg")} for split in ("train", "test")]
    assert names[1] < names[0]
    expanded, options = str(tmp_path / "expanded"), [*QUICK, str(root), "--layout", "folders"]
    assert sgdmix(["generate", str(root / "test"), expanded, *CHEAP]) == 0
    with pytest.raises(DataError, match=r"made from another owl/0/1\.jpg than the training image of that name"):
        fine_grained.main([*options, "--synthetic", expanded])


@pytest.mark.usefixtures("small_aviary")
@pytest.mark.parametrize(
    "other", [{"split": "val"}, {"split": "test"}, {"size": 48}, {"correlation": 0.95}], ids=lambda other: str(other)
)
def test_another_aviary_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    """All of them name their images alike."""
    write_tree(Aviary(**{"split": "train", "size": 32, "per_species": 3, **other}), tmp_path / "tree")
    expanded = str(tmp_path / "expanded")
    assert sgdmix(["generate", str(tmp_path / "tree"), expanded, *CHEAP]) == 0
    with pytest.raises(DataError, match=r"made from another 00\d\.\S+\.png than the training image of that name"):
        fine_grained.main([*QUICK, "--dataset", "aviary", "--synthetic", expanded])


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The best epoch so far is there, and said to be."""
    root, out = WRITERS["cub"](tmp_path), tmp_path / "run"
    options = [*QUICK, str(root), "--layout", "cub", str(out)]
    weights: dict[str, torch.Tensor] = {}

    def fit_until_kept(*arguments: Any, keep: Any, **rest: Any) -> Any:
        def kept(model: nn.Module) -> None:
            keep(model)
            weights.update({name: value.clone() for name, value in model.state_dict().items()})
            raise KeyboardInterrupt

        return fit(*arguments, keep=kept, **rest)

    monkeypatch.setattr(command, "fit", fit_until_kept)
    assert guarded(lambda: fine_grained.main(options)) == 130
    said = f"interrupted: {out}/model.pt has the best epoch so far, there is no result.json\n"
    assert capsys.readouterr().err == said
    found = open_classifier(out / "model.pt").model.state_dict()
    assert weights.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in weights.items())
    assert [path.name for path in out.iterdir()] == ["model.pt"]

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for place in ("fit", "new_classifier"):
        monkeypatch.setattr(command, place, stop)
        options[-1] = str(tmp_path / place)
        assert guarded(lambda: fine_grained.main(options)) == 130
        assert capsys.readouterr().err == "interrupted: nothing was written\n"


class _Pair(nn.Module):
    """Scores in evaluation, two of them in training: as GoogLeNet and Inception."""

    def forward(self, images: torch.Tensor) -> Any:
        scores = images.flatten(1)[:, :12]
        return (scores, scores) if self.training else scores


class _Map(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_Pair(), r"resnet18 gives tuple for two images in training, expected scores of shape \(2, 12\)"),
        (_Map(), r"resnet18 gives \(2, 3, 32, 32\) for two images, expected scores of shape \(2, 12\)"),
    ],
)
def test_models_that_give_no_scores(monkeypatch: pytest.MonkeyPatch, model: nn.Module, message: str) -> None:
    monkeypatch.setattr(
        command, "new_classifier", lambda *arguments, **options: Classifier(model, "resnet18", 12, None, None)
    )
    with pytest.raises(InvalidInputError, match=message):
        fine_grained.main([*QUICK, "--dataset", "aviary"])


def test_the_trial_leaves_no_trace() -> None:
    model = new_classifier("resnet18", ["owl", "tit"]).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_model(model, "resnet18", size=32, classes=2, device=torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--layout", "cub"], "expected the folder of CUB-200-2011, nowhere does not exist"),
        (
            ["--dataset", "aviary", "--arch", "vit_b_16", "--size", "36"],
            "vit_b_16 takes images whose side is a multiple of 16 pixels, got 36",
        ),
        (
            ["--dataset", "aviary", "--arch", "inception_v3", "--learning-rate", "0.1"],
            "inception_v3 does not take images of 32 pixels",
        ),
        (
            ["--dataset", "aviary", "--arch", "googlenet", "--learning-rate", "0.1"],
            "googlenet gives GoogLeNetOutputs for two images in training, expected scores of shape (2, 12)",
        ),
        (["--dataset", "aviary", "--device", "mars"], "expected a device such as 'cpu', 'cuda' or 'mps', got 'mars'"),
        (["--dataset", "aviary", "--arch", "resnet5"], "did you mean"),
        (["--dataset", "aviary", "--arch", "mobilevit_s"], "--arch mobilevit_s needs --learning-rate"),
        (["--dataset", "aviary", "."], ".: expected an empty folder or a new one"),
        (["--dataset", "aviary", "note.txt/run"], "cannot write note.txt"),
        (["--dataset", "aviary", "--synthetic", "."], "has no metadata.jsonl"),
        (["--dataset", "aviary", "--mean", "0", "0", "0"], "mean and std go together"),
        (["--dataset", "aviary", *["--mean", "0", "0", "0", "--std", "1", "0", "1"]], "std must be positive numbers"),
        (["--dataset", "aviary", "--mode", "pool"], "--p and --mode choose among synthetic images"),
        (
            ["--dataset", "aviary", "--synthetic", "s3://bucket/expanded"],
            "expected a folder on this machine, got the URL",
        ),
    ],
)
def test_errors_before_any_work(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "note.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "fit", None)
    assert guarded(lambda: fine_grained.main(["--size", "32", *arguments])) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--shots", "0", "expected a whole number, 1 or more, got '0'"),
        ("--epochs", "0", "expected a whole number, 1 or more, got '0'"),
        ("--epochs", "-1", "expected a whole number, 1 or more, got '-1'"),
        ("--batch-size", "1", "expected a whole number, 2 or more, got '1'"),
        ("--workers", "-2", "expected a whole number, 0 or more, got '-2'"),
        ("--seed", "many", "expected a whole number, 0 or more, got 'many'"),
        ("--learning-rate", "0", "expected a positive number, got '0'"),
        ("--learning-rate", "-0.1", "expected a positive number, got '-0.1'"),
        ("--learning-rate", "nan", "expected a positive number, got 'nan'"),
        ("--learning-rate", "inf", "expected a positive number, got 'inf'"),
        ("--learning-rate", "slow", "expected a positive number, got 'slow'"),
        ("--p", "half", "expected a number from 0 to 1, got 'half'"),
        ("--mean", "grey 0 0", "expected a number, got 'grey'"),
    ],
)
def test_numbers_that_mean_nothing(option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        few_shot.main(["--dataset", "aviary", option, *value.split()])
    assert f": error: argument {option}: {message} (options: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "cub"], "expected DATA or --dataset NAME"),
        (["out", "more", "--dataset", "aviary"], "--dataset aviary replaces DATA and --layout: leave both out"),
        (["out", "--dataset", "aviary", "--layout", "cub"], "leave both out"),
        (["out", "--dataset", "aviary", "--write-train", "tree"], "only writes images into tree: leave OUT out"),
        (["cub", "out", "--data-set", "cub"], "did you mean '--dataset'?"),
        (["cub", "--out", "out"], "fine_grained DATA OUT"),
    ],
)
def test_which_folder_is_which(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fine_grained.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("settings", [partial(diff_mix, "cub"), partial(diff_mix_few_shot, "cub"), diff_mix_long_tail])
def test_rates_are_for_resnets_and_vision_transformers(settings: Any) -> None:
    for arch in ("resnet18", "resnet50", "vit_b_16", "vit_base_patch16_224"):
        assert settings(arch).learning_rate > 0
        assert settings(arch, 0.3).learning_rate == 0.3
    for arch in ("googlenet", "mobilevit_s", "convnext_tiny"):
        with pytest.raises(InvalidInputError, match=f"resnet.* and vit.* only; --arch {arch} needs --learning-rate"):
            settings(arch)
        assert settings(arch, 0.3).learning_rate == 0.3


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_other_architectures_need_a_rate(name: str) -> None:
    with pytest.raises(InvalidInputError, match="--arch mobilevit_s needs --learning-rate"):
        RECIPES[name].main(["--dataset", "aviary", "--arch", "mobilevit_s"])


def test_which_images_are_too_few(tmp_path: Path) -> None:
    """Of 4 training images of each class 2 are held out; Flowers has 4 and 2."""
    for name, shots, kind in (("cub", 3, "training"), ("flowers", 3, "validation"), ("flowers", 5, "training")):
        data = [str(WRITERS[name](tmp_path / f"{name} {shots}")), "--layout", name]
        with pytest.raises(DataError, match=rf"{shots} shots were requested, class 0 has \d {kind} images"):
            few_shot.main([*data, "--shots", str(shots)])


def _table(page: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of the table of hyper-parameters: their names and cells."""
    lines = page[page.index("## Where the hyper-parameters come from") : page.index("## Data sets")].splitlines()
    for line in lines:
        if line.startswith("| ") and not line.startswith("| |"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            yield name, cells


def test_the_docs_tell_the_settings(repository: Path) -> None:
    """Every number of the table is the code's."""
    rows = dict(_table((repository / "docs/how-to/recipes.md").read_text()))
    resnet = [diff_mix("cub", "resnet50"), diff_mix_few_shot("cub", "resnet50"), diff_mix_long_tail("resnet50")]
    vit = [diff_mix("cub", "vit_b_16"), diff_mix_few_shot("cub", "vit_b_16"), diff_mix_long_tail("vit_b_16")]
    assert rows["epochs"] == [str(each.epochs) for each in resnet] == [str(each.epochs) for each in vit]
    batches = [f"{one.batch_size} / {other.batch_size}" for one, other in zip(resnet, vit, strict=True)]
    assert rows["batch, ResNet-50 / ViT-B/16"] == batches
    assert [float(cell) for cell in rows["weight decay"]] == [each.weight_decay for each in resnet]
    assert [float(cell) for cell in rows["probability of a synthetic image"]] == [each.p for each in resnet]
    assert rows["which, `--mode`"] == [f"`{each.mode}`" for each in resnet]
    assert rows["warm-up, share of the steps"] == [f"{each.warmup:g}" for each in resnet]
    for arch in ("ResNet-50", "ViT-B/16"):
        name = {"ResNet-50": "resnet50", "ViT-B/16": "vit_b_16"}[arch]
        full, few, tail = rows[f"learning rate, {arch}"]
        known = {
            data_set.lower(): float(part.split()[-1])
            for part in full.split("; ")
            for data_set in part.rpartition(" ")[0].split(", ")
        }
        assert known == {each: diff_mix(each, name).learning_rate for each in known}
        assert known.keys() == {"cub", "aircraft", "cars", "flowers", "pets"}
        assert few == "the same"
        assert all(diff_mix_few_shot(each, name).learning_rate == rate for each, rate in known.items())
        assert float(tail) == diff_mix_long_tail(name).learning_rate
        for assumed in ("waterbirds", "folders", "aviary"):
            assert diff_mix(assumed, name).learning_rate == known["cub"]


def test_shifted_goes_with_cub() -> None:
    with pytest.raises(InvalidInputError, match="--shifted, Waterbirds' folder, goes with --layout cub"):
        background.main(["--dataset", "aviary", "--shifted", "birds"])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_as_a_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "nowhere", "--layout", "cub"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(RECIPES[name].__file__), run_name="__main__")
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
