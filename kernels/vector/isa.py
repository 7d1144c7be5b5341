"""The instruction sets that kernels are emitted for, and which of them this machine has.

Each is one of LLVM's published levels (x86-64-v4 and the like) rather than this machine's own model, so that what is
compiled depends on the name and the system alone, and a stored object meets no CPU that lacks an instruction of it.
"""

from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm

from resnet_ref.errors import DeviceError


@dataclass(frozen=True)
class Isa:
    """An instruction set: how wide a vector is, and the register tile that fills its registers (see tile.py).

    lanes: float32 numbers in a vector. rows, vectors: the largest tile. fused: whether it multiplies and adds in one
    rounding. triple, cpu, features: what LLVM compiles for; the triple decides on the calling convention, the names of
    symbols and the format of objects. matrix: "amx", "emulated" or none (see matrix.py). by_lane: whether a
    multiply-add takes one lane of a vector as a factor, so that tiles read their pixels by vectors.
    """

    name: str
    lanes: int
    rows: int
    vectors: int
    fused: bool
    triple: str
    cpu: str
    features: str = ""
    matrix: str = ""
    by_lane: bool = False

    @property
    def panel(self) -> int:
        """Output channels that a full tile computes."""
        return self.lanes * self.vectors

    @property
    def architecture(self) -> str:
        """The triple's, as LLVM calls it: "x86_64", "aarch64"."""
        return str(llvm.get_triple_parts(self.triple).Arch)

    @property
    def system(self) -> str:
        """The triple's, as LLVM calls it: "linux", "darwin", "windows"."""
        return str(llvm.get_triple_parts(self.triple).OS)

    @property
    def target(self) -> str:
        """All that LLVM compiles for, in one line."""
        return f"{self.triple} {self.cpu or '-'} {self.features or '-'}"


def _process_triple() -> str:
    triple = llvm.get_process_triple()
    # LLJIT may fail to link the constants of Windows' own objects; Numba takes ELF there, too.
    return f"{triple}-elf" if llvm.get_triple_parts(triple).ObjectFormat == "COFF" else triple


_PROCESS = _process_triple()


def _triple(architecture: str) -> str:
    """This process' own where the architecture is, so that calls, symbols and objects are its system's; else Linux',
    for code that is looked at and not run."""
    own = llvm.get_triple_parts(_PROCESS).Arch == architecture
    return _PROCESS if own else f"{architecture}-unknown-linux-gnu"


_X86, _ARM = _triple("x86_64"), _triple("aarch64")
# Registers: 32 of 16 lanes hold 14 x 2 sums, 2 weights, 1 pixel; 16 of 8 hold 6 x 2.
AVX512 = Isa("avx512", 16, 14, 2, True, _X86, "x86-64-v4")
AVX2 = Isa("avx2", 8, 6, 2, True, _X86, "x86-64-v3")
# 32 of 4 lanes hold 6 x 4 sums, four numbers of each of 6 pixels, and 2 weights. The innermost loop of other tiles:
#   tile   instructions   multiply-adds   a multiply-add
#   6 x 4       120             96             1.25
#   5 x 5       127            100             1.27
#   4 x 6       122             96             1.27
#   7 x 3       109             84             1.30
#   8 x 3       187             96             1.95       33 of them read or write the stack: no register for weights
#   7 x 4       260            112             2.32       52 of them do: sums and pixels alone are 35
# and with one number of each pixel at a time: 6 x 4 1.63, 5 x 5 1.60, 4 x 6 1.58, 9 x 3 1.67, 8 x 3 1.71.
NEON = Isa("neon", 4, 6, 4, True, _ARM, "generic", "+neon", by_lane=True)
# Not chosen by name but by precision.
AMX = Isa("amx", 16, 14, 2, True, _X86, "x86-64-v4", "+amx-tile,+amx-bf16", "amx")
# Vectors of 4 exist almost everywhere; where they do not, LLVM takes them apart.
PLAIN = Isa("plain", 4, 4, 2, False, _PROCESS, "")
NAMES = (AVX512.name, AVX2.name, NEON.name, PLAIN.name)
_V3 = ("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")
_NEEDS = {
    AVX512: (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    AVX2: _V3,
    NEON: (),  # every AArch64 has it, and on macOS LLVM names no features
    PLAIN: (),
}


@cache
def available() -> tuple[Isa, ...]:
    """What this machine has, the fastest first; PLAIN always."""
    features = llvm.get_host_cpu_features()
    return tuple(
        isa
        for isa, needs in _NEEDS.items()
        if isa.triple == _PROCESS and all(features.get(feature, False) for feature in needs)
    )


def isa_named(name: str | None) -> Isa:
    """The instruction set of that name, or for None the fastest this machine has; DeviceError where it has not."""
    here = {isa.name: isa for isa in available()}
    if name is None:
        return next(iter(here.values()))
    if not isinstance(name, str) or name not in NAMES:
        raise DeviceError(f"isa must be None or one of {', '.join(NAMES)}; got {name!r}")
    if name not in here:
        raise DeviceError(
            f'this machine has no "{name}", only {", ".join(here)}; leave isa out for the fastest of them'
        )
    return here[name]


def has_amx() -> bool:
    """Whether this machine has AVX-512 and AMX for bf16."""
    features = llvm.get_host_cpu_features()
    return AVX512 in available() and all(features.get(name, False) for name in ("amx-tile", "amx-bf16"))


def emulated() -> Isa:
    """What computes AMX's products without it, slowly: for tests."""
    return replace(available()[0], name="emulated", lanes=AMX.lanes, matrix="emulated")
