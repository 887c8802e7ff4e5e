"""Fuzz what reads requests: `python tests/serve/fuzz_decoder.py -max_total_time=600`.

Whatever bytes come, the decoders return or raise a Refusal with a 4xx status. The first byte of an
input chooses among the ways to ask; `fuzz` is also what the short test calls.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["onnxplain.serve", "python_multipart", "PIL"]):
        from onnxplain.serve import decode, kserve, pictures
else:
    from onnxplain.serve import decode, kserve, pictures

from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.objective import BOX, INDEX, MASK, Explained, ObjectiveInput
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.images import formats
from onnxplain.runtime.signature import Signature
from onnxplain.serve.refusal import Refusal
from onnxplain.serve.settings import Limits

LIMITS = Limits(pixels=100_000, images=4)

_PREPROCESSING = Preprocessing(4, 4, 4, mean=(0.5,) * 3, std=(0.5,) * 3)
_METADATA = Metadata("0", "gradient", "fuzzed", _PREPROCESSING, labels=("cat", "dog"))


def _explainer(
    multi_target: bool, live_temperature: bool, metadata: Metadata = _METADATA
) -> Explainer:
    signature = Signature(
        metadata=metadata,
        dtype=np.dtype(np.float32),
        batch=None,
        classes=2,
        multi_target=multi_target,
        live=("temperature",) if live_temperature else (),
        step=False,
    )
    backend: Any = SimpleNamespace(signature=signature)
    return Explainer(backend)


EXPLAINERS = [_explainer(multi, live) for multi in (False, True) for live in (False, True)]
_INPUTS = {
    "target": ObjectiveInput("which", (), -1, INDEX),
    "box": ObjectiveInput("where", (4,), 0, BOX),
    "region": ObjectiveInput("what", (2, 2), 0, MASK, nonzero=True),
    "position": ObjectiveInput("when", (), -1, INDEX, 3),
}
_EXPLAINED = Explained("mine", inputs=_INPUTS, classes=2, ranks=2)
OF_OBJECTIVE = _explainer(False, False, replace(_METADATA, objective=_EXPLAINED))
WAYS = ("multipart/form-data; boundary=b", "application/json", "application/octet-stream", "image")


def fuzz(data: bytes) -> None:
    """Read an input; raises whatever no client should be able to cause."""
    if not data:
        return
    try:
        read(data)
    except Refusal as refusal:
        if not 400 <= refusal.status < 500:
            raise
    except decode.InputError:
        if _way(data) != 3:  # `decode` makes it a Refusal
            raise


def read(data: bytes) -> None:
    """Read an input as its first byte says; raises whatever the decoder raises."""
    explainer, way, body = EXPLAINERS[data[0] % 4], _way(data), data[1:]
    if way == 3:
        pictures.open_image(body, LIMITS.pixels)
    elif way == 4:
        head, _, rest = body.partition(b"\n")
        kserve._decode(rest, head.decode("latin-1"), explainer, LIMITS)
    elif way == 5:
        head, _, rest = body.partition(b"\n")
        query, _, kind = head.decode("latin-1").partition(" ")
        decode.decode(kind, query, rest, explainer, LIMITS)
    elif way == 6:
        kind, _, rest = body.partition(b"\n")
        decode.decode(kind.decode("latin-1"), "position=1", rest, OF_OBJECTIVE, LIMITS)
    else:
        decode.decode(WAYS[way], "", body, explainer, LIMITS)


def _way(data: bytes) -> int:
    return data[0] // 4 % 7


def seeds() -> list[bytes]:
    """Requests as clients send them, one of each kind, with images of every format."""
    import base64
    import io
    import json

    from PIL import Image

    pixels = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    images = []
    for kind in formats():
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind)
        images.append(encoded.getvalue())
    tensor = np.zeros((3, 4, 4), "<f4")
    ports = [
        {"name": "image", "shape": [1, 3, 4, 4], "datatype": "FP32", "data": [0.5] * 48},
        {"name": "target", "shape": [1], "datatype": "INT64", "data": [-1]},
    ]
    in_json = json.dumps({"inputs": ports}).encode()
    ports[0] = {
        "name": "image",
        "shape": [1, 3, 4, 4],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 192},
    }
    in_bytes = json.dumps({"inputs": ports, "parameters": {"binary_data_output": True}}).encode()
    form = b'--b\r\nContent-Disposition: form-data; name="targets"\r\n\r\ncat\r\n'
    form += b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n'
    found = [bytes([0]) + form + image + b"\r\n--b--\r\n" for image in images]
    found += [bytes([12]) + image for image in images]
    for asked in (
        {"image": base64.b64encode(images[0]).decode(), "targets": [-1, "dog"], "top_k": 2},
        {
            "tensor": {
                "shape": [3, 4, 4],
                "dtype": "float32",
                "data": base64.b64encode(tensor.tobytes()).decode(),
            }
        },
    ):
        found.append(bytes([4]) + json.dumps(asked).encode())
    found.append(bytes([8]) + tensor.tobytes())
    found.append(bytes([16]) + str(len(in_json)).encode() + b"\n" + in_json)
    found.append(bytes([16]) + str(len(in_bytes)).encode() + b"\n" + in_bytes + tensor.tobytes())
    asked = b"targets=1&targets=cat&output=png application/octet-stream\n" + tensor.tobytes()
    found.append(bytes([20]) + asked)
    encoded = io.BytesIO()
    Image.fromarray(np.full((5, 7), 255, np.uint8)).save(encoded, "PNG")
    region = encoded.getvalue()
    picture = base64.b64encode(images[0]).decode()
    of_region = {"image": base64.b64encode(region).decode()}
    inputs = {"box": [0, 0, 3, 3], "region": of_region, "position": 2}
    in_json = json.dumps({"image": picture, "inputs": inputs}).encode()
    found.append(bytes([24]) + b"application/json\n" + in_json)
    for name, file, value in ((b"box", b"", b"0,0,3,3"), (b"region", b'; filename="f"', region)):
        form += images[0] if name == b"box" else b""
        form += b'\r\n--b\r\nContent-Disposition: form-data; name="' + name + b'"' + file
        form += b"\r\n\r\n" + value
    found.append(bytes([24]) + WAYS[0].encode() + b"\n" + form + b"\r\n--b--\r\n")
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate(seeds()):
            (Path(corpus) / str(i)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
