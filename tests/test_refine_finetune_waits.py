"""Fine-tuning on a GPU: what a step waits for, in which precision it works, and who reads meanwhile."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_gpu import back, fake_gpu, on_gpu
from PIL import Image
from tiny_diffusion import tiny_base

from sgdmix_albu.errors import DataError
from sgdmix_albu.refine import Recipe, RefinerSpec
from sgdmix_albu.refine.finetuning import settings as precisions
from sgdmix_albu.refine.finetuning import trainer as module
from sgdmix_albu.refine.finetuning.data import TrainingImages
from sgdmix_albu.refine.finetuning.draws import draw
from sgdmix_albu.refine.finetuning.logs import Losses
from sgdmix_albu.refine.finetuning.run import finetune


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for name, count in (("ant", 14), ("bee", 5)):
        (root / name).mkdir()
        for number in range(count):
            Image.fromarray(draws.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(root / name / f"{number:02}.png")
    return root


@pytest.mark.parametrize("architecture", ["sd", "sdxl"])
def test_the_loss_of_a_step_waits_for_nothing(architecture, photos, tmp_path, monkeypatch):
    """The trained model is brought to the GPU; backward and AdamW, which a fake one has not, are torch's own."""
    made = []
    real = module.Trainer.train
    monkeypatch.setattr(module.Trainer, "train", lambda self, **options: (made.append(self), real(self, **options))[1])
    base = tiny_base(tmp_path / "base", architecture=architecture)
    recipe = Recipe(steps=1, batch_size=4, learning_rate=1e-3, token_learning_rate=1e-2, rank=2)
    spec = RefinerSpec("tiny", "x", base=str(base), revision=None, resolution=32, steps=3, recipe=recipe)
    finetune(photos, key=spec, out=tmp_path / "refiner", progress=False, mixed_precision="no")
    (run,) = made
    drawn = draw(run.settings, 0, run.images.labels, run.latents.shape, 1000)
    run.accelerator = SimpleNamespace(device=torch.device("cpu"))
    with torch.no_grad():
        expected = run._loss(drawn)
        with fake_gpu() as gpu:
            run.accelerator.device = torch.device("cuda")
            run.model.to("cuda")
            run.wrapped, run.sizes = run.model, run.sizes.to("cuda")
            first = run._loss(drawn)  # brings the schedule's table to the GPU
            gpu.waits.clear()
            found = run._loss(drawn)
            assert found.device.type == "cuda"
            assert not gpu.waits, gpu.waits
            torch.testing.assert_close(back(found), expected)
            assert torch.equal(back(first), back(found))


class Log:
    def __init__(self):
        self.told = []

    def add(self, loss, step):
        self.told.append((step, loss))


def test_losses_on_a_gpu_are_read_a_few_at_a_time():
    log = Log()
    losses = Losses([0.5], log)
    with fake_gpu() as gpu:
        for step in range(1, 46):
            losses.add(on_gpu(torch.tensor(step / 2)))
        assert len(gpu.waits) == 2, gpu.waits  # after 20 and after 40
        assert losses.last == "20.000"
        assert losses.read() == [0.5, *(step / 2 for step in range(1, 46))]
        assert len(gpu.waits) == 3
    assert log.told == [(step, step / 2) for step in range(1, 46)]


def test_losses_on_a_cpu_are_read_at_once():
    losses = Losses([], None)
    assert losses.last == ""
    losses.add(torch.tensor(0.25))
    assert losses.last == "0.250"
    with pytest.raises(DataError, match="not finite any more at step 1"):
        losses.add(torch.tensor(torch.nan))


def test_a_loss_that_is_none_is_told_with_its_step_also_late():
    losses = Losses([1.0] * 7, None)
    with fake_gpu():
        for value in (1.0, 1.0, torch.inf, 1.0):
            losses.add(on_gpu(torch.tensor(value)))
        with pytest.raises(DataError, match="not finite any more at step 9"):
            losses.read()


@pytest.mark.parametrize(
    ("gpu", "of_gpu", "of_cpu", "expected"),
    [(True, True, False, "bf16"), (True, False, True, "fp16"), (False, None, True, "bf16"), (False, None, False, "no")],
)
def test_the_precision_that_nobody_named(monkeypatch, gpu, of_gpu, of_cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: of_gpu)
    monkeypatch.setattr(precisions, "bf16_pays", lambda: of_cpu)
    assert precisions.best_precision() == expected


def test_the_next_images_are_read_while_others_are_worked_on(photos):
    images = TrainingImages(photos, 32)
    parts = [range(start, min(start + 4, 19)) for start in range(0, 19, 4)]
    read = threading.Event()
    real, here = images._read, []

    def noticed(row):
        here.append(threading.current_thread())
        if row >= 4:
            read.set()
        return real(row)

    images._read = noticed
    coming = images.batches(parts)
    first = next(coming)
    assert read.wait(30)  # nobody has asked for the second part
    assert threading.current_thread() not in here
    found = torch.cat([first, *coming])
    images._read = real
    assert torch.equal(found, torch.stack([images[row] for row in range(19)]))


def test_a_data_set_is_read_by_one_thread_at_a_time(photos):
    class Birds:
        classes, targets = ("owl", "tit"), [0, 1] * 20
        busy = threading.Lock()

        def __getitem__(self, row):
            assert self.busy.acquire(blocking=False)
            try:
                return Image.new("RGB", (40, 40), (row, 0, 0)), self.targets[row]
            finally:
                self.busy.release()

    images = TrainingImages(Birds(), 16)
    parts = [range(start, start + 8) for start in range(0, 40, 8)]
    found = torch.cat(list(images.batches(parts)))
    assert found[:, 0, 0, 0].tolist() == list(range(40))
