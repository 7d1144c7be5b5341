"""How convolutions are cut into tiles and splits: what is on the table is legal, and the model's choices are sane."""

import itertools
import math

import pytest

from resnet_ref.kernels.conv2d.tiles import (
    CLOCK,
    COPY_RATE,
    LAUNCH,
    PRECISIONS,
    TILES,
    Tile,
    Way,
    by_name,
    candidates,
    k_per_split,
    seconds,
)

H200, A100 = 132, 108  # multiprocessors
STATIC_SHARED = 48 << 10  # bytes of a block that no launcher has to ask for
# [M, N, K] of ResNet-50's convolutions at 224 for one image: unit by unit, what the first of a stage has first.
STEM = (112 * 112, 64, 147)
STAGES = {
    56: [(3136, 64, 64), (3136, 256, 64), (3136, 64, 256), (3136, 64, 576)],
    28: [(784, 512, 256), (784, 128, 512), (784, 128, 1152), (784, 512, 128)],
    14: [(196, 1024, 512), (196, 256, 1024), (196, 256, 2304), (196, 1024, 256)],
    7: [(49, 2048, 1024), (49, 512, 2048), (49, 512, 4608), (49, 2048, 512)],
}
PRODUCTS = [STEM, *itertools.chain(*STAGES.values())]
WIDE = TILES["float32"][1]


def first(product: tuple[int, int, int], images: int, multiprocessors: int = H200) -> Way:
    m, n, k = product
    return candidates(images * m, n, k, multiprocessors)[0]


@pytest.mark.parametrize("tile", TILES["float32"], ids=lambda tile: tile.name)
def test_a_tile_is_shared_out_whole_and_fits_a_block(tile: Tile) -> None:
    assert tile.threads == tile.bm // tile.tm * (tile.bn // tile.tn)
    assert tile.threads % 32 == 0
    assert tile.threads <= 1024
    assert tile.blocks * tile.threads <= 2048
    assert 2 * 4 * tile.bk * (tile.bm + 4 + tile.bn) <= STATIC_SHARED
    assert 0 < tile.share < 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("multiprocessors", [1, A100, H200])
@pytest.mark.parametrize("images", [1, 8, 64])
def test_candidates_are_legal_and_none_is_named_twice(images: int, multiprocessors: int, precision: str) -> None:
    for m, n, k in [*PRODUCTS, (1, 1, 1), (3, 5, 100)]:
        ways = candidates(images * m, n, k, multiprocessors, precision)
        assert {way.tile for way in ways} == set(TILES[precision])
        for way in ways:
            assert way.precision == precision
            assert 1 <= way.splits <= math.ceil(k / way.tile.bk)
            assert by_name(precision, way.name) == way
        assert len({way.name for way in ways}) == len(ways)
        times = [seconds(way, images * m, n, k, multiprocessors) for way in ways]
        assert times == sorted(times)


def test_no_split_has_more_sums_than_a_kernel_can_index() -> None:
    m, n = 1 << 20, 700
    assert {way.splits for way in candidates(m, n, 4608, H200)} == {1, 2}
    assert {way.splits for way in candidates(2 * m, n, 4608, H200)} == {1}


def test_a_name_says_precision_tile_and_split() -> None:
    assert Way("float32", WIDE, 1).name == "float32 128x64"
    assert Way("float32", WIDE, 4).name == "float32 128x64 split 4"
    assert by_name("float32", "float32 128x64 split 4") == Way("float32", WIDE, 4)


@pytest.mark.parametrize("name", ["", "128x64", "float32 128x64 split 5", "float32 128x64 split 1", "float32 96x64"])
def test_a_name_that_no_way_has_finds_none(name: str) -> None:
    assert by_name("float32", name) is None
    assert by_name("float8", name) is None


@pytest.mark.parametrize(("k", "splits", "want"), [(64, 1, 64), (65, 1, 72), (72, 2, 40), (72, 4, 24), (8, 3, 8)])
def test_splits_take_whole_steps(k: int, splits: int, want: int) -> None:
    assert k_per_split(Way("float32", WIDE, splits), k) == want


def test_the_model_worked_out_by_hand() -> None:
    """128 x 64 x 128 products on 128 multipliers that have 0.78 of their time for it. A block of four warps alone hides
    half of 0.9 of what eight would; three times as many blocks as multiprocessors, 12 warps on each, hide all."""
    alone = 128 * 64 * 128 / 128 / 0.78 / CLOCK
    assert seconds(Way("float32", WIDE, 1), 128, 64, 128, 1) == pytest.approx(alone / 0.55 + LAUNCH)
    assert seconds(Way("float32", WIDE, 1), 1280, 192, 128, 10) == pytest.approx(3 * alone + LAUNCH)
    split = 8192 / 0.78 / 2 / CLOCK / 0.55 + 2 * LAUNCH + 3 * 128 * 64 * 4 / COPY_RATE
    assert seconds(Way("float32", WIDE, 2), 128, 64, 128, 2) == pytest.approx(split)


def test_one_image_fills_the_device_by_small_tiles_and_by_splits_that_grow_with_depth() -> None:
    assert first(STEM, 1).name == "float32 32x64"
    for product in PRODUCTS:
        assert first(product, 1).tile.name == "32x64"
    assert [first(product, 1).splits for product in STAGES[56]] == [1, 1, 4, 4]
    assert [first(product, 1).splits for product in STAGES[28]] == [1, 4, 12, 1]
    assert [first(product, 1).splits for product in STAGES[14]] == [2, 8, 8, 2]
    assert [first(product, 1).splits for product in STAGES[7]] == [4, 16, 16, 4]


def test_eight_images_need_splits_for_the_smallest_maps_only_and_have_larger_tiles() -> None:
    assert first(STEM, 8).name == "float32 128x64"
    assert {first(product, 8).splits for product in STAGES[56]} == {1}
    assert {first(product, 8).tile.bm for product in STAGES[56]} == {64, 128}
    assert [first(product, 8).splits for product in STAGES[7]] == [2, 8, 8, 1]


def test_many_images_take_the_large_tiles_whole() -> None:
    for product in [STEM, *STAGES[56], *STAGES[28], *STAGES[14]]:
        assert first(product, 64).splits == 1
        assert first(product, 64).tile.bm == 128


@pytest.mark.parametrize("images", [1, 8, 64])
def test_twice_the_multiprocessors_are_never_slower(images: int) -> None:
    for m, n, k in PRODUCTS:
        few, many = (
            seconds(candidates(images * m, n, k, count)[0], images * m, n, k, count) for count in (A100, 2 * A100)
        )
        assert many <= few
