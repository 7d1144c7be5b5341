"""Saves small state dicts with PyTorch, so that tests can read them where it cannot be installed.

    python tests/recorded/record_torch.py

torch_plain.pth: of a layer with its batch norm. torch_wrapped.pth: every kind of element and of view, from
DataParallel, with what a training keeps beside it. torch_legacy.pth: in the format from before PyTorch 1.6. Values
count from 0, so that tests can say them.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def plain() -> Any:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1, bias=False), torch.nn.BatchNorm2d(4))
    for number, tensor in enumerate(network.state_dict().values()):
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) + number)
    return network.state_dict()


def wrapped() -> Any:
    counted = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    kinds = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")
    state = OrderedDict({f"module.{kind}": torch.arange(5).to(getattr(torch, kind)) for kind in kinds})
    state["module.bool"] = torch.tensor([True, False, True])
    state["module.complex64"] = torch.zeros(2, dtype=torch.complex64)
    state["module.transposed"] = counted.permute(2, 0, 1)
    state["module.sliced"] = counted[1, 1:, ::2]
    state["module.parameter"] = torch.nn.Parameter(torch.arange(3.0))
    state["module.scalar"] = torch.tensor(7)
    state["module.empty"] = torch.zeros(0, 3)
    optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}]}
    rest = {"epoch": 3, "best": -0.5, "arch": "resnet50", "done": True, "none": None, "big": 1 << 40}
    return {"state_dict": state, "optimizer": optimizer, **rest}


if __name__ == "__main__":
    torch.save(plain(), HERE / "torch_plain.pth")
    torch.save(wrapped(), HERE / "torch_wrapped.pth")
    torch.save(plain(), HERE / "torch_legacy.pth", _use_new_zipfile_serialization=False)
