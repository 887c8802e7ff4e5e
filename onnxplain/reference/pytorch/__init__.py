"""The explanations in PyTorch, written apart from the exporter: what a graph is measured against.

`explain` runs any classifier as it is and replaces, while it runs, the derivatives of which a
method speaks. A `TorchFunctionMode` sees every call of a torch function, whether a module, a
functional or a tensor's method makes it, so no model is edited. Forward values stay exact; only
the backward pass changes. Everything works in float32 and float64.

Formulas: excitation: Satkiewicz, arXiv 2507.22832 v1; semantic: the same, v6; guided: Springenberg
et al. 2015, arXiv 1412.6806; deconvnet: Zeiler & Fergus 2014, arXiv 1311.2901. What these papers
don't speak of and `onnxplain.export.methods` settles, is settled here in the same way.
"""

from onnxplain.reference.pytorch.explain import (
    METHODS,
    PARAMETERS,
    PULLBACKS,
    explain,
    resolve_targets,
)

__all__ = ["METHODS", "PARAMETERS", "PULLBACKS", "explain", "resolve_targets"]
