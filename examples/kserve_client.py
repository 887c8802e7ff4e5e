"""Ask for an explanation over the KServe v2 protocol: of `onnxplain serve`, or of Triton.

    pip install tritonclient[http] pillow
    python kserve_client.py cat.jpg --url localhost:8000 --model resnet50

The server gets what the network takes; so the mean and standard deviation of the network's own
preprocessing belong here (`onnxplain info` shows them), and its classes (`labels.txt`).
"""

from __future__ import annotations

import argparse

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image, ImageOps

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(
    path: str, height: int, width: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """A photograph as the network takes it: float32 [1,3,height,width]."""
    with Image.open(path) as opened:
        photograph = ImageOps.fit(opened.convert("RGB"), (width, height))
    pixels = (np.asarray(photograph, np.float32) / 255 - mean) / std
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def explain(
    url: str,
    model: str,
    path: str,
    target: int = -1,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The logits [1,classes] of a photograph and the pullback [1,3,H,W] of a class.

    Args:
        url: "host:port".
        model: as the server calls it.
        path: of the photograph.
        target: a class index; -1 the predicted class, -2 the runner-up.
        mean, std: of the network's preprocessing, for pixels in [0, 1].
    """
    with triton.InferenceServerClient(url) as client:
        height, width = client.get_model_metadata(model)["inputs"][0]["shape"][-2:]
        image = triton.InferInput("image", [1, 3, height, width], "FP32")
        image.set_data_from_numpy(preprocess(path, height, width, mean, std))
        wanted = triton.InferInput("target", [1, 1], "INT64")
        wanted.set_data_from_numpy(np.array([[target]]))
        answer = client.infer(model, [image, wanted])
    return answer.as_numpy("logits"), answer.as_numpy("pullback")


def main() -> None:
    parser = argparse.ArgumentParser(description="Explain a photograph over KServe v2.")
    parser.add_argument("image")
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--target", type=int, default=-1)
    parser.add_argument("--mean", type=float, nargs=3, default=IMAGENET_MEAN)
    parser.add_argument("--std", type=float, nargs=3, default=IMAGENET_STD)
    parser.add_argument("--out", default="pullback.png")
    given = parser.parse_args()
    logits, pullback = explain(
        given.url, given.model, given.image, given.target, tuple(given.mean), tuple(given.std)
    )
    print("likeliest classes:", np.argsort(-logits[0])[:5].tolist())
    white = np.percentile(np.abs(pullback), 99.5)
    pixels = 127.5 + 127.5 * (pullback[0] / white).clip(-1, 1)
    Image.fromarray(pixels.round().astype(np.uint8).transpose(1, 2, 0)).save(given.out)
    print(given.out)


if __name__ == "__main__":
    main()
