// In place of the CUDA kernels where there is no compiler for them.

#include "cuda.h"

namespace onnxplain {

namespace {
constexpr const char* kNone = "the library was built without CUDA";
}

bool has_cuda() { return false; }

const char* cuda_gate(int, GateKind, const void*, const void*, void*, size_t, size_t, const void*,
                      void*) {
  return kNone;
}

const char* cuda_pool_grad(int, const Pool&, bool, const void*, const void*, void*, size_t, size_t,
                           const void*, void*) {
  return kNone;
}

}  // namespace onnxplain
