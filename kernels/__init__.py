"""The operations worth fusing: each a body in standard operators, and a kernel of our own.

`bodies` spells each out in standard operators, once; `functions` and `calls` keep them as calls in
an explain graph (`export --kernels`). `library/` is a distribution of its own, `onnxplain-kernels`:
custom operators of ONNX Runtime by which it runs these calls, on processors and NVIDIA's GPUs.
"""
