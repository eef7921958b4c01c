"""``python -m tests.attack.refiner OUT CLASS...``: a tiny refiner and its base, beside it.

In a process of its own, since torch starts threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.tiny_diffusion import tiny_base, tiny_refiner

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny_refiner(folder, tiny_base(folder.with_name("base")), tuple(sys.argv[2:]))
