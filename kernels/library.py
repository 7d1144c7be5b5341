"""Every kernel that a Plan's programs call, as machine code for one instruction set."""

import hashlib
from functools import cache

import llvmlite
import llvmlite.binding as llvm

from resnet_ref.kernels.conv2d.bf16 import PRODUCTS, emit_bf16, function_name
from resnet_ref.kernels.conv2d.multiply import emit_multiply, tile_names
from resnet_ref.kernels.conv2d.pad import emit_pad
from resnet_ref.kernels.conv2d.winograd import SIZES, emit_winograd
from resnet_ref.kernels.max_pool2d.planned import emit_pool
from resnet_ref.kernels.pointwise.planned import emit_add
from resnet_ref.kernels.softmax.planned import emit_softmax
from resnet_ref.kernels.spatial_mean.planned import emit_mean
from resnet_ref.kernels.vector.cache import cached
from resnet_ref.kernels.vector.emit import Emitter
from resnet_ref.kernels.vector.isa import Isa
from resnet_ref.kernels.vector.objects import Library, compile_object, link
from resnet_ref.kernels.vector.sources import KERNELS, sources_hash
from resnet_ref.kernels.vector.team import emit_team

_EMITTERS = (
    emit_team,
    emit_multiply,
    emit_winograd,
    emit_bf16,
    emit_pad,
    emit_pool,
    emit_add,
    emit_mean,
    emit_softmax,
)


def emit_all(isa: Isa) -> Emitter:
    """All kernels in one module."""
    e = Emitter(isa)
    for emit in _EMITTERS:
        emit(e)
    return e


def function_names(isa: Isa) -> list[str]:
    """What the module exports."""
    stages = [f"winograd_{stage}_{m}" for stage in ("input", "output") for m in SIZES]
    others = [
        "run",
        "publish",
        "lead",
        "attend",
        "multiply",
        "winograd_fused",
        "pad",
        "max_pool",
        "add",
        "mean",
        "softmax",
    ]
    matrix = [function_name(precision) for precision in PRODUCTS] if isa.matrix else []
    return [*tile_names(isa), *stages, *others, *matrix]


@cache
def library(isa: Isa) -> Library:
    """The kernels for an instruction set that this machine has; compiled, or read from the cache, once a process."""
    # Machines may share the folder: each has its own key, and whatever stands there, only code for this target is run.
    key, stamp = f"kernels-{isa.name}-{_fingerprint(isa)}", f"{isa.target}\n".encode()
    code = cached(key, lambda: compile_object(emit_all(isa)), stamp)
    return link(isa, code, function_names(isa))


def _fingerprint(isa: Isa) -> str:
    """A hash of all that the machine code depends on: the emitters' sources, the instruction set and what LLVM compiles
    it for, LLVM's version."""
    about = (sources_hash(KERNELS), isa, llvm.llvm_version_info, llvmlite.__version__)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]
