"""Part two: mixing and saliency on the device, beside CutMix and a training step of ResNet-50."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.clock import Call, measured
from benchmarks.gpu.report import Report
from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.sizes import Size
from benchmarks.speed.groups import Group, Row, looking, mixing
from benchmarks.where.consumer import trainer
from sgdmix_albu import mix_batch
from sgdmix_albu.mixing import draw
from sgdmix_albu.refusals import read_together
from sgdmix_albu.saliency import SaliencyMap, get_backend
from sgdmix_albu.types import Draws


def run(report: Report, size: Size, device: torch.device) -> None:
    """A row for each way to mix, or to look, each batch size and each type of pixel."""
    torch.backends.cudnn.benchmark = True
    for batch in size.batches:
        photos = scenes(batch, size.pixels).to(device)
        maps = SaliencyMap((get_backend("salient_object")(photos) * 255).round().to(torch.uint8))
        labels = torch.arange(batch, device=device) % 10
        step = partial(trainer(device), photos, labels)
        training = measured({"step": step}, device, rounds=size.rounds)["step"]
        report.add(f"ResNet-50, a training step, batch {batch}", **training)
        if device.type == "cuda":
            _add(report, captured(photos, maps.as_subclass(torch.Tensor)), batch, training["ms"], device, size.rounds)
        del step  # and the model's memory with it
        for group in (mixing(photos, maps, "uint8"), mixing(photos / 255, maps, "float32"), looking(photos)):
            _add(report, group, batch, training["ms"], device, size.rounds)


def captured(photos: Tensor, maps: Tensor) -> Group:
    """The same mixes kernel by kernel and as one CUDA graph: what the launches cost."""
    backend = get_backend("salient_object")
    count = len(photos)
    draws = draw(count, count, p=1.0, candidates=50)
    draws = Draws(draws.applied.to(photos.device), draws.candidates.to(photos.device))
    ways: dict[str, Call] = {
        "given, otsu, source": lambda: mix_batch(photos, maps, mask="otsu", fill="source", draws=draws),
        "given, guided, inpaint": lambda: mix_batch(photos, maps, draws=draws),
        "salient_object, guided, inpaint": lambda: mix_batch(photos, backend.coarse(photos), draws=draws),
    }
    rows = []
    for name, way in ways.items():
        rows += [Row(f"`mix_batch`, {name}", way), Row(f"`mix_batch`, {name}, as a graph", _graph_of(way))]
    return Group("mixing-uint8", "As one graph", count, None, (), rows)


def _graph_of(way: Call) -> Call:
    graph = torch.cuda.CUDAGraph()
    with read_together():
        for _ in range(3):
            way()
        with torch.cuda.graph(graph):
            kept = way()
        graph.replay()  # before what is refused is read

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def _add(report: Report, group: Group, batch: int, step_ms: float, device: torch.device, rounds: int) -> None:
    rows = measured({row.name: row.call for row in group.rows}, device, rounds=rounds)
    cutmix = rows.get("torchvision CutMix")
    for name, found in rows.items():
        # A wait on either side is part of what a training loop pays, so the share is of the wall's time.
        more = {"of_step": found["wall_ms"] / step_ms, **({"x_cutmix": found["ms"] / cutmix["ms"]} if cutmix else {})}
        report.add(f"{group.name}, batch {batch}: {name}", **found, **more)
