"""The Ray engine: pools of actors under Ray Data, on this machine or a cluster.

Ray Data streams the items through a pool of actors, holds back what the reader has not taken, gives each actor its
share of a GPU, restarts actors and repeats what was lost with a node. Repeating is safe: a chunk's files are the same
whoever makes them.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.optional import import_optional

__all__ = ["RayEngine"]

T = TypeVar("T")
R = TypeVar("R")

_BLOCKS = 1000  # of items, each the smallest thing that Ray repeats


class RayEngine:
    """Works on a Ray cluster; see :class:`sgdmix_albu.offline.engines.Engine`.

    Args:
        workers: Actors, each with one CPU; None for as many as the cluster has CPUs, or GPU shares.
        gpus: Share of a GPU that each actor gets: 1, 0.5, ...; 0 for none.
        address: Of a running cluster ("auto", "ray://host:10001"); None starts one on this machine, unless this
            process has joined one already.
    """

    def __init__(self, workers: int | None = None, *, gpus: float = 0, address: str | None = None) -> None:
        self.workers, self.gpus, self.address = workers, gpus, address
        self._joined: Any = None

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Iterator[R]:
        """See :meth:`Engine.run`."""
        if not items:
            return
        ray = self._join()
        data: Any = import_optional("ray.data", extra="ray")
        _quiet(data)
        rows = [{"item": pickle.dumps(item)} for item in items]
        results = data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(make),),
            compute=data.ActorPoolStrategy(size=self._actors(ray, len(items))),
            batch_size=1,
            num_cpus=1,
            num_gpus=self.gpus,
        )
        try:
            for row in results.iter_rows():
                yield _result(row["result"])
        except SGDMixError:
            raise
        except Exception as error:  # Ray has an error of its own for every way to lose a worker
            first = str(error).strip().splitlines()
            raise SGDMixError(
                f"Ray gave up: {type(error).__name__}: {first[0] if first else ''}; "
                "the same command goes on from what is done"
            ) from error

    def close(self) -> None:
        """Leave the cluster, which ends where it was started here."""
        if self._joined is not None:
            self._joined.shutdown()
            self._joined = None

    def _join(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = import_optional("ray", extra="ray")
        if ray.is_initialized():
            return ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            # Bound to this machine: nobody else's business, and no port open to the network.
            options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        else:
            _answers(self.address)
            options |= {"address": self.address}
        try:
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            raise SGDMixError(f"cannot join a Ray cluster at {self.address or 'this machine'}: {error}") from error
        self._joined = ray
        return ray

    def _actors(self, ray: Any, items: int) -> int:
        if self.workers is not None:
            return min(self.workers, items)
        there = ray.cluster_resources()
        room = there.get("GPU", 0) / self.gpus if self.gpus else there.get("CPU", 1)
        if room < 1:
            raise SGDMixError(f"each worker asks for {self.gpus} of a GPU, the cluster has {there.get('GPU', 0):g}")
        return max(1, min(int(room), items))


class _Actor:
    """One worker process: makes its worker once. Errors of our own travel as what they say."""

    def __init__(self, make: bytes) -> None:
        import torch

        torch.set_num_threads(1)
        self._error: bytes | None = None
        try:
            self._worker = pickle.loads(make)()
        except SGDMixError as error:
            self._error = _packed(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._error is not None:
            return {"result": [self._error for _ in batch["item"]]}
        return {"result": [self._one(item) for item in batch["item"]]}

    def _one(self, item: bytes) -> bytes:
        try:
            return pickle.dumps(self._worker(pickle.loads(item)))
        except SGDMixError as error:
            return _packed(error)


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


def _packed(error: SGDMixError) -> bytes:
    return pickle.dumps(error)


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
