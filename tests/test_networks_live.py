"""Whole networks against slim running under TensorFlow: every end point within the accuracy rule.

slim's graph of a network takes longer to build than all else together, so each is built once: for our interpreters on
every device, then for plans by every algorithm.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from accuracy import Values, check_rule, error
from networks import CASES, Case
from planned import ISAS, Method, forced, planned
from tiers import Gpus
from variables import random_variables

from resnet_ref import oracle
from resnet_ref.accuracy import Rule
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.winograd_planned import winograd

pytestmark = pytest.mark.oracle

INFERENCE = [name for name, case in CASES.items() if not case.trains]
EVERYWHERE: dict[str, Method] = {
    "direct": direct,
    "F(2x2) staged": partial(winograd, m=2, fused_tiles=None),
    "F(2x2) fused": partial(winograd, m=2, fused_tiles=28),
}
# The others are emitted from the same lines, but for the instructions' names.
ON_OTHER_ISAS = ["152", "output_stride 8", "bounded activations by the blocks", "no root block, output_stride 6"]
# Of slim's variants: how many variables there are, and how many end points.
COUNTS = {"50 at 224, full width": (267, 77), "101": (522, 145), "152": (777, 213), "200": (1017, 277)}


class Known(NamedTuple):
    """A network as slim computes it, and as the definition does in float64."""

    name: str
    case: Case
    slim: oracle.OracleResult
    truth: Values
    true_updates: Values


@pytest.fixture(scope="module")
def known(request: pytest.FixtureRequest) -> Known:
    case = CASES[request.param]
    slim = oracle.run(case.slim, case.images, random_variables, fetch_updates=case.trains)
    true_updates: dict[str, Any] = {}
    _, truth = case.ours(case.images, slim.variables, true_updates, device="definition", dtype="float64")
    return Known(request.param, case, slim, truth, true_updates)


@pytest.mark.parametrize("known", CASES, indirect=True)
def test_every_end_point_is_slims_on_every_device(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch)
    case, slim = known.case, known.slim
    for device in ("definition", "cpu", "gpu"):
        updates: dict[str, Any] = {}
        net, end_points = case.ours(case.images, slim.variables, updates, device=device)
        assert net.dtype == np.float32
        used = check_rule(end_points, slim.end_points, known.truth, full_width=case.full_width)
        print(f"\n{known.name}, {device}: " + ", ".join(f"{k} {v:.2f}" for k, v in used.items()))
        assert np.abs(net - slim.net).max() <= 1e-4 * np.abs(slim.net).max()
        assert set(updates) == (set(slim.updated) if case.trains else set())
        if updates:
            check_rule(updates, {name: slim.updated[name] for name in updates}, known.true_updates)


@pytest.mark.parametrize("known", COUNTS, indirect=True)
def test_a_variant_has_slims_number_of_variables_and_end_points(known: Known) -> None:
    variables, end_points = known.slim.variables, list(known.slim.end_points)
    assert (len(variables), len(end_points)) == COUNTS[known.name]
    scope = known.case.function
    assert end_points[-4:] == ["global_pool", f"{scope}/logits", f"{scope}/spatial_squeeze", "predictions"]
    if known.case.full_width:
        moving = sum(array.size for name, array in variables.items() if "/moving_" in name)
        total = sum(array.size for array in variables.values())
        assert (total - moving, moving) == (25_557_032, 53_120)


def test_the_cases_that_are_named_exist() -> None:
    assert set(ON_OTHER_ISAS) < set(INFERENCE)
    assert len(INFERENCE) == len(CASES) - 3


@pytest.mark.parametrize("known", INFERENCE, indirect=True)
def test_every_end_point_is_slims_fused_and_unfused_by_every_algorithm(known: Known) -> None:
    name, case, slim, truth = known.name, known.case, known.slim, known.truth
    run = partial(planned, case.describe, slim.variables, case.images, threads=2)
    fused = [end_point for end_point in truth if not end_point.endswith("/conv3")]
    ways = {
        "auto": run(list(truth)),
        "fused": run(fused),
        **{way: run(fused, forced(method)) for way, method in EVERYWHERE.items()},
        **{isa: run(fused, isa=isa) for isa in ISAS[1:] if name in ON_OTHER_ISAS},
    }
    for way, found in ways.items():
        used = check(case, found, slim.end_points, truth)
        print(f"\n{name}, {way}: " + ", ".join(f"{k} {v:.2f}" for k, v in used.items()))
    check_f4(case, run(list(truth), forced(partial(winograd, m=4, fused_tiles=28))), slim.end_points, truth)


def check(case: Case, found: Values, slim: Values, truth: Values) -> dict[str, float]:
    """The rule over the end points that were found."""
    slim, truth = ({name: all_[name] for name in all_ if name in found} for all_ in (slim, truth))
    return check_rule(found, slim, truth, full_width=case.full_width)


def check_f4(case: Case, found: Values, slim: Values, truth: Values) -> None:
    """F(4x4) errs more: by at most 5 times what the rule allows; at a full-width network's logits, by no more."""
    rule, most = Rule(), 0.0
    for name, true in truth.items():
        scale = float(np.abs(true).max(initial=0))
        errors = error(found[name], true), error(slim[name], true), error(found[name], slim[name], scale)
        share = rule.shares(name, *errors, scale)["ours is right"]
        assert share <= (1 if case.full_width and name.endswith("/logits") else 5), name
        most = max(most, share)
    print(f"\nF(4x4): {most:.2f}")
