// Stands between ONNX Runtime and the library, and counts what the library calls.

#include <dlfcn.h>

#include <algorithm>
#include <vector>

#include "onnxruntime.h"

namespace {

constexpr size_t kPlaces = 300;
const void* const* real;
long counts[kPlaces];

template <size_t place, class Function>
struct Counted;

template <size_t place, class Result, class... Arguments>
struct Counted<place, Result(Arguments...)> {
  static Result call(Arguments... arguments) {
    __atomic_add_fetch(&counts[place], 1, __ATOMIC_RELAXED);
    using Function = Result (*)(Arguments...);
    return reinterpret_cast<Function>(const_cast<void*>(real[place]))(arguments...);
  }
};

const OrtApiBase* runtime;

const void* const* table(uint32_t version) {
  if (version > NEWEST) return nullptr;
  real = runtime->GetApi(version);
  static std::vector<const void*> counted;
  counted.assign(real, real + kPlaces);
#define COUNT(name, place, result, parameters) \
  counted[place] = reinterpret_cast<const void*>(&Counted<place, result parameters>::call);
  ONNXPLAIN_ORT_FUNCTIONS(COUNT)
  return counted.data();
}

}  // namespace

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  runtime = base;
  static OrtApiBase counting{table, base->GetVersionString};
  void* library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  using Register = OrtStatus* (*)(OrtSessionOptions*, const OrtApiBase*);
  return reinterpret_cast<Register>(dlsym(library, "RegisterCustomOps"))(options, &counting);
}

extern "C" long count_of(const char* name) {
#define FIND(known, place, result, parameters) \
  if (std::equal(name, name + sizeof #known, #known)) return counts[place];
  ONNXPLAIN_ORT_FUNCTIONS(FIND)
  return -1;
}
