"""What a tensor must be before the stages work on it: one check, of what is known without reading a number."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_sequence, said
from sgdmix_albu.errors import InvalidInputError

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
INTEGERS = frozenset(
    {torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64}
)
BOOL = frozenset({torch.bool})
BYTES = frozenset({torch.uint8})
NUMBERS = FLOATS | INTEGERS
PIXELS = NUMBERS | BOOL  # what an image or a mask may be made of


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the host does not wait for a GPU to take it, nor for what the GPU was at.

    Example:
        >>> sent(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if tensor.device.type != "cpu" or device.type != "cuda":
        return tensor.to(device)
    # From other memory than pinned the copy is made by the host, which comes back when it is done.
    return (tensor.pin_memory() if torch.cuda.is_available() else tensor).to(device, non_blocking=True)


def check_tensor(
    value: Any, expected: str, shape: tuple[int | None, ...], dtypes: Collection[torch.dtype], *, more: bool = False
) -> None:
    """Refuse all but a tensor of this shape and one of these dtypes that lies in memory, whole.

    Complex numbers, those of 8 bits with a point, quantized ones, sparse and nested tensors, and tensors of the meta
    device are never what a stage can work on.

    Args:
        value: What came.
        expected: What it must be, in words: "(B, h, w) float saliency maps".
        shape: The length of each axis; None for any from 1 on, -1 for any.
        dtypes: One of the sets above.
        more: Whether there may be further axes of any length between the first and the others.

    Raises:
        InvalidInputError: What was expected and what came.

    Example:
        >>> check_tensor(torch.zeros(2, 3), "(B, H, W) bool masks", (-1, None, None), BOOL)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: expected (B, H, W) bool masks, got torch.float32 (2, 3)
    """
    if not isinstance(value, Tensor):
        raise InvalidInputError(f"expected {expected}, got {_kind(value)}")
    if value.is_nested or value.layout != torch.strided or value.device.type == "meta":
        came = "nested" if value.is_nested else value.layout if value.layout != torch.strided else "meta"
        raise InvalidInputError(f"expected {expected} as a tensor in memory, got a {came} one")
    if value.dtype not in dtypes or not _fits(value.shape, shape, more):
        raise InvalidInputError(f"expected {expected}, got {value.dtype} {tuple(value.shape)}")


def check_images(images: Any, what_for: str) -> None:
    """Refuse all but (B, 3, H, W) images, uint8, or float in [0, 1]; the numbers of floats are read.

    Raises:
        InvalidInputError: What was expected, ``what_for``, and what came.

    Example:
        >>> check_images(torch.ones(2, 3, 4, 4) * 255, "to refine")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: expected float images in [0, 1] to refine, got values from 255 to 255
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InvalidInputError(f"expected (B, 3, H, W) images {what_for}, got {came}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise InvalidInputError(f"expected uint8 or float images {what_for}, got {images.dtype}")
    if images.dtype.is_floating_point and images.numel():
        low, high = (float(end) for end in torch.aminmax(images))
        if not (low >= 0 and high <= 1):
            raise InvalidInputError(f"expected float images in [0, 1] {what_for}, got values from {low:g} to {high:g}")


def check_rows(pool: Any, images: Tensor, rows: Iterable[int] | None) -> None:
    """Refuse a pool to gather from that does not hold images of the shape and dtype of ``images``.

    Args:
        pool: What came: an (N, ...) tensor, or a sequence of N tensors.
        images: (B, ...), checked before.
        rows: Those of a sequence that are looked at; None for all.
    """
    shape = tuple(images.shape[1:])
    expected = f"a pool of {images.dtype} {shape} images"
    if isinstance(pool, Tensor):
        check_tensor(pool, expected, (-1,), PIXELS, more=True)
        rows = range(min(1, len(pool)))
    else:
        check_sequence(pool, expected)
    for row in range(len(pool)) if rows is None else rows:
        check_tensor(pool[row], expected, shape, {images.dtype})


def check_generator(generator: Any) -> None:
    """Refuse what is neither a generator of random numbers nor None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InvalidInputError(f"generator must be a torch.Generator or None, got {said(generator)}")


def _fits(came: torch.Size, shape: tuple[int | None, ...], more: bool) -> bool:
    further = len(came) - len(shape)
    if further < 0 or (further and not more):
        return False
    for axis, wanted in enumerate(shape):
        length = came[axis + further if axis else 0]
        if length == 0 if wanted is None else wanted not in (-1, length):
            return False
    return True


def _kind(value: Any) -> str:
    """An array's dtype and shape as well, since that is what may be mended by ``torch.from_numpy``."""
    name = type(value).__name__
    return f"{name} of {said(value)}" if isinstance(getattr(value, "shape", None), tuple) and value.shape else name
