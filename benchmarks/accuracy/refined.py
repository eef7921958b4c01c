"""What the refiner buys on the embedded birds, where a base model is at hand: tree, refiner, expansions, training.

    OMP_NUM_THREADS=1 python -m benchmarks.accuracy.refined --results FILE --work DIR [--seeds 5]

The rows are those of the grids ``04-*.toml``, whose comments are the plan. The birds are those of the ``background``
recipe: in training 95% are in their species' own habitat, in the test none more than by chance. Tree, refiner and
expansions are made once, in DIR, by the commands that a user would type, and shared by all seeds; a seed decides
initial values, order, crops and which synthetic image replaces a real one. The last epoch is the one that counts.
Each run is appended to the results; runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.accuracy.grid import read_grid, spec_key
from benchmarks.accuracy.results import commit, stored_lines
from sgdmix_albu import SyntheticMix
from sgdmix_albu.classifiers import new_classifier, save_classifier
from sgdmix_albu.classifiers.small import small_cnn
from sgdmix_albu.datasets.aviary import Aviary, home_of
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import IMAGENET
from sgdmix_albu.recipes.measures import measure
from sgdmix_albu.recipes.parts import Part
from sgdmix_albu.recipes.settings import diff_mix

_GRIDS = Path(__file__).parent / "grids"
_TASK, _SIDE = "aviary-64", 64
_BATCH, _EPOCHS, _SHARE = 64, 30, 0.5  # the page on recipes: half of the images are replaced
_TESTED = 200  # test birds of each species; the recipe's 40 are the first of them
_MULTIPLIER = 2
_TEACHER = "resnet18"
_UNREFINED = {"mix": "expanded", "refiner": False}

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="tree, refiner and expansions; kept")
    parser.add_argument("--seeds", type=int, help="default: the grids'")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    there = {_key(line) for line in stored_lines(options.results)}
    test = _birds("test", per_species=_TESTED)
    for path in sorted(_GRIDS.glob("04-*.toml")):
        grid = read_grid(path)
        for seed in range(options.seeds or grid.tasks[_TASK]):
            for row in grid.rows:
                if _key({"task": _TASK, "network": grid.network, "row": row.spec, "seed": seed}) in there:
                    continue
                line = run(row.spec, seed, grid.network, options.work, test)
                with options.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{row.name}, seed {seed}: {line['figures']}", flush=True)


def run(spec: dict[str, Any], seed: int, network: str, work: Path, test: Part) -> dict[str, Any]:
    """Train once on what a row says, and judge once."""
    expanded = expansion(spec, work) if spec["mix"] == "expanded" else None
    wall, cpu = time.perf_counter(), time.process_time()
    model, steps, images = trained(expanded, seed, network, _online(spec))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = measure(predicted(model, test), test)
    return {
        "task": _TASK,
        "network": network,
        "pixels": _SIDE,
        "row": spec,
        "seed": seed,
        "steps": steps,
        "images": images,
        "figures": {
            "accuracy": found["accuracy"],
            "worst_group": found["worst group"],
            "at_home": found["at home"],
            "elsewhere": found["elsewhere"],
        },
        "device": "CPU",
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "expand_cpu_seconds": 0.0 if expanded is None else json.loads(_timed(expanded).read_text())["cpu_seconds"],
        "commit": commit(check=True),
        "data": "embedded",
    }


def expansion(spec: dict[str, Any], work: Path) -> Path:
    """The folder of synthetic images that a row trains on; made by ``sgdmix generate``, once."""
    out = work / hashlib.sha256(spec_key(spec).encode()).hexdigest()[:12]
    if _timed(out).exists():
        return out
    refining = ["--refiner", "none"]
    if spec["refiner"]:
        strengths = spec["strength"] if isinstance(spec["strength"], list) else [spec["strength"]]
        refining = ["--refiner", str(_refiner(work)), "--dtype", "bfloat16", "--preserve", spec["preserve"]]
        refining += ["--strengths", *map(str, strengths)]
    if spec.get("strength") == "adaptive":
        refining += ["--teacher", str(_teacher(work))]
    mixing = [word for name in ("saliency", "mask", "fill") if name in spec for word in (f"--{name}", spec[name])]
    tree = str(_tree(work))
    began = _children()
    _sgdmix("generate", tree, str(out), "--multiplier", str(_MULTIPLIER), "--workers", "1", *mixing, *refining)
    _timed(out).write_text(json.dumps({"row": spec, "cpu_seconds": round(_children() - began, 1)}))
    return out


def trained(expanded: Path | None, seed: int, network: str, mixing: Mixing | None = None) -> tuple[nn.Module, int, int]:
    """A classifier trained from random values with the recipe's settings, its steps, and the number of real images."""
    settings = diff_mix("aviary", "resnet18")
    real = _birds("train", correlation=0.95)
    view = v2.Compose(
        [v2.Resize((round(_SIDE * 8 / 7),) * 2), v2.RandomCrop(_SIDE, padding=8), v2.RandomHorizontalFlip()]
    )
    images = real.seen_through(v2.Compose([view, v2.PILToTensor()]))
    mixed = images if expanded is None else SyntheticMix(images, expanded, p=_SHARE, mode="source", seed=seed)
    torch.manual_seed(seed)
    model = _new(network, real.classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    steps = _EPOCHS * (len(real) // _BATCH)
    rising = round(settings.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    model.train()
    for epoch in range(_EPOCHS):
        if isinstance(mixed, SyntheticMix):
            mixed.set_epoch(epoch)
        for rows in torch.randperm(len(real))[: len(real) // _BATCH * _BATCH].split(_BATCH):
            drawn = [mixed[row] for row in rows.tolist()]
            batch, labels = torch.stack([image for image, _ in drawn]), torch.tensor([label for _, label in drawn])
            if mixing is not None:
                batch, labels = mixing(batch, labels)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(_seen(batch)), labels, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model, steps, len(real)


def predicted(model: nn.Module, part: Part) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The label that the classifier gives each image, seen through the middle."""
    view = v2.Compose([v2.Resize((round(_SIDE * 8 / 7),) * 2), v2.CenterCrop(_SIDE), v2.PILToTensor()])
    model.eval()
    found = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for rows in torch.arange(len(part)).split(256):
            found.append(model(_seen(torch.stack([view(part[row][0]) for row in rows.tolist()]))).argmax(1))
    return torch.cat(found).numpy()


class _Drawn:
    """Birds that are drawn once, and kept."""

    def __init__(self, birds: Aviary) -> None:
        self.classes, self.targets, self.source_keys = birds.classes, birds.targets, birds.source_keys
        self._images: list[Image.Image] = [birds[row][0] for row in range(len(birds))]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return self._images[row], self.targets[row]


def _birds(split: str, *, correlation: float = 0.0, per_species: int = 40) -> Part:
    """The ``background`` recipe's birds, grouped by whether they are at home."""
    birds = Aviary(split, size=_SIDE, correlation=correlation, per_species=per_species)
    homes = [home_of(species) for species in birds.species]
    away = [int(birds.scene(row).habitat != homes[label]) for row, label in enumerate(birds.targets)]
    return Part(_Drawn(birds), groups=away, group_names=("at home", "elsewhere"))


def _new(network: str, classes: list[str]) -> nn.Module:
    return small_cnn(len(classes), width=32) if network == "small_cnn" else new_classifier(network, classes).model


def _online(spec: dict[str, Any]) -> Mixing | None:
    if spec["mix"] not in ("none", "cutmix", "expanded"):
        raise InvalidInputError(f"mix must be none, cutmix or expanded, got {spec['mix']!r}")
    return v2.RandomApply([v2.CutMix(num_classes=12)], p=_SHARE) if spec["mix"] == "cutmix" else None


def _seen(images: Tensor) -> Tensor:
    """uint8 images as the classifier sees them."""
    normal = v2.functional.normalize(images.float() / 255, *map(list, IMAGENET))
    return normal.contiguous(memory_format=torch.channels_last)


def _tree(work: Path) -> Path:
    tree = work / "tree"
    if not tree.exists():
        recipe = [sys.executable, "-m", "sgdmix_albu.recipes.background", "--dataset", "aviary"]
        subprocess.run([*recipe, "--size", str(_SIDE), "--write-train", str(tree)], check=True)
    return tree


def _refiner(work: Path) -> Path:
    """Fine-tuned on the training images alone."""
    out = work / "refiner"
    if not (out / "refiner.json").exists():
        _sgdmix("finetune", str(_tree(work)), str(out), "--key", "aviary")
    return out


def _teacher(work: Path) -> Path:
    """For adaptive strengths. Trained without a refiner; on the real images alone it would look at the habitat."""
    out = work / "teacher.pt"
    if not out.exists():
        model, *_ = trained(expansion(_UNREFINED, work), 0, _TEACHER)
        save_classifier(out, model, arch=_TEACHER, class_names=Aviary().classes, normalization=IMAGENET)
    return out


def _sgdmix(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sgdmix_albu", *arguments], check=True)


def _timed(expanded: Path) -> Path:
    return expanded.with_suffix(".json")


def _children() -> float:
    """CPU seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["task"], line["network"], spec_key(line["row"]), line["seed"]


if __name__ == "__main__":
    main()
