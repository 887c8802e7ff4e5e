"""OpenVINO-XAI at work, in an environment of its own: `python -P openvino_xai_worker.py JOB.json`.

The job has "network", an ONNX file of one image; "image", an .npy of it; "threads"; "calls", by
name the method, of `openvino_xai.Method`, and the value of the file that it explains at, or null
for the network alone; and "maps", the .npz to write.

Says its OpenVINO's version once it is ready; then answers each line, a call's name, with the
seconds that it took. At the end of its input it writes what the calls give beside the logits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_xai


def requests(job: Mapping[str, Any]) -> dict[str, Any]:
    """The calls, compiled in float32."""
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    made = {}
    for name, explained in job["calls"].items():
        model = core.read_model(job["network"])
        if explained is not None:
            method, value = explained
            model = openvino_xai.insert_xai(
                model,
                task=openvino_xai.Task.CLASSIFICATION,
                explain_method=openvino_xai.Method[method],
                target_layer=layer(model, value),
            )
        made[name] = core.compile_model(model, "CPU", settings).create_infer_request()
    return made


def layer(model: Any, value: str) -> str:
    """What OpenVINO calls the operator that makes a value of the ONNX file."""
    made = (out for op in model.get_ordered_ops() for out in op.outputs())
    return str(next(out.get_node().get_friendly_name() for out in made if value in out.get_names()))


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    image = np.load(job["image"])
    calls = requests(job)
    print(version("openvino"), flush=True)
    for line in sys.stdin:
        request = calls[line.strip()]
        start = time.perf_counter()
        request.infer({0: image})
        print(time.perf_counter() - start, flush=True)
    explained = [name for name, call in job["calls"].items() if call is not None]
    np.savez(job["maps"], **{name: calls[name].get_output_tensor(1).data for name in explained})


if __name__ == "__main__":
    main(*sys.argv[1:])
