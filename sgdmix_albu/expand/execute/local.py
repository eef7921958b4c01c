"""Who does the work: this process, several of this machine or a Ray cluster. All give the same results.

An engine is given how to make a worker and what to give it. A worker is made once for each process, since it may
load a model; results come as they are ready, in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from sgdmix_albu.expand.execute.pools import Processes, Threads, Workers
from sgdmix_albu.io.interrupts import Interrupts
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.threads import one_thread_each

T = TypeVar("T")
R = TypeVar("R")

_POLL = 0.1  # seconds between two looks whether Ctrl-C was pressed


class Engine(Protocol):
    """Does work."""

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Generator[R, None, None]:
        """A result for each item, in any order.

        Args:
            make: Makes a worker; picklable.
            items: What the workers are given; picklable.

        Raises:
            SGDMixError: A worker's error, or one line on how a worker was lost.
        """
        ...

    def on_cpus(self) -> Engine:
        """The same for work that is not for a GPU: no share of one is kept for its workers."""
        ...

    def concurrency(self) -> int:
        """How many work at once."""
        ...

    def close(self) -> None:
        """Let go of what was started for the work."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Works on this machine.

    Attributes:
        workers: How many at once.
        kind: "threads" share one worker and this process; "processes" have one each, which a model on the CPU needs
            to use several cores and still give the same bits.
        progress: Is told what is waited for after Ctrl-C; None for the log.
        gpus: GPUs of this machine, of which each process sees one and works with several threads; 0 for as many
            processes as workers, which see what this one sees.
    """

    workers: int
    kind: Literal["threads", "processes"] = "threads"
    progress: Progress | None = None
    gpus: int = 0

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Generator[R, None, None]:
        """See :meth:`Engine.run`; after Ctrl-C what is begun is finished, after a second nothing is."""
        if not items:
            return
        count = min(self.workers, len(items))
        if self.kind == "threads" or count == 1:
            with one_thread_each():
                worker = make()  # which may take long; Ctrl-C is not held back meanwhile
                yield from self._work(lambda: Threads(count, worker), items)
        else:
            yield from self._work(lambda: Processes(count, make, self.gpus), items)

    def _work(self, begin: Callable[[], Workers], items: Sequence[T]) -> Generator[R, None, None]:
        with Interrupts() as interrupts:
            workers = begin()
            try:
                yield from self._results(workers, items, interrupts)
            finally:
                self._finish(workers, interrupts)
        if interrupts.count:  # once, as late as while the workers were let go
            raise KeyboardInterrupt

    def _results(self, workers: Workers, items: Sequence[T], interrupts: Interrupts) -> Generator[R, None, None]:
        coming = iter(items)
        told = False
        while interrupts.count < 2:
            while workers.busy < self.workers and not interrupts.count:
                try:
                    workers.give(next(coming))
                except StopIteration:
                    break
            if not workers.busy:
                break
            if interrupts.count and not told:
                self._tell(workers.busy)
                told = True
            yield from workers.results(_POLL)

    def _finish(self, workers: Workers, interrupts: Interrupts) -> None:
        """What was begun is finished when one item fails, or the reader stops: it may have taken long."""
        told = interrupts.count > 0
        while workers.busy and interrupts.count < 2:
            if interrupts.count and not told:
                self._tell(workers.busy)
                told = True
            with suppress(Exception):  # the first error is on its way already
                deque(workers.results(_POLL), maxlen=0)
        workers.end(at_once=interrupts.count > 1)

    def _tell(self, busy: int) -> None:
        (self.progress or Progress()).warn(
            f"interrupted: waiting for {busy} worker{'s' if busy > 1 else ''} to finish their images; Ctrl-C again "
            "stops at once. Run the same command to resume in either case"
        )

    @property
    def spawns(self) -> bool:
        """Whether it begins processes, where there is enough to do."""
        return self.kind == "processes" and self.workers > 1

    @property
    def sharing(self) -> int:
        """Threads that share a worker."""
        return self.workers if self.kind == "threads" else 1

    def on_cpus(self) -> LocalEngine:
        """See :meth:`Engine.on_cpus`."""
        return self

    def concurrency(self) -> int:
        """See :meth:`Engine.concurrency`."""
        return self.workers

    def close(self) -> None:
        """Nothing outlives :meth:`run`."""
