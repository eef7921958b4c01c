"""Rules for every test and every example of the documentation: seeded, offline, warnings are errors.

The Python blocks of README.md and docs/**/*.md are collected by sybil, in order and one namespace a page;
docstring examples by pytest's own ``--doctest-modules``.
"""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything that reads them is imported. Child processes inherit them: the proxy that is not there keeps
# them offline too.
os.environ.update(
    NO_ALBUMENTATIONS_UPDATE="1",  # albumentations asks the package index for its newest version on import
    HF_HUB_OFFLINE="1",
    http_proxy="http://127.0.0.1:9",
    https_proxy="http://127.0.0.1:9",
)

import numpy as np
import pytest
import torch
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from sgdmix_albu.mixing.masks import _PRESETS
from sgdmix_albu.saliency.catalogue import BACKENDS

REGISTRIES = (BACKENDS, _PRESETS)

# Pages about packages that `make test-ecosystem` has in an environment of its own; warnings there are those packages'.
ELSEWHERE = {"dali.md": "nvidia.dali", "fastai.md": "fastai", "ultralytics.md": "ultralytics"}
# webdataset leaves its shards to the garbage collector.
LEFT_OPEN = ("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

settings.register_profile("sgdmix", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("sgdmix")

# Small tensors: more threads wait for each other, and so do those of two test processes on one core.
# `make test-cpus` says how many there are.
if "OMP_NUM_THREADS" not in os.environ:
    _PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, torch.get_num_threads() // _PROCESSES)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every global random source starts from the same state."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  albumentations and scikit-image still read numpy's global state
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Names that a test or docstring registers are gone after it."""
    before = _rows()
    yield
    _restore(before)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine is an error."""
    connect = socket.socket.connect

    def connect_to_this_machine(self: socket.socket, address: Any) -> None:
        if (
            self.family != socket.AF_UNIX
            and not address[0].startswith("127.")
            and address[0] not in {"::1", "localhost"}
        ):
            raise RuntimeError(f"tests stay offline; this one tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_this_machine)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pages about other packages: skipped where the package is not; its own warnings are no errors."""
    for item in items:
        package = ELSEWHERE.get(item.path.name)
        if package is not None:
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not all(importlib.util.find_spec(name) for name in (package.partition(".")[0], package)):
                item.add_marker(pytest.mark.skip(reason=f"{package} is not installed; see make test-ecosystem"))
        elif item.path.name == "webdataset.md":
            item.add_marker(pytest.mark.filterwarnings(*LEFT_OPEN))


def _rows() -> list[dict[str, Any]]:
    return [dict(registry._rows) for registry in REGISTRIES]


def _restore(rows: list[dict[str, Any]]) -> None:
    for registry, before in zip(REGISTRIES, rows, strict=True):
        registry._rows.clear()
        registry._rows.update(before)


def _open_page(namespace: dict[str, Any]) -> None:
    """A page's examples may write files and register names; both are gone after it."""
    namespace["_home"], namespace["_folder"] = Path.cwd(), tempfile.TemporaryDirectory()
    namespace["_rows"] = _rows()
    namespace["__name__"] = "__main__"  # a block's guard opens, as in a script
    os.chdir(namespace["_folder"].name)


def _close_page(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()
    _restore(namespace["_rows"])
    if "accelerate" in sys.modules:  # the next page's Accelerator may want another precision
        sys.modules["accelerate"].state.AcceleratorState._reset_state()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    fixtures=["seeded", "offline"],
    setup=_open_page,
    teardown=_close_page,
).pytest()
