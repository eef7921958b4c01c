"""Where a run stands, in one safetensors file that appears whole: parameters, Adam's memory, losses, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.records import Kind, UnsoundError, flag, mapping, number, optional, parse, text
from sgdmix_albu.refine.finetuning.settings import Settings
from sgdmix_albu.refine.tensors import read_safetensors, write_safetensors

_MEANS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of a parameter, besides the number of its steps


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a run goes and comes from.

    Attributes:
        path: The file.
        parameters: What learns, by name.
        optimizer: AdamW over them.
        settings: Of the run.
        basis: What else the result depends on: for each its fingerprint, by the name that errors call it.
    """

    path: Path
    parameters: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    settings: Settings
    basis: Mapping[str, str]

    def save(self, losses: list[float]) -> None:
        """Write the state after ``len(losses)`` steps; the last file is replaced."""
        tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
        for name, parameter in self.parameters.items():
            tensors[f"parameter:{name}"] = parameter
            for field, value in self.optimizer.state[parameter].items():
                tensors[f"{field}:{name}"] = torch.as_tensor(value)
        header = {"settings": json.dumps(asdict(self.settings)), "basis": json.dumps(dict(self.basis))}
        write_safetensors(self.path, tensors, header)

    def load(self) -> list[float]:
        """Put the state back; the losses so far, empty where there is no file.

        Raises:
            DataError: Damaged, or of a run with other settings, images, classes, saliency, prompt or base.
        """
        if not self.path.exists():
            return []
        # Parameters and Adam's two means of them, in double precision at most.
        numbers = sum(3 * value.numel() for value in self.parameters.values()) + self.settings.steps
        tensors, header = read_safetensors(self.path, most=8 * numbers + 2**24)
        try:
            self._check_same(header)
            _check_tensors(tensors, self.parameters, self.settings.steps)
        except UnsoundError as error:
            raise DataError(f"{self.path} is damaged ({error}); delete it to start over") from error
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter:{name}"])
                self.optimizer.state[parameter] = {
                    "step": tensors[f"step:{name}"],  # Adam keeps it on the CPU
                    **{mean: tensors[f"{mean}:{name}"].to(parameter.device) for mean in _MEANS},
                }
        return [float(value) for value in tensors["losses"]]

    def _check_same(self, header: Mapping[str, str]) -> None:
        """Refuse a run that was begun with anything else."""
        earlier, before = (
            parse(header.get(name, "null"), mapping(kind)) for name, kind in (("settings", _setting), ("basis", text()))
        )
        now = asdict(self.settings).items()
        changed = [f"{name} was {earlier.get(name)!r}, now {one!r}" for name, one in now if earlier.get(name) != one]
        if changed:
            raise DataError(
                f"{self.path} holds an unfinished run with other settings: {'; '.join(changed)}. Use those to "
                "resume, or pass --overwrite to start over"
            )
        other = [name for name in self.basis if before.get(name) != self.basis[name]]
        if other:
            raise DataError(
                f"{self.path} was started with {' and '.join(f'other {name}' for name in other)}; use those to resume, "
                "or pass --overwrite to start over"
            )


def _setting(value: Any) -> Any:
    kind: Kind = text() if isinstance(value, str) else flag if isinstance(value, bool) else number(-1e12, 1e12)
    return optional(kind)(value)


def _check_tensors(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], steps: int) -> None:
    """Refuse what would be broadcast, lead away from any number, or go on after the end."""
    losses = tensors.get("losses")
    if losses is None or losses.ndim != 1 or len(losses) > steps:
        raise UnsoundError(f"expected the losses of {steps} steps at most")
    for name, parameter in parameters.items():
        shapes = {**dict.fromkeys(("parameter", *_MEANS), parameter.shape), "step": torch.Size([])}
        for field, shape in shapes.items():
            found = tensors.get(f"{field}:{name}")
            if found is None or found.shape != shape:
                what = "nothing" if found is None else tuple(found.shape)
                raise UnsoundError(f"expected {f'{field}:{name}'!r} of shape {tuple(shape)}, got {what}")
        if tensors[f"exp_avg_sq:{name}"].min() < 0 or not 0 < tensors[f"step:{name}"] <= len(losses):
            raise UnsoundError(f"what Adam remembers of {name!r} cannot be")
