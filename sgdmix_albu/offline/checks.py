"""Arguments that several commands of this stage take, checked alike."""

from __future__ import annotations

from collections.abc import Collection

from sgdmix_albu.errors import InvalidInputError

__all__ = ["check_choice", "check_counts", "check_seed"]


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Refuse what is not among ``known``."""
    if value not in known:
        raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None stands for a default."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise InvalidInputError(f"{name} must be 1 or more, got {count!r}")


def check_seed(seed: int) -> None:
    """Refuse what the plan's generator cannot count with."""
    if not 0 <= seed < 2**63:
        raise InvalidInputError(f"seed must be a number from 0 to 2**63 - 1, got {seed!r}")
