"""How many images each class has in each split."""

from __future__ import annotations

SPLITS = ("train", "val", "test")
LAYOUTS = ("balanced", "long_tailed", "few_shot")


def class_counts(layout: str, split: str, classes: int, per_species: int, imbalance: float, shots: int) -> list[int]:
    """Images of each class, commonest first.

    Only training data is unbalanced; validation and test data have ``per_species`` images of every class, as the
    benchmarks for long tails and few shots do.
    """
    if split != "train" or layout == "balanced":
        return [per_species] * classes
    if layout == "few_shot":
        return [shots] * classes
    return tail_counts(classes, per_species, imbalance)


def tail_counts(classes: int, largest: float, imbalance: float) -> list[int]:
    """Images of each class of a long tail, commonest first: n_i = n * imbalance^(i / (classes - 1)), rounded down.

    The exponential decay of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.

    Example:
        >>> tail_counts(5, 100, 0.1)
        [100, 56, 31, 17, 10]
    """
    decays = (imbalance ** (i / max(classes - 1, 1)) for i in range(classes))
    # The small addition keeps a product that is whole on paper (100 * 0.1) from falling below it in floating point.
    return [int(largest * decay + 1e-9) for decay in decays]
