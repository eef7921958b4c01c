"""The Ray engine on real clusters of this machine: the local engine's bytes, errors in one line, lost nodes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from expand_helpers import contents, write_tree

from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.expand import Expansion, Settings, generate
from sgdmix_albu.expand.execute.ray import RayEngine, _Actor, _result
from sgdmix_albu.io.progress import Progress

ray = pytest.importorskip("ray")

# Ray's own: it forgets to close files, and looks for a GPU by a deprecated environment variable.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SETTINGS = Settings(saliency="spectral_residual", mask="otsu", multiplier=3)


def picky() -> Any:
    """Makes a worker that refuses some items."""

    def work(item: int) -> int:
        if item < 0:
            raise DataError(f"no item {item}")
        return item

    return work


def wrong() -> Any:
    """Makes a worker with a fault of its own."""

    def work(item: int) -> int:
        raise ZeroDivisionError(f"item {item}")

    return work


class Cluster:
    """Two nodes, started as an administrator would: two raylets, with a worker pool and an object store each.

    127.0.0.1 would not do: Ray takes it for the machine's address on the network.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.2:{port}"
        self._start("127.0.0.2", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        self.add_node()

    def add_node(self) -> None:
        self._start("127.0.0.3", f"--address={self.address}")

    def kill_node(self) -> None:
        """SIGKILL of the second node's raylet; its workers end with it."""
        (raylet,) = self._processes("raylet", "--node_ip_address=127.0.0.3")
        raylet.kill()
        raylet.wait(10)

    def close(self) -> None:
        for process in self._processes(self.address.rpartition(":")[2]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self, *words: str) -> list[psutil.Process]:
        """Processes of this cluster, all of which name its port."""
        wanted = {*words, self.address.rpartition(":")[2]}
        lines = {process: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
        return [process for process, line in lines.items() if "ray" in line and all(word in line for word in wanted)]

    def _start(self, node: str, *arguments: str) -> None:
        common = [f"--node-ip-address={node}", "--num-cpus=1", "--object-store-memory=100000000"]
        # What a worker needs to unpickle this file's classes.
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        subprocess.run(
            [Path(sys.executable).with_name("ray"), "start", *arguments, *common, "--disable-usage-stats"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            timeout=90,
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        for name, value in settings.items():
            patch.setenv(name, value)
        made = Cluster(Path(folder))
        try:
            ray.init(address=made.address, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.2")
            yield made
        finally:
            ray.shutdown()
            made.close()


def test_the_local_engines_bytes(cluster: Cluster, tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=3, images=8)
    for engine in ("local", "ray"):
        generate(
            data,
            tmp_path / engine,
            settings=dataclasses.replace(SETTINGS, place="random"),
            engine=engine,  # type: ignore[arg-type]
            workers=2,
            progress=Progress(quiet=True),
        )
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert len(contents(tmp_path / "ray")) > 72


def test_errors_of_our_own_come_as_they_are(cluster: Cluster) -> None:
    with pytest.raises(DataError, match="no item -1"):
        list(RayEngine(2).run(picky, [0, -1, 1]))


def refusing() -> Any:
    raise DataError("no bank here")


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (refusing, DataError, "^no bank here$"),
        (wrong, SGDMixError, "^a worker failed: ZeroDivisionError: item 7$"),
    ],
)
def test_how_errors_travel(make: Any, kind: type[Exception], said: str) -> None:
    """What an actor sends back, without a cluster around it."""
    (sent,) = _Actor(pickle.dumps(make))({"item": [pickle.dumps(7)]})["result"]
    with pytest.raises(kind, match=said):
        _result(sent)


def test_a_node_killed_during_an_expansion(cluster: Cluster, tmp_path: Path) -> None:
    """Its chunks are made again by others: the undisturbed local run's bytes, every image once.

    Each node has one CPU, which one worker takes: both nodes are at work.
    """
    data = write_tree(tmp_path / "data", classes=3, images=14)
    settings = Settings(saliency="spectral_residual", mask="otsu", multiplier=30)
    quiet = generate(data, tmp_path / "local", settings=settings, progress=Progress(quiet=True))
    assert isinstance(quiet, Expansion)
    out, there = tmp_path / "ray", 0

    def kill_midway() -> None:
        nonlocal there
        while there < 100:
            time.sleep(0.02)
            there = sum(1 for _ in out.glob("*/*.png"))
        cluster.kill_node()
        cluster.add_node()

    killer = threading.Thread(target=kill_midway)
    killer.start()
    generate(data, out, settings=settings, engine="ray", workers=2, progress=Progress(quiet=True))
    killer.join()
    assert 100 <= there < quiet.planned
    assert contents(out) == contents(tmp_path / "local")
    rows = [json.loads(line)["file_name"] for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert len(set(rows)) == len(rows) == quiet.planned


@pytest.mark.parametrize("workers", [None, 1])
def test_more_gpus_than_there_are(cluster: Cluster, workers: int | None) -> None:
    """Ray itself would wait for them."""
    with pytest.raises(SGDMixError, match="each worker asks for a CPU and 0.5 of a GPU, the cluster has 2 and 0"):
        list(RayEngine(workers, gpus=0.5).run(picky, [1]))


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does: its own prints a stack trace
        raise ConnectionError("nobody answers")

    before = signal.getsignal(signal.SIGTERM)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(SGDMixError, match="cannot join a Ray cluster at auto: ConnectionError: nobody answers"):
        list(RayEngine(1, address="auto").run(picky, [1]))
    assert signal.getsignal(signal.SIGTERM) is before
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("", "ray://"):
            address = f"{scheme}127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(SGDMixError, match=f"cannot join a Ray cluster at {address}: Connection refused"):
                list(RayEngine(1, address=address).run(picky, [1]))
