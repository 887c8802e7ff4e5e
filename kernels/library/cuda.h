// The kernels on a GPU. Each is queued on a stream (a `cudaStream_t`) and returns null, or what
// CUDA says; T is read there, as all else, since only the host waits for what the host reads.
#pragma once

#include <cstddef>

#include "cpu.h"
#include "pool.h"

namespace onnxplain {

bool has_cuda();  // whether they are compiled in

const char* cuda_gate(int dtype, GateKind, const void* z, const void* g, void* out, size_t n,
                      size_t targets, const void* T, void* stream);

const char* cuda_pool_grad(int dtype, const Pool&, bool held, const void* x, const void* g,
                           void* out, size_t planes, size_t targets, const void* T, void* stream);

}  // namespace onnxplain
