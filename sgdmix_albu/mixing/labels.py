"""The class of each image, read the same way by both transforms and the refiner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_count
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.tensors import PIXELS, check_tensor

__all__ = ["class_ids"]

# By which a row of probabilities may miss 1: label smoothing over 1000 classes in bfloat16 misses it by less.
_ROUNDING = 0.02


def class_ids(labels: Any, count: int | None, *, name: str = "labels") -> Tensor:
    """The class of each image, from labels in any usual form.

    Args:
        labels: A tensor, a list or tuple, or a numpy array. Class numbers from 0 on, (B,): integers, or floats that
            are whole numbers. Or (B, K), K > 1: one-hot rows or class probabilities, each row summing to 1; its
            greatest entry is the class, of equal ones the first.
        count: B, the number of images; None for as many as there are labels.
        name: What the error calls them.

    Returns:
        (B,) int64, on the labels' device.

    Raises:
        InvalidInputError: Anything else: another number of labels, a column (B, 1), rows that are no probabilities
            (several classes at once, no class, boxes), negative or broken numbers, names.

    Example:
        >>> class_ids([3, 1], 2), class_ids([[0.1, 0.9], [1.0, 0.0]], 2)
        (tensor([3, 1]), tensor([1, 0]))
        >>> class_ids([[1, 1, 0]], 1)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: expected labels with one class for each image, but row(s) [0] of the ...
    """
    if count is not None:
        check_count("count", count, "must be a number of images, 0 or more", least=0)
    found = _as_tensor(labels, name)
    shape = tuple(found.shape)
    if found.ndim not in (1, 2) or shape[0] != (shape[0] if count is None else count):
        raise InvalidInputError(
            f"Expected {name} of shape (batch_size,) or (batch_size, num_classes)"
            f"{'' if count is None else f' with batch_size {count}'}, but got {shape}."
        )
    return _numbers(found, name) if found.ndim == 1 else _likeliest(found, name)


def _as_tensor(labels: Any, name: str) -> Tensor:
    expected = f"{name} as class numbers (B,) or class probabilities (B, K)"
    if isinstance(labels, Tensor):
        check_tensor(labels, expected, (), PIXELS, more=True)
    try:
        if isinstance(labels, list | tuple) and labels and hasattr(labels[0], "shape"):
            found = torch.stack([torch.as_tensor(label) for label in labels])
        else:
            found = torch.as_tensor(labels.copy() if _not_to_be_shared(labels) else labels)
    except (TypeError, ValueError, RuntimeError, OverflowError, IndexError) as error:
        kind = type(labels[0] if isinstance(labels, list | tuple) and labels else labels).__name__
        came = type(labels).__name__
        raise InvalidInputError(f"expected {expected}, got {came} with {kind}: {error}") from None
    found = found.detach().as_subclass(Tensor)
    check_tensor(found, expected, (), PIXELS, more=True)
    return found


def _not_to_be_shared(labels: Any) -> bool:
    """Whether these are an array of which torch takes no view, turned round or not to be written."""
    flags = getattr(labels, "flags", None)
    return flags is not None and (not flags.writeable or min(labels.strides, default=0) < 0)


def _numbers(found: Tensor, name: str) -> Tensor:
    if found.dtype == torch.bool:
        raise InvalidInputError(f"expected {name} as class numbers, got torch.bool; if they are 0 and 1, use .long()")
    if found.dtype.is_floating_point:
        words = f"expected {name} as class numbers, got {found.dtype} that are not whole numbers"
        refuse_if((found != found.round()) | ~(found.abs() < 2**53), lambda: InvalidInputError(words))
    ids = found.to(torch.int64)
    least = f"expected {name} as class numbers from 0 on, got"
    refuse_if(ids < 0, lambda: InvalidInputError(f"{least} {int(ids.min())}"))
    return ids


def _likeliest(found: Tensor, name: str) -> Tensor:
    if found.shape[1] == 1:
        raise InvalidInputError(
            f"expected {name} of shape (batch_size,) or (batch_size, num_classes), got {tuple(found.shape)}; "
            "if these are class numbers, use .squeeze(1)"
        )
    rows = found.double()
    fits = (rows >= 0).all(1) & ((rows.sum(1) - 1).abs() <= _ROUNDING)  # NaN fails
    refuse_if(~fits, lambda: _no_probabilities(found, ~fits, name))
    return rows.argmax(1)


def _no_probabilities(found: Tensor, wrong: Tensor, name: str) -> InvalidInputError:
    places = wrong.nonzero()[:, 0].tolist()
    first = ", ".join(f"{value:g}" for value in found[places[0]][:6].tolist())
    return InvalidInputError(
        f"expected {name} with one class for each image, but row(s) {places[:8]} of the {tuple(found.shape)} "
        f"{found.dtype} are no class probabilities (they must be 0 or more and sum to 1); row {places[0]} begins "
        f"with {first}. Labels of several classes at once, of none, and boxes do not say which class is meant"
    )
