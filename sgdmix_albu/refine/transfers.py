"""What diffusers and peft do at each step, without the waits for a GPU that are of no use to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sgdmix_albu.tensors import sent


class Unblocked(TorchFunctionMode):
    """Within it what goes from the CPU to a GPU does not wait, nor does the solution of a few equations.

    Schedulers draw the noise of their steps from the seeds' generators, which are the CPU's so that a seed means the
    same everywhere, and move it over with a plain ``to``. UniPC's equations have a solution; whether they do would be
    read.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.to and len(args) == 2 and not kwargs and isinstance(args[1], torch.device | str):
            return sent(args[0], torch.device(args[1]))
        if func is torch.linalg.solve and len(args) == 2 and not kwargs:
            return torch.linalg.solve_ex(*args).result
        return func(*args, **(kwargs or {}))
