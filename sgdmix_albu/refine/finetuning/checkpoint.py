"""Where a run stands, in one safetensors file that appears whole: parameters, Adam's memory, losses, settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import write_whole
from sgdmix_albu.io.records import Kind, UnsoundError, flag, mapping, number, optional, parse, text
from sgdmix_albu.refine.finetuning.settings import Settings, differences
from sgdmix_albu.refine.tensors import read_safetensors
from sgdmix_albu.registry import import_optional

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: list[float],
    settings: Settings,
    basis: Mapping[str, str],
) -> None:
    """Write the state after ``len(losses)`` steps.

    Args:
        path: The file; the last one is replaced.
        parameters: What learns, by name.
        optimizer: AdamW over them.
        losses: Of the steps so far.
        settings: Of the run.
        basis: What else the result depends on: for each its fingerprint, by the name that errors call it.
    """
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in parameters.items():
        tensors[f"parameter:{name}"] = parameter.detach().cpu().contiguous()
        for field, value in optimizer.state[parameter].items():
            tensors[f"{field}:{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    header = {"settings": json.dumps(dataclasses.asdict(settings)), "basis": json.dumps(dict(basis))}
    save = import_optional("safetensors.torch", extra="diffusion").save
    write_whole(path, lambda out: out.write(save(tensors, header)))


def load_checkpoint(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    basis: Mapping[str, str],
) -> list[float]:
    """Put the state back; the losses so far, empty where there is no file.

    Raises:
        DataError: Damaged, or of a run with other settings, images, classes, saliency, prompt or base.
    """
    if not path.exists():
        return []
    # Parameters and Adam's two means of them, in double precision at most.
    numbers = sum(3 * value.numel() for value in parameters.values()) + settings.steps
    tensors, header = read_safetensors(path, most=8 * numbers + 2**24)
    try:
        earlier, before = (
            parse(header.get(name, "null"), mapping(kind)) for name, kind in (("settings", _setting), ("basis", text()))
        )
        differences(earlier, settings, path)
        other = [name for name in basis if before.get(name) != basis[name]]
        if other:
            raise DataError(
                f"{path} was begun with {' and '.join(f'other {name}' for name in other)}; take those again to go on, "
                "or pass --overwrite to begin afresh"
            )
        _check_tensors(tensors, parameters, settings.steps)
    except UnsoundError as error:
        raise DataError(f"{path} is damaged ({error}); delete it to begin afresh") from error
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter:{name}"])
            optimizer.state[parameter] = _memory(tensors, name, parameter)
    return [float(value) for value in tensors["losses"]]


def _setting(value: Any) -> Any:
    kind: Kind = text() if isinstance(value, str) else flag if isinstance(value, bool) else number(-1e12, 1e12)
    return optional(kind)(value)


def _check_tensors(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], steps: int) -> None:
    """Refuse what would be broadcast, lead away from any number, or go on after the end."""
    losses = tensors.get("losses")
    if losses is None or losses.ndim != 1 or len(losses) > steps:
        raise UnsoundError(f"expected the losses of {steps} steps at most")
    for name, parameter in parameters.items():
        shapes = {**dict.fromkeys(("parameter", "exp_avg", "exp_avg_sq"), parameter.shape), "step": torch.Size([])}
        for field, shape in shapes.items():
            found = tensors.get(f"{field}:{name}")
            if found is None or found.shape != shape:
                what = "nothing" if found is None else tuple(found.shape)
                raise UnsoundError(f"expected {f'{field}:{name}'!r} of shape {tuple(shape)}, got {what}")
        if tensors[f"exp_avg_sq:{name}"].min() < 0 or not 0 < tensors[f"step:{name}"] <= len(losses):
            raise UnsoundError(f"what Adam remembers of {name!r} cannot be")


def _memory(tensors: Mapping[str, Tensor], name: str, parameter: Tensor) -> dict[str, Any]:
    return {
        "step": tensors[f"step:{name}"],  # Adam keeps it on the CPU
        "exp_avg": tensors[f"exp_avg:{name}"].to(parameter.device),
        "exp_avg_sq": tensors[f"exp_avg_sq:{name}"].to(parameter.device),
    }
