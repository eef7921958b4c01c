"""Apple's and Intel's GPUs: which device is taken, and one that has no float64. They are pretended: none was here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_gpu import fake_gpu, on_gpu
from torch import Tensor, nn
from torchvision import tv_tensors

from sgdmix_albu import SGDMix, devices, mix_batch
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.devices import best_dtype, has_float64, present_device, random_kept, release_memory, working_device
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.copies import gpus
from sgdmix_albu.refine.batching import in_batches
from sgdmix_albu.refine.finetuning.settings import best_precision
from sgdmix_albu.saliency import get_backend

IMAGES = torch.rand(6, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.3
for _row in range(6):
    IMAGES[_row, :, 8 : 24 + _row, 6 + 2 * _row : 26] += 0.5
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None, int], None]:
    """A machine with so many accelerators of a kind, as far as torch says."""

    def has(kind: str | None, count: int = 1) -> None:
        found = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count if kind == "cuda" else 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return has


@pytest.mark.parametrize(
    ("kind", "count", "taken", "dtype", "seen"),
    [
        (None, 0, "cpu", torch.float32, []),
        ("cuda", 2, "cuda", torch.float16, ["cuda:0", "cuda:1"]),
        ("mps", 1, "mps", torch.float32, ["mps:0"]),
        ("xpu", 2, "xpu", torch.float16, ["xpu:0"]),  # which of several a process sees is CUDA's variable
    ],
)
def test_which_device_is_taken(
    kind: str | None, count: int, taken: str, dtype: torch.dtype, seen: list[str], machine: Any
) -> None:
    machine(kind, count)
    assert working_device(None) == present_device(None) == torch.device(taken)
    assert best_dtype(torch.device(taken)) == dtype
    assert list(map(str, gpus())) == seen
    assert gpus("cpu") == []
    for other in {"cuda", "mps", "xpu"} - {kind}:
        with pytest.raises(InvalidInputError, match=rf"this machine has \(cpu(, {kind}:0.*)?\), got '{other}'"):
            present_device(other)
        assert gpus(other) == []
    if kind is not None:
        with pytest.raises(InvalidInputError, match=f"got '{kind}:{count}'"):
            present_device(f"{kind}:{count}")


def test_devices_that_do_not_compute_in_float64_are_asked(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An mps tensor cannot be made here: torch says so, as it does of float64 where there is one."""
    machine("mps")
    has_float64.cache_clear()
    assert not has_float64(torch.device("mps"))
    assert gpus(exact=True) == []
    monkeypatch.setattr(devices, "has_float64", lambda device: True)
    assert devices.exact_device(torch.device("mps")) == torch.device("mps")
    has_float64.cache_clear()


def test_fine_tuning_takes_no_precision_that_nobody_measured(machine: Any) -> None:
    machine("mps")
    assert best_precision() == "no"


def test_memory_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back by the module of the kind; a batch is small from the first, and halved where it does not fit."""
    emptied: list[str] = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    mps = torch.device("mps")
    release_memory(mps)
    release_memory(torch.device("cpu"))
    assert emptied == ["mps"]
    tried: list[int] = []

    def run(rows: list[int]) -> int:
        tried.append(len(rows))
        if len(rows) > 4:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)")
        return len(rows)

    known: dict[int, int] = {}
    parts = in_batches(run, range(12), size=None, device=mps, pixels=64 * 64, known=known)
    assert [rows for rows, _ in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert tried == [12, 6, 3, 3, 3, 3]
    assert emptied == ["mps"] * 3
    large = in_batches(run, range(2), size=None, device=mps, pixels=512 * 512, known=known)
    assert [rows for rows, _ in large] == [[0], [1]]


def test_random_numbers_of_other_devices_go_on(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("mps")
    state = [torch.zeros(1)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda before: state.__setitem__(0, before))
    before = torch.get_rng_state()
    with random_kept(torch.device("mps")):
        torch.rand(1)
        state[0] = torch.ones(1)
    assert state[0] == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU that says ``cuda`` and refuses float64, as Apple's do."""
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU")
    monkeypatch.setattr(devices, "has_float64", lambda device: device.type == "cpu")
    for module in ("sgdmix_albu.refine.denoise", "sgdmix_albu.io.copies"):
        monkeypatch.setattr(f"{module}.has_float64", lambda device: device.type == "cpu")
    with fake_gpu(float64=False):
        yield


@pytest.mark.usefixtures("narrow")
def test_the_pretended_device_refuses_float64() -> None:
    with pytest.raises(TypeError, match="no float64"):
        on_gpu(torch.ones(3)).double()


@pytest.mark.usefixtures("narrow")
def test_mixing_without_float64() -> None:
    """The CPU's numbers, where the images are."""
    for fill, place in (("source", "source"), ("inpaint", "random")):
        draws = torch.Generator().manual_seed(1)
        options: dict[str, Any] = {"mask": "guided", "candidates": 3, "fill": fill, "place": place, "generator": draws}
        backend = get_backend("manifold_ranking")
        expected = mix_batch(IMAGES, backend(IMAGES), labels=LABELS, target_class="different", **options)
        maps = backend(on_gpu(IMAGES))
        assert maps.is_cuda
        draws.manual_seed(1)
        found = mix_batch(on_gpu(IMAGES), maps, labels=on_gpu(LABELS), target_class="different", **options)
        assert found.images.is_cuda
        assert torch.equal(found.images.cpu(), expected.images)
        assert torch.equal(found.plan.target, expected.plan.target)


@pytest.mark.usefixtures("narrow")
def test_the_transform_without_float64() -> None:
    def mixed(images: Tensor, labels: Tensor, mask: Tensor, boxes: Tensor) -> Any:
        mix = SGDMix("spectral_residual", mask="otsu", candidates=3, generator=torch.Generator().manual_seed(0))
        return mix({"image": images, "label": labels, "mask": mask, "boxes": [boxes] * 6, "name": "x"})

    mask = (10 * IMAGES[:, 0]).long()
    boxes = tv_tensors.BoundingBoxes([[6, 8, 26, 24]], format="XYXY", canvas_size=(40, 48))
    expected = mixed(IMAGES, LABELS, mask, boxes)
    there, labels = on_gpu(IMAGES), on_gpu(LABELS)
    found = mixed(there, labels, on_gpu(mask), boxes)
    assert found["image"].is_cuda
    assert found["mask"].is_cuda
    assert found["label"] is labels
    assert found["name"] == "x"
    assert torch.equal(found["image"].cpu(), expected["image"])
    assert not torch.equal(found["image"].cpu(), IMAGES)
    assert torch.equal(found["mask"].cpu(), expected["mask"])


@pytest.mark.usefixtures("narrow")
def test_a_judge_without_float64() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = Judge(model, None, "imagenet", side=32)(IMAGES)
    found = Judge(model.to("cuda"), None, "imagenet", side=32)(IMAGES)
    torch.testing.assert_close(found.cpu(), expected)


def test_saliency_models_of_workers_may_not_be_on_other_devices_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgdmix_albu.saliency.modelled.get_worker_info", lambda: SimpleNamespace(id=0))
    backend = get_backend("gradcam", model=nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta"))
    with pytest.raises(InvalidInputError, match="a GPU and this is a DataLoader worker"):
        backend._home(IMAGES)
