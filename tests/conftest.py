"""Fixtures of the tests; see also conftest.py in the folder above."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """Photographs (``birds/``, ``objects/``) that lie beside the checkout; the test is skipped without them."""
    folder = Path(os.environ.get("SGDMIX_SHARED_DATA", repository.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set SGDMIX_SHARED_DATA to run this test")
    return folder
