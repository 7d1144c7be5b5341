"""Every .cu text that a gpu may be given to compile: each file with each set of defines that the launchers use."""

from functools import cache
from importlib import import_module

from resnet_ref.kernels import geometry
from resnet_ref.kernels.conv2d.gpu import source_of
from resnet_ref.kernels.conv2d.tiles import TILES, Tile, Way
from resnet_ref.kernels.cuda.launch import FOLDER, Source

# C and F, divisible by 4 or not, under a window of one tap and under one of several.
SHAPES = [(c, f, window) for c in (8, 3) for f in (8, 5) for window in (geometry.valid(1), geometry.fixed(3))]


def convolutions() -> list[tuple[Tile, Source]]:
    """Those of all tiles, with the tile."""
    return [
        (tile, source_of(Way(precision, tile, 1), c, f, window, window))
        for precision, tiles in TILES.items()
        for tile in tiles
        for c, f, window in SHAPES
    ]


@cache
def sources() -> list[Source]:
    """All of them."""
    patterns = ("*/gpu.py", "*/peak.py", "conv2d/ladder/gpu/[!_]*.py")
    found = {source for _, source in convolutions()}
    for path in [path for pattern in patterns for path in FOLDER.glob(pattern)]:
        module = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        values = vars(import_module(f"resnet_ref.kernels.{module}")).values()
        found |= {value for value in values if isinstance(value, Source)}
    return sorted(found)
