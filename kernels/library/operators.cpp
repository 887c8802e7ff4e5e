// The operators as ONNX Runtime sees them: which there are, and what runs one.

#include <algorithm>
#include <atomic>
#include <cstring>

#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "cpu.h"
#include "cuda.h"
#include "onnxruntime.h"

namespace onnxplain {
namespace {

constexpr const char* kDomain = "onnxplain.kernels";

// A pool's call is numbered, and numbers stand for geometries: without this library each is a
// function of the file with a body of its own.
constexpr int kGeometries = 32;

enum class Kind { kGate, kPool };

struct Operator : OrtCustomOp {
  const Api* api;
  std::string name;
  Kind kind;
  GateKind gate;  // of gates
  bool held;      // of pools
  int dtype;
  bool cuda;
};

const Operator& self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

// ONNX Runtime's own exceptions are statuses; this one carries a status through this code.
struct Failure {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status != nullptr) throw Failure{status};
}

[[noreturn]] void fail(const Api& api, const std::string& message) {
  throw Failure{api.CreateStatus(kInvalidArgument, message.c_str())};
}

template <class Work>
OrtStatus* guarded(const Api& api, Work work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::exception& error) {
    return api.CreateStatus(kFail, error.what());
  }
}

struct Kernel {
  const Operator& op;
  Pool pool;  // of pools: without `size` and `out`
};

struct Tensor {
  void* data;
  std::vector<int64_t> shape;
  size_t elements = 1;
};

Tensor described(const Api& api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info;
  check(api.GetTensorTypeAndShape(value, &info));
  size_t axes;
  Tensor tensor;
  OrtStatus* status = api.GetDimensionsCount(info, &axes);
  if (status == nullptr) {
    tensor.shape.resize(axes);
    status = api.GetDimensions(info, tensor.shape.data(), axes);
  }
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(status);
  check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
  for (int64_t size : tensor.shape) tensor.elements *= size;
  return tensor;
}

Tensor input(const Api& api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value;
  check(api.KernelContext_GetInput(context, index, &value));
  return described(api, value);
}

