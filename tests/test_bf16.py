"""Convolution by products of bf16, on emulated matrix registers, and on AMX where there is AMX."""

from functools import partial

import numpy as np
import pytest
from accuracy import check_rule, error
from networks import CASES
from planned import convolved
from variables import random_variables

from resnet_ref import DeviceError, load_model, oracle
from resnet_ref.accuracy import Rule
from resnet_ref.kernels.conv2d.bf16 import PRODUCTS
from resnet_ref.kernels.conv2d.bf16_planned import bf16, pack, terms
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.library import emit_all, library
from resnet_ref.kernels.vector.isa import AMX, emulated, has_amx
from resnet_ref.kernels.vector.matrix import require_permission
from resnet_ref.kernels.vector.objects import assembly
from resnet_ref.kernels.vector.step import Target
from resnet_ref.plan.plan import Plan

MACHINES = [
    "emulated",
    pytest.param("amx", marks=pytest.mark.skipif(not has_amx(), reason="this CPU has no AMX")),
]


def target(machine, threads=2):
    if machine == "emulated":
        return Target(library(emulated()), threads)
    require_permission()
    return Target(library(AMX), threads)


def run(case, machine, precision, weights, names, threads=2):
    plan = Plan(case.describe, weights, target(machine, threads), case.shape, names, partial(bf16, precision=precision))
    return plan(case.images)


def truth_of(case, weights):
    return case.ours(case.images, weights, {}, device="definition", dtype="float64")[1]


def test_terms_are_bf16_and_add_up_to_the_number():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32) * np.power(
        np.float32(10), np.arange(-3, 7, dtype=np.float32)
    ).repeat(100)
    found = terms(x, 3)
    assert not (found.view(np.uint32) & 0xFFFF).any()
    assert (found.astype(np.float64).sum(axis=0) == x).all()
    assert (np.abs(x - found[0]) <= 2.0**-8 * np.abs(x)).all()


LARGEST = [np.finfo(np.float32).max, 3.4e38, 3.396e38, 3.39e38, -3.4e38]


def test_terms_of_the_largest_numbers_are_finite_and_add_up():
    x = np.array(LARGEST, np.float32)
    for count in (2, 3):
        found = terms(x, count).astype(np.float64)
        assert np.isfinite(found).all()
        assert (np.abs(found.sum(axis=0) - x) <= 2.0 ** (-8 * count + 1) * np.abs(x)).all()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("precision", ["bf16x3", "bf16x6"])
def test_pixels_and_weights_of_the_largest_numbers_give_their_products(precision, machine):
    """Rounded to 8 bits they would be infinity, and what is left of them minus infinity: together NaN."""
    largest = np.array(LARGEST, np.float32)
    small = np.array([0.5, -0.25, 0.125], np.float32)
    for x, w in ((largest, small), (small, largest)):
        y = convolved(
            target(machine, 1), partial(bf16, precision=precision), x.reshape(1, 1, -1, 1), w.reshape(1, 1, 1, -1),
            Window(1), Window(1),
        )  # fmt: skip
        np.testing.assert_allclose(y[0, 0], np.outer(x, w).astype(np.float64), rtol=2.0**-15)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("precision", PRODUCTS)
def test_infinity_and_every_nan_reach_the_output(precision, machine):
    """Infinity as NaN, where there are several terms: it is multiplied by terms of the weights that are zero."""
    bits = [0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFF80FFFF]
    x = np.array(bits, np.uint32).view(np.float32).reshape(1, 1, -1, 1)
    w = np.full((1, 1, 1, 1), 0.5, np.float32)
    y = convolved(target(machine, 1), partial(bf16, precision=precision), x, w, Window(1), Window(1)).ravel()
    if precision == "bfloat16":
        assert list(y[:2]) == [np.inf, -np.inf]
    assert not np.isfinite(y[:2]).any()
    assert np.isnan(y[2:]).all()


def test_packed_weights_stand_where_the_matrix_unit_reads_them():
    w = np.arange(1, 2 * 37 * 35 + 1, dtype=np.float32).reshape(2, 37, 35) % 128
    packed = pack(w, 1).reshape(2, 2, 2, 1, 2, 16, 16, 2)  # panel, tap, block, term, half, pair, channel, of the pair
    numbers = (packed.astype(np.uint32) << 16).view(np.float32)
    for tap, k, f in ((0, 0, 0), (1, 36, 34), (0, 33, 17), (1, 5, 31), (1, 30, 2)):
        assert numbers[f // 32, tap, k // 32, 0, f % 32 // 16, k % 32 // 2, f % 16, k % 2] == w[tap, k, f]
    assert numbers.sum() == w.sum()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("precision", "allowed"), [("bfloat16", 3e-2), ("bf16x3", 1e-4), ("bf16x6", 1e-5)])
@pytest.mark.parametrize("name", ["width .3", "own blocks, stride 3", "output_stride 8", "no root block"])
def test_every_end_point_is_as_near_as_the_number_of_products_promises(name, precision, allowed, machine):
    case = CASES[name]
    weights = random_variables(case.shapes().variables)
    truth = truth_of(case, weights)
    for names in (list(truth), [key for key in truth if not key.endswith("conv3")]):
        found = run(case, machine, precision, weights, names)
        assert max(error(found[key], truth[key]) for key in names) <= allowed
    if precision == "bfloat16":
        assert max(error(found[key], truth[key]) for key in names) > 1e-4, "this should be another precision"


@pytest.mark.parametrize("machine", MACHINES)
def test_results_do_not_depend_on_the_number_of_threads(machine):
    case = CASES["width .3"]
    weights = random_variables(case.shapes().variables)
    one, three = (run(case, machine, "bf16x3", weights, ["predictions"], n)["predictions"] for n in (1, 3))
    assert (one == three).all()


@pytest.mark.oracle
@pytest.mark.parametrize("machine", MACHINES)
def test_six_products_hold_float32s_rule_and_three_stay_within_24_times_tensorflows_error(machine):
    case = CASES["50 at 224, full width"]
    slim = oracle.run(case.slim, case.images, random_variables, fetch_updates=False)
    truth = truth_of(case, slim.variables)
    six = run(case, machine, "bf16x6", slim.variables, list(truth))
    rule = Rule()
    for name, true in truth.items():
        scale = float(np.abs(true).max())
        e_ours, e_slim = error(six[name], true), error(slim.end_points[name], true)
        assert (
            rule.shares(name, e_ours, e_slim, error(six[name], slim.end_points[name], scale), scale)["ours is right"]
            <= 1
        )
    logits = "resnet_v1_50/logits"
    three = run(case, machine, "bf16x3", slim.variables, [logits])[logits]

    def rms(found):
        return float(np.sqrt(np.mean((found - truth[logits]) ** 2)))

    assert rms(three) <= 24 * rms(slim.end_points[logits])
    check_rule(six, slim.end_points, truth)


def test_the_code_for_amx_uses_its_instructions_for_every_product_of_a_block():
    lines = assembly(emit_all(AMX)).splitlines()
    wanted = 4 * sum(map(len, PRODUCTS.values()))  # four registers of sums
    assert sum("tdpbf16ps" in line for line in lines) == wanted
    assert any("ldtilecfg" in line for line in lines)
    assert any("tilerelease" in line for line in lines)


@pytest.mark.skipif(has_amx(), reason="this CPU has AMX")
@pytest.mark.parametrize("precision", PRODUCTS)
def test_a_precision_of_amx_is_refused_elsewhere_with_what_it_needs(precision):
    with pytest.raises(DeviceError, match=f'"?{precision}"?.* needs a CPU with AMX'):
        load_model(precision=precision)
