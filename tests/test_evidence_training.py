"""``benchmarks/accuracy``: a run starts from the same state whatever ran before it, and none is made twice."""

from __future__ import annotations

import argparse
import json
import math
import queue
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.accuracy import data as reading
from benchmarks.accuracy import run as running
from benchmarks.accuracy import train
from benchmarks.accuracy.data import Data, Photographs, read
from benchmarks.accuracy.expanded import Drawn, Real, expanded
from benchmarks.accuracy.grid import Grid, GridRow, spec_key
from benchmarks.accuracy.learner import Learner, load
from benchmarks.accuracy.tasks import TASKS, Task
from benchmarks.accuracy.train import Trainer
from sgdmix_albu.errors import InvalidInputError

NETWORK, CLASSES, SIDE, KEPT = "test_efficientnet", 3, 32, 40


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny network, under names of their own, as the real ones come."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    weights = timm.create_model(NETWORK).state_dict()
    torch.save({f"own.{i}": value for i, value in enumerate(weights.values())}, path)
    return path


def _photographs(each: int, seed: int, plates: bool) -> Photographs:
    """A bright square on a dark ground, of the colour of its class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(each)
    grounds = torch.randint(0, 80, (len(labels), 3, KEPT, KEPT), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(len(labels), KEPT, KEPT, dtype=torch.bool)
    for mask, (top, left) in zip(masks, torch.randint(3, 20, (len(labels), 2), generator=generator), strict=True):
        mask[top : top + 15, left : left + 15] = True
    objects = F.one_hot(labels, 3)[:, :, None, None] * 120 + 120
    images = torch.where(masks[:, None], objects, grounds).to(torch.uint8)
    return Photographs(
        images, labels, masks.to(torch.uint8) * 255, grounds if plates else grounds[:0], torch.zeros(0).bool()
    )


@pytest.fixture(scope="module")
def data() -> Data:
    """Thirty training images, twelve test images."""
    return Data(_photographs(10, 1, plates=False), _photographs(4, 2, plates=True), ["a", "b", "c"], [], "0123456789ab")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of two steps."""
    monkeypatch.setitem(TASKS, "short", Task(shots=None, epochs=2))


def _trainer(data: Data, encoder: Path, work: Path) -> Trainer:
    return Trainer(data, encoder, NETWORK, SIDE, "cpu", work)


# The learner


def _learner(encoder: Path, **changed: Any) -> Learner:
    settings = {"network": NETWORK, "classes": CLASSES, "batch": 4, "size": SIDE, "device": "cpu"} | changed
    return Learner(encoder, **settings)


def _batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return images, F.one_hot(torch.arange(4) % CLASSES, CLASSES).float()


def _trained(learner: Learner, seed: int) -> Tensor:
    learner.reset(seed)
    for step in range(4):
        learner.step(*_batch(seed + step), step / 4)
    return learner.logits(_batch(9)[0]).clone()


def test_weights_are_loaded_in_their_order(encoder: Path) -> None:
    torch.manual_seed(0)
    own = timm.create_model(NETWORK).state_dict()
    found = load(encoder, NETWORK).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in own.items())


def test_nothing_of_another_run_is_left_after_a_reset(encoder: Path) -> None:
    used, fresh = _learner(encoder), _learner(encoder)
    first = _trained(used, 0)
    other = _trained(used, 1)
    assert not torch.equal(first, other)
    assert torch.equal(_trained(used, 0), first)
    assert torch.equal(_trained(fresh, 1), other)
    used.reset(0)
    fresh.reset(0)
    for name, value in used.model.state_dict().items():  # BatchNorm's averages too
        assert torch.equal(value, fresh.model.state_dict()[name]), name
    assert all(not bool(value.any()) for state in used.optimizer.state.values() for value in state.values())
    assert used.model.training