void* output(const Api& api, OrtKernelContext* context, size_t index,
             const std::vector<int64_t>& shape) {
  OrtValue* value;
  check(api.KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  void* data;
  check(api.GetTensorMutableData(value, &data));
  return data;
}

// work(index) for 0 ≤ index < parts, on ONNX Runtime's threads.
template <class Work>
void parallel(const Api& api, const OrtKernelContext* context, size_t parts, Work& work) {
  auto part = [](void* given, size_t index) { (*static_cast<Work*>(given))(index); };
  if (parts == 1) {
    work(0);
  } else if (parts > 1) {
    check(api.KernelContext_ParallelFor(context, part, parts, 0, &work));
  }
}

constexpr size_t kPart = 16384;  // elements; fewer are not worth waking a thread

template <class Work>
void in_parts(const Api& api, const OrtKernelContext* context, size_t n, Work work) {
  auto one = [&](size_t index) {
    size_t begin = index * kPart;
    work(begin, n - begin < kPart ? n : begin + kPart);
  };
  parallel(api, context, (n + kPart - 1) / kPart, one);
}

// Memory for the parts of one call that run at once; it goes with the call.
class Scratch {
 public:
  using Floats = std::unique_ptr<float[]>;

  explicit Scratch(size_t floats) : floats_(floats) {}

  Floats take() {
    std::lock_guard<std::mutex> guard(lock_);
    if (spare_.empty()) {
      spare_.reserve(++made_);
      return Floats(new float[floats_]);
    }
    Floats found = std::move(spare_.back());
    spare_.pop_back();
    return found;
  }

  void give(Floats taken) {
    std::lock_guard<std::mutex> guard(lock_);
    spare_.push_back(std::move(taken));
  }

 private:
  const size_t floats_;
  std::mutex lock_;
  size_t made_ = 0;
  std::vector<Floats> spare_;
};

const CpuKernels& on_cpu(const Operator& op) { return cpu_kernels()[op.dtype]; }

void* stream(const Api& api, const OrtKernelContext* context) {
  void* found;
  check(api.KernelContext_GetGPUComputeStream(context, &found));
  return found;
}

void launched(const Api& api, const char* error) {
  if (error != nullptr) fail(api, std::string("onnxplain's CUDA kernel was not launched: ") + error);
}

float inverse(const Operator& op, const Tensor& T) {
  return 1.0f / on_cpu(op).to_float(T.data);
}

// How many cotangents `g` holds for each element of `like`: g is [K, *like] or [*like].
size_t targets_of(const Api& api, const Operator& op, const std::vector<int64_t>& g,
                  const std::vector<int64_t>& like) {
  size_t more = g.size() - like.size();
  if (g.size() < like.size() || more > 1 ||
      !std::equal(like.begin(), like.end(), g.begin() + more))
    fail(api, op.name + ": the cotangent's shape is neither the other input's nor [K, …] of it");
  return more == 0 ? 1 : g[0];
}

void run_gate(const Kernel& kernel, OrtKernelContext* context) {
  const Operator& op = kernel.op;
  const Api& api = *op.api;
  Tensor z = input(api, context, 0), g = input(api, context, 1), T = input(api, context, 2);
  size_t n = z.elements, targets = targets_of(api, op, g.shape, z.shape);
  void* out = output(api, context, 0, g.shape);
  if (g.elements == 0) return;
  if (op.cuda) {
    launched(api, cuda_gate(op.dtype, op.gate, z.data, g.data, out, n, targets, T.data,
                            stream(api, context)));
    return;
  }
  float inv_T = inverse(op, T);
  in_parts(api, context, n, [&](size_t begin, size_t end) {
    on_cpu(op).gate(op.gate, z.data, g.data, out, begin, end, n, targets, inv_T);
  });
}

// x is [N, C, *size]; g is [N, C, *out] or [K, N, C, *out], and the result [K · N, C, *size].
void run_pool(const Kernel& kernel, OrtKernelContext* context) {
  const Operator& op = kernel.op;
  const Api& api = *op.api;
  Tensor x = input(api, context, 0), g = input(api, context, 1), T = input(api, context, 2);
  Pool pool = kernel.pool;
  size_t axes = x.shape.size() - 2;
  if (x.shape.size() < 3 || axes > kAxes || g.shape.size() < x.shape.size())
    fail(api, op.name + ": pools along one to three axes");
  std::vector<int64_t> like(x.shape.begin(), x.shape.begin() + 2);
  for (int axis = 0; axis < kAxes; ++axis) pool.size[axis] = pool.out[axis] = 1;
  for (size_t i = 0; i < axes; ++i) {
    int axis = kAxes - axes + i;
    pool.size[axis] = x.shape[2 + i];
    pool.out[axis] = g.shape[g.shape.size() - axes + i];
    like.push_back(pool.out[axis]);
  }
  size_t targets = targets_of(api, op, g.shape, like);
  std::vector<int64_t> shape = x.shape;
  shape[0] *= targets;
  void* out = output(api, context, 0, shape);
  size_t planes = x.shape[0] * x.shape[1];
  if (x.elements * targets == 0) return;
  if (op.cuda) {
    launched(api, cuda_pool_grad(op.dtype, pool, op.held, x.data, g.data, out, planes, targets,
                                 T.data, stream(api, context)));
    return;
  }
  const CpuKernels& cpu = on_cpu(op);
  size_t item = op.dtype == kFloat32Kernels ? 4 : 2;
  size_t elements = product(pool.size), windows = product(pool.out);
  size_t floats = cpu.pool_scratch(pool, targets);
  float inv_T = inverse(op, T);
  Scratch scratch(floats);
  std::atomic<bool> enough{true};
  auto one = [&](size_t plane) noexcept {
    Scratch::Floats taken;
    try {
      taken = scratch.take();
    } catch (const std::bad_alloc&) {
      enough = false;
      return;
    }
    auto at = [&](const void* data, size_t step) {
      return static_cast<char*>(const_cast<void*>(data)) + plane * step * item;
    };
    cpu.pool_grad(pool, op.held, at(x.data, elements), at(g.data, windows), at(out, elements), targets,
               planes * windows, planes * elements, inv_T, taken.get());
    scratch.give(std::move(taken));
  };
  parallel(api, context, planes, one);
  if (!enough) throw std::bad_alloc();
}

OrtStatus* compute(void* given, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(given);
  return guarded(*kernel.op.api, [&] {
    kernel.op.kind == Kind::kGate ? run_gate(kernel, context) : run_pool(kernel, context);
  });
}

// The attribute's last `count` of `kAxes`, behind `fill`; the first `count` of those given.
void read_axes(const Operator& op, const OrtKernelInfo* info, const char* name, int64_t fill,
               int64_t (&axes)[kAxes]) {
  const Api& api = *op.api;
  int64_t values[2 * kAxes];
  size_t count = 0;
  check(api.KernelInfoGetAttributeArray_int64(info, name, nullptr, &count));
  bool pads = std::strcmp(name, "pads") == 0;
  size_t along = pads ? count / 2 : count;
  if (along < 1 || along > kAxes) fail(api, op.name + ": " + name + " is not of one to three axes");
  check(api.KernelInfoGetAttributeArray_int64(info, name, values, &count));
  for (int axis = 0; axis < kAxes; ++axis) {
    int i = axis + along - kAxes;
    axes[axis] = i < 0 ? fill : values[i];
  }
}

OrtStatus* create(const OrtCustomOp* op, const void* const*, const OrtKernelInfo* info,
                  void** kernel) {
  return guarded(*self(op).api, [&] {
    Pool pool{};
    if (self(op).kind == Kind::kPool) {
      read_axes(self(op), info, "kernel_shape", 1, pool.kernel);
      read_axes(self(op), info, "strides", 1, pool.strides);
      read_axes(self(op), info, "dilations", 1, pool.dilations);
      read_axes(self(op), info, "pads", 0, pool.before);
    }
    *kernel = new Kernel{self(op), pool};
  });
}

void destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }

