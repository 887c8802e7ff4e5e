"""Runs the kernels in Triton's interpreter: `python interpreted.py CALLS RESULTS`.

A process of its own, because Triton decides when it is imported whether it interprets. CALLS is a
pickled list of (name in `torch_ops`, dtype, arguments with arrays for tensors); RESULTS becomes
the list of what they return: a tuple of float32 arrays each.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]


def interpret(
    calls: Sequence[tuple[str, str, Sequence[Any]]], folder: Path
) -> list[tuple[np.ndarray, ...]]:
    """The results of the calls, from an interpreter in another process."""
    (folder / "calls").write_bytes(pickle.dumps(calls))
    done = subprocess.run(
        [sys.executable, __file__, folder / "calls", folder / "results"],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return pickle.loads((folder / "results").read_bytes())


def main(calls: Path, results: Path) -> None:
    import torch

    from onnxplain.kernels import torch_ops

    def tensor(value: Any, dtype: str) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return torch.tensor(value).to(getattr(torch, dtype))

    def arrays(result: Any) -> tuple[np.ndarray, ...]:
        results = result if isinstance(result, tuple) else (result,)
        return tuple(each.float().numpy() for each in results)

    done = []
    for name, dtype, arguments in pickle.loads(calls.read_bytes()):
        function = getattr(torch_ops, name)
        done.append(arrays(function(*(tensor(value, dtype) for value in arguments))))
    results.write_bytes(pickle.dumps(done))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
