"""Which random numbers a batch is given: others in each process, worker and epoch, the same again for the same seed."""

from __future__ import annotations

import os

import torch
import torch.distributed
from torch.utils.data import get_worker_info


def own_stream(generator: torch.Generator | None, rank: int) -> torch.Generator:
    """A generator for one call, from one number of the parent stream, the rank and, if need be, the worker.

    Torch's own stream is seeded for each worker and epoch by the loader; a generator of the user's is
    copied into every worker as it stands, so there the worker's seed is added. Ranks that start from the
    same seed are told apart by their number.

    Args:
        generator: The parent; None for torch's own.
        rank: From :func:`rank_of_process`.
    """
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    worker = get_worker_info() if generator is not None else None
    stream = hash((seed, rank, worker.seed if worker else 0))
    return torch.Generator().manual_seed(stream % 2**63)


def rank_of_process(parent: int | None) -> int | None:
    """The number of this process among those that train together; None for one that knows of no others.

    The process group is asked first, since not every launcher sets ``RANK``; then the launcher's variables; then
    what the parent of a spawned worker knew.

    Args:
        parent: Which is this.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    told = (os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK"))
    return next((int(rank) for rank in told if rank.isdecimal()), parent)
