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
from sgdmix_albu.files import write_whole
from sgdmix_albu.optional import import_optional
from sgdmix_albu.refine.finetuning.settings import Settings, differences
from sgdmix_albu.refine.lora import read_safetensors

__all__ = ["CHECKPOINT", "load_checkpoint", "save_checkpoint"]

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
    tensors, header = read_safetensors(path)
    try:
        earlier = json.loads(header["settings"])
        differences(earlier, settings, path)
        before = json.loads(header["basis"])
        other = [name for name in basis if before.get(name) != basis[name]]
        if other:
            raise DataError(
                f"{path} was begun with {' and '.join(f'other {name}' for name in other)}; take those again to go on, "
                "or pass --overwrite to begin afresh"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter:{name}"])
                optimizer.state[parameter] = _memory(tensors, name, parameter)
        return [float(value) for value in tensors["losses"]]
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error}); delete it to begin afresh") from error


def _memory(tensors: Mapping[str, Tensor], name: str, parameter: Tensor) -> dict[str, Any]:
    return {
        "step": tensors[f"step:{name}"],  # Adam keeps it on the CPU
        "exp_avg": tensors[f"exp_avg:{name}"].to(parameter.device),
        "exp_avg_sq": tensors[f"exp_avg_sq:{name}"].to(parameter.device),
    }
