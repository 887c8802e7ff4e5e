"""Run models with the library in a process of its own: python run_models.py LIBRARY IN OUT.

IN and OUT are pickles: of (model, feeds) and of what each gives. Nothing of the tests is imported,
to be quick under a sanitizer.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import onnxruntime


def main(library: str, given: Path, made: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.enable_cpu_mem_arena = False  # each tensor an allocation, whose ends are watched
    options.register_custom_ops_library(library)
    outputs = []
    for model, feeds in pickle.loads(given.read_bytes()):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, feeds))
    made.write_bytes(pickle.dumps(outputs))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
