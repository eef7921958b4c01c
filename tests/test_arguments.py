"""The checks of single arguments, and what they say."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from sgdmix_albu.arguments import check_choice, check_count, check_number, check_switch, check_text, finite, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.tensors import BOOL, FLOATS, PIXELS, check_rows, check_tensor


class Mute:
    """Fails when it is shown."""

    def __repr__(self) -> str:
        raise ArithmeticError


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(1), 1.0),
        (np.longdouble(0.5), 0.5),
        (Fraction(1, 2), 0.5),
        (True, None),
        (np.bool_(True), None),
        ("0.5", None),
        (None, None),
        (1j, None),
        (Decimal("0.5"), None),
        (torch.tensor(0.5), None),
        (np.array(0.5), None),
        (float("nan"), None),
        (float("inf"), None),
        (np.float64("nan"), None),
        (10**400, None),
    ],
)
def test_what_a_real_number_is(value, number) -> None:
    assert finite(value) == number
    if number is None:
        with pytest.raises(InvalidInputError, match=r"^p must lie in \[0, 1\], got "):
            check_number("p", value, "must lie in [0, 1]", low=0, high=1)
    else:
        check_number("p", value, "must lie in [0, 1]", low=0, high=1)


def test_the_ends_of_a_range() -> None:
    check_number("p", 0, "", low=0, high=1)
    for value in (0, 1.01, -1):
        with pytest.raises(InvalidInputError, match=f"got {value}"):
            check_number("p", value, "must lie in (0, 1]", low=0, high=1, open_low=True)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, -1, np.float64(2), torch.tensor(2), 1j, [1]])
def test_what_no_count_is(value) -> None:
    with pytest.raises(InvalidInputError, match="^candidates must be a positive integer, got "):
        check_count("candidates", value, "must be a positive integer")


def test_counts() -> None:
    for value in (1, np.int8(1), np.uint64(7), 2**63 - 1):
        check_count("candidates", value, "must be a positive integer")
    with pytest.raises(
        InvalidInputError, match=r"integer \(9223372036854775807 at the most\), got 9223372036854775808"
    ):
        check_count("candidates", 2**63, "must be a positive integer")


@pytest.mark.parametrize("value", [[], {}, np.array(["a", "b"]), torch.zeros(2), None, "c", Mute()])
def test_what_is_no_choice(value) -> None:
    with pytest.raises(InvalidInputError, match="^mode must be one of a, b, got "):
        check_choice("mode", value, ("a", "b"))


@pytest.mark.parametrize("value", [1, 0, None, "True", np.bool_(True), np.array([True, False])])
def test_what_is_no_switch(value) -> None:
    with pytest.raises(InvalidInputError, match="^by_pixels must be True or False, got "):
        check_switch(by_pixels=value)


@pytest.mark.parametrize("value", ["", None, 3, b"x"])
def test_what_is_no_text(value) -> None:
    with pytest.raises(InvalidInputError, match="^arch must be a string"):
        check_text(arch=value)


def test_a_value_in_a_message_is_short_and_never_fails() -> None:
    assert said("x" * 9000) == "'" + "x" * 199 + "..."
    assert said(10**5000) == "int"
    assert said(Mute()) == "Mute"
    assert said(torch.zeros(4000)) == "torch.float32 (4000,)"
    assert said(np.zeros((2, 2))) == "float64 (2, 2)"
    assert said(torch.nested.nested_tensor([torch.zeros(2)], layout=torch.jagged)).startswith("torch.float32")


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (None, "got NoneType"),
        (np.zeros((2, 3)), r"got ndarray of float64 \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.complex64), r"got torch.complex64 \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.float8_e5m2), r"got torch.float8_e5m2 \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"got torch.int64 \(2, 3\)"),
        (torch.zeros(2, 3, device="meta"), "in memory, got a meta one"),
        (torch.zeros(2, 3).to_sparse(), "in memory, got a torch.sparse_coo one"),
        (
            torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
            "in memory, got a nested one",
        ),
        (torch.zeros(2), r"got torch.float32 \(2,\)"),
        (torch.zeros(()), r"got torch.float32 \(\)"),
        (torch.zeros(2, 3, 1), r"got torch.float32 \(2, 3, 1\)"),
        (torch.zeros(2, 0), r"got torch.float32 \(2, 0\)"),
    ],
)
def test_what_no_tensor_of_ours_is(value, came) -> None:
    with pytest.raises(InvalidInputError, match=f"^expected two axes.* {came}"):
        check_tensor(value, "two axes", (-1, None), FLOATS)


@pytest.mark.parametrize(
    ("shape", "wanted", "more", "fits"),
    [
        ((0, 3), (-1, None), False, True),
        ((2, 3), (2, 3), False, True),
        ((2, 3), (2, 4), False, False),
        ((2, 9, 9, 3), (2, 3), True, True),
        ((3, 9, 9, 3), (2, 3), True, False),
        ((2, 3), (2, 3, -1), True, False),
        ((), (), False, True),
        ((4, 4), (), True, True),
    ],
)
def test_shapes(shape, wanted, more, fits) -> None:
    if fits:
        check_tensor(torch.zeros(shape), "this", wanted, FLOATS, more=more)
    else:
        with pytest.raises(InvalidInputError):
            check_tensor(torch.zeros(shape), "this", wanted, FLOATS, more=more)


def test_rows_of_a_pool() -> None:
    images = torch.zeros(2, 3, 4)
    check_rows(images, images, None)
    check_rows([*images, torch.ones(3, 4)], images, None)
    check_rows(torch.zeros(0, 3, 4), images, None)
    for pool in (
        [images[0], None],
        [images[0], images[0].half()],
        torch.zeros(2, 3, 5),
        torch.zeros(()),
        "ab",
        iter([]),
    ):
        with pytest.raises(InvalidInputError, match="expected a pool of torch.float32"):
            check_rows(pool, images, None)


def test_what_images_may_be_made_of() -> None:
    assert BOOL | FLOATS < PIXELS
    assert {str(dtype) for dtype in PIXELS} == {
        *("torch.bool", "torch.uint8", "torch.uint16", "torch.uint32", "torch.uint64", "torch.int8", "torch.int16"),
        *("torch.int32", "torch.int64", "torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"),
    }
