"""The process of one contender: it loads its network, answers once, then does what it is told on stdin.

Run as a script, because to import it would import the package, and a peer's process must hold nothing of ours: its
start and its memory would count what it does not use. Hence only the standard library and NumPy up here.

argv[1]: JSON of {engine, threads, network, images, logits, options, from_host, root}. Then a line of JSON on stdin for
each order, and one on stdout for each answer; the first answer, to no order, says that the network has answered once:

{"outputs": FILE.npz}      write `result`, what is timed, and `logits` where there are any, channels last
{"runs": K, "warm": W}     {"seconds": [...]} of K runs, after W that are not counted
{"memory": K}              {"bytes": the most this process has held} after K runs, or null where Linux does not tell
"""

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Calls before a CUDA graph is captured: TorchScript profiles the first and compiles for what it saw, and cuDNN tries
# its algorithms.
_GRAPH_WARM = 5


class Engine(NamedTuple):
    """run: the result, as it is timed. logits: or None. nchw: whether outputs have channels second. fetch: a copy of an
    output in NumPy. clock: seconds of so many runs, one behind the other, by a gpu's own clock; None on the cpu."""

    run: Callable[[], Any]
    logits: Callable[[], Any] | None
    nchw: bool
    fetch: Callable[[Any], Any] = np.array
    clock: Callable[[int], list[float]] | None = None


def ours(job: dict[str, Any]) -> Engine:
    """load_model's model; on a gpu from the images on the device to the result there, or as `from_host` says."""
    if job["root"] not in sys.path:  # where the process that started this one found the package
        sys.path.insert(0, job["root"])
    from resnet_ref import load_model

    images, logits = np.load(job["images"]), job["logits"]
    model = load_model(job["network"], threads=job["threads"], **job["options"])
    if model.tier.runtime is not None and not job["from_host"]:
        return _on_device(model, images, logits)
    return Engine(lambda: model(images), logits and (lambda: model(images, end_points=[logits])[1][logits]), False)


def _on_device(model: Any, images: Any, logits: str | None) -> Engine:
    """A model of ours with its images on its gpu; every run waits until the device is done."""
    runtime = model.tier.runtime
    stream = runtime.stream()
    with stream:
        there = runtime.upload(images)

    def output(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with stream:
                result = call()
            stream.synchronize()
            return result

        return run

    named = output(lambda: model(there, end_points=[logits])[1][logits]) if logits else None
    return Engine(output(lambda: model(there)), named, False, runtime.download, _graph_clock(model, images))


def _graph_clock(model: Any, images: Any) -> Callable[[int], list[float]]:
    """Times the plan as one graph, without the calls around it; made when it is first asked for."""
    runtime = model.tier.runtime
    made: list[Any] = []

    def seconds(runs: int) -> list[float]:
        if not made:
            program = model.plan(*images.shape[:3]).program
            if program.images.shape != images.shape:
                raise ValueError(f"a plan takes {program.images.shape[0]} of {len(images)} images at once")
            host = runtime.pinned(images.shape, np.float32)
            host[...] = images
            runtime.copy_in(host, program.images)
            program.run()  # what is captured must have run before
            program.wait()
            made.extend([runtime.capture(program.run), program])  # a graph does not keep its memory
        return runtime.seconds(made[0].launch, runs)

    return seconds


def onnxruntime(job: dict[str, Any]) -> Engine:
    """onnxruntime on the ONNX file, with all its optimisations; its threads spin while they wait, as by default."""
    import onnxruntime as ort

    images = np.load(job["images"])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", len(images))
    session = ort.InferenceSession(job["network"], options, providers=["CPUExecutionProvider"])
    fed = {"images": images}

    def output(name: str) -> Callable[[], Any]:
        return lambda: session.run([name], fed)[0]

    return Engine(output("result"), output("logits") if job["logits"] else None, True)


def openvino(job: dict[str, Any], precision: str = "f32") -> Engine:
    """OpenVINO on the ONNX file, set for latency; the images are handed over once, without a copy."""
    import openvino as ov

    images = np.load(job["images"])
    core = ov.Core()
    model = core.read_model(job["network"])
    model.reshape({"images": list(images.shape)})
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    shared = ov.Tensor(images, shared_memory=True)
    request.set_input_tensor(shared)

    def output(name: str) -> Callable[[], Any]:
        def run(held: Any = (images, shared)) -> Any:  # OpenVINO does not keep alive what it reads
            request.infer()
            return request.get_tensor(name).data

        return run

    return Engine(output("result"), output("logits") if job["logits"] else None, True)


def openvino_bf16(job: dict[str, Any]) -> Engine:
    """OpenVINO, in bfloat16 wherever it can."""
    return openvino(job, "bf16")


def pytorch(job: dict[str, Any]) -> Engine:
    """PyTorch on the TorchScript file, channels last, with oneDNN's fusion: of the ways tried the fastest (resnet_v1_50
    at 224 on two cores: plain TorchScript 51 ms, optimize_for_inference 44 ms, this 33 ms)."""
    import torch

    torch.set_num_threads(job["threads"])
    torch.jit.enable_onednn_fusion(True)
    module = torch.jit.load(job["network"]).eval()
    images = torch.from_numpy(np.load(job["images"])).permute(0, 3, 1, 2)

    def output(number: int) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return module(images)[number].numpy()

        return run

    return Engine(output(0), output(1) if job["logits"] else None, True)


def pytorch_gpu(job: dict[str, Any], tf32: bool = False) -> Engine:
    """PyTorch on a gpu: the TorchScript file that it runs on the CPU, channels last, cuDNN's fastest algorithms, the
    whole call as one CUDA graph at every batch; from images on the device to outputs there, synchronised.

    tf32: whether convolutions and matrix products may round to TF32, which PyTorch by default allows the former. In
    which type the network computes, its file says.
    """
    import torch

    torch.set_num_threads(job["threads"])
    device = torch.device("cuda", int(job["options"]["device"].partition(":")[2] or 0))
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    # The weights are constants of the graph, which `.to` would leave where they are.
    module = torch.jit.load(job["network"], map_location=device).eval()
    images = torch.from_numpy(np.load(job["images"])).permute(0, 3, 1, 2).to(device)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_GRAPH_WARM):
                module(images)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            outputs = module(images)

    def output(number: int) -> Callable[[], Any]:
        def run(held: Any = images) -> Any:  # the graph reads them where they lie
            graph.replay()
            torch.cuda.synchronize()
            return outputs[number]

        return run

    def clock(runs: int) -> list[float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        events[-1].synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in pairwise(events)]

    logits = output(1) if job["logits"] else None
    return Engine(output(0), logits, True, lambda tensor: tensor.cpu().numpy(), clock)


