"""Whether mixing helps a pretrained classifier on few photographs: equal steps, equal real images, one row a method.

    OMP_NUM_THREADS=1 python benchmarks/birds_accuracy.py DATA --encoder FILE --results FILE [--shots 5] [--seeds 3]

DATA holds ``train/`` and ``test/`` with one folder per class; FILE is the state dict of an EfficientNet-Lite0 in timm's
order (pixels as (x - 127) / 128). Each run is appended to the results as one JSON line, and runs that are there are not
made again. The last epoch is the one that counts. Prints a Markdown table of what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sgdmix_albu import SGDMix

_SIDE, _KEPT = 128, 160
_BATCH = 25
_MIXED = 0.5  # share of the images, or for CutMix of the batches, that are mixed

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ROWS: dict[str, Callable[[int], Mixing]] = {
    "none": lambda classes: lambda images, labels: (images, labels),
    "CutMix": lambda classes: v2.RandomApply([v2.CutMix(num_classes=classes)], p=_MIXED),
    "spectral_residual, otsu, source": lambda classes: _mixing("spectral_residual", "otsu", "source"),
    "manifold_ranking, guided, source": lambda classes: _mixing("manifold_ranking", "guided", "source"),
    "salient_object, guided, source": lambda classes: _mixing("salient_object", "guided", "source"),
    "salient_object, guided, inpaint": lambda classes: _mixing("salient_object", "guided", "inpaint"),
}


def _mixing(saliency: str, mask: str, fill: Any) -> SGDMix:
    return SGDMix(saliency, mask=mask, fill=fill, p=_MIXED)


def read(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """(N, 3, size, size) uint8 and (N,) labels."""
    bring = v2.Compose([v2.PILToTensor(), v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    samples = [(bring(image), label) for image, label in ImageFolder(folder)]
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def classifier(encoder: Path, classes: int) -> nn.Module:
    """EfficientNet-Lite0 with its pretrained weights and a new head."""
    model = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(encoder, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(classes)
    return model.to(memory_format=torch.channels_last)


def pixels(images: Tensor) -> Tensor:
    """uint8 images as the classifier was trained on them."""
    return ((images.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def run(data: tuple[Tensor, ...], encoder: Path, row: str, shots: int, epochs: int, seed: int) -> dict[str, float]:
    """Train once and judge once."""
    images, labels, test, truth = data
    classes = int(labels.max()) + 1
    torch.manual_seed(seed)
    if shots:
        chosen = [
            (labels == c).nonzero()[:, 0][torch.randperm(int((labels == c).sum()))[:shots]] for c in range(classes)
        ]
        images, labels = images[torch.cat(chosen)], labels[torch.cat(chosen)]
    model = classifier(encoder, classes)
    mixing = ROWS[row](classes)
    usual = v2.Compose([v2.RandomResizedCrop(_SIDE, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    head = [*model.get_classifier().parameters()]
    body = [p for name, p in model.named_parameters() if not name.startswith("classifier")]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 3e-4}, {"params": head, "lr": 3e-3}], weight_decay=0.05)
    steps = epochs * (len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-4, 3e-3], steps, pct_start=0.1)
    wall, cpu = time.perf_counter(), time.process_time()
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images))[: len(images) // _BATCH * _BATCH].split(_BATCH):
            batch = torch.stack([usual(image) for image in images[part]])
            mixed, targets = mixing(batch, labels[part])
            loss = F.cross_entropy(model(pixels(mixed)), targets, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    model.eval()
    with torch.inference_mode():
        small = F.interpolate(test.float(), size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        found = torch.cat([model(pixels(part)) for part in small.split(50)]).argmax(1)
    return {"accuracy": float((found == truth).float().mean()), "seconds": wall, "cpu_seconds": cpu}


def table(lines: list[dict[str, Any]]) -> str:
    """Mean, spread over seeds, and the difference to no mixing, paired by seed."""
    text = ["| trained on | shots | accuracy % | minus none, paired | seeds | s a run |", "|---|---|---|---|---|---|"]
    for shots in sorted({line["shots"] for line in lines}):
        of = {row: {x["seed"]: x for x in lines if (x["row"], x["shots"]) == (row, shots)} for row in ROWS}
        for row, runs in of.items():
            if not runs:
                continue
            values = [100 * x["accuracy"] for x in runs.values()]
            gains = [100 * (x["accuracy"] - of["none"][s]["accuracy"]) for s, x in runs.items() if s in of["none"]]
            text.append(
                f"| {row} | {shots or 'all'} | {_spread(values)} | {_spread(gains) if row != 'none' else ''} | "
                f"{len(values)} | {statistics.median(x['seconds'] for x in runs.values()):.0f} |"
            )
    return "\n".join(text)


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--shots", type=int, default=5, help="training images of each class; 0 for all")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    data = (*read(options.data / "train", _KEPT), *read(options.data / "test", _KEPT))
    for seed in options.seeds:
        for row in options.rows:
            lines = _lines(options.results)
            key = {"row": row, "shots": options.shots, "epochs": options.epochs, "seed": seed}
            if any(key.items() <= line.items() for line in lines):
                continue
            found = run(data, options.encoder, row, options.shots, options.epochs, seed)
            with options.results.open("a") as file:
                file.write(json.dumps({**key, **found, "commit": commit}) + "\n")
            print(f"{row}, {options.shots or 'all'} shots, seed {seed}: {100 * found['accuracy']:.1f}%", flush=True)
    print(table(_lines(options.results)))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
