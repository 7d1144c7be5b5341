"""Every tier has every kernel, under one name and one signature, and is chosen once."""

import inspect
from importlib import import_module

import numpy as np
import pytest
from tiers import why_no_gpu

from resnet_ref import DeviceError, ShapeError, kernels
from resnet_ref.kernels import Tier

KERNELS = {
    "batch_norm": ("batch_norm", "batch_statistics", "moving_average", "unbiased"),
    "conv2d": ("conv2d", "im2col"),
    "max_pool2d": ("max_pool2d",),
    "pointwise": ("add_bias", "add_relu", "add_relu6", "relu", "relu6"),
    "softmax": ("softmax",),
    "spatial_mean": ("spatial_mean",),
    "subsample": ("subsample",),
}
NAMED = [(folder, name) for folder, names in KERNELS.items() for name in names]


def parameters(function):
    """Names, kinds and defaults, without what is the tier's own affair."""
    return [
        (p.name, p.kind, p.default)
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "threads", "runtime", "precision")
    ]


@pytest.mark.parametrize(("folder", "name"), NAMED)
def test_a_kernel_has_one_signature_in_every_tier(folder, name):
    tiers = [
        getattr(import_module(f"resnet_ref.kernels.{folder}.{tier}"), name) for tier in ("definition", "cpu", "gpu")
    ]
    assert all(parameters(tier) == parameters(getattr(Tier, name)) for tier in tiers)


def test_the_list_of_kernels_is_complete():
    public = {name for name, value in vars(Tier).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public == {name for _, name in NAMED} | {"dtype", "load"}


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(DeviceError, match="definition, cpu, gpu, auto; got 'tpu'"):
        kernels.on("tpu")
    with pytest.raises(DeviceError, match="threads must be None or a whole number"):
        kernels.on("definition", threads=0)


def test_auto_is_the_gpu_where_there_is_one_and_else_the_cpu():
    assert kernels.on("auto").device == ("gpu" if why_no_gpu() is None else "cpu")


@pytest.mark.parametrize("device", ["definition", "cpu"])
def test_a_result_goes_only_where_it_fits_and_may_be_written(device):
    x, out = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ShapeError, match="out must be writeable"):
        kernels.on(device).relu(x, out=out)
