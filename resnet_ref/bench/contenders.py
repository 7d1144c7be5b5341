"""Who takes part in a benchmark, and with which settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from resnet_ref.accuracy import BITS
from resnet_ref.bench.torch_cuda import torch_cuda
from resnet_ref.errors import BenchError

OURS = "ours"
CPU, GPU = "cpu", "gpu"
# What load_model takes beside the file and the threads.
OPTIONS = ("device", "algorithm", "precision", "isa")


@dataclass(frozen=True)
class Contender:
    """name: as tables show it. engine: in serve.py. options: load_model's; of a peer the device alone, and only a gpu.

    precision: of its products, as load_model names it. from_host: ours on a gpu, timed with its copies from and to the
    host; without them, like the peers there, it goes from images on the device to a result on the device.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    from_host: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it is this package."""
        return self.engine == OURS

    @property
    def exact(self) -> bool:
        """Whether it must agree with the others as float32 does."""
        return self.precision not in BITS

    @property
    def device(self) -> str:
        """What it runs on: the cpu, or a gpu as load_model names it."""
        named = str(self.options.get("device", CPU))
        return named if is_gpu(named) else CPU


@dataclass(frozen=True)
class Peer:
    """Another engine. file: which of `files` its process reads. modules: what must be importable. packages: whose
    versions belong to its figures. extra: of this package, which installs it. nchw: how it takes images. listed:
    whether `--peers` means it too. precision: as in Contender. device: CPU or GPU."""

    file: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str = "bench"
    nchw: bool = False
    listed: bool = True
    precision: str = "float32"
    device: str = CPU


PEERS = {
    "onnxruntime": Peer("network.onnx", ("onnxruntime", "onnx"), ("onnxruntime", "onnx"), nchw=True),
    "openvino": Peer("network.onnx", ("openvino", "onnx"), ("openvino", "onnx"), nchw=True),
    "openvino-bf16": Peer(
        "network.onnx", ("openvino", "onnx"), ("openvino", "onnx"), nchw=True, listed=False, precision="bfloat16"
    ),
    "pytorch": Peer("network.pt", ("torch",), ("torch",)),
    "pytorch-gpu": Peer("network.pt", ("torch",), ("torch",), device=GPU),
    "pytorch-gpu-tf32": Peer("network.pt", ("torch",), ("torch",), precision="tf32", device=GPU),
    "pytorch-gpu-bf16": Peer("network.bf16.pt", ("torch",), ("torch",), listed=False, precision="bfloat16", device=GPU),
    "tensorflow": Peer(
        "network.pb", ("tensorflow", "tf_keras", "tf_slim"), ("tensorflow", "tf_keras", "tf_slim"), extra="oracle"
    ),
}


def is_gpu(device: str) -> bool:
    """Whether load_model takes that for a gpu."""
    return device.partition(":")[0] == GPU


def our_contenders(texts: Sequence[str], shared: Mapping[str, Any]) -> list[Contender]:
    """Ours, once for each text such as "algorithm=direct,isa=avx512" (no text: once), each over the `shared` options;
    on a gpu once more, from the host's memory.

    BenchError where a text names no option of load_model, two come to the same, or the device may be any.
    """
    made: dict[str, Contender] = {}
    for text in texts or [""]:
        own = dict(_option(text, part) for part in text.split(",") if part)
        given = {**shared, **own}
        options = {"device": CPU, **given}
        if options["device"] == "auto":
            raise BenchError('a benchmark is of one device, and "auto" may be either; name it: "cpu", "gpu"')
        name = " ".join([OURS, *(f"{key}={value}" for key, value in given.items())])
        if name in made:
            raise BenchError(f"--ours {text!r} is given twice; give each set of options once")
        made[name] = Contender(name, OURS, options, options.get("precision", "float32"))
        if is_gpu(options["device"]):
            made[f"{name}, from host memory"] = replace(made[name], name=f"{name}, from host memory", from_host=True)
    return list(made.values())


def _option(text: str, part: str) -> tuple[str, str]:
    key, given, value = part.partition("=")
    if not given or not value or key not in OPTIONS:
        raise BenchError(f"--ours {text!r}: {part!r} must be KEY=VALUE with KEY one of {', '.join(OPTIONS)}")
    return key, value


def peer_contenders(asked: Sequence[str], every: bool, device: str) -> tuple[list[Contender], dict[str, str]]:
    """The peers that were asked for by name, or `every` one that is listed for the device; and of the latter those that
    cannot run: name -> what to do. BenchError where one asked for by name cannot."""
    made, absent = [], {}
    kind = GPU if is_gpu(device) else CPU
    for name, peer in PEERS.items():
        if name not in asked and not (every and peer.listed and peer.device == kind):
            continue
        if (why := _missing(peer)) is None:
            where = {} if peer.device == CPU else {"device": device if kind == GPU else GPU}
            made.append(Contender(name, name, where, peer.precision))
        elif name in asked:
            raise BenchError(f"{name} is not installed: {why}")
        else:
            absent[name] = why
    return made, absent


def _missing(peer: Peer) -> str | None:
    """Why a peer cannot run here, and what to do."""
    missing = [module for module in peer.modules if find_spec(module) is None]
    if missing:
        return f"no module {', '.join(missing)}; pip install 'resnet-ref[{peer.extra}]'"
    if peer.device == GPU and torch_cuda() is None:
        return "this PyTorch was built without CUDA, or finds no GPU; pytorch.org tells which to install"
    return None
