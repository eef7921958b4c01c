"""The Ray engine: pools of actors under Ray Data, on this machine or a cluster.

Ray Data streams the items through a pool of actors, holds back what the reader has not taken, gives each actor its
share of a GPU, restarts actors and repeats what was lost with a node. Repeating is safe: a chunk's files are the same
whoever makes them.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.expand.execute.reaper import Reaper
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.registry import import_optional

T = TypeVar("T")
R = TypeVar("R")

_BLOCKS = 10_000  # of items, each the smallest thing that Ray repeats; it does not manage many more with ease


class RayEngine:
    """Works on a Ray cluster; see :class:`sgdmix_albu.expand.execute.local.Engine`.

    Args:
        workers: Actors, each with one CPU; None for as many as the cluster has CPUs, or GPU shares.
        gpus: Share of a GPU that each actor gets: 1, 0.5, ...; 0 for none, None for 1 where the cluster has any.
        address: Of a running cluster ("auto", "ray://host:10001"); None starts one on this machine, unless this
            process has joined one already.
        progress: Is told what is waited for after Ctrl-C; None for the log.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        gpus: float | None = 0,
        address: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.workers, self.gpus, self.address, self.progress = workers, gpus, address, progress or Progress()
        self._joined: Any = None
        self._reaper: Reaper | None = None
        self._actors = 1

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Generator[R, None, None]:
        """See :meth:`Engine.run`."""
        if not items:
            return
        ray = self._join()
        data: Any = import_optional("ray.data", extra="ray")
        _quiet(data)
        self._actors, gpus = self._room(ray, len(items))
        rows = [{"item": pickle.dumps(item)} for item in items]
        results = data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(make),),
            compute=data.ActorPoolStrategy(size=self._actors),
            batch_size=1,
            num_cpus=1,
            num_gpus=gpus,
        )
        try:
            for row in results.iter_rows():
                yield _result(row["result"])
        except KeyboardInterrupt:
            self.progress.warn(
                "interrupted: leaving the cluster, which drops unfinished work; Ctrl-C again stops at "
                "once. Run the same command to resume in either case"
            )
            raise
        except SGDMixError:
            raise
        except Exception as error:  # Ray has an error of its own for every way to lose a worker
            raise SGDMixError(f"Ray gave up: {_cause(error)}; run the same command to resume") from error

    def on_cpus(self) -> RayEngine:
        """See :meth:`sgdmix_albu.expand.execute.local.Engine.on_cpus`; this one joins the cluster for both."""
        self._join()
        return RayEngine(self.workers, gpus=0, address=self.address, progress=self.progress)

    def concurrency(self) -> int:
        """See :meth:`sgdmix_albu.expand.execute.local.Engine.concurrency`; known once it has run."""
        return self._actors

    def close(self) -> None:
        """Leave the cluster, which ends where it was started here."""
        if self._joined is not None:
            self._joined.shutdown()
            self._joined = None
        if self._reaper is not None:
            self._reaper.end()
            self._reaper = None

    def _join(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core writes to our terminal otherwise
        ray: Any = import_optional("ray", extra="ray")
        if ray.is_initialized():
            return ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            # Bound to this machine: nobody else's business, and no port open to the network.
            options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            self._reaper = Reaper()
        else:
            _answers(self.address)
            options |= {"address": self.address}
        try:
            with nullcontext() if self._reaper is None else self._reaper.marking(), _own_sigterm():
                ray.init(**options)
        except Exception as error:  # of any kind: a plain one where the cluster's processes do not come up
            raise SGDMixError(
                f"cannot join a Ray cluster at {self.address or 'this machine'}: {_cause(error)}"
            ) from error
        self._joined = ray
        return ray

    def _room(self, ray: Any, items: int) -> tuple[int, float]:
        """How many actors, and the share of a GPU that each gets.

        Raises:
            SGDMixError: The cluster has no room for a single one, which Ray would wait for.
        """
        there = ray.cluster_resources()
        cpus, devices = there.get("CPU", 0), there.get("GPU", 0)
        gpus = self.gpus if self.gpus is not None else float(devices > 0)
        room = min(cpus, devices / gpus if gpus else cpus)
        if room < 1:
            raise SGDMixError(
                f"each worker asks for a CPU and {gpus:g} of a GPU, the cluster has {cpus:g} and {devices:g}"
            )
        return min(self.workers or int(room), items), gpus


class _Actor:
    """One worker process: makes its worker once. Errors travel as what they say, without Ray's own lines around it."""

    def __init__(self, make: bytes) -> None:
        import torch

        torch.set_num_threads(1)
        self._error: bytes | None = None
        try:
            self._worker = pickle.loads(make)()
        except SGDMixError as error:
            self._error = pickle.dumps(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._error is not None:
            return {"result": [self._error for _ in batch["item"]]}
        return {"result": [self._one(item) for item in batch["item"]]}

    def _one(self, item: bytes) -> bytes:
        try:
            return pickle.dumps(self._worker(pickle.loads(item)))
        except SGDMixError as error:
            return pickle.dumps(error)
        except Exception as error:  # a fault, which need not be picklable
            return pickle.dumps(SGDMixError(f"a worker failed: {type(error).__name__}: {error}"))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Whoever ends this process finds what was there: Ray's handler prints a stack trace, and ends with code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _answers(address: str) -> None:
    """Whether anybody listens there; Ray itself would try for minutes.

    Raises:
        SGDMixError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", which Ray looks up, or something for Ray to refuse
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise SGDMixError(f"cannot join a Ray cluster at {address}: {error.strerror or error}") from error


def _cause(error: BaseException) -> str:
    """What happened, without the layers that Ray wraps it in, colours and traceback."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    said = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {said[-1].strip()}" if said else type(error).__name__


def _result(packed: bytes) -> Any:
    result = pickle.loads(packed)
    if isinstance(result, SGDMixError):
        raise result
    return result


def _quiet(data: Any) -> None:
    """We report ourselves, in images."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
