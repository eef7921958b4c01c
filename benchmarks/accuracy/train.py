"""One run: a row of a grid, trained on a task from one seed, and judged once, at its last step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy import given
from benchmarks.accuracy.data import Data
from benchmarks.accuracy.expanded import Drawn, Real, expanded
from benchmarks.accuracy.learner import Learner, pixels
from benchmarks.accuracy.rows import Method, Views
from benchmarks.accuracy.shifted import make_shifted, measure
from benchmarks.accuracy.tasks import BATCH, TASKS, by_share
from benchmarks.accuracy.views import seen, views

_SMOOTHING = 0.1


class Trainer:
    """Runs of one data set on one device; networks, test sets and teachers are made once.

    Args:
        data: The photographs.
        encoder: File of the pretrained weights.
        network: The architecture's name in timm.
        size: Side of the images that the network sees.
        device: "cpu" or "cuda".
        work: Folder for expanded sets.
    """

    def __init__(self, data: Data, encoder: Path, network: str, size: int, device: str, work: Path) -> None:
        self.data, self.size, self.device, self.work = data, size, device, work
        self.train, test = data.train.to(device), data.test.to(device)
        self.test = _small(test.images, size)
        self.truth, self.home = test.labels, test.home
        masks, plates = _small(test.maps[:, None], size)[:, 0] > 127, _small(test.plates, size)
        self.shifted = make_shifted(self.test, masks, self.truth, plates)
        self.learner = Learner(encoder, network, len(data.classes), BATCH, size, device)
        self._teachers: dict[tuple[str, int], dict[str, Tensor]] = {}

    def run(self, task: str, spec: dict[str, Any], seed: int, which: tuple[str, ...] = ("mixed",)) -> dict[str, Any]:
        """Train and judge; what goes into the results.

        A teacher and an expanded set are made once for all rows of a task and seed: neither their time nor their steps
        are in a row's.
        """
        chosen = TASKS[task].chosen(self.data.train.labels, seed)
        if spec.get("given") in given.TAUGHT:
            self._teacher(task, seed, chosen)
        if spec.get("mix") == "expanded":
            self._expanded(task, seed, chosen)
        wall, cpu = time.perf_counter(), time.process_time()
        found = self._fit(task, spec, seed, chosen)
        if self.device != "cpu":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        counts = self.data.train.labels[chosen].bincount(minlength=len(self.data.classes))
        return {
            "steps": self._steps(task, len(chosen)),
            "images": len(chosen),
            "figures": self._judged(task, counts, which) | found,
            "wall_seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
        }

    def _fit(self, task: str, spec: dict[str, Any], seed: int, chosen: Tensor) -> dict[str, float]:
        """Train; figures of the masks where they were made before."""
        classes, learner = len(self.data.classes), self.learner
        rows = chosen.to(self.device)
        images, labels, segmented = self.train.images[rows], self.train.labels[rows], self.train.maps[rows]
        files = self._files(chosen)
        figures, maps, masks = {}, None, None
        if "given" in spec:
            teacher = lambda: self._teacher(task, seed, chosen)  # noqa: E731
            torch.manual_seed(seed)
            maps, masks = given.made(spec, images, labels, segmented, teacher, files)
            figures = given.figures(masks, segmented, spec.get("fill", "inpaint"))
        drawn = None
        if spec.get("mix") == "expanded":
            real = Real(self.data.train.images[chosen], self.data.train.labels[chosen], files, self.data.classes)
            drawn = Drawn(real, self._expanded(task, seed, chosen), spec, self.device)
        mixing, smoothing = Method(spec, classes, learner.model), spec.get("smoothing", _SMOOTHING)
        learner.reset(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  timm's MixUp and CutMix draw from the global one
        total, step, used = self._steps(task, len(chosen)), 0, len(chosen) // BATCH * BATCH
        for epoch in range(TASKS[task].epochs):
            if "refresh" in spec and epoch and epoch % spec["refresh"] == 0:  # seen through the model as it is now
                maps, masks = given.made(spec, images, labels, segmented, lambda: learner.model, files)
                learner.model.train()
            order = torch.randperm(len(chosen))[:used]
            here = order.to(self.device)
            crops = views(used, spec.get("crop", "resized")).to(self.device)
            batch, own = (images[here], labels[here]) if drawn is None else drawn(order)
            plain = seen(batch, crops, self.size).round_().to(torch.uint8)
            shown = mixing.epoch(Views(plain, own, *self._cropped(maps, masks, here, crops)))
            for part in zip(shown.split(BATCH), own.split(BATCH), plain.split(BATCH), strict=True):
                mixed, soft = mixing.batch(*part)
                learner.step(mixed, soft * (1 - smoothing) + smoothing / classes, step / total)
                step += 1
        return figures | mixing.figures()

    def _cropped(
        self, maps: Tensor | None, masks: Tensor | None, rows: Tensor, crops: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Maps and masks that were made before, through the same views."""
        if maps is None or masks is None:
            return None, None
        cropped = seen(torch.stack([maps[rows], masks[rows].float()], 1), crops, self.size)
        return cropped[:, 0].clamp(0, 1), cropped[:, 1] > 0.5

    def _steps(self, task: str, images: int) -> int:
        return TASKS[task].epochs * (images // BATCH)

    def _files(self, chosen: Tensor) -> list[Path]:
        return [Path(self.data.paths[i]) for i in chosen.tolist()] if self.data.paths else []

    def _expanded(self, task: str, seed: int, chosen: Tensor) -> Path:
        return expanded(self._files(chosen), self.work / f"{task}-{seed}")

    def _teacher(self, task: str, seed: int, chosen: Tensor) -> torch.nn.Module:
        """The classifier of the same task and seed, trained on real images alone."""
        key = (task, seed)
        if key not in self._teachers:
            self._fit(task, {"mix": "none"}, seed, chosen)
            self._teachers[key] = {name: value.clone() for name, value in self.learner.model.state_dict().items()}
        self.learner.model.load_state_dict(self._teachers[key])
        return self.learner.model.eval()

    def _judged(self, task: str, counts: Tensor, which: tuple[str, ...]) -> dict[str, float]:
        logits = self.learner.logits(self.test)
        right = logits.argmax(1) == self.truth
        figures = {"accuracy": float(right.float().mean())}
        if len(self.home):
            groups = {"at_home": right[self.home], "elsewhere": right[~self.home]}
            figures |= {name: float(group.float().mean()) for name, group in groups.items()}
            figures["worst_group"] = min(figures["at_home"], figures["elsewhere"])
        if task == "tail":
            figures |= by_share(right, self.truth, counts.to(self.truth.device))
        model = self.learner.model  # in evaluation mode since it was asked for logits
        return figures | measure(lambda images: model(pixels(images)), self.shifted, logits, which=which)


def _small(images: Tensor, size: int) -> Tensor:
    """(N, C, size, size) uint8."""
    parts = [F.interpolate(x.float(), size=(size, size), mode="bilinear", antialias=True) for x in images.split(256)]
    return torch.cat(parts).round_().clamp_(0, 255).to(torch.uint8)
