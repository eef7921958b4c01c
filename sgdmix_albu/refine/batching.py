"""How many images at once: as many as the free memory holds, and half of that when it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from sgdmix_albu.devices import release_memory
from sgdmix_albu.errors import DataError

_Result = TypeVar("_Result")

_MOST = 64
_SHARE = 0.8  # of the free memory that may be used
# On a CPU a batch saves only the overhead of each call, which larger pictures do not notice. Devices that do not tell
# what a batch took (Apple's, Intel's) work on as many: one image of Stable Diffusion's size, which fits.
_PIXELS = 16 * 64 * 64
_FULL = ("out of memory", "can't allocate memory")


def in_batches(
    run: Callable[[list[int]], _Result],
    rows: Sequence[int],
    *,
    size: int | None,
    device: torch.device,
    pixels: int,
    known: dict[int, int],
) -> Iterator[tuple[list[int], _Result]]:
    """Call ``run`` on parts of the rows, in order.

    Args:
        run: Does the work on some rows.
        rows: All of them.
        size: Rows of one part; None to find out: with CUDA the first row runs alone and its memory is
            measured. The model must be loaded by then.
        device: Where the work is done.
        pixels: Of one image.
        known: Bytes that one image takes, by its pixels, as measured by earlier calls; filled in.

    Yields:
        The rows of each part and its result. When memory runs out the parts are halved from there on.

    Raises:
        DataError: Memory does not even hold one row.
    """
    waiting = list(rows)
    measured = size is None and device.type == "cuda"
    probing = measured and pixels not in known
    if size is not None:
        count = size
    elif measured:
        count = 1 if probing else _fitting(device, known[pixels])
    else:
        count = max(1, _PIXELS // pixels)
    while waiting:
        part = waiting[:count]
        before = _before(device) if probing else 0
        result, reason = _tried(run, part)
        if reason is not None:
            if len(part) == 1:
                raise DataError(f"{device} has no memory for one image; pass a smaller base or dtype ({reason})")
            count = len(part) // 2
            release_memory(device)
            continue
        if probing:
            probing = False
            known[pixels] = max(1, torch.cuda.max_memory_allocated(device) - before)
            count = _fitting(device, known[pixels])
        waiting = waiting[len(part) :]
        yield part, result  # type: ignore[misc]  # there is a result where there is no reason


def _tried(run: Callable[[list[int]], _Result], part: list[int]) -> tuple[_Result | None, str | None]:
    """The result, or why memory ran out. The error's traceback, which holds the activations, is gone on return."""
    try:
        return run(part), None
    except RuntimeError as error:  # of which torch's of a GPU that is full is one
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in _FULL):
            raise
        return None, str(error).partition("\n")[0]


def _before(device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _fitting(device: torch.device, cost: int) -> int:
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    return max(1, min(_MOST, int(_SHARE * free / cost)))
