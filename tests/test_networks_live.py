"""Whole networks against slim running under TensorFlow: every end point, on every device, within the accuracy rule."""

from typing import Any

import numpy as np
import pytest
from accuracy import check_rule
from networks import CASES
from tiers import Gpus
from variables import random_variables

from resnet_ref import oracle

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", CASES)
def test_every_end_point_is_slims(name, monkeypatch):
    Gpus(monkeypatch)
    case = CASES[name]
    slim = oracle.run(case.slim, case.images, random_variables, fetch_updates=case.trains)
    true_updates: dict[str, Any] = {}
    _, truth = case.ours(case.images, slim.variables, true_updates, device="definition", dtype="float64")
    for device in ("definition", "cpu", "gpu"):
        updates: dict[str, Any] = {}
        net, end_points = case.ours(case.images, slim.variables, updates, device=device)
        assert net.dtype == np.float32
        used = check_rule(end_points, slim.end_points, truth, full_width=case.full_width)
        print(f"\n{name}, {device}: " + ", ".join(f"{k} {v:.2f}" for k, v in used.items()))
        assert np.abs(net - slim.net).max() <= 1e-4 * np.abs(slim.net).max()
        assert set(updates) == (set(slim.updated) if case.trains else set())
        if updates:
            check_rule(updates, {name: slim.updated[name] for name in updates}, true_updates)
