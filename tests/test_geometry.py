"""Padding and output sizes: worked out by hand, and properties that hold for every window."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_ref.errors import ShapeError
from resnet_ref.kernels import geometry
from resnet_ref.kernels.geometry import Window

LENGTHS, SIZES, STRIDES, RATES = (st.integers(1, most) for most in (60, 9, 5, 4))


def reads(window: Window, n: int) -> list[list[int]]:
    """What each output reads, counted from the input's start."""
    return [[int(tap) for tap in row] for row in window.taps(n) - window.before]


@pytest.mark.parametrize(
    ("n", "size", "stride", "rate", "pads", "out"),
    [
        (4, 3, 1, 1, (1, 1), 4),
        (4, 3, 2, 1, (0, 1), 2),
        (5, 3, 2, 1, (1, 1), 3),
        (7, 3, 3, 1, (1, 1), 3),
        (6, 3, 3, 1, (0, 0), 2),
        (4, 2, 1, 1, (0, 1), 4),
        (5, 4, 1, 1, (1, 2), 5),
        (5, 3, 1, 2, (2, 2), 5),
        (6, 3, 2, 2, (1, 2), 3),
        (3, 3, 1, 4, (4, 4), 3),
        (1, 3, 2, 1, (1, 1), 1),
        (1, 1, 2, 1, (0, 0), 1),
        (5, 1, 3, 1, (0, 0), 2),
        (224, 7, 2, 1, (2, 3), 112),
        (225, 7, 2, 1, (3, 3), 113),
        (112, 3, 2, 1, (0, 1), 56),
        (113, 3, 2, 1, (1, 1), 57),
    ],
)
def test_same_padding_worked_out_by_hand(
    n: int, size: int, stride: int, rate: int, pads: tuple[int, int], out: int
) -> None:
    window = geometry.same(n, size, stride, rate)
    assert window == (size, stride, rate, *pads)
    assert window.out(n) == out


@pytest.mark.parametrize(
    ("size", "stride", "rate", "pads", "outs"),
    [
        (3, 2, 1, (1, 1), {1: 1, 4: 2, 5: 3, 6: 3}),
        (7, 2, 1, (3, 3), {1: 1, 224: 112, 225: 113}),
        (4, 3, 1, (1, 2), {1: 1, 3: 1, 4: 2}),
        (3, 1, 2, (2, 2), {1: 1, 6: 6}),
        (1, 2, 1, (0, 0), {1: 1, 2: 1, 3: 2}),
    ],
)
def test_fixed_padding_worked_out_by_hand(
    size: int, stride: int, rate: int, pads: tuple[int, int], outs: dict[int, int]
) -> None:
    window = geometry.fixed(size, stride, rate)
    assert window == (size, stride, rate, *pads)
    assert {n: window.out(n) for n in outs} == outs


@pytest.mark.parametrize(
    ("n", "size", "stride", "rate", "out"),
    [(3, 3, 1, 1, 1), (8, 3, 2, 1, 3), (9, 3, 2, 1, 4), (5, 3, 1, 2, 1), (6, 2, 3, 4, 1), (7, 1, 1, 9, 7)],
)
def test_valid_has_no_padding_and_as_many_outputs_as_fit(n: int, size: int, stride: int, rate: int, out: int) -> None:
    window = geometry.valid(size, stride, rate)
    assert window == (size, stride, rate, 0, 0)
    assert window.out(n) == out


@pytest.mark.parametrize(
    ("window", "n", "positions"),
    [
        (Window(3, rate=2, before=2, after=2), 5, [[-2, 0, 2], [-1, 1, 3], [0, 2, 4], [1, 3, 5], [2, 4, 6]]),
        (Window(3, stride=2, after=1), 4, [[0, 1, 2], [2, 3, 4]]),
        (Window(2, stride=3, rate=2, before=1), 6, [[-1, 1], [2, 4]]),
        (Window(1, stride=2), 5, [[0], [2], [4]]),
    ],
)
def test_each_output_reads_the_positions_worked_out_by_hand(window: Window, n: int, positions: list[list[int]]) -> None:
    assert reads(window, n) == positions


@given(LENGTHS, SIZES, STRIDES, RATES)
def test_same_gives_the_length_over_the_stride_rounded_up(n: int, size: int, stride: int, rate: int) -> None:
    assert geometry.same(n, size, stride, rate).out(n) == math.ceil(n / stride)


