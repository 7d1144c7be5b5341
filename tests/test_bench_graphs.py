"""The graphs that the peers are given compute what the definition computes, whatever the network."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_ref import kernels, save_weights
from resnet_ref.bench import agreement, serve
from resnet_ref.bench.contenders import GPU, PEERS, Contender
from resnet_ref.bench.files import Files, _write
from resnet_ref.bench.process import Outputs, job_of
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network
from resnet_ref.random_weights import random_variables
from resnet_ref.weights_file import load_weights

# A float32 engine strays so far from float64, of the largest value, in the networks below; a wrong pad, rate or fold
# is thousands of times worse.
NEAR = 2e-5
DEVIATION = 10  # of the images: so that bounds of 6 are met, and not everywhere
ABSENT = "PyTorch, as large as all else together, is not in the extra `test`"


def units(*sizes: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"depth": depth, "depth_bottleneck": inner, "stride": stride} for depth, inner, stride in sizes]


BLOCKS = [
    {"scope": "block1", "args": units((12, 3, 1), (12, 4, 2))},
    {"scope": "block2", "args": units((20, 5, 3), (20, 6, 1))},
    {"scope": "block3", "args": units((20, 7, 2), (28, 3, 1))},
]
OWN = {"function": "resnet_v1", "num_classes": 5, "blocks": BLOCKS}
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "own blocks": (OWN, (62, 85)),
    "own blocks, odd by even": (OWN, (85, 62)),
    "one pixel": (OWN, (1, 1)),
    "slim's, narrow": ({"function": "resnet_v1_50", "num_classes": 11, "depth_multiplier": 0.125}, (65, 50)),
    "output_stride 8": ({**OWN, "output_stride": 8}, (61, 46)),
    "output_stride 24": ({**OWN, "output_stride": 24}, (61, 46)),
    "late strides": ({**OWN, "store_non_strided_activations": True}, (57, 70)),
    "no root block, five channels": ({**OWN, "include_root_block": False, "channels": 5}, (37, 26)),
    "no root block, dense": (
        {**OWN, "include_root_block": False, "global_pool": False, "spatial_squeeze": False, "output_stride": 6},
        (37, 26),
    ),
    "no classes": ({**OWN, "num_classes": None}, (33, 40)),
    "no classes, no pooling": ({**OWN, "num_classes": None, "global_pool": False}, (47, 40)),
    "no squeeze": ({**OWN, "spatial_squeeze": False}, (33, 40)),
    "biases instead of batch norm": ({**OWN, "arg_scope": {"use_batch_norm": False}}, (65, 50)),
    "no gamma, another epsilon": (
        {**OWN, "arg_scope": {"batch_norm_scale": False, "batch_norm_epsilon": 1e-2}},
        (65, 50),
    ),
    "relu6": ({**OWN, "arg_scope": {"activation_fn": "relu6"}}, (65, 50)),
    "no activation": ({**OWN, "arg_scope": {"activation_fn": None}}, (65, 50)),
    "bounded": ({**OWN, "arg_scope": {"use_bounded_activations": True}}, (65, 50)),
    # The root's outputs, as a shortcut, go beyond 6: only then does it matter that the residual is clipped.
    "bounded, its first shortcut not": (
        {**OWN, "blocks": [{"scope": "a", "args": units((64, 9, 1))}], "arg_scope": {"use_bounded_activations": True}},
        (65, 50),
    ),
}
ENGINES = [
    pytest.param("onnxruntime", marks=pytest.mark.peers),
    pytest.param("openvino", marks=pytest.mark.peers),
    pytest.param("pytorch", marks=pytest.mark.peers),
    pytest.param("tensorflow", marks=pytest.mark.oracle),
    pytest.param("pytorch-gpu", marks=[pytest.mark.peers, pytest.mark.gpu]),
]


def computed(folder: Path, network: dict[str, Any], size: tuple[int, int], name: str, batch: int) -> list[Outputs]:
    """What the peer computes, and the truth; by way of the files, and of the functions that its process calls."""
    if name.startswith("pytorch"):
        torch = pytest.importorskip("torch", reason=ABSENT, exc_type=ImportError)
        if PEERS[name].device == GPU and not torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
    described = Network.from_json(network)
    save_weights(folder / "w.h5", random_variables(described.variables()), described)
    files = Files(folder, load_weights(folder / "w.h5"), size, DEVIATION)
    contender = Contender(name, name, {"device": PEERS[name].device})
    job = job_of(contender, files, batch, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the processes: what engines warn of is their own affair
        _write(files.network_file(contender), files.weights.path, size)
        serve.obey(serve.ENGINES[name](job), {"outputs": str(folder / "o.npz")})
    with np.load(folder / "o.npz") as found:
        return [Outputs(found["result"], found.get("logits")), agreement.truth(files, batch)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_peer_computes_the_network_that_it_is_given(tmp_path: Path, name: str, engine: str) -> None:
    found, true = computed(tmp_path, *NETWORKS[name], engine, 3)
    assert len(found.result) == 3
    assert found.result.shape[1:] == true.result.shape[1:]
    assert (found.logits is None) == (true.logits is None)
    assert agreement.error(found, true) < NEAR
    np.testing.assert_allclose(found.result[::2], true.result, rtol=0, atol=1e-4 * np.abs(true.result).max())


@pytest.mark.peers
@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_in_bfloat16_computes_the_network_as_well_as_that_allows(tmp_path: Path, name: str) -> None:
    """From float32 to float32; its weights lie in bfloat16, so that no run has to turn them."""
    torch = pytest.importorskip("torch", reason=ABSENT, exc_type=ImportError)
    network, size = NETWORKS[name]
    described = Network.from_json(network)
    save_weights(tmp_path / "w.h5", random_variables(described.variables()), described)
    files = Files(tmp_path, load_weights(tmp_path / "w.h5"), size, DEVIATION)
    path = files.network_file(Contender("pytorch-gpu-bf16", "pytorch-gpu-bf16", {"device": "gpu"}))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        _write(path, files.weights.path, size)
        module = torch.jit.load(str(path)).eval()
        given = module(torch.from_numpy(files.images(3)).permute(0, 3, 1, 2))
    assert {value.dtype for value in given} == {torch.float32}
    assert str(module.inlined_graph).count("aten::to(") == 1 + len(given)
    arrays = [value.numpy().transpose(0, 2, 3, 1) if value.ndim == 4 else value.numpy() for value in given]
    found, true = Outputs(arrays[0], arrays[1] if len(arrays) > 1 else None), agreement.truth(files, 3)
    assert NEAR < agreement.error(found, true) < agreement.allowed("bfloat16")


@pytest.mark.peers
@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize(
    "window",
    [
        (1, 2),
        (1, 3),
        (3, 2, 1, 0, 1),
        (3, 2, 1, 1, 1),
        (2, 1, 1, 0, 1),
        (3, 1, 2, 2, 2),
        (2, 3, 1, 1, 1),
        (3, 3, 1, 2, 2),
    ],
)
def test_pytorch_pools_any_window_as_the_definition_does(window: tuple[int, ...], n: int) -> None:
    torch = pytest.importorskip("torch", reason=ABSENT, exc_type=ImportError)
    from resnet_ref.bench.torch_net import TorchNet

    rows = Window(*window)
    if rows.extent > n + rows.before + rows.after:
        return
    x = -1 - np.random.default_rng(n).random((2, n, 5, 3), np.float32)
    other = Window(3, 2, 1, 1, 1)
    pooled = TorchNet({}).pool(torch.from_numpy(x).permute(0, 3, 1, 2), (n, 5), rows, other)
    np.testing.assert_array_equal(
        pooled.permute(0, 2, 3, 1).numpy(), kernels.on("definition").max_pool2d(x, rows, other)
    )


UNIT = st.fixed_dictionaries(
    {"depth": st.integers(1, 37), "depth_bottleneck": st.integers(1, 19), "stride": st.integers(1, 3)}
)


@pytest.mark.parametrize("engine", ENGINES[:3])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    blocks=st.lists(st.lists(UNIT, min_size=1, max_size=3), min_size=1, max_size=3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)), channels=st.integers(1, 5), root=st.booleans(),
    late=st.booleans(), reach=st.integers(0, 9),
    scope=st.fixed_dictionaries(
        {"use_batch_norm": st.booleans(), "use_bounded_activations": st.booleans(),
         "activation_fn": st.sampled_from(["relu", "relu6", None])}
    ),
)  # fmt: skip
def test_networks_that_nobody_chose(tmp_path_factory, engine, blocks, size, channels, root, late, reach, scope):
    strides = np.cumprod([1] + [unit["stride"] for block in blocks for unit in block])
    network = {
        "function": "resnet_v1",
        "num_classes": 3,
        "blocks": [{"scope": f"block{number}", "args": args} for number, args in enumerate(blocks)],
        "include_root_block": root,
        "store_non_strided_activations": late,
        "output_stride": None if late else int(strides[min(reach, len(strides) - 1)]) * (4 if root else 1),
        "arg_scope": scope,
        "channels": channels,
    }
    with unfused() if engine == "pytorch" else nullcontext():
        found, true = computed(tmp_path_factory.mktemp("random"), network, size, engine, 2)
    assert agreement.error(found, true) < NEAR


@contextmanager
def unfused() -> Iterator[None]:
    """PyTorch without oneDNN's fusion, which fails on convolutions to a single channel."""
    torch = pytest.importorskip("torch", reason=ABSENT, exc_type=ImportError)
    enable = torch.jit.enable_onednn_fusion
    enable(False)
    with mock.patch.object(torch.jit, "enable_onednn_fusion"):
        yield
