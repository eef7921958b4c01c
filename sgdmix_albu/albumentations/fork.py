"""What differs between albumentations 2.0.8 and its successor albumentationsx, in one place.

Both are imported as ``albumentations``. Each calls its own hook for parameters that depend on the data:

- albumentations 2.0.8 calls ``get_params_dependent_on_data`` and draws from the transform's own ``py_random``,
  which it copies into every loader worker as it stands;
- albumentationsx (since 2.4) calls ``sample_parameters``, hands over the random streams of the call, which
  it seeds for each worker, and refuses transforms that define the old hook themselves. An inherited one is
  left alone.
"""

from __future__ import annotations

import os
import random
from types import ModuleType
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from sgdmix_albu.registry import import_optional

_BINDING = {"bboxes": "_bbox_instance_id", "keypoints": "_kp_instance_id"}
_NO_UPDATE_CHECK = "NO_ALBUMENTATIONS_UPDATE"


def _imported_quietly() -> ModuleType:
    """Albumentations 2.0.8 asks the package index for its newest version on import; not on our account."""
    before = os.environ.get(_NO_UPDATE_CHECK)
    os.environ[_NO_UPDATE_CHECK] = "1"
    try:
        return import_optional("albumentations")
    finally:
        if before is None:
            del os.environ[_NO_UPDATE_CHECK]
        else:
            os.environ[_NO_UPDATE_CHECK] = before


albumentations: Any = _imported_quietly()


class ForkHooks:
    """Leads the hooks of both forks to one method, :meth:`decide`."""

    py_random: random.Random
    _worker_seed: int | None = None
    # What albumentationsx tells handlers about frames, where there are any.
    _runtime_generated_params = frozenset({"frame_ids", "frame_id_column"})

    def decide(self, data: dict[str, Any], py_random: random.Random) -> dict[str, Any]:
        """The parameters of one call; all randomness comes from ``py_random``."""
        raise NotImplementedError

    def bound_mask(self, data: dict[str, Any]) -> bool:
        """Whether albumentationsx's ``instance_binding`` packed the instances into the channels of ``mask``.

        It binds two targets or more, and marks bound boxes and key points by a label field of its own.
        """
        boxes, points = (self._binds(target, field) for target, field in _BINDING.items())
        if data.get("mask") is None or data.get("masks") is not None or not (boxes or points):
            return False
        # With both bound a mask need not be, and may be a semantic one: instances have a channel each.
        return not (boxes and points) or data["mask"].shape[2:] == (len(data["bboxes"]),)

    def _binds(self, target: str, field: str) -> bool:
        processor = self.get_processor(target)  # type: ignore[attr-defined]
        return processor is not None and field in (processor.params.label_fields or ())

    def framed_masks(self) -> list[str]:
        """Masks that albumentationsx's ``frame_binding`` gathered from the annotations of single frames."""
        invocation = getattr(albumentations.core, "invocation", None)
        call = None if invocation is None else invocation.get_current_invocation()
        state = None if call is None else call.frame_state
        return list(state.rows) if state is not None and state.frames else []

    def sample_parameters(self, params: Any, data: dict[str, Any], targets: Any, sampling: Any) -> Any:
        """The hook of albumentationsx."""
        return albumentations.SampledParams(params=self.decide(data, sampling.py_random))

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The hook of albumentations 2.0.8."""
        return self.decide(data, self.py_random)

    def should_apply(self, force_apply: bool = False) -> bool:
        """Albumentations 2.0.8 asks this at the start of a call; albumentationsx never does.

        Workers would all draw alike, in every epoch anew: so the first call in a worker mixes in the seed
        that the loader gave it.
        """
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            stream = hash((self.py_random.getrandbits(62), worker.seed)) % 2**63
            self.set_random_state(np.random.default_rng(stream), random.Random(stream))  # type: ignore[attr-defined]
            self._worker_seed = worker.seed
        return bool(super().should_apply(force_apply=force_apply))  # type: ignore[misc]
