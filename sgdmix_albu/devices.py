"""Which devices this machine has, asked of torch: CUDA and ROCm, Apple's ``mps``, Intel's ``xpu``, and others.

What only CUDA can tell, such as how much memory a batch took, is asked of CUDA alone; the others work without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError

T = TypeVar("T")

CPU = torch.device("cpu")
_FAST_IN_HALF = ("cuda", "xpu")  # float16 on mps was never measured: single precision, unless a user says otherwise


def accelerator() -> str | None:
    """The kind of accelerator that this machine has: "cuda", "mps", "xpu", ...; None for none."""
    if torch.cuda.is_available():
        return "cuda"
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def count_of(kind: str) -> int:
    """How many devices of an accelerator's kind there are.

    Example:
        >>> count_of("cpu")
        1
    """
    if kind in ("cpu", "cuda"):
        return 1 if kind == "cpu" else torch.cuda.device_count()
    return torch.accelerator.device_count() if kind == accelerator() else 0


def working_device(name: torch.device | str | None) -> torch.device:
    """The device that is named; the accelerator if there is one where none is. It need not be there.

    Raises:
        InvalidInputError: No device has such a name.

    Example:
        >>> working_device("cpu")
        device(type='cpu')
    """
    if name is None:
        return torch.device(accelerator() or "cpu")
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"expected a device such as 'cpu', 'cuda' or 'mps', got {said(name)}") from error


def present_device(name: torch.device | str | None) -> torch.device:
    """As :func:`working_device`, and it is there.

    Raises:
        InvalidInputError: No device has such a name, or this machine has none such.
    """
    device = working_device(name)
    if not (device.index or 0) < count_of(device.type):
        kind = accelerator()
        there = ["cpu", *(f"{kind}:{number}" for number in range(count_of(kind) if kind else 0))]
        raise InvalidInputError(f"device must be one that this machine has ({', '.join(there)}), got {str(device)!r}")
    return device


@lru_cache(maxsize=16)
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, as exact sums of pixels need it: Apple's do not, nor do all of Intel's.

    Example:
        >>> has_float64(CPU)
        True
    """
    if device.type in ("cpu", "cuda"):
        return True
    try:
        return bool((torch.ones(1, dtype=torch.float64, device=device) + 1).cpu() == 2)
    except Exception:  # each says it in its own way
        return False


def exact_device(device: torch.device) -> torch.device:
    """Where what lies on a device is computed in float64: there, or on the CPU."""
    return device if has_float64(device) else CPU


def exact(value: T) -> T:
    """A tensor as it is where it lies, or on the CPU where its device has no float64; anything else as it is."""
    if isinstance(value, Tensor) and not has_float64(value.device):
        return value.cpu()  # type: ignore[return-value]
    return value


def best_dtype(device: torch.device) -> torch.dtype:
    """Half precision of the weights where it is known to be faster, single elsewhere."""
    return torch.float16 if device.type in _FAST_IN_HALF else torch.float32


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory but does not use."""
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "empty_cache"):
        module.empty_cache()


@contextlib.contextmanager
def random_kept(device: torch.device) -> Iterator[None]:
    """Random numbers of the CPU, and of a device that is there, go on afterwards as if none had been drawn."""
    kind = device.type if device.type == accelerator() else "cpu"
    several = kind in ("cuda", "xpu")
    with torch.random.fork_rng(devices=[device] if several else [], device_type=kind if several else "cuda"):
        state = torch.mps.get_rng_state() if kind == "mps" else None
        try:
            yield
        finally:
            if state is not None:
                torch.mps.set_rng_state(state)


def current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make a device of CUDA, of which there may be several, the current one; the others need no such thing."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
