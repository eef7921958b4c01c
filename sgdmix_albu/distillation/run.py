"""``sgdmix distil``: photographs and a teacher in, a file that is a saliency backend out."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from sgdmix_albu import __version__
from sgdmix_albu.arguments import check_count, check_switch, said
from sgdmix_albu.bank.map_source import MapSource, open_map_source
from sgdmix_albu.classifiers import open_judge
from sgdmix_albu.datasets.sample import Sample, Sampler
from sgdmix_albu.datasets.source import Source, open_source
from sgdmix_albu.devices import present_device
from sgdmix_albu.distillation.training import Examples, Schedule, batches_of, train
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import write_whole
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.agreement import held_share
from sgdmix_albu.mixing.masks import otsu
from sgdmix_albu.printable import printable, skipped_lines, skipped_rows
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency.base import Saliency, resize_maps
from sgdmix_albu.saliency.network import SIDE, SaliencyNetwork
from sgdmix_albu.saliency.options import options_of_each
from sgdmix_albu.saliency.salient_object import EMBEDDED, SalientObject, open_network

_KEPT = 224  # pixels a side at which photographs are kept for training
_HELD_OUT = 10  # every so many photographs are not trained on, but judged
_LEAST = 2 * _HELD_OUT
_RATE = 3e-4  # less than for a new network: there is something to lose
_WHITE = torch.tensor(255, dtype=torch.uint8)
_PART = 128  # photographs between two lines of progress; for each the teacher looks at one more, which is not timed


@dataclass(frozen=True)
class Distilled:
    """What was learned; ``str()`` of it is what the command prints.

    Attributes:
        out: The file written.
        trained: Photographs that were trained on.
        held_out: Photographs that were kept apart; all figures are of these.
        agreement: Mean intersection over union of the teacher's and the network's masks (Otsu).
        before: The same for the network that training began with.
        teacher_ms: Milliseconds that a map of the teacher's took; None where it is a folder of masks.
        network_ms: Milliseconds that a map of the network's takes here.
        seconds: Of the training.
        skipped: Photographs that could not be used, and why.
    """

    out: Path
    trained: int
    held_out: int
    agreement: float
    before: float
    teacher_ms: float | None
    network_ms: float
    seconds: float
    skipped: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**asdict(self), "out": str(self.out), "skipped": skipped_rows(self.skipped)}

    def __repr__(self) -> str:  # a notebook shows it as the command does
        return str(self)

    def __str__(self) -> str:
        agrees = f"agrees   IoU {self.agreement:.3f} with the teacher's masks of {self.held_out} other photographs"
        teacher = "" if self.teacher_ms is None else f", the teacher {self.teacher_ms:.1f} ms"
        lines = [
            f"trained  on {self.trained} photographs in {self.seconds:.0f} s",
            f"{agrees}; it was {self.before:.3f} before",
            f"cost     {self.network_ms:.1f} ms a map{teacher}",
            *skipped_lines(self.skipped),
            f"file     {self.out}; use it as --saliency {self.out}",
        ]
        return "\n".join(map(printable, lines))


def distil(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    teacher: Saliency | None = None,
    masks: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Literal["imagenet", "none"] = "imagenet",
    options: Mapping[str, Any] | None = None,
    steps: int = 600,
    batch: int = 32,
    limit: int = 5000,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Distilled:
    """Train the small network on what a teacher sees in your photographs.

    Training starts from the built-in network (``salient_object``), so a few hundred photographs and minutes on a CPU
    are enough. The file is a backend: ``SGDMix("saliency.safetensors")``. Every tenth photograph is held out to
    measure how far network and teacher agree.

    Args:
        data: A class-per-folder image tree, or a folder of images; None with ``dataset``.
        out: The file to write, ``.safetensors``.
        dataset: The embedded data set ("aviary") instead of ``data``.
        teacher: What :func:`sgdmix_albu.saliency.get_backend` takes; None with ``masks``, or with a data set that
            has true masks.
        masks: Folder of masks instead of a teacher: for ``owl/1.jpg`` the file ``owl/1.png``, object light.
        model: Weights of the classifier that the teacher looks through, if it needs one.
        arch: Its architecture in torchvision or timm, if the file does not name it.
        class_names: Text file with the names of its outputs, one per line.
        normalize: How to normalise pixels in [0, 1] for it: "imagenet" or "none".
        options: Options of the teacher, if it is a name. The default prompt is the metaclass of ``dataset``.
        steps: Gradient steps.
        batch: Views in each step.
        limit: The most photographs to use, spread evenly over the set; each takes 200 kB of memory.
        seed: The same seed gives the same draws.
        device: Where to train: "cpu", "cuda", "mps", ...; None for a GPU if there is one.
        overwrite: Replace the file.
        progress: Where to report progress; None for a bar on a terminal, and the log elsewhere.

    Raises:
        InvalidInputError: Both or none of ``teacher`` and ``masks``, or invalid settings.
        DataError: Too few photographs, unreadable weights, or an existing file.
    """
    target = _checked_out(out, data, overwrite)
    check_count("steps", steps, "must be a positive integer")
    check_count("batch", batch, "must be a positive integer")
    check_count("limit", limit, f"must be an integer of {_LEAST} or more", least=_LEAST)
    check_count("seed", seed, "must be an integer, 0 or more", least=0)
    if teacher is not None and masks is not None:
        raise InvalidInputError(f"expected either a teacher or masks, got teacher={said(teacher)} and masks={masks!r}")
    if teacher is None and (options or model is not None):
        raise InvalidInputError("options and a classifier belong to a teacher, but no teacher was given")
    if teacher is None and masks is None and dataset is None:
        raise InvalidInputError("expected a teacher, or a folder of masks; only the embedded data set has its own")
    place = present_device(device)
    progress = progress or Progress()
    listed = open_source(data, dataset, size=_KEPT, flat=True, masks=masks)
    judge = None
    if model is not None:
        judge = open_judge(
            model, listed.class_names, arch=arch, class_names=class_names, normalize=normalize, device=place
        )
    (own,) = options_of_each([teacher], options, metaclass_of(dataset))
    source = None if teacher is None else open_map_source(teacher, judge, **own)
    photographs = _read(listed.thinned(limit), progress)
    images = photographs.images
    if source is not None:
        maps, teacher_ms = _taught(source, photographs, progress)
    else:
        assert photographs.truth is not None  # a source with masks gives samples with masks
        maps, teacher_ms = photographs.truth * _WHITE, None
    if not bool((maps.flatten(1) > 0).any()):
        raise DataError(f"the teacher sees no object in any of {len(images)} photographs: there is nothing to learn")
    held = torch.arange(len(images)) % _HELD_OUT == 0
    network = open_network(EMBEDDED)
    before, _ = agreement_of(network, images[held], maps[held])
    examples = Examples(images[~held], maps[~held], torch.ones(int((~held).sum())))
    schedule = Schedule(steps, batch, SIDE, rate=_RATE, seed=seed)
    began = time.monotonic()
    mean = train(
        network.requires_grad_(True),
        progress.over(
            batches_of(examples, schedule), "training", steps * batch, unit="view", count=lambda views: len(views[0])
        ),
        schedule,
        device=place,
    )
    seconds = time.monotonic() - began
    agreement, network_ms = agreement_of(mean.cpu(), images[held], maps[held])
    notes = {"teacher": _named(teacher, masks), "photographs": str(len(examples)), "steps": str(steps)}
    write_whole(target, lambda file: file.write(to_file(mean, notes)))
    return Distilled(
        target, len(examples), int(held.sum()), agreement, before, teacher_ms, network_ms, seconds, photographs.skipped
    )


def to_file(network: SaliencyNetwork, notes: Mapping[str, str]) -> bytes:
    """The network as a safetensors file in half precision.

    Args:
        network: Its weights are read.
        notes: Go into the file's header, with this package's version.
    """
    halves = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    # One entry: safetensors writes several in any order.
    about = json.dumps({"format": "sgdmix saliency network", "version": __version__, **notes})
    content: bytes = save(halves, {"about": about})
    return content


def _checked_out(out: str | os.PathLike[str], data: str | os.PathLike[str] | None, overwrite: bool) -> Path:
    check_switch(overwrite=overwrite)
    target = local_output(out, file=True)
    if target.is_dir():
        raise DataError(f"expected the name of a file to write, {target} is a folder")
    if target.suffix != ".safetensors":
        raise InvalidInputError(f"expected the name of a .safetensors file to write, got {str(out)!r}")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; replace it with overwrite=True, --overwrite on the command line")
    check_apart(target, data)
    return target


def _read(source: Source, progress: Progress) -> Sample:
    """Photographs with their labels, files and true masks, where there are any."""
    sampler, total = Sampler(source, _KEPT), len(source.items)
    sampler.read(progress.over(range(total), "reading", total), total)
    found = len(sampler.rows)
    if found < _LEAST:
        why = "".join(f" ({key}: {reason})" for key, reason in list(sampler.skipped.items())[:1])
        raise DataError(f"expected {_LEAST} readable photographs or more, found {found} in {source.name}{why}")
    return sampler.sample(found, found)


def _taught(teacher: MapSource, photographs: Sample, progress: Progress) -> tuple[Tensor, float]:
    """The teacher's maps (N, S, S) in 256 steps, and the milliseconds of one."""
    images, labels, files = photographs.images, photographs.labels, photographs.files
    maps, taken = [], []
    parts = [slice(first, first + _PART) for first in range(0, len(images), _PART)]
    for part in progress.over(parts, "teacher", len(images), count=lambda part: len(images[part])):
        found, each = teacher.timed(
            images[part], None if labels is None else labels[part], None if files is None else files[part]
        )
        maps.append((resize_maps(found, images.shape[-2:]) * 255).round().to(torch.uint8))
        taken.append(each)
    return torch.cat(maps), statistics.median(taken)


def agreement_of(network: SaliencyNetwork, images: Tensor, maps: Tensor) -> tuple[float, float]:
    """How far a network agrees with a teacher, and what it costs.

    Args:
        network: In evaluation mode, on the CPU.
        images: (N, 3, S, S) uint8.
        maps: (N, S, S) uint8, the teacher's.

    Returns:
        The mean intersection over union of both masks (Otsu), and the milliseconds of one of the network's maps.
    """
    student = SalientObject.of(network)
    found, milliseconds = MapSource(student).timed(images, None, None)
    ours, theirs = otsu(found, images).masks, otsu(maps / 255, images).masks
    iou = held_share(ours & theirs, ours | theirs)
    return float(iou.nan_to_num(1.0).mean()), milliseconds  # where neither sees a thing they agree


def _named(teacher: Any, masks: str | os.PathLike[str] | None) -> str:
    if teacher is None:
        return "masks" if masks is not None else "true masks"
    return teacher if isinstance(teacher, str) else type(teacher).__name__
