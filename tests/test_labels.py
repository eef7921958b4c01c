"""One reading of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.labels import class_ids

CLASSES = [2, 0, 1]
ONE_HOT = F.one_hot(torch.tensor(CLASSES))
SMOOTH = 0.9 * ONE_HOT + 0.1 / 3


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor(CLASSES),
        torch.tensor(CLASSES, dtype=torch.uint8),
        torch.tensor(CLASSES, dtype=torch.int32),
        torch.tensor(CLASSES, dtype=torch.float32),
        CLASSES,
        tuple(CLASSES),
        [torch.tensor(number) for number in CLASSES],
        [np.int64(number) for number in CLASSES],
        np.array(CLASSES),
        np.array(CLASSES, dtype=np.uint16),
        ONE_HOT,
        ONE_HOT.bool(),
        ONE_HOT.float(),
        ONE_HOT.tolist(),
        SMOOTH,
        SMOOTH.half(),
        SMOOTH.bfloat16(),
        SMOOTH.numpy(),
        list(SMOOTH),
        list(SMOOTH.numpy()),
    ],
    ids=lambda labels: f"{type(labels).__name__}-{getattr(labels, 'dtype', '')}",
)
def test_every_form_says_the_same(labels) -> None:
    found = class_ids(labels, 3)
    assert found.dtype == torch.int64
    assert found.tolist() == CLASSES


def test_rounding_of_many_classes_is_forgiven() -> None:
    smooth = (0.9 * F.one_hot(torch.tensor([700]), 1000) + 0.1 / 1000).bfloat16()
    assert class_ids(smooth, 1).tolist() == [700]


@pytest.mark.parametrize("labels", [[], torch.zeros(0), torch.zeros(0, 5)])
def test_no_images_have_no_classes(labels) -> None:
    assert class_ids(labels, 0).tolist() == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3, 1), r"got \(3, 1\); if these are class numbers, use .squeeze\(1\)"),
        (torch.zeros(3, 1).long(), r"use .squeeze\(1\)"),
        (torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0]]), r"row\(s\) \[0\] .* begins with 1, 0, 1"),
        (torch.tensor([[1, 0], [0, 0], [1, 0]]), r"row\(s\) \[1\]"),
        (torch.tensor([[0.7, 0.6], [0.5, 0.5], [1, 0]]), r"row\(s\) \[0\]"),
        (torch.tensor([[1.5, -0.5]] * 3), r"row\(s\) \[0, 1, 2\]"),
        (torch.tensor([[torch.nan, 1.0]] * 3), r"row\(s\) \[0, 1, 2\]"),
        (torch.tensor([[4.0, 8, 30, 40]] * 3), r"boxes do not say"),
        (torch.tensor([0.5, 1.0, 2.0]), "not whole numbers"),
        (torch.tensor([torch.nan, 1.0, 2.0]), "not whole numbers"),
        (torch.tensor([torch.inf, 1.0, 2.0]), "not whole numbers"),
        (torch.tensor([0, -1, 2]), "from 0 on, got -1"),
        (torch.tensor([True, False, True]), "got torch.bool"),
        (torch.tensor([0, 1]), r"batch_size 3, but got \(2,\)"),
        (torch.tensor(1), r"but got \(\)"),
        (torch.zeros(3, 2, 2), r"but got \(3, 2, 2\)"),
        (torch.zeros(3, dtype=torch.complex64), "complex64"),
        (["cat", "dog", "cat"], "got list with str"),
        (np.array(["cat", "dog", "cat"]), "got ndarray"),
        ("cat", "got str"),
        (None, "got NoneType"),
        ({"a": 1}, "got dict"),
        ([[0, 1], [1]], "got list with list"),
        ([torch.zeros(2), torch.zeros(3), torch.zeros(2)], "got list with Tensor"),
    ],
)
def test_what_does_not_say_one_class_is_refused(labels, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        class_ids(labels, 3)


def test_arrays_that_were_turned_round() -> None:
    assert class_ids(np.arange(3)[::-1], 3).tolist() == [2, 1, 0]
    assert class_ids(np.eye(3)[::-1, ::-1], 3).tolist() == [0, 1, 2]


def test_arrays_that_must_not_be_written() -> None:
    labels = np.arange(3)
    labels.flags.writeable = False
    assert class_ids(labels, 3).tolist() == [0, 1, 2]  # torch would warn of sharing it


def test_the_error_uses_the_callers_name() -> None:
    with pytest.raises(InvalidInputError, match="expected classes as"):
        class_ids("x", 1, name="classes")
