"""``python -m sgdmix_albu`` is the command ``sgdmix``."""

from __future__ import annotations

import sys

from sgdmix_albu.cli import main

sys.exit(main())