def test_heads_follow_from_the_seed(encoder: Path) -> None:
    learner, heads = _learner(encoder), []
    for seed in (0, 1, 0):
        torch.manual_seed(99)
        learner.reset(seed)
        heads.append(learner.model.get_classifier().weight.detach().clone())
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize("network", [NETWORK, "test_resnet"])
def test_every_weight_is_learnt_once_and_the_head_ten_times_as_fast(
    encoder: Path, network: str, tmp_path: Path
) -> None:
    if network != NETWORK:  # its head is called otherwise
        encoder = tmp_path / "encoder.pth"
        torch.save(timm.create_model(network).state_dict(), encoder)
    learner = _learner(encoder, network=network)
    body, head = learner.optimizer.param_groups
    assert {*map(id, body["params"])} | {*map(id, head["params"])} == {*map(id, learner.model.parameters())}
    assert sorted(map(id, head["params"])) == sorted(map(id, learner.model.get_classifier().parameters()))
    rates = []
    for share in (0.0, 0.05, 0.1, 0.55, 1.0):
        learner.step(*_batch(0), share)
        rates.append((body["lr"], head["lr"]))
    # Warm-up over a tenth, then half a cosine.
    assert [rate for rate, _ in rates] == pytest.approx([0, 1.5e-4, 3e-4, 1.5e-4, 0], abs=1e-9)
    assert [rate for _, rate in rates] == pytest.approx([0, 1.5e-3, 3e-3, 1.5e-3, 0], abs=1e-9)


# A run


