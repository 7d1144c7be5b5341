"""CUDA's own compiler takes every .cu text, for the oldest and the newest GPUs of interest, and spills no register.

The compiler needs no GPU. What the texts compute is tested on the CPU, and on a GPU where there is one.
"""

import re
from functools import cache
from typing import NamedTuple

import pytest
from cuda_sources import convolutions, sources

from resnet_ref.kernels.conv2d.ladder.gpu import register_tiles
from resnet_ref.kernels.cuda.launch import FOLDER, Source

pytest.importorskip("cupy", reason="CUDA's compiler comes with CuPy")
CUPYS = ("-ftz=true", "--device-as-default-execution-space")  # which it adds to ours
ARCHITECTURES = ("sm_80", "sm_90")
REGISTERS = 65536  # of a multiprocessor, in both
SHARED = {"sm_80": 164 << 10, "sm_90": 228 << 10}  # bytes of a multiprocessor
RESERVED = 1024  # bytes of them that each block costs beside its own


class Compiled(NamedTuple):
    """What the compiler reports of a kernel. shared: bytes. spilled: bytes of registers that went to memory."""

    registers: int
    shared: int
    spilled: int


@cache
def compiled(source: Source, architecture: str) -> list[Compiled]:
    """The kernels of a text; AssertionError with the compiler's log where it refuses."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source.text, source.file, [], [])
    try:
        nvrtc.compileProgram(program, [*source.options, *CUPYS, f"-arch={architecture}", "--ptxas-options=-v"])
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert len(nvrtc.getCUBIN(program)) > 1000
    log = nvrtc.getProgramLog(program)
    kernels = re.findall(
        r"(\d+) bytes spill stores, (\d+) bytes spill loads(.*?)Used (\d+) registers([^\n]*)", log, re.S
    )
    assert len(kernels) == source.text.count("__global__") == log.count("Compiling entry function")
    found = []
    for stores, loads, _, registers, rest in kernels:
        shared = re.search(r"(\d+) bytes smem", rest)
        found.append(Compiled(int(registers), int(shared[1]) if shared else 0, int(stores) + int(loads)))
    return found


def name_of(source: Source) -> str:
    return " ".join([source.file, *(f"{name}={value}" for name, value in source.defines)])


def bounds_others(source: Source) -> bool:
    """Whether of what a text may leave out it leaves out all or nothing."""
    defines = dict(source.defines)
    return len({defines.get(name) for name in ("KVEC", "NVEC", "POINT")}) == 1


# Compiling takes a second each: for the older GPUs, none that lies between two others.
TEXTS = {"sm_80": [source for source in sources() if bounds_others(source)], "sm_90": sources()}
EACH = [(source, architecture) for architecture, texts in TEXTS.items() for source in texts]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_cu_file_is_compiled(architecture: str) -> None:
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("**/*.cu")}
    assert files == {source.file for source in TEXTS[architecture]}


@pytest.mark.parametrize(("source", "architecture"), EACH, ids=lambda x: name_of(x) if isinstance(x, Source) else x)
def test_a_text_compiles_and_spills_no_register(source: Source, architecture: str) -> None:
    assert [kernel.spilled for kernel in compiled(source, architecture)] == [0] * source.text.count("__global__")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_many_blocks_of_a_tile_fit_on_a_multiprocessor_as_the_table_says(architecture: str) -> None:
    for tile, source in convolutions():
        if dict(source.defines)["KVEC"] and dict(source.defines)["NVEC"]:
            (kernel,) = compiled(source, architecture)
            assert kernel.spilled == 0
            rounded = -(-kernel.registers // 8) * 8  # as they are given out
            assert rounded * tile.threads * tile.blocks <= REGISTERS, name_of(source)
            assert (kernel.shared + RESERVED) * tile.blocks <= SHARED[architecture], name_of(source)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_many_blocks_of_the_ladders_register_tiles_fit_as_its_text_says(architecture: str) -> None:
    assert "registers have room for 4" in (register_tiles.__doc__ or "")
    (kernel,) = compiled(register_tiles.SOURCE, architecture)
    threads = register_tiles.BM // register_tiles.TM * (register_tiles.BN // register_tiles.TN)
    assert REGISTERS // (-(-kernel.registers // 8) * 8 * threads) == 4


def test_a_text_that_spills_or_is_wrong_is_seen() -> None:
    """So many sums in so few registers cannot be kept there."""
    _, source = convolutions()[0]
    crowded = Source(source.file, tuple({**dict(source.defines), "MIN_BLOCKS": 5}.items()))
    assert sum(kernel.spilled for kernel in compiled(crowded, "sm_90")) > 0
    wrong = Source(source.file, tuple({**dict(source.defines), "BK": 6}.items()))
    with pytest.raises(pytest.fail.Exception, match="whole loads of A"):
        compiled(wrong, "sm_90")
