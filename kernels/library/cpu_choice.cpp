// Which of the compiled sets of instructions this processor has.

#include "cpu.h"

namespace onnxplain {

#define DECLARE(isa) \
  namespace isa {    \
  extern const CpuKernels table[kDtypes]; \
  }
DECLARE(baseline)
#ifdef ONNXPLAIN_X86
DECLARE(avx2)
DECLARE(avx512)
#endif

const CpuKernels* cpu_kernels() {
#ifdef ONNXPLAIN_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512::table;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::table;
#endif
  return baseline::table;
}

}  // namespace onnxplain
