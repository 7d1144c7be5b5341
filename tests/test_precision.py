"""The accuracy model: how operands are rounded, what errors it predicts, and that its page says what was measured."""

import contextlib
import importlib.util
import io
import json
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import ISAS, convolved, defined, target_for

from resnet_ref import load_weights
from resnet_ref.accuracy import BITS
from resnet_ref.kernels import on
from resnet_ref.kernels.conv2d.bf16_planned import terms
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.winograd_planned import winograd
from resnet_ref.kernels.geometry import fixed, same

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "accuracy.md").read_text()
pytest.importorskip("sphinx", reason="the tables of the page are made by Sphinx")


def loaded(file: Path, name: str) -> ModuleType:
    """A script as a module; two are called precision.py."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


with pytest.MonkeyPatch.context() as patched:
    patched.syspath_prepend(str(ROOT / "benchmarks"))
    model = loaded(ROOT / "benchmarks" / "precision.py", "precision_benchmark")
tables = loaded(ROOT / "docs" / "_ext" / "precision.py", "precision_tables")
FIGURES: dict[str, Any] = json.loads(tables.FIGURES.read_text())
SUMS = FIGURES["sums"]
NETWORKS = FIGURES["networks"]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NORMAL = FLOATS.filter(lambda x: abs(x) >= 2.0**-100)


# Rounding.


@pytest.mark.parametrize(
    ("number", "bits", "even", "away"),
    [
        (0.0, 3, 0.0, 0.0),
        (5.0, 3, 5.0, 5.0),  # 101
        (9.0, 3, 8.0, 10.0),  # 100.1, a tie; 100 is even
        (11.0, 3, 12.0, 12.0),  # 101.1, a tie; 110 is even
        (-9.0, 3, -8.0, -10.0),
        (9.01, 3, 10.0, 10.0),
        (8.99, 3, 8.0, 8.0),
        (15.0, 3, 16.0, 16.0),  # carries into the exponent
        (1 + 2.0**-11, 11, 1.0, 1 + 2.0**-10),
        (1 + 3 * 2.0**-11, 11, 1 + 2.0**-9, 1 + 2.0**-9),
        (-(1 + 2.0**-8), 8, -1.0, -(1 + 2.0**-7)),
        (9 * 2.0**-149, 3, 8 * 2.0**-149, 10 * 2.0**-149),  # subnormal in float32
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_becomes_the_nearest_of_so_many_bits(number: float, bits: int, even: float, away: float, dtype: type):
    x = np.array([number], dtype)
    for chosen, expected in ((False, even), (True, away)):
        found = model.rounded(x, bits, chosen)
        assert found.dtype == dtype
        assert found[0] == expected


def test_what_is_no_number_stays_and_so_does_the_sign_of_zero():
    x = np.array([np.inf, -np.inf, np.nan, -0.0], np.float32)
    np.testing.assert_array_equal(model.rounded(x, 8), x)
    assert np.signbit(model.rounded(x, 8)[3])
    assert np.isfinite(model.rounded(np.array([5e-324, 1e-310]), 11)).all()


@given(NORMAL)
def test_bfloat16_is_the_kernels_own_and_tf32_adds_half_a_unit_and_cuts(number: float):
    x = np.array([number], np.float32)
    bits = x.view(np.uint32)
    by_bits = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    assert model.to_precision(x.astype(np.float64), "tf32")[0] == by_bits.astype(np.float64)[0] or np.isinf(by_bits[0])
    if abs(number) < 3e38:
        assert model.to_precision(x, "bfloat16")[0] == terms(x, 1)[0, 0]


def test_ties_go_where_the_kernels_take_them():
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8)], np.float32)  # between two bfloat16
    np.testing.assert_array_equal(model.to_precision(x, "bfloat16"), terms(x, 1)[0])
    x = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, -(1 + 2.0**-11)])  # between two tf32
    np.testing.assert_array_equal(model.to_precision(x, "tf32"), [1 + 2.0**-10, 1 + 2.0**-9, -(1 + 2.0**-10)])


@given(NORMAL)
def test_two_parts_of_tf32_hold_23_bits(number: float):
    x = np.array([np.float32(number)], np.float64)
    big, small = model.split(x)
    assert abs(x - big - small)[0] <= 2.0**-23 * abs(x)[0]
    for part in (big, small):
        assert model.rounded(part, BITS["tf32"])[0] == part[0]


def test_the_three_products_of_tf32_leave_out_small_by_small():
    x, w = np.array([1 + 2.0**-12]), np.array([3 + 2.0**-11])
    pairs = [(float(a[0]), float(b[0])) for a, b in model.tf32x3(x, w)]
    assert pairs == [(2.0**-12, 3.0), (1.0, 2.0**-11), (1.0, 3.0)]


def test_a_modelled_convolution_rounds_both_operands_and_nothing_else():
    rng = np.random.default_rng(3)
    x, w, bias = rng.standard_normal((1, 5, 4, 3)), rng.standard_normal((3, 3, 3, 2)), rng.standard_normal(2)
    windows = same(5, 3), same(4, 3)
    found = model.Modelled(model.single("tf32")).conv2d(x, w, *windows, bias=bias, activation="relu")
    rounded = [model.to_precision(a, "tf32") for a in (x, w)]
    np.testing.assert_array_equal(found, on("definition").conv2d(*rounded, *windows, bias=bias, activation="relu"))
    assert not np.array_equal(found, on("definition").conv2d(x, w, *windows, bias=bias, activation="relu"))


# What errors it predicts.


def off(y: Any, truth: Any) -> float:
    return float(np.sqrt(np.mean((y - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("seed", range(10))
def test_f2_errs_no_more_than_the_direct_convolution_and_f4_a_few_times_more(seed: int):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 16, 16, 48)).astype(np.float32)
    w = rng.standard_normal((3, 3, 48, 16)).astype(np.float32)
    windows = same(16, 3), same(16, 3)
    truth = defined(x, w, *windows)
    methods = {"direct": direct, **{m: partial(winograd, m=m, fused_tiles=None) for m in (2, 4)}}
    errors = {name: off(convolved(target_for(ISAS[0]), by, x, w, *windows), truth) for name, by in methods.items()}
    assert errors[2] <= errors["direct"]
    assert 2 < errors[4] / errors[2] < 4


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("channels", [8, 64])
def test_every_error_of_a_sum_lies_where_the_model_says(channels: int, seed: int):
    found, expected = model.summed(channels, seed), model.predicted(channels)
    for name, error in expected.items():
        assert 0.8 < found[name] / error < 1.25, name
    assert found["bf16x6"] < 2.5 * found["tile"]


def test_a_longer_sum_errs_more_in_float32_and_as_much_in_fewer_bits():
    short, long = model.predicted(8), model.predicted(512)
    assert long["one by one"] / short["one by one"] == pytest.approx(8)
    assert all(long[name] > short[name] for name in ("tile", "pairwise", "F(2x2)", "F(4x4)"))
    assert all(long[name] == short[name] for name in ("tf32", "bfloat16", "tf32x3", "bf16x3"))


def test_the_digits_filters_find_what_they_look_for():
    weights = load_weights()
    x, w = (a.astype(np.float64) for a in (model.digits(weights), weights["resnet_v1_50/conv1/weights"]))
    windows = fixed(7, 2), fixed(7, 2)
    conv2d = on("definition").conv2d
    assert np.abs(conv2d(x, w, *windows)).max() > 10 * math.sqrt(conv2d(x * x, w * w, *windows).max())


# The page and its figures.


def prose() -> str:
    """The page without blocks, in one line."""
    return " ".join(re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL).split())


def largest_departure() -> str:
    found = [
        abs(measured / expected - 1)
        for name, predictions in SUMS["predicted"].items()
        for measured, expected in zip(SUMS["measured"][name], predictions, strict=True)
    ]
    return f"are predicted within {5 * math.ceil(20 * max(found))} %, from float32 to bfloat16"


def ratios(one: str, other: str) -> tuple[float, float]:
    found = [a / b for a, b in zip(SUMS["measured"][one], SUMS["measured"][other], strict=True)]
    return min(found), max(found)


def between(one: str, other: str) -> str:
    """The range in tenths, no narrower than measured."""
    least, most = ratios(one, other)
    return f"{math.floor(10 * least) / 10:.1f} to {math.ceil(10 * most) / 10:.1f} times as much as"


def growth() -> str:
    of_all = [errors["block4"] / errors["block1"] for one in NETWORKS.values() for errors in one["errors"].values()]
    return f"between the ends of block1 and block4 no precision's error grows to {math.ceil(max(of_all))} times"


def logits_row_by_row() -> str:
    errors = NETWORKS["resnet_v1_50"]["errors"]
    times = errors["eager"]["logits"] / errors["definition"]["logits"]
    return f'the logits of "layer by layer" are {times:.1f} times as far off as the definition\'s'


def gains() -> str:
    return f"the gains alone say {model.gain(4) / model.gain(2):.1f}."


CLAIMS: list[Callable[[], str]] = [
    largest_departure,
    lambda: f"F(4x4) errs {between('F(4x4)', 'F(2x2)')} F(2x2)",
    lambda: f"bf16x6 errs {between('bf16x6', 'tile')} the float32 tile",
    growth,
    logits_row_by_row,
    gains,
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_figure_in_the_pages_prose_is_the_measured_one(claim: Callable[[], str]):
    assert claim() in prose()


def test_the_pages_statements_hold_in_the_figures():
    wide, digits = (NETWORKS[name]["errors"] for name in ("resnet_v1_50", "digits"))
    for errors in (wide, digits):
        for way in ("definition", "eager", "direct", "auto", "F(2x2)", "bf16x6", "tf32x3 model, float32 sums"):
            assert errors[way].get("rule", 0) <= 1, f"{way} should hold float32's rule"
        for way in ("bf16x3", "bfloat16", "tf32 model", "bfloat16 model"):
            assert errors[way].get("rule", math.inf) > 1, f"{way} has its own rule"
        assert all(one["changed"] == 0 for one in errors.values()), "No precision changed any answer here"
        assert 0.7 < errors["F(2x2)"]["median"] / errors["direct"]["median"] < 1.3, "the two are alike"
    assert not any(FIGURES["held out"]["changed"].values()), "No precision changed any answer here"
    assert wide["fast"]["logits"] < 2 * wide["auto"]["logits"], "at the logits of a wide network it is float32's"
    few_bits = ("bf16x3", "bfloat16", "tf32 model", "bfloat16 model")
    assert all(digits[way]["conv1"] < digits[way][point] for way in few_bits for point in tables.DEPTH[1:])
    room = {way: NETWORKS["resnet_v1_50"]["least gap"] / 2 / one["logits"] for way, one in wide.items()}
    assert [way for way in room if room[way] < 1] == ["bfloat16 model"]
    assert NETWORKS["digits"]["least gap"] > 2 * max(one["logits"] for one in digits.values()), "it is surer"
    measured = SUMS["measured"]
    assert all(
        two == min(measured[name][i] for name in tables.FLOAT32_SUMS) for i, two in enumerate(measured["pairwise"])
    )


def test_no_other_measured_number_stands_in_the_prose():
    assert not re.findall(r"\d(?:\.\d+)?e-\d|\d ms\b|\d s\b", prose())
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert not any(re.search(r"\d\.\d", row) for row in rows)


def test_every_table_is_on_the_page_and_every_way_in_it():
    wanted = re.findall(r"^```\{precision-table\} (.*)$", PAGE, re.MULTILINE)
    assert sorted(wanted) == sorted([*tables.TABLES, tables.SOURCE])
    for one in NETWORKS.values():
        assert set(one["errors"]) <= set(tables.WAYS)
    for name in wanted:
        text = tables.markdown(name, FIGURES)
        assert len({line.count("|") for line in text.splitlines()}) == 1
        assert "nan" not in text
    wide = tables.markdown("resnet_v1_50", FIGURES)
    tf32 = NETWORKS["resnet_v1_50"]["errors"]["tf32 model"]
    assert re.search(rf"`tf32` \(model\) \| {tables.scientific(tf32['conv1'])} \|", wide)
    assert tables.scientific(5.249e-7) == "5.2e-7"
    assert [tables.share(number) for number in (0.0812, 7.69, 2345.0)] == ["0.08", "7.69", "2,300"]


def test_the_pages_python_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)
    assert len(blocks) >= 8
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, shown)
        assert printed.getvalue() == expected


def test_the_figures_say_where_they_come_from_and_are_small():
    assert tables.FIGURES.stat().st_size < 30_000
    sentence = tables.markdown(tables.SOURCE, FIGURES)
    assert FIGURES["processor"] in sentence
    assert f"numpy {FIGURES['versions']['numpy']}" in sentence
    assert ("emulated" in sentence) == (FIGURES["bf16"] == "emulated")


def test_the_directive_makes_a_table_and_refuses_an_unknown_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sphinx = pytest.importorskip("sphinx.application")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    monkeypatch.setitem(sys.modules, "precision", tables)
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser', 'precision']\n")

    def built(name: str) -> tuple[str, str]:
        (tmp_path / "index.md").write_text(f"# A page\n\n```{{precision-table}} {name}\n```\n")
        warnings = io.StringIO()
        folders = (tmp_path, tmp_path, tmp_path / "out", tmp_path / "trees", "html")
        sphinx.Sphinx(*folders, status=None, warning=warnings, freshenv=True).build(force_all=True)
        return (tmp_path / "out" / "index.html").read_text(), warnings.getvalue()

    html, warnings = built("fewer bits")
    assert warnings == ""
    assert html.count("<tr") == 1 + len(SUMS["K"])
    assert "unknown" not in html
    assert "precision-table must be one of" in built("unknown")[1]
