"""The operations worth fusing: ONNX functions, and CUDA kernels in Triton.

`bodies` spells each out in standard operators, once; `functions` and `calls` keep them as function
calls in an explain graph. `triton_gates` and `triton_pools` are the kernels, `torch_ops` calls them
on PyTorch tensors, `compile` turns them into PTX and machine code for a GPU that need not be there.
Nothing imports Triton but these last four.

There are no TensorRT plugins. Those that embed PTX (quick plugins with `aot_impl`) are of the
package `tensorrt` alone: `tensorrt_rtx` 1.7 has neither their interfaces nor the module that its
own `tensorrt_rtx.plugin` imports. `Compiled` holds what such a plugin returns.
"""
