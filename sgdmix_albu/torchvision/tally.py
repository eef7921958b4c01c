"""How many images each guard has touched, counted where the images are and read when somebody asks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.types import Guards


class Tally:
    """Sums of guards over batches; keys as in :class:`sgdmix_albu.types.Guards`."""

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._waiting: dict[torch.device, dict[str, Tensor]] = {}

    def add(self, guards: Guards) -> None:
        """Count a batch's, without waiting for a GPU."""
        device = guards.no_target.device
        if device.type == "cpu":
            self._read.update(guards.counts())
            return
        hits = {name: value.count_nonzero() for name, value in vars(guards).items()}
        before = self._waiting.get(device, {})
        self._waiting[device] = {name: before.get(name, 0) + hit for name, hit in hits.items()}

    def counts(self) -> Counter[str]:
        """What was counted so far; reads what is on a GPU."""
        for hits in self._waiting.values():
            self._read.update({name: int(hit) for name, hit in hits.items()})
        self._waiting.clear()
        return self._read

    def __getstate__(self) -> dict[str, Any]:
        # As numbers: to a spawned worker, a tensor goes by shared memory, which may be gone.
        return {"_read": Counter(self.counts()), "_waiting": {}}
