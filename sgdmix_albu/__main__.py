"""``python -m sgdmix_albu`` is the command ``sgdmix``."""

from __future__ import annotations

from sgdmix_albu.cli import run

run()