ElementType element_type(const OrtCustomOp* op, size_t) {
  constexpr ElementType types[] = {ElementType::kFloat32, ElementType::kFloat16,
                                   ElementType::kBFloat16};
  return types[self(op).dtype];
}

// A gate's result is like its cotangent, a pool's gradient like x where there is one cotangent. ONNX
// Runtime plans memory, and keeps its blocked layout, by these. Where it does not know a rank it
// says that there are no axes, as of a scalar: then nothing is inferred.
OrtStatus* infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
  const Api& api = *self(op).api;
  return guarded(api, [&] {
    auto shape_of = [&](size_t index) {
      OrtTensorTypeAndShapeInfo* info;
      check(api.ShapeInferContext_GetInputTypeShape(context, index, &info));
      return info;
    };
    auto axes = [&](const OrtTensorTypeAndShapeInfo* info) {
      size_t count;
      check(api.GetDimensionsCount(info, &count));
      return count;
    };
    const OrtTensorTypeAndShapeInfo *x = shape_of(0), *g = shape_of(1);
    if (axes(g) == 0) return;
    if (self(op).kind == Kind::kGate) {
      check(api.ShapeInferContext_SetOutputTypeShape(context, 0, g));
    } else if (axes(x) == axes(g)) {
      check(api.ShapeInferContext_SetOutputTypeShape(context, 0, x));
    }
  });
}

// A gate's result may be where its cotangent is: an element is written after it was read.
size_t cotangent_inplace(int** inputs, int** outputs) {
  *inputs = new int(1);
  *outputs = new int(0);
  return 1;
}