def pytorch_gpu_tf32(job: dict[str, Any]) -> Engine:
    """The same, TF32 allowed."""
    return pytorch_gpu(job, tf32=True)


def tensorflow(job: dict[str, Any]) -> Engine:
    """TensorFlow on slim's graph, its variables made constants; oneDNN as by default."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    v1 = tf.compat.v1
    images = np.load(job["images"])
    graph = v1.GraphDef()
    graph.ParseFromString(Path(job["network"]).read_bytes())
    outputs = ["result:0", *(["logits:0"] if job["logits"] else [])]
    threads = {"intra_op_parallelism_threads": job["threads"], "inter_op_parallelism_threads": 1}
    with tf.Graph().as_default():
        fed = v1.placeholder(tf.float32, images.shape)
        tensors = tf.import_graph_def(graph, {"images:0": fed}, outputs, name="")
        session = v1.Session(config=v1.ConfigProto(device_count={"GPU": 0}, **threads))
    calls = [session.make_callable(tensor, [fed]) for tensor in tensors]
    return Engine(lambda: calls[0](images), (lambda: calls[1](images)) if job["logits"] else None, False)


ENGINES = {
    "ours": ours,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-bf16": openvino_bf16,
    "pytorch": pytorch,
    "pytorch-gpu": pytorch_gpu,
    "pytorch-gpu-tf32": pytorch_gpu_tf32,
    "pytorch-gpu-bf16": pytorch_gpu,
    "tensorflow": tensorflow,
}


def obey(engine: Engine, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    if "outputs" in order:
        found = {"result": engine.fetch(engine.run())}
        if engine.logits is not None:
            found["logits"] = engine.fetch(engine.logits())
        np.savez(order["outputs"], **{name: _channels_last(a) if engine.nchw else a for name, a in found.items()})
        return {}
    if "memory" in order:
        for _ in range(order["memory"]):
            engine.run()
        return {"bytes": peak_memory()}
    for _ in range(order["warm"]):
        engine.run()
    seconds = []
    for _ in range(order["runs"]):
        start = time.perf_counter()
        engine.run()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


def peak_memory() -> int | None:
    """VmHWM in bytes. (getrusage's maximum is that of the process that started this one, where that was larger.)"""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _channels_last(array: Any) -> Any:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    job = json.loads(sys.argv[1])

    def answer(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    try:
        engine = ENGINES[job["engine"]](job)
        engine.run()
        answer({})
        for line in sys.stdin:
            answer(obey(engine, json.loads(line)))
    except Exception as error:  # whatever it is, the process that started this one says it
        known = type(error).__module__ == "resnet_ref.errors"
        answer({"error": str(error) if known else f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
