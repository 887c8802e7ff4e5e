// Which of the compiled sets of instructions this processor has.

#include <cstdlib>
#include <cstring>

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

namespace {

// Whether the user asks for this set, ONNXPLAIN_INSTRUCTIONS being its name, or for none.
bool wanted(const char* name) {
  const char* asked = std::getenv("ONNXPLAIN_INSTRUCTIONS");
  return asked == nullptr || std::strcmp(asked, name) == 0;
}

const CpuKernels* chosen() {
#ifdef ONNXPLAIN_X86
  if (wanted("avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return avx512::table;
  if (wanted("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return avx2::table;
#endif
  return baseline::table;
}

}  // namespace

const CpuKernels* cpu_kernels() {
  static const CpuKernels* const found = chosen();
  return found;
}

}  // namespace onnxplain