def test_soft_targets_are_smoothed_alike_in_every_row(
    data: Data, encoder: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, targets = _trainer(data, encoder, tmp_path), []
    monkeypatch.setattr(trainer.learner, "step", lambda images, soft, share: targets.append((soft, share)))
    for spec in ({"mix": "none"}, {"mix": "none", "smoothing": 0}, {"mix": "mixup", "p": 1}, {"mix": "sgdmix"}):
        trainer.run("short", spec, 0)
    shares = [share for _, share in targets]
    assert shares == [0, 0.5] * 4  # of all rows
    plain, unsmoothed, mixed, ours = (torch.cat([soft for soft, _ in targets[i : i + 2]]) for i in (0, 2, 4, 6))
    for soft in (plain, ours):
        assert sorted({round(value, 5) for value in soft.flatten().tolist()}) == [0.03333, 0.93333]  # 0.1 of a third
    assert set(unsmoothed.flatten().tolist()) == {0, 1}
    assert float(mixed.min()) >= 0.1 / 3 - 1e-6
    torch.testing.assert_close(mixed.sum(1), torch.ones(50))


def test_rows_see_the_same_first_views_by_seed(
    data: Data, encoder: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, plain = _trainer(data, encoder, tmp_path), []
    original = train.seen
    monkeypatch.setattr(train, "seen", lambda *values: plain.append(original(*values)) or plain[-1])
    for spec, seed in (({"mix": "none"}, 0), ({"mix": "timm"}, 0), ({"mix": "none"}, 1)):
        trainer.run("short", spec, seed)
    assert torch.equal(plain[0], plain[2])
    assert not torch.equal(plain[0], plain[4])
    assert not torch.equal(plain[0], plain[1])  # the next epoch's


@pytest.mark.parametrize(
    "spec",
    [
        {"mix": "timm", "p": 1.0},
        {"mix": "sgdmix"},
        {"mix": "sgdmix", "given": "gradcam", "given_mask": "otsu", "noise": "shift", "amount": 0.1},
        {"mix": "none", "randaugment": True},
    ],
    ids=["timm", "ours", "teacher", "randaugment"],
)
def test_a_run_does_not_depend_on_what_ran_before(
    data: Data, encoder: Path, short: None, tmp_path: Path, spec: dict[str, Any]
) -> None:
    fresh, used = _trainer(data, encoder, tmp_path), _trainer(data, encoder, tmp_path)
    found = [fresh.run("short", spec, 0)]
    logits = [fresh.learner.logits(fresh.test)]
    used.run("short", {"mix": "cutmix"}, 1)
    for which in (("mixed", "foraug"), ("mixed",)):
        found.append(used.run("short", spec, 0, which))
        logits.append(used.learner.logits(used.test))
    for other in logits[1:]:
        assert torch.equal(logits[0], other)
    for other in found[1:]:
        assert {name: other["figures"][name] for name in found[0]["figures"]} == found[0]["figures"]
        assert (other["steps"], other["images"]) == (2, 30)


def test_the_test_set_is_never_trained_on(
    data: Data, encoder: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test images, every step is the same."""
    steps: list[Tensor] = []
    for test in (data.test, _photographs(4, 3, plates=True)):
        trainer = _trainer(Data(data.train, test, data.classes, [], data.sha), encoder, tmp_path)
        original = trainer.learner.step
        monkeypatch.setattr(
            trainer.learner,
            "step",
            lambda images, *rest, to=original: (steps.append(images.clone()), to(images, *rest)),
        )
        trainer.run("short", {"mix": "sgdmix", "given": "segmenter", "p": 1.0}, 0)
        steps.append(trainer.learner.model.get_classifier().weight.detach().clone())
    assert len(steps) == 6
    assert all(torch.equal(one, other) for one, other in zip(steps[:3], steps[3:], strict=True))


def test_accuracy_is_the_share_of_right_answers(
    data: Data, encoder: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = torch.arange(12) % 3 == 0
    test = Photographs(*(homes if name == "home" else value for name, value in vars(data.test).items()))
    trainer = _trainer(Data(data.train, test, data.classes, [], data.sha), encoder, tmp_path)
    answers = test.labels.clone()
    answers[1:5] = (answers[1:5] + 1) % 3  # 1, 2 and 4 elsewhere, 3 at home
    monkeypatch.setattr(trainer.learner, "logits", lambda images: F.one_hot(answers, 3).float())
    figures = trainer.run("short", {"mix": "none"}, 0)["figures"]
    assert figures["accuracy"] == pytest.approx(8 / 12)
    assert (figures["at_home"], figures["elsewhere"]) == pytest.approx((3 / 4, 5 / 8))
    assert figures["worst_group"] == figures["elsewhere"]


# Photographs and expanded sets


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA and MAPS: two classes; the grey of an image, and of its map, tells which it is."""
    root = tmp_path_factory.mktemp("tree")
    for split, count in (("train", 3), ("test", 2)):
        for place, name in enumerate(("b", "a")):
            for i in range(count):
                grey = 20 + 100 * place + 30 * i + (10 if split == "test" else 0)
                image = np.full((50, 50, 3), grey, np.uint8)
                image[10:30, 15:40] = (255, 20 * i, 100 * place)
                mask = np.zeros((50, 50), np.uint8)
                mask[10:30, 15:40] = 255 - grey // 4
                for folder, array, ending in (("data", image, "jpg"), ("maps", mask, "png")):
                    path = root / folder / split / name / f"{i}.{ending}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(path, quality=100)
    return root


def test_images_labels_maps_and_paths_belong_together(tree: Path) -> None:
    found = read(tree / "data", tree / "maps", 50)
    assert found.classes == ["a", "b"]
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(path).parent.name + Path(path).stem for path in found.paths] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    for part, shift in ((found.train, 0), (found.test, 10)):
        greys = part.images[:, :, 40:, :10].float().mean((1, 2, 3))
        each = len(part.labels) // 2
        expected = [20 + 100 * (label == 0) + 30 * i + shift for label in (0, 1) for i in range(each)]
        assert greys.tolist() == pytest.approx(expected, abs=2)
        assert part.maps[:, 20, 25].tolist() == [255 - grey // 4 for grey in expected]
        assert part.maps[:, 5, 5].tolist() == [0] * 2 * each
    assert found.train.plates.shape == (0, 3, 50, 50)
    painted = found.test.plates[:, :, 10:30, 15:40].float().mean((1, 2, 3))
    assert painted.tolist() == pytest.approx(found.test.images[:, :, 40:, :10].float().mean((1, 2, 3)).tolist(), abs=3)


def test_drawn_birds_are_at_home_in_training_and_anywhere_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    original = reading.get_dataset
    monkeypatch.setattr(reading, "get_dataset", lambda name, **rest: original(name, species=6, per_species=25, **rest))
    found = reading.aviary(32)
    assert float(found.train.home.float().mean()) == pytest.approx(0.95 + 0.05 / 8, abs=0.05)
    assert float(found.test.home.float().mean()) == pytest.approx(1 / 8, abs=0.08)  # one of eight habitats
    assert found.test.images.shape == found.test.plates.shape == (150, 3, 32, 32)
    assert found.train.labels.bincount().tolist() == [25] * 6
    assert set(found.train.maps.unique().tolist()) == {0, 255}
    assert not torch.equal(found.train.images, found.test.images)


@pytest.fixture(scope="module")
def made(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Real, Path]:
    """The training images and their expanded set."""
    paths = sorted((tree / "data" / "train").rglob("*.jpg"))
    images = torch.stack(
        [torch.from_numpy(np.array(Image.open(path).resize((40, 40)))).movedim(-1, 0) for path in paths]
    )
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    out = expanded(paths, tmp_path_factory.mktemp("work") / "short-0")
    return Real(images, labels, paths, ["a", "b"]), out


def test_an_expanded_set_is_made_once_of_the_runs_images_alone(made: tuple[Real, Path]) -> None:
    real, out = made
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} | {row["target"] for row in rows} <= {*real.source_keys}
    before = (out / "metadata.jsonl").stat().st_mtime_ns
    assert expanded([Path("nowhere.jpg")], out) == out
    assert (out / "metadata.jsonl").stat().st_mtime_ns == before


def test_drawn_images_come_with_their_labels(made: tuple[Real, Path]) -> None:
    real, out = made
    order = torch.tensor([5, 0, 3])
    images, labels = Drawn(real, out, {"p": 0, "mode": "source"}, "cpu")(order)
    assert torch.equal(images, real.images[order])
    assert labels.tolist() == [1, 0, 1]
    images, labels = Drawn(real, out, {"p": 1.0, "mode": "source"}, "cpu")(order)
    assert images.shape == (3, 3, 40, 40)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [1, 0, 1]
    assert not torch.equal(images, real.images[order])


# Which runs are made


def _grid(name: str, rows: dict[str, dict[str, Any]], figures: tuple[str, ...] = ("accuracy",), seeds: int = 2) -> Grid:
    tasks = {"short": seeds, "of another bench": 3}
    return Grid(
        name,
        "T",
        "Q?",
        NETWORK,
        128,
        next(iter(rows)),
        (),
        (),
        figures,
        None,
        tasks,
        tuple(GridRow(*row) for row in rows.items()),
    )


def _options(tmp_path: Path, **changed: Any) -> argparse.Namespace:
    names: dict[str, Any] = dict.fromkeys(("grids", "rows", "tasks", "seeds", "data", "maps", "encoder"))
    rest = {"results": tmp_path / "results.jsonl", "work": tmp_path, "device": "cpu", "workers": 1, "commit": "abc"}
    return argparse.Namespace(**{**names, **rest, "seconds": math.inf, **changed})


def _short_names(jobs: list[dict[str, Any]]) -> list[str]:
    return [f"{job['row'].get('given') or job['row']['mix']} {job['seed']}" for job in jobs]


NONE, OURS = {"mix": "none"}, {"mix": "sgdmix"}


def test_every_run_is_wanted_once_first_seeds_first(short: None, tmp_path: Path) -> None:
    grids = [
        _grid("01-a", {"real": NONE, "ours": OURS}),
        _grid("02-b", {"none": NONE, "c": {"mix": "cutmix"}}, seeds=3),
    ]
    names = _short_names(running._missing(grids, _options(tmp_path)))
    assert names == ["none 0", "sgdmix 0", "cutmix 0", "none 1", "sgdmix 1", "cutmix 1", "none 2", "cutmix 2"]


def test_what_takes_long_begins_first(short: None, tmp_path: Path) -> None:
    own, taught = {"mix": "expanded", "p": 0.1, "mode": "pool"}, {"mix": "sgdmix", "given": "distilled"}
    grids = [_grid("01-a", {"real": NONE, "one": own, "other": {**own, "p": 0.3}, "taught": taught})]
    jobs = running._missing(grids, _options(tmp_path))
    assert _short_names(jobs)[:4] == ["distilled 0", "distilled 1", "expanded 0", "expanded 1"]
    assert len(jobs) == len({spec_key({"row": job["row"], "seed": job["seed"]}) for job in jobs}) == 8


def test_what_this_device_has_is_not_made_again(short: None, tmp_path: Path) -> None:
    options, line = _options(tmp_path), {"task": "short", "network": NETWORK, "pixels": 128, "row": NONE, "seed": 0}
    others = [
        line | {"device": "CPU"},
        line | {"device": "H100", "seed": 1},
        line | {"device": "CPU", "pixels": 224, "seed": 1},
    ]
    options.results.write_text("".join(json.dumps(other) + "\n" for other in others))
    assert _short_names(running._missing([_grid("01-a", {"real": NONE})], options)) == ["none 1"]


def test_a_shared_run_gets_the_figures_of_all_its_tables(short: None, tmp_path: Path) -> None:
    plain = _grid("01-a", {"real": NONE})
    shifted = _grid("02-b", {"none": NONE, "ours": OURS}, ("accuracy", "centre_bias"))
    for grids in ([plain, shifted], [shifted, plain]):
        jobs = running._missing(grids, _options(tmp_path, grids=["01-a"], seeds=1))
        assert [(job["row"], job["seed"], job["which"]) for job in jobs] == [(NONE, 0, ("mixed", "foraug"))]
    [job] = running._missing(grids, _options(tmp_path, rows=["ours"], tasks=["short"], seeds=1))
    assert job["row"] == OURS


def test_a_name_that_no_grid_has_is_refused() -> None:
    options = argparse.Namespace(grids=["01-b"], rows=None, tasks=None)
    with pytest.raises(InvalidInputError, match=r"expected grids from \['01-a'\], got \['01-b'\]"):
        running._check(options, [_grid("01-a", {"real": NONE})])


def test_a_row_that_fails_ends_no_other(
    data: Data,
    encoder: Path,
    short: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of ``run``, its processes replaced by threads; what the results file holds stays in it."""
    grid = '[tasks]\nshort = 2\n[[row]]\nname = "a"\nmix = "cutmx"\n[[row]]\nname = "b"\nmix = "none"\n'
    (tmp_path / "01-a.toml").write_text(f'title = "T"\nquestion = "Q?"\nnetwork = "{NETWORK}"\n{grid}')
    monkeypatch.setattr(running, "GRIDS", tmp_path)
    context = SimpleNamespace(Queue=queue.Queue, Process=threading.Thread)
    monkeypatch.setattr(running.multiprocessing, "get_context", lambda kind: context)
    torch.save(data, tmp_path / "photographs-128.pt")
    options = _options(tmp_path, encoder=encoder)
    old = {"task": "short", "network": NETWORK, "pixels": 128, "row": NONE, "seed": 0, "device": "GPU"}
    options.results.write_text(json.dumps(old) + "\n")
    running.run(options)
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    assert rows[0] == old
    assert [(row["row"], row["seed"], row["device"], row["commit"], row["data"]) for row in rows[1:]] == [
        (NONE, seed, "CPU", "abc", "0123456789ab") for seed in (0, 1)
    ]
    said = capsys.readouterr().out
    assert said.count("ValueError: unknown mix 'cutmx'") == 2
    assert "2 runs made, 2 failed, 0 not begun" in said
    left = running._missing(running.read_grids(tmp_path), options)
    assert [job["row"]["mix"] for job in left] == ["cutmx", "cutmx"]
