"""A profile as a trace file that chrome://tracing and Perfetto show."""

import json
import os

from resnet_ref.tracing.profile import Profile
from resnet_ref.weights.atomic import replacing


def write_chrome_trace(found: Profile, path: str | os.PathLike[str]) -> None:
    """Write the Trace Event Format: complete events ("ph": "X"), times in microseconds. WeightsError."""
    about = {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"resnet-ref, {found.what}, {found.device}"}}
    events = [
        {
            "name": call.kernel,
            "cat": "kernel",
            "ph": "X",
            "pid": 1,
            "tid": 1,
            "ts": 1e6 * call.start,
            "dur": 1e6 * call.taken,
            "args": {
                "scope": call.scope,
                "output": list(call.output),
                "GFLOP/s": call.flops / call.taken / 1e9,
                "GB/s": call.bytes / call.taken / 1e9,
            },
        }
        for call in found.calls
    ]
    with replacing(path) as part:
        part.write_text(json.dumps({"traceEvents": [about, *events], "displayTimeUnit": "ms"}), "utf-8")
