"""Who takes part in a benchmark of a gpu: ours twice, and PyTorch as one captured graph."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from resnet_ref import errors
from resnet_ref.bench import contenders, serve, torch_cuda

ROOT = Path(__file__).parents[1]
SMALL = {"rounds": 1, "repeats": 2}


def test_ours_on_a_gpu_stands_twice_with_and_without_copies_of_the_host() -> None:
    found = contenders.our_contenders(["precision=tf32", "device=cpu"], {"device": "gpu:1"})
    assert [(one.name, one.device, one.from_host, one.exact) for one in found] == [
        ("ours device=gpu:1 precision=tf32", "gpu:1", False, False),
        ("ours device=gpu:1 precision=tf32, from host memory", "gpu:1", True, False),
        ("ours device=cpu", "cpu", False, True),
    ]
    assert [one.name for one in contenders.our_contenders([], {})] == ["ours"]
    with pytest.raises(errors.BenchError, match='"auto" may be either'):
        contenders.our_contenders(["device=auto"], {})


def test_peers_are_those_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: object())
    monkeypatch.setattr(contenders, "torch_cuda", lambda: {"torch": "2.9"})
    on_gpu, _ = contenders.peer_contenders([], True, "gpu:1")
    assert [(one.name, one.device, one.precision) for one in on_gpu] == [
        ("pytorch-gpu", "gpu:1", "float32"),
        ("pytorch-gpu-tf32", "gpu:1", "tf32"),
    ]
    on_cpu, _ = contenders.peer_contenders(["pytorch-gpu"], True, "cpu")
    assert {one.name: one.device for one in on_cpu} == {
        **dict.fromkeys(["onnxruntime", "openvino", "pytorch", "tensorflow"], "cpu"),
        "pytorch-gpu": "gpu",
    }


@pytest.mark.parametrize("has_cuda", [True, False])
def test_pytorch_is_asked_for_cuda_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_cuda: bool
) -> None:
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as S\n"
        f"cuda = S(is_available=lambda: {has_cuda})\n"
        "__version__, version = '2.9', S(cuda='13.0')\n"
        "backends = S(cudnn=S(version=lambda: 91000))\n"
        "print('a library may print')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(contenders, "find_spec", lambda name: object())
    torch_cuda.torch_cuda.cache_clear()
    try:
        found, absent = contenders.peer_contenders([], True, "gpu")
        if has_cuda:
            assert torch_cuda.torch_cuda() == {"torch": "2.9", "cuda": "13.0", "cudnn": 91000}
            assert (len(found), absent) == (2, {})
            return
        assert absent.keys() == {"pytorch-gpu", "pytorch-gpu-tf32"}
        assert "was built without CUDA, or finds no GPU" in absent["pytorch-gpu"]
        with pytest.raises(errors.BenchError, match="pytorch-gpu is not installed: this PyTorch was built without"):
            contenders.peer_contenders(["pytorch-gpu"], False, "gpu")
    finally:
        torch_cuda.torch_cuda.cache_clear()


class Torch:
    """As much of PyTorch as serve.py calls on a gpu; `log` holds what was done in which order."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.backends = SimpleNamespace(
            cudnn=SimpleNamespace(benchmark=False, allow_tf32=True),
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
        )
        self.jit = SimpleNamespace(load=self.load)
        stream = SimpleNamespace(wait_stream=lambda other: None)
        self.cuda = SimpleNamespace(
            set_device=lambda device: self.log.append(device), Event=self.event,
            CUDAGraph=lambda: SimpleNamespace(replay=lambda: self.log.append("replay")),
            Stream=lambda: stream, current_stream=lambda: stream, stream=lambda stream: self.noted("aside"),
            graph=lambda graph: self.noted("capture"), synchronize=lambda: self.log.append("synchronize"),
        )  # fmt: skip
        self.inference_mode = lambda: self.noted("inference")

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        self.log.append(what)
        yield
        self.log.append(f"end of {what}")

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        return SimpleNamespace(
            record=lambda: self.log.append("record"),
            synchronize=lambda: self.log.append("wait"),
            elapsed_time=lambda other: 2.5,
        )

    def set_num_threads(self, count: int) -> None: ...

    def device(self, kind: str, index: int) -> str:
        return f"{kind}:{index}"

    def from_numpy(self, array: Any) -> Any:
        return Tensor(array)

    def load(self, path: str, map_location: str) -> Any:
        self.log.append(("load", map_location))
        return SimpleNamespace(eval=lambda: self.module)

    def module(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        self.log.append(("call", images.device, images.array.shape))
        return images, Tensor(-images.array, images.device)


class Tensor:
    def __init__(self, array: Any, device: str = "cpu") -> None:
        self.array, self.device = array, device

    def permute(self, *axes: int) -> "Tensor":
        return Tensor(self.array.transpose(axes), self.device)

    def to(self, device: str) -> "Tensor":
        return Tensor(self.array, device)

    def cpu(self) -> "Tensor":
        return Tensor(self.array)

    def numpy(self) -> Any:
        assert self.device == "cpu"
        return self.array


@pytest.mark.parametrize("name", ["pytorch-gpu", "pytorch-gpu-tf32", "pytorch-gpu-bf16"])
def test_pytorch_runs_as_one_captured_graph_with_tf32_as_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch = Torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    images = np.random.default_rng(0).standard_normal((2, 5, 4, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    job = {
        "threads": 1,
        "network": "n",
        "images": tmp_path / "images.npy",
        "logits": "l",
        "options": {"device": "gpu:1"},
    }
    engine = serve.ENGINES[name](job)
    assert torch.log[:2] == ["cuda:1", ("load", "cuda:1")]
    call = ("call", "cuda:1", (2, 3, 5, 4))
    assert torch.log[2:] == [
        *("inference", "aside", *[call] * 5, "end of aside"),
        *("capture", call, "end of capture", "end of inference"),
    ]
    is_tf32 = name.endswith("tf32")
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cudnn.benchmark, *allowed) == (True, is_tf32, is_tf32)
    torch.log.clear()
    serve.obey(engine, {"runs": 2, "warm": 1})
    assert torch.log == ["replay", "synchronize"] * 3
    torch.log.clear()
    assert engine.clock is not None
    assert engine.clock(3) == [0.0025] * 3
    assert torch.log == ["record", *["replay", "record"] * 3, "wait"], "one behind the other, by the device's clock"
    serve.obey(engine, {"outputs": tmp_path / "o.npz"})
    with np.load(tmp_path / "o.npz") as found:
        np.testing.assert_array_equal(found["result"], images)
        np.testing.assert_array_equal(found["logits"], -images)
