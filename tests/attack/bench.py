"""What campaigns work with: small sets, commands on them, and what those give when nobody disturbs them."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.expand_helpers import write_tree

from .command import Command, Ended

__all__ = ["TASKS", "Bench", "Task"]

_BACKEND = "spectral_residual"


@dataclass(frozen=True)
class Task:
    """A command that writes a folder.

    Attributes:
        name: What it is called here.
        words: Its arguments, with DATA, REFINER and OUT to fill in.
        module: What is run.
        workers: Whether it has other processes.
        weight: How often it is chosen.
    """

    name: str
    words: str
    module: str = "sgdmix_albu"
    workers: bool = False
    weight: int = 1

    def command(self, bench: Bench, out: Path, *more: str, fresh: bool = False) -> Command:
        """The command that writes ``out``."""
        places: dict[str, Callable[[], Path]] = {
            "DATA": lambda: bench.data,
            "REFINER": lambda: bench.refiner,
            "OUT": lambda: out,
        }
        words = [str(places[word]()) if word in places else word for word in self.words.split()]
        return Command((*words, *more), self.module, fresh)


_MIXED = f"--saliency {_BACKEND} --mask otsu"
_GENERATE = f"generate DATA OUT {_MIXED} --workers 2"
TASKS = (
    # Three chunks of 32 images, and two shards of 512.
    Task("threads", f"{_GENERATE} --refiner none --multiplier 8", weight=8),
    Task("shards", f"{_GENERATE} --refiner none --multiplier 44 --shards", weight=4),
    Task("processes", f"{_GENERATE} --refiner REFINER --device cpu --multiplier 4", workers=True, weight=3),
    Task("ray", f"{_GENERATE} --refiner none --multiplier 8 --engine ray", workers=True),
    Task("mix", f"mix DATA OUT {_MIXED} --workers 2", weight=4),
    Task("bank", f"DATA OUT {_BACKEND}", module="tests.attack.build", weight=4),
)


class Bench:
    """A folder for everything, and in it what several runs need, made when it is first asked for.

    Args:
        root: The folder.
        short: Leave out tasks with workers, whose processes take long to start.

    Attributes:
        tasks: What may be chosen.
    """

    def __init__(self, root: Path, *, short: bool = False) -> None:
        self.root = root
        self.tasks = [task for task in TASKS if not (short and task.workers)]
        self.notes = root / "notes"
        self.notes.mkdir(parents=True)
        self._numbers = itertools.count()
        self._undisturbed: dict[str, tuple[Path, float]] = {}

    @property
    def data(self) -> Path:
        """Three classes of four images."""
        folder = self.root / "data"
        if not folder.exists():
            write_tree(folder, classes=3, images=4)
        return folder

    @property
    def refiner(self) -> Path:
        """A refiner of a few thousand random weights."""
        folder = self.root / "refiner"
        if not folder.exists():
            made = Command((str(folder), *sorted(path.name for path in self.data.iterdir())), "tests.attack.refiner")
            self.check(made.run(self.notes))
        return folder

    def folder(self) -> Path:
        """A name for a new folder."""
        return self.root / f"run-{next(self._numbers)}"

    def copy(self, folder: Path) -> Path:
        """A new folder with what is in another."""
        return Path(shutil.copytree(folder, self.folder(), symlinks=True))

    def undisturbed(self, task: Task) -> tuple[Path, float]:
        """What a task writes when nobody disturbs it, and the seconds that it takes."""
        if task.name not in self._undisturbed:
            out = self.root / f"undisturbed-{task.name}"
            ended = task.command(self, out).run(self.notes, limit=300)
            self.check(ended)
            self._undisturbed[task.name] = out, ended.seconds
        return self._undisturbed[task.name]

    def interrupted(self, task: Task) -> Path:
        """What a task leaves when it is killed while it writes images."""
        out = self.root / f"interrupted-{task.name}"
        if not out.exists():
            running = task.command(self, out).start(self.notes)
            while running.pause(0.01) and not any(out.glob("[!.]*")):
                pass
            running.signal(signal.SIGKILL)
            running.wait(0)
        return out

    def check(self, ended: Ended) -> None:
        """Nothing can be compared with a run that failed by itself."""
        if ended.code:
            raise RuntimeError(f"{ended.command} ended with {ended.code}: {ended.err}")

    def forget(self, folder: Path) -> None:
        """Remove a run's folder."""
        shutil.rmtree(folder, ignore_errors=True)
