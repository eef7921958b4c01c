"""The losses: read a few at a time, and written for TensorBoard in a file that does not tell where it was made."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import refusals_named
from sgdmix_albu.registry import import_optional

_UNREAD = 20  # steps that a GPU may be behind


class Losses:
    """The loss of each step. On a GPU they are read some steps late: whoever reads one waits for all that is before it.

    Args:
        known: Those of the steps before.
        log: Is told of each; None for none.
    """

    def __init__(self, known: Sequence[float], log: LossLog | None) -> None:
        self._known, self._log = list(known), log
        self._unread: list[Tensor] = []

    @property
    def last(self) -> str:
        """The last one that was read, in short."""
        return f"{self._known[-1]:.3f}" if self._known else ""

    def add(self, loss: Tensor) -> None:
        """The next step's, a single number.

        Raises:
            DataError: As :meth:`read`.
        """
        self._unread.append(loss)
        if loss.device.type == "cpu" or len(self._unread) == _UNREAD:
            self.read()

    def read(self) -> list[float]:
        """All of them.

        Raises:
            DataError: One is no number.
        """
        found = torch.stack(self._unread).tolist() if self._unread else []
        self._unread = []
        for loss in found:
            step = len(self._known)
            if not loss < math.inf:
                raise DataError(f"the loss is not finite any more at step {step}; pass a smaller --learning-rate")
            self._known.append(loss)
            if self._log is not None:
                self._log.add(loss, step)
        return self._known


class LossLog:
    """Losses by step.

    Args:
        folder: TensorBoard's log folder.
        step: The first step; what an earlier run wrote of it and later ones is not shown any more.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._events = import_optional("tensorboard.compat.proto.event_pb2", extra="diffusion")
        self._summaries = import_optional("tensorboard.compat.proto.summary_pb2", extra="diffusion")
        self._records = import_optional("tensorboard.summary.writer.record_writer", extra="diffusion")
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"  # TensorBoard reads files by order of their names
        begun = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=step, session_log=begun)

    def add(self, loss: float, step: int) -> None:
        """Note the loss of a step."""
        value = self._summaries.Summary.Value(tag="loss", simple_value=loss)
        self._write(step=step, summary=self._summaries.Summary(value=[value]))

    def _write(self, **event: object) -> None:
        content = self._events.Event(wall_time=time.time(), **event).SerializeToString()
        with refusals_named(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                self._records.RecordWriter(file).write(content)
