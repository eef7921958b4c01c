"""Arguments that several commands of this stage take, checked alike."""

from __future__ import annotations

from sgdmix_albu.arguments import check_choice, check_count

__all__ = ["check_choice", "check_counts", "check_seed"]


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None stands for a default."""
    for name, count in counts.items():
        if count is not None:
            check_count(name, count, "must be 1 or more")


def check_seed(seed: int) -> None:
    """Refuse what the plan's generator cannot count with."""
    check_count("seed", seed, "must be a number from 0 to 2**63 - 1", least=0)