size_t none(int** inputs, int** outputs) {
  *inputs = *outputs = nullptr;
  return 0;
}

void release(int* inputs, int* outputs) {
  delete inputs;
  delete outputs;
}

Operator make(const Api& api, std::string name, Kind kind, GateKind gate, bool held, int dtype,
              bool cuda) {
  Operator op{};
  auto required = [](const OrtCustomOp*, size_t) { return 0; };
  auto one = [](const OrtCustomOp*) { return 1; };
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp* op) { return self(op).name.c_str(); };
  op.GetExecutionProviderType = [](const OrtCustomOp* op) {
    return self(op).cuda ? "CUDAExecutionProvider" : "CPUExecutionProvider";
  };
  op.GetInputType = op.GetOutputType = element_type;
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 3; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.KernelDestroy = destroy;
  op.GetInputCharacteristic = op.GetOutputCharacteristic = op.GetInputMemoryType = required;
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
  op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.InferOutputShapeFn = infer;
  op.GetStartVersion = op.GetEndVersion = one;
  op.GetMayInplace = kind == Kind::kGate ? cotangent_inplace : none;
  op.GetAliasMap = none;
  op.ReleaseMayInplace = op.ReleaseAliasMap = release;
  op.api = &api;
  op.name = std::move(name);
  op.kind = kind;
  op.gate = gate;
  op.held = held;
  op.dtype = dtype;
  op.cuda = cuda;
  return op;
}

std::vector<Operator> operators(const Api& api) {
  std::vector<Operator> made;
  for (bool cuda : {false, true}) {
    if (cuda && !has_cuda()) continue;
    for (int dtype = 0; dtype < kDtypes; ++dtype) {
      auto add = [&](std::string name, Kind kind, GateKind gate, bool held) {
        made.push_back(make(api, std::move(name), kind, gate, held, dtype, cuda));
      };
      add("SoftGate", Kind::kGate, GateKind::kLogistic, false);
      add("NormalGate", Kind::kGate, GateKind::kNormal, false);
      for (int i = 1; i <= kGeometries; ++i) {
        add("SoftMaxPoolGrad_" + std::to_string(i), Kind::kPool, GateKind::kLogistic, false);
        add("WeightedPoolGrad_" + std::to_string(i), Kind::kPool, GateKind::kLogistic, true);
      }
    }
  }
  return made;
}

// What a runtime was given; sessions hold pointers into it, so it stays as long as the process.
struct Registration {
  Api api;
  std::vector<Operator> operators;
  OrtCustomOpDomain* domain = nullptr;

  explicit Registration(const void* const* table) : api(table), operators(onnxplain::operators(api)) {
    check(api.CreateCustomOpDomain(kDomain, &domain));
    for (const Operator& op : operators) check(api.CustomOpDomain_Add(domain, &op));
  }
};

// A process may hold more than one runtime. What they were given is never destroyed: at the end of
// the process, sessions that are static are destroyed after what this library has.
const Registration& registration(const void* const* table) {
  static std::mutex lock;
  static auto& made = *new std::map<const void*, std::unique_ptr<Registration>>;
  std::lock_guard<std::mutex> guard(lock);
  auto& found = made[table];
  if (found == nullptr) found = std::make_unique<Registration>(table);
  return *found;
}

}  // namespace
}  // namespace onnxplain

#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif

// What `SessionOptions.register_custom_ops_library` calls.
EXPORTED OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace onnxplain;
  const void* const* table = base->GetApi(kApiVersion);
  if (table == nullptr) {
    std::string message = std::string("onnxplain-kernels needs ONNX Runtime 1.18 or later, not ") +
                          base->GetVersionString();
    return create_status(base->GetApi(1))(kFail, message.c_str());
  }
  return guarded(Api(table), [&] {
    const Registration& found = registration(table);
    check(found.api.AddCustomOpDomain(options, found.domain));
  });
}

EXPORTED int onnxplain_has_cuda() { return onnxplain::has_cuda(); }
