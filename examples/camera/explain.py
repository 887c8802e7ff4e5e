"""A photograph in, the picture of why out: by ONNX Runtime, NumPy and Pillow alone.

    python explain.py model.explain.onnx cat.jpg overlay.png [class]

The class to explain is an index; -1, the default, is the predicted class, -2 the runner-up.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photograph, out, *rest = sys.argv[1:]
target = int(rest[0]) if rest else -1

with Image.open(photograph) as opened:  # turned upright, as its EXIF orientation says
    pixels = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))

session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
picture, classes, probabilities = session.run(
    ["picture", "top_classes", "top_probabilities"],
    {"image": pixels[None], "target": np.array([target], np.int64)},
)

Image.fromarray(picture[0]).save(out)
labels = json.loads(session.get_modelmeta().custom_metadata_map.get("onnxplain.labels", "[]"))
for index, probability in zip(classes[0], probabilities[0], strict=True):
    print(index, f"{probability:.4f}", labels[index] if labels else "")
