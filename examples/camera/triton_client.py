"""A photograph in, the picture of why out, by a server: Triton, or `onnxplain serve`.

    python triton_client.py localhost:8000 model cat.jpg overlay.png [class]

The class to explain is an index; -1, the default, is the predicted class, -2 the runner-up.
"""

import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps

url, model, photograph, out, *rest = sys.argv[1:]
target = np.array([[int(rest[0]) if rest else -1]], np.int64)

with Image.open(photograph) as opened:  # turned upright, as its EXIF orientation says
    pixels = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[None]

inputs = [
    triton.InferInput("image", pixels.shape, "UINT8").set_data_from_numpy(pixels),
    triton.InferInput("target", target.shape, "INT64").set_data_from_numpy(target),
]
names = ["picture", "top_classes", "top_probabilities"]
with triton.InferenceServerClient(url) as client:
    outputs = [triton.InferRequestedOutput(name) for name in names]
    answer = client.infer(model, inputs, outputs=outputs)
picture, classes, probabilities = (answer.as_numpy(name)[0] for name in names)

Image.fromarray(picture).save(out)
for index, probability in zip(classes, probabilities, strict=True):
    print(index, f"{probability:.4f}")
