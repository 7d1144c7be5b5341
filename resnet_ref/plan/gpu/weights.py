"""A network's weights on a device, batch norm folded into them, shared by all plans."""

from collections.abc import Mapping
from threading import Lock

import numpy as np

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.errors import DeviceError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.plan.folding import folded


class DeviceWeights:
    """Uploads the weights of each convolution when it is first asked for. DeviceError where not all would fit."""

    def __init__(self, runtime: Runtime, weights: Mapping[str, Array]) -> None:
        self._runtime, self._weights = runtime, weights
        self._there: dict[tuple[str, BatchNorm | None], tuple[Array, Array]] = {}
        self._lock = Lock()
        needed, free = sum(np.asarray(array).nbytes for array in weights.values()), runtime.free_bytes()
        if needed > free:
            raise DeviceError(f"{runtime}: the weights take {needed} bytes, {free} are free")

    def of(self, scope: str, normalizer: BatchNorm | None) -> tuple[Array, Array]:
        """(w [KH, KW, C, F], bias [F]) of a convolution, on the device; any stream may read them."""
        with self._lock:
            if (scope, normalizer) not in self._there:
                w, bias = (self._runtime.upload(array) for array in folded(self._weights, scope, normalizer))
                self._runtime.synchronize()  # other streams do not wait for this one
                self._there[scope, normalizer] = w, bias
            return self._there[scope, normalizer]
