"""Who takes part in a benchmark, and with which settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from resnet_ref.errors import BenchError

OURS = "ours"
# What load_model takes beside the file and the threads.
OPTIONS = ("device", "algorithm", "precision", "isa")


@dataclass(frozen=True)
class Contender:
    """name: as tables show it. engine: in serve.py. options: load_model's, of ours alone.

    exact: whether it computes in float32 (or more) throughout, so that its outputs must agree with the others'.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is this package."""
        return self.engine == OURS


@dataclass(frozen=True)
class Peer:
    """Another engine. file: which of `files` its process reads. modules: what must be importable. packages: whose
    versions belong to its figures. extra: of this package, which installs it. nchw: how it takes images. listed:
    whether `--peers` means it too. exact: as in Contender."""

    file: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str = "bench"
    nchw: bool = False
    listed: bool = True
    exact: bool = True


PEERS = {
    "onnxruntime": Peer("network.onnx", ("onnxruntime", "onnx"), ("onnxruntime", "onnx"), nchw=True),
    "openvino": Peer("network.onnx", ("openvino", "onnx"), ("openvino", "onnx"), nchw=True),
    "openvino-bf16": Peer(
        "network.onnx", ("openvino", "onnx"), ("openvino", "onnx"), nchw=True, listed=False, exact=False
    ),
    "pytorch": Peer("network.pt", ("torch",), ("torch",)),
    "tensorflow": Peer(
        "network.pb", ("tensorflow", "tf_keras", "tf_slim"), ("tensorflow", "tf_keras", "tf_slim"), extra="oracle"
    ),
}


def our_contenders(texts: Sequence[str], shared: Mapping[str, Any]) -> list[Contender]:
    """Ours, once for each text such as "algorithm=direct,isa=avx512" (no text: once), each over the `shared` options.

    BenchError where a text names no option of load_model, or two come to the same.
    """
    made: dict[str, Contender] = {}
    for text in texts or [""]:
        own = dict(_option(text, part) for part in text.split(",") if part)
        options = {**shared, **own}
        name = " ".join([OURS, *(f"{key}={value}" for key, value in options.items())])
        if name in made:
            raise BenchError(f"--ours {text!r} is given twice; give each set of options once")
        exact = options.get("precision", "float32") in ("float32", "float64", "bf16x6")
        made[name] = Contender(name, OURS, options, exact)
    return list(made.values())


def _option(text: str, part: str) -> tuple[str, str]:
    key, given, value = part.partition("=")
    if not given or not value or key not in OPTIONS:
        raise BenchError(f"--ours {text!r}: {part!r} must be KEY=VALUE with KEY one of {', '.join(OPTIONS)}")
    return key, value


def peer_contenders(asked: Sequence[str], every: bool) -> tuple[list[Contender], dict[str, str]]:
    """The peers that were asked for by name, or `every` one that is listed; and of the latter those that are not
    installed: name -> what to do. BenchError where one asked for by name is not installed."""
    made, absent = [], {}
    for name, peer in PEERS.items():
        if name not in asked and not (every and peer.listed):
            continue
        missing = [module for module in peer.modules if find_spec(module) is None]
        if not missing:
            made.append(Contender(name, name, exact=peer.exact))
            continue
        what = f"no module {', '.join(missing)}; pip install 'resnet-ref[{peer.extra}]'"
        if name in asked:
            raise BenchError(f"{name} is not installed: {what}")
        absent[name] = what
    return made, absent
