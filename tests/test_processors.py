"""What is decided about an image depends on no batch, number of threads or instruction set.

Each environment is a process of its own: the libraries look at these variables when they are loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fingerprints.py")
# Batch and environment: as it is; without vector instructions; as another processor, with more threads than cores.
ENVIRONMENTS = [
    ("32", {}),
    ("1", {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"}),
    (
        "7",
        {
            "OMP_NUM_THREADS": "3",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_CBWR": "COMPATIBLE",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
    ),
]


def test_maps_masks_targets_and_mixes_are_the_same_bytes_everywhere() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), batch], env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True
        )
        for batch, settings in ENVIRONMENTS
    ]
    first, *others = (json.loads(process.communicate()[0]) for process in running)
    assert len(first) == 20
    assert len(set(first.values())) == 20
    for (batch, settings), found in zip(ENVIRONMENTS[1:], others, strict=True):
        assert {name for name in first if found[name] != first[name]} == set(), f"batches of {batch}, {settings}"
