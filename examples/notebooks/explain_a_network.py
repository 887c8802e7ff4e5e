# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Explain a network
#
# A trained EfficientNet-Lite0 becomes one ONNX file that gives the logits and, in the same call,
# why. Needs `pip install "onnxplain[demo]"`; as a notebook: `jupytext --to ipynb
# explain_a_network.py`.

# %%
import skimage.data

import onnxplain

# %% [markdown]
# The file holds the forward pass, the backward pass, preprocessing and the classes' names.
# Temperature 1 suits this network; `onnxplain tune` finds another's.

# %%
exported = onnxplain.export("efficientnet-lite0", "lite0.explain.onnx", temperature=1.0)
exported.notes

# %%
explainer = onnxplain.load("lite0.explain.onnx", "cpu")
photograph = skimage.data.coffee()
explanation = explainer(photograph)
explanation.labels(3)

# %% [markdown]
# The last line of a cell shows an explanation: the photograph and what the network would read as
# more of the class. `save` writes it.

# %%
explanation

# %%
explanation.save("why.png", style="grid")

# %% [markdown]
# Of another class: by index, by name, or from the top of the ranking (-2 is the runner-up).

# %%
runner_up = explainer(photograph, target=-2)
runner_up

# %% [markdown]
# Where it is, over the photograph, and which pixels spoke for the class:

# %%
explanation.draw("overlay", captions=True)

# %%
explanation.draw("signed", colour_bar=True)
