"""encoders_exported.py ENGINE FOLDER THREADS: what encoders.py exported, in onnxruntime or OpenVINO."""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

engine, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
values = load_file(folder / "values.safetensors")
NAMES = [path.stem for path in folder.glob("*.onnx")]

if engine == "onnxruntime":
    import onnxruntime

    VERSION = onnxruntime.__version__

    def compile(path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(["states"], {"inputs": inputs})[0]

else:
    import openvino

    VERSION = openvino.__version__.split("-")[0]

    def compile(path):
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Without it, weights and products become bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
        # Arrays are shared in both directions: nothing is copied.
        return lambda inputs: request.infer({"inputs": inputs}, share_inputs=True, share_outputs=True)["states"]


import serve  # noqa: E402

compiled = {}


def encode(name):
    if name not in compiled:
        compiled[name] = compile(folder / f"{name}.onnx")
    return compiled[name](values[f"{name}.in"])


def difference(name):
    expected = values[f"{name}.out"]
    return float(np.abs(encode(name) - expected).max() / np.abs(expected).max())


def run(name):
    return lambda n: [None for _ in range(n) if encode(name) is None]


blocks = serve.timed_blocks({name: run(name) for name in NAMES})
serve.versions = lambda: {engine: VERSION, f"{engine}_threads": str(threads)}
serve.serve(lambda request: {"differences": {n: difference(n) for n in NAMES}} if "agree" in request else blocks(request))
