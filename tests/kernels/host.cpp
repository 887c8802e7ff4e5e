// A program with a session that is static: it asks for an operator's name after the library's own
// statics are gone. In place of ONNX Runtime, a table with what registers operators.

#include <dlfcn.h>

#include <cstdio>

#include "onnxruntime.h"

namespace {

struct Session {
  const OrtCustomOp* op = nullptr;
  ~Session() { std::puts(op->GetName(op)); }
} session;

OrtStatus* create(const char*, OrtCustomOpDomain**) { return nullptr; }
OrtStatus* add(OrtCustomOpDomain*, const OrtCustomOp* op) {
  if (session.op == nullptr) session.op = op;
  return nullptr;
}
OrtStatus* use(OrtSessionOptions*, OrtCustomOpDomain*) { return nullptr; }

const void* const* table(uint32_t) {
  static const void* functions[300];
  functions[26] = reinterpret_cast<const void*>(&create);
  functions[27] = reinterpret_cast<const void*>(&add);
  functions[28] = reinterpret_cast<const void*>(&use);
  return functions;
}

}  // namespace

int main(int, char** arguments) {
  OrtApiBase runtime{table, nullptr};
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  using Register = OrtStatus* (*)(OrtSessionOptions*, const OrtApiBase*);
  auto entry = reinterpret_cast<Register>(dlsym(library, "RegisterCustomOps"));
  return entry(nullptr, &runtime) != nullptr;
}
