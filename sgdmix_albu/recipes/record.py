"""The folder of a run: weights of the best epoch while it trains, the result when all is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from sgdmix_albu.classifiers import save_classifier
from sgdmix_albu.io.files import check_new, refusals_named, write_whole
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.mixing.colour import Normalization


class Record:
    """Where a run is written.

    Args:
        folder: A new or an empty folder, made if it is not there; None to write nothing.
        arch: The classifier's architecture.
        class_names: Names of its outputs.

    Raises:
        DataError: The folder holds something, or nothing can be written in it: better known now than after hours.
    """

    def __init__(self, folder: str | None, *, arch: str, class_names: Sequence[str]) -> None:
        self.folder = None if folder is None else local_output(folder)
        self._arch, self._class_names, self._kept = arch, class_names, False
        if self.folder is None:
            return
        check_new(self.folder)
        with refusals_named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def keep(self, model: nn.Module, pixels: Normalization) -> None:
        """Write the weights, and what pixels they expect, in place of those kept before."""
        if self.folder is not None:
            path = self.folder / "model.pt"
            save_classifier(path, model, arch=self._arch, class_names=self._class_names, normalization=pixels)
            self._kept = True

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, last: a run that has it is whole."""
        if self.folder is not None:
            text = json.dumps(result, indent=2)
            write_whole(self.folder / "result.json", lambda file: file.write(text.encode()))
            print(f"written: {self.folder / 'result.json'} and model.pt")

    @contextmanager
    def told_when_interrupted(self) -> Iterator[None]:
        """Ctrl-C says what there is."""
        try:
            yield
        except KeyboardInterrupt as stop:
            kept = f"{self.folder}/model.pt has the best epoch so far, there is no result.json"
            raise KeyboardInterrupt(kept if self._kept else "nothing was written") from stop
