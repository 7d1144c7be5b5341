"""The site's pictures of kernels: what they fill is what was worked out by hand, and each draws, once, and says so."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "kernels").glob("*.md"))
NAMES = re.findall(r"^```\{kernel-picture\} (\S+)$", "\n".join(page.read_text() for page in PAGES), re.MULTILINE)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    pytest.importorskip("sphinx")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import drawn
    import probe
    import shown

    return SimpleNamespace(drawn=drawn, probe=probe, shown=shown)


def cells(read: Any) -> set[tuple[int, ...]]:
    return {tuple(map(int, cell)) for cell in np.argwhere(read)}


def block(rows: Any, cols: Any) -> set[tuple[int, ...]]:
    """Cells of the one map there is [1, H, W, 1]."""
    return {(0, row, col, 0) for row in rows for col in cols}


def test_a_number_is_read_where_changing_it_changes_the_output(docs: SimpleNamespace) -> None:
    def kernel(a: Mapping[str, Any]) -> Any:
        return np.array([a["x"][0] + a["x"][2], a["x"][1] * a["k"][0], 7.0])

    found = docs.probe.dependence(kernel, docs.probe.numbers({"x": (3,), "k": (1,)}))
    assert found["x"].tolist() == [[True, False, False], [False, True, False], [True, False, False]]
    assert found["k"].tolist() == [[False, True, False]]
    assert docs.probe.reads(found, (0,))["x"].tolist() == [True, False, True]
    assert docs.probe.reads(found, (slice(0, 2),))["x"].tolist() == [True, True, True]
    assert not docs.probe.reads(found, (2,))["x"].any()


def test_padding_that_is_not_what_was_said_is_refused(docs: SimpleNamespace) -> None:
    inputs = docs.probe.numbers({"x": (1, 2, 2, 1)})
    wide = docs.probe.padded(inputs["x"], (1, 0), (0, 2), 5.0)
    assert wide.shape == (1, 3, 4, 1)
    assert (wide[0, 0, :, 0] == 5).all()

    def plain(a: Mapping[str, Any]) -> Any:
        return a["x"].sum()

    with pytest.raises(RuntimeError, match="with the padding around it"):
        docs.probe.dependence_on_padding(plain, plain, inputs, wide)


# In cells of x with its padding around it: picture -> (padding before, cells of x that are read, padding among them).
BY_HAND = {
    "conv2d": ((1, 1), block((1, 2, 3), (2, 3, 4)), 0),
    "conv2d_edge": ((1, 1), block((0, 1, 2), (0, 1, 2)), 5),
    "conv2d_valid": ((0, 0), block((0, 1, 2), (0, 1, 2)), 0),
    "conv2d_fixed": ((1, 1), block((0, 1, 2), (2, 3, 4)), 3),
    "conv2d_same_stride": ((0, 0), block((0, 1, 2), (2, 3, 4)), 0),
    "conv2d_atrous": ((2, 2), block((2, 4, 6), (1, 3, 5)), 3),
    "im2col": ((1, 1), block((0, 1, 2), (1, 2, 3)), 3),
    "max_pool2d": ((0, 0), block((2, 3, 4), (4, 5, 6)), 3),
    "subsample": ((0, 0), block((2,), (4,)), 0),
    "spatial_mean": ((0, 0), {(0, row, col, 1) for row in range(3) for col in range(4)}, 0),
    "batch_norm": ((0, 0), {(0, 1, 1, 1)}, 0),
    "batch_norm_training": ((0, 0), {(n, row, col, 1) for n in range(2) for row in range(2) for col in range(3)}, 0),
    "add_bias": ((0, 0), {(0, 1, 0, 2)}, 0),
    "softmax": ((0, 0), {(1, place) for place in range(6)}, 0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_an_output_reads_worked_out_by_hand(docs: SimpleNamespace, name: str) -> None:
    found = docs.shown.find(name)
    pad, read, around = BY_HAND[name]
    assert found.pad == pad
    assert cells(found.reads["x"]) == read
    said = docs.shown.describe(name)
    picture = docs.shown.PICTURES[name]
    inside, total = len(read) - around, np.prod(picture.inputs["x"].shape)
    assert f"{inside} of the {total} numbers of x" in said
    assert (f"and {around} of its padding" in said) == (around > 0)


def test_what_else_is_read_worked_out_by_hand(docs: SimpleNamespace) -> None:
    find = docs.shown.find
    assert cells(find("conv2d_edge").reads["w"]) == {(y, x, 0, 0) for y in (1, 2) for x in (1, 2)}
    assert cells(find("conv2d_channels").reads["w"]) == {
        (y, x, c, 1) for y in range(3) for x in range(3) for c in range(2)
    }
    for name in ("gamma", "beta", "mean", "variance"):
        assert cells(find("batch_norm").reads[name]) == {(1,)}
    assert set(find("batch_norm_training").reads) == {"x", "gamma", "beta"}
    for name in ("shortcut", "residual"):
        assert cells(find("add_relu").reads[name]) == {(0, 1, 2, 0)}


def test_the_sentence_says_which_by_row_and_column(docs: SimpleNamespace) -> None:
    assert docs.shown.describe("conv2d") == (
        "The output at row 1, column 2 reads 9 of the 25 numbers of x (rows 0 to 2, columns 1 to 3); "
        "all 9 numbers of w."
    )
    assert "(rows 0, 2 and 4, columns 1 and 3), and 3 of its padding" in docs.shown.describe("conv2d_atrous")
    assert docs.shown.describe("im2col").startswith("The matrix's row 1 reads 6 of the 16 numbers")


def test_each_place_of_the_matrix_is_a_copy_worked_out_by_hand(docs: SimpleNamespace) -> None:
    copied = docs.shown.find("im2col").copied - np.array([0, 1, 1, 0])  # the padding
    assert copied.shape == (16, 9, 4)
    # Row 6 is output (1, 2): its window begins at (0, 1).
    assert copied[6, :, 1:3].tolist() == [[y, x] for y in range(3) for x in range(1, 4)]
    assert copied[0, 0, 1:3].tolist() == [-1, -1]


def test_filled_cells_of_the_drawing_are_those_that_were_found(docs: SimpleNamespace) -> None:
    """As a browser sees them: read cells in --one, the output in --two, padding that is read in a faint --one."""
    from resnet_ref.pages.figures import COLOURS

    assert set(COLOURS.values()) >= {"one", "two"}
    for name in docs.shown.PICTURES:
        found = docs.shown.find(name)
        inputs, output = docs.drawn._panels(name)
        kinds = [kind for panel in (*inputs, output) for kind in panel.kinds.flat]
        tree = ElementTree.fromstring(docs.drawn.draw(name)[0])
        styles = [path.get("style") or "" for path in tree.iter(f"{SVG}path")]
        solid = sum("fill: var(--one)" in style and "opacity" not in style for style in styles)
        faint = sum("fill: var(--one)" in style and "opacity" in style for style in styles)
        # One more of each kind that is there stands in the legend.
        assert solid == kinds.count("read") + ("read" in kinds), name
        assert faint == kinds.count("padding, read") + ("padding, read" in kinds), name
        assert sum("fill: var(--two)" in style for style in styles) == kinds.count("output") + 1, name
        for panel, read in zip(inputs, found.reads.values(), strict=True):
            assert np.isin(panel.kinds, ("read", "padding, read")).sum() == read.sum()


def test_every_picture_is_well_formed_and_says_what_it_shows(docs: SimpleNamespace) -> None:
    ids: list[str] = []
    for name, picture in docs.shown.PICTURES.items():
        markup, inches = docs.drawn.draw(name)
        tree = ElementTree.fromstring(markup)
        assert tree.get("role") == "img"
        assert tree.findtext(f"{SVG}title") == picture.title
        assert tree.findtext(f"{SVG}desc") == docs.shown.describe(name)
        assert re.findall(r"#[0-9a-f]{6}", markup) == []  # every colour is the page's
        assert 3 < inches < 13
        ids += [one.get("id", "") for one in tree.iter() if one.get("id")]
    assert len(ids) == len(set(ids))


def test_the_pages_show_every_picture_once(docs: SimpleNamespace) -> None:
    assert sorted(NAMES) == sorted(docs.shown.PICTURES)
    titles = [picture.title for picture in docs.shown.PICTURES.values()]
    assert len(titles) == len(set(titles))
