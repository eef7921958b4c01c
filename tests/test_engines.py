"""Who looks at images and who executes the plan: how many, on which device, and with the same result."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from expand_helpers import contents, expand
from torch import nn

from sgdmix_albu.bank.builder import Gathering
from sgdmix_albu.bank.parts import parts_of
from sgdmix_albu.bank.ways import way_of
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.expand import Settings
from sgdmix_albu.expand.execute import choice, ray, worker
from sgdmix_albu.expand.execute.choice import describing_engine, expanding_engine
from sgdmix_albu.expand.execute.local import LocalEngine
from sgdmix_albu.io.copies import Copies
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.saliency import register_backend
from sgdmix_albu.saliency.salient_object import SalientObject
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings

QUIET = Progress(quiet=True)
LEARNED = Settings(saliency="salient_object", mask="otsu", multiplier=2)


@pytest.fixture
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of five images, described two at a time."""
    monkeypatch.setattr("sgdmix_albu.bank.parts.PART", 5)
    monkeypatch.setattr("sgdmix_albu.bank.parts.STRETCH", 2)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many GPUs, which torch says that it has and which are not there."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return pretend


@pytest.mark.usefixtures("small_stretches")
def test_what_a_network_is_shown_at_once_does_not_depend_on_the_workers(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    seen = SalientObject.coarse

    def note(self: SalientObject, images: Any, labels: Any = None) -> Any:
        shown.append(tuple(images.flatten(1).sum(1).tolist()))  # which images
        return seen(self, images, labels)

    monkeypatch.setattr(SalientObject, "coarse", note)
    batches = []
    for workers in (1, 2, 5):
        expand(photographs, tmp_path / str(workers), LEARNED, workers=workers)
        batches.append(sorted(shown))
        shown.clear()
    assert batches[0] == batches[1] == batches[2]
    assert len(batches[0]) > 6  # twelve images of several sizes, in two parts of three stretches and one of one
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")


@pytest.mark.usefixtures("small_stretches")
def test_workers_look_at_images_at_the_same_time(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them, each with a network of its own, wait for each other."""
    both, seen, networks = threading.Barrier(2, timeout=60), SalientObject.coarse, set()

    def together(self: SalientObject, images: Any, labels: Any = None) -> Any:
        if len(networks) < 2:
            both.wait()
        networks.add(id(self))
        return seen(self, images, labels)

    monkeypatch.setattr(SalientObject, "coarse", together)
    expand(photographs, tmp_path / "out", LEARNED, workers=2)
    assert len(networks) == 2


def test_a_users_own_function_is_asked_by_one_at_a_time(
    photographs: Path, tmp_path: Path, by_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgdmix_albu.bank.parts.STRETCH", 1)
    busy = threading.Lock()

    def alone(images: torch.Tensor) -> torch.Tensor:
        assert busy.acquire(blocking=False)
        try:
            return images.mean(1)
        finally:
            busy.release()

    register_backend("alone", alone)
    assert expand(photographs, tmp_path / "out", Settings(saliency="alone", mask="bright"), workers=4).written


@pytest.mark.parametrize(
    ("name", "by", "network"),
    [
        ("manifold_ranking", "threads", False),
        ("spectral_residual", "threads", False),
        ("salient_object", "threads", True),
        ("birds.safetensors", "threads", True),
        ("bank:maps", "threads", False),
        ("gradcam", "processes", True),  # it seeds what a process has only one of
        ("gradient_shap", "processes", True),
        ("brightness", "one", False),
    ],
)
def test_ways(name: str, by: str, network: bool, by_hand: None) -> None:
    assert way_of(name) == (by, network)


def test_a_part_is_written_when_all_of_it_is_known(photographs: Path, tmp_path: Path) -> None:
    from sgdmix_albu.bank.builder import Finding
    from sgdmix_albu.datasets.source import Skipped

    storage, part = Storage(tmp_path), parts_of(open_source(photographs).items)[0]
    gathering = Gathering(storage, [replace(part, images=part.images * 4)])  # 48 images
    second, first = reversed(gathering.stretches())
    assert (first.first, len(first.images), second.first, len(second.images)) == (0, 32, 32, 16)
    gathering.add(Finding(second, [], [Skipped("later", "no")], 1.0))
    assert not storage.sizes()
    assert gathering.add(Finding(first, [], [Skipped("sooner", "no")], 2.0)) == (32, 2.0)
    assert '[["sooner", "no"], ["later", "no"]]' in storage.read("part-000000.json").decode()


# GPUs


def asked_for(data: Path, refiner: RefinerSettings | None) -> Any:
    return type("Asked", (), {"refiner": refiner})()


@pytest.mark.parametrize(
    ("there", "device", "workers", "expected"),
    [
        (0, None, None, ("processes", None, 0)),
        (1, None, None, ("threads", 3, 1)),
        (4, None, None, ("processes", 12, 4)),  # three threads for each
        (4, None, 2, ("processes", 2, 4)),
        (4, "cuda:2", None, ("threads", 3, 1)),  # the one that was named
        (4, "cpu", None, ("processes", None, 0)),
    ],
)
def test_a_local_refiner_has_every_gpu(
    there: int, device: str | None, workers: int | None, expected: Any, gpus: Callable[[int], None], tmp_path: Path
) -> None:
    gpus(there)
    asked = asked_for(tmp_path, RefinerSettings("cub", device=device))
    engine = expanding_engine("local", asked, QUIET, workers=workers, share=None, address=None)
    assert isinstance(engine, LocalEngine)
    assert (engine.kind, engine.workers, engine.gpus) == (
        expected[0],
        expected[1] or choice.default_jobs(),
        expected[2],
    )


@pytest.mark.parametrize("before", [None, "5, 7,GPU-abc"])
def test_each_process_sees_a_gpu_of_its_own(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And two threads of each work at once: all four wait for each other, in pairs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    found = list(LocalEngine(6, "processes", gpus=3).run(Pair, range(6)))
    names = ["0", "1", "2"] if before is None else ["5", "7", "GPU-abc"]
    assert sorted(found) == sorted(names * 2)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


class Pair:
    """A worker that ends an item when another is begun beside it."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2, timeout=60)

    def __call__(self, item: int) -> str:
        self.both.wait()
        return os.environ["CUDA_VISIBLE_DEVICES"]


def test_networks_are_asked_on_every_gpu(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    from sgdmix_albu.bank.builder import _Shared

    gpus(2)
    current: list[Any] = []

    class Current:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    made: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device", Current)

    def make() -> Any:
        made.append(current[-1])
        return nn.Identity()

    shared = _Shared(make, "salient_object", jobs=16)
    with shared._copies.one() as a, shared._copies.one() as b, shared._copies.one() as c, shared._copies.one() as d:
        assert [lent.device.index for lent in (a, b, c, d)] == made == [0, 1, 0, 1]  # two for each, and no more
    with _Shared(lambda: list(current), "manifold_ranking", jobs=2)._copies.one() as plain:  # type: ignore[arg-type]
        assert (plain.thing, plain.device.type) == ([], "cpu")


@pytest.mark.parametrize(
    ("device", "expected", "processes", "own"),
    [("cpu", ["cpu"] * 3, None, 0), ("cuda:2", ["cuda:2"] * 2, 3, 0), ("cuda", [f"cuda:{n}" for n in range(4)], 12, 4)],
)
def test_networks_look_where_they_are_told(
    device: str, expected: list[str], processes: int | None, own: int, tmp_path: Path, gpus: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The teacher too, and the classifier that saliency looks through: as ``--device`` says, not everywhere."""
    from sgdmix_albu.bank.builder import Describer

    gpus(4)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    opened: list[str | None] = []
    monkeypatch.setattr(worker, "open_teacher", lambda settings, classes, device: opened.append(device))
    asked = type("Asked", (), {"device": device, "class_names": ["a"]})()
    teachers = worker._teachers(asked, ClassifierSettings("teacher.safetensors"), 3)
    assert set(opened) == {device}
    describer = Describer(tmp_path, ["a"], Settings(saliency="salient_object"), device, jobs=len(expected))  # type: ignore[arg-type]
    assert places(describer._maps._copies, len(expected)) == expected  # type: ignore[attr-defined]
    assert places(teachers, len(set(expected))) == sorted(set(expected))
    monkeypatch.setattr(choice, "default_jobs", lambda: 16)
    engine = describing_engine(LocalEngine(2), Settings(saliency="gradcam"), QUIET, None, device)
    assert isinstance(engine, LocalEngine)
    assert (engine.kind, engine.workers, engine.gpus) == ("processes", processes or 16, own)


def places(copies: Copies[Any], count: int) -> list[str]:
    """Where so many copies are that are lent at once."""
    with ExitStack() as lent:
        return [str(lent.enter_context(copies.one()).device) for _ in range(count)]


def test_copies_are_made_when_they_are_needed_and_lent_to_one_at_a_time() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    copies = Copies(make, most=2)
    for _ in range(3):
        with copies.one() as lent:
            assert lent.thing == 0
    with copies.one() as first, copies.one() as second:
        assert (first.thing, second.thing) == (0, 1)
        waiting = threading.Thread(target=lambda: copies.one().__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(60)
    assert made == [0, 1]


def test_ray_keeps_no_gpu_for_work_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.RayEngine, "_join", lambda self: None)
    engine = ray.RayEngine(3, gpus=0.5)
    plain = describing_engine(engine, Settings(saliency="manifold_ranking"), QUIET, None, None)
    assert isinstance(plain, ray.RayEngine)
    assert (plain.gpus, plain.workers) == (0, 3)
    assert describing_engine(engine, Settings(saliency="salient_object"), QUIET, None, None) is engine


def test_nobody_waits_for_a_teacher_to_refine(
    photographs: Path, tmp_path: Path, by_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It judges beside the refiner, all images of one size at once."""
    begin, judged = worker.Expander.__init__, []

    def pretend(self: worker.Expander, *args: Any) -> None:
        begin(self, *args)
        self._refiner = object()  # type: ignore[assignment]
        self.asked = replace(self.asked, refiner=RefinerSettings("cub"))

    def judge(self: worker.Expander, teacher: Judge, outputs: Any) -> None:
        assert not self._refining.locked()
        judged.append(len(outputs))

    def refine(self: worker.Expander, *_: Any) -> list[Any]:
        assert self._refining.locked()
        return []

    monkeypatch.setattr(worker.Expander, "__init__", pretend)
    monkeypatch.setattr(worker.Expander, "_judge", judge)
    monkeypatch.setattr(worker.Expander, "_refine", refine)
    monkeypatch.setattr(worker, "open_teacher", lambda *_: None)
    monkeypatch.setattr("sgdmix_albu.expand.asked._judged", lambda *_: {})
    expand(photographs, tmp_path / "out", teacher=ClassifierSettings("teacher.safetensors"), workers=1)
    assert sum(judged) == 36
    assert len(judged) <= 6  # of three sizes, in two chunks
