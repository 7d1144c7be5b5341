"""The accuracy rule, by hand."""

import math

import numpy as np
import pytest

from resnet_ref.accuracy import EPS, Rule, error


def test_an_error_is_the_largest_difference_of_the_largest_true_value():
    assert error(np.array([1.0, -3.5, 2.0]), np.array([1.0, -4.0, 2.25])) == 0.5 / 4
    assert error(np.array([1.0, 2.0]), np.array([1.0, 4.0]), scale=8.0) == 0.25


def test_a_truth_of_zeros_wants_zeros():
    assert error(np.zeros(3), np.zeros(3)) == 0
    assert error(np.array([0, 1e-30]), np.zeros(2)) == math.inf
    assert error(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_must_be_so_on_both_sides(odd):
    here = np.array([1.0, odd], np.float32)
    assert error(here, np.array([1.0, 2.0]), scale=2.0) == math.inf
    assert error(np.array([1.0, 2.0]), here, scale=2.0) == math.inf
    assert error(here, here.astype(np.float64), scale=2.0) == 0
    assert error(np.array([1.5, odd]), here.astype(np.float64), scale=2.0) == 0.25


def test_each_side_may_err_by_a_multiple_of_the_others_largest_error_so_far():
    rule = Rule()
    shares = rule.shares("a", ours=EPS, slim=2 * EPS, near=1e-5, scale=3.0)
    assert shares["ours is right"] == pytest.approx(1 / (4 * 3))
    assert shares["slim agrees"] == pytest.approx(2 / (16 * 2))
    assert shares["they are near"] == pytest.approx(0.1)
    later = rule.shares("b", ours=13 * EPS, slim=0.0, near=2e-4, scale=3.0)
    assert later["ours is right"] == pytest.approx(13 / (4 * 3))  # slim's largest error was at a
    assert later["they are near"] == pytest.approx(2)


def test_probabilities_may_be_off_by_half_of_what_the_logits_may():
    rule = Rule()
    rule.shares("x/logits", ours=0.0, slim=EPS, near=0.0, scale=10.0)
    logits_allowed = 4 * (EPS + EPS) * 10.0
    shares = rule.shares("predictions", ours=EPS / 0.5, slim=0.0, near=0.0, scale=0.5)  # absolute: EPS
    assert shares["ours is right"] == pytest.approx(EPS / (logits_allowed / 2 + 4 * EPS))
