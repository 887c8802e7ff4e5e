"""Our methods beside their authors' definitions: `python -m onnxplain.bench.fidelity`."""
