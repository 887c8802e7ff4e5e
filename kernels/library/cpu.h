// The kernels on the processor, once for each set of instructions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pool.h"

namespace onnxplain {

enum class GateKind : int { kLogistic, kNormal };  // σ(z / T), Φ(z / T)

// Tensors are dense and in C order; those of halves are computed with in float32. Pointers to
// inputs may be those of outputs: elements are written after they were read.
struct CpuKernels {
  float (*to_float)(const void* number);
  // out[k, i] = g[k, i] · gate(z[i]) for begin ≤ i < end, in `targets` rows of `n`.
  void (*gate)(GateKind, const void* z, const void* g, void* out, size_t begin, size_t end,
               size_t n, size_t targets, float inv_T);
  // How many floats `pool_grad` needs beside.
  size_t (*pool_scratch)(const Pool&, size_t targets);
  // The pool's gradient, of one plane `x` [*size] and the cotangents of its windows, `g_step`
  // elements apart from one target to the next, as `out` is `out_step`; through the weights, or
  // with these `held` constant.
  void (*pool_grad)(const Pool&, bool held, const void* x, const void* g, void* out,
                    size_t targets, size_t g_step, size_t out_step, float inv_T, float* scratch);
};

enum { kFloat32Kernels, kFloat16Kernels, kBFloat16Kernels, kDtypes };

// Those that are the fastest on this processor: [kDtypes].
const CpuKernels* cpu_kernels();

}  // namespace onnxplain
