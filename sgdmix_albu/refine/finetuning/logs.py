"""The loss for TensorBoard, in a file that does not tell where it was made: TensorBoard's own name the machine."""

from __future__ import annotations

import time
from pathlib import Path

from sgdmix_albu.io.files import refusals_named
from sgdmix_albu.registry import import_optional


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