@given(LENGTHS, SIZES, STRIDES, RATES)
def test_the_odd_element_of_padding_goes_after(n: int, size: int, stride: int, rate: int) -> None:
    for window in (geometry.same(n, size, stride, rate), geometry.fixed(size, stride, rate)):
        assert 0 <= window.after - window.before <= 1


@given(LENGTHS, SIZES, STRIDES, RATES)
def test_same_pads_no_more_than_the_last_window_needs(n: int, size: int, stride: int, rate: int) -> None:
    window = geometry.same(n, size, stride, rate)
    end = window.taps(n).max() + 1
    padded = n + window.before + window.after
    assert end == padded if window.after else end <= padded


@given(LENGTHS, SIZES, STRIDES, RATES, st.integers(0, 7), st.integers(0, 7))
def test_windows_stay_inside_the_padded_input_and_one_more_would_not(
    n: int, size: int, stride: int, rate: int, before: int, after: int
) -> None:
    window = Window(size, stride, rate, before, after)
    padded = n + before + after
    if window.extent > padded:
        with pytest.raises(ShapeError, match="does not fit"):
            window.taps(n)
        return
    taps = window.taps(n)
    assert taps.shape == (window.out(n), size)
    assert taps.min() == 0
    assert taps.max() < padded <= taps.max() + stride
    assert (np.diff(taps, axis=0) == stride).all()
    assert (np.diff(taps, axis=1) == rate).all()


@given(LENGTHS, SIZES, STRIDES, RATES)
def test_fixed_padding_with_a_stride_reads_what_same_reads_without_one_subsampled(
    n: int, size: int, stride: int, rate: int
) -> None:
    """The meaning of slim's conv2d_same."""
    assert reads(geometry.fixed(size, stride, rate), n) == reads(geometry.same(n, size, 1, rate), n)[::stride]


def test_same_with_a_stride_on_an_even_length_reads_one_further_than_conv2d_same() -> None:
    assert reads(geometry.same(4, 3, 2), 4) == [[0, 1, 2], [2, 3, 4]]
    assert reads(geometry.fixed(3, 2), 4) == [[-1, 0, 1], [1, 2, 3]]


@given(LENGTHS, STRIDES)
def test_subsampled_is_the_length_of_a_slice_with_a_step(n: int, factor: int) -> None:
    assert geometry.subsampled(n, factor) == len(range(n)[::factor])


@pytest.mark.parametrize(
    ("window", "identity"),
    [
        (Window(1), True),
        (Window(1, rate=3), True),
        (Window(1, stride=2), False),
        (Window(2), False),
        (Window(1, before=1), False),
        (Window(1, after=1), False),
    ],
)
def test_only_one_unpadded_tap_without_a_stride_is_the_identity(window: Window, identity: bool) -> None:
    assert window.is_identity is identity


def test_the_extent_counts_the_gaps_between_taps() -> None:
    assert [Window(3, rate=rate).extent for rate in (1, 2, 5)] == [3, 5, 11]
    assert Window(1, rate=9).extent == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", None])
@pytest.mark.parametrize("name", ["n", "size", "stride", "rate"])
def test_a_number_below_one_or_not_whole_is_refused_by_name(name: str, wrong: Any) -> None:
    arguments: dict[str, Any] = {"n": 5, "size": 3, "stride": 2, "rate": 1, name: wrong}
    with pytest.raises(ShapeError, match=f"{name} must be a whole number of at least 1, got {wrong!r}"):
        geometry.same(**arguments)
    if name == "n":
        return
    del arguments["n"]
    for make in (geometry.valid, geometry.fixed):
        with pytest.raises(ShapeError, match=f"{name} must be a whole number"):
            make(**arguments)


def test_a_window_that_does_not_fit_says_its_extent_the_input_and_what_to_do() -> None:
    with pytest.raises(ShapeError, match=r"a window of 5 \(3 taps, rate 2\) does not fit 3 .* padded by 1 \+ 0; use a"):
        Window(3, rate=2, before=1).out(3)
    with pytest.raises(ShapeError, match="does not fit 0 input positions"):
        Window(1, before=2).out(0)
    assert Window(3, rate=2, before=1).out(4) == 1


def test_an_outputs_reads_are_its_taps_counted_from_the_start_of_the_input():
    """By hand, with unequal padding: output 2 begins at 2 * 2 - 1; and as `taps` has them, from the padded start."""
    window = Window(3, stride=2, rate=2, before=1, after=4)
    assert window.reads(2).tolist() == [3, 5, 7]
    assert window.reads(0).tolist() == [-1, 1, 3]
    for out, taps in enumerate(window.taps(9)):
        assert window.reads(out).tolist() == (taps - 1).tolist()
