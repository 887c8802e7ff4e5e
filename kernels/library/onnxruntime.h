// The part of ONNX Runtime's C interface that a custom operator needs.
//
// ONNX Runtime hands out a table of functions that only ever grows, so that a function is known by
// its place in it, and reads a record of callbacks for each operator, whose fields only ever grow.
// Both are declared here, from the interface's documentation (onnxruntime.ai, "C API"): names,
// places, signatures. A place taken wrongly would call something else: `tests/kernels` calls every
// function below.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;  // null where all is well
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
struct OrtCustomOp;

struct OrtApiBase {
  const void* const* (*GetApi)(uint32_t version);  // null where the runtime is older
  const char* (*GetVersionString)();
};
}

namespace onnxplain {

// Of the table and of the records below; ONNX Runtime 1.18.
constexpr uint32_t kApiVersion = 18;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };

enum class ElementType : int { kUndefined = 0, kFloat32 = 1, kFloat16 = 10, kBFloat16 = 16 };

// _(name, place in the table, result, parameters)
#define ONNXPLAIN_ORT_FUNCTIONS(_)                                                                \
  _(CreateStatus, 0, OrtStatus*, (int code, const char* message))                                 \
  _(CreateCustomOpDomain, 26, OrtStatus*, (const char* name, OrtCustomOpDomain** domain))         \
  _(CustomOpDomain_Add, 27, OrtStatus*, (OrtCustomOpDomain*, const OrtCustomOp*))                 \
  _(AddCustomOpDomain, 28, OrtStatus*, (OrtSessionOptions*, OrtCustomOpDomain*))                  \
  _(GetTensorMutableData, 51, OrtStatus*, (OrtValue*, void** data))                               \
  _(GetDimensionsCount, 61, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, size_t* count))        \
  _(GetDimensions, 62, OrtStatus*,                                                                \
    (const OrtTensorTypeAndShapeInfo*, int64_t* sizes, size_t count))                             \
  _(GetTensorTypeAndShape, 65, OrtStatus*, (const OrtValue*, OrtTensorTypeAndShapeInfo**))        \
  _(KernelContext_GetInput, 90, OrtStatus*,                                                       \
    (const OrtKernelContext*, size_t index, const OrtValue**))                                    \
  _(KernelContext_GetOutput, 91, OrtStatus*,                                                      \
    (OrtKernelContext*, size_t index, const int64_t* sizes, size_t axes, OrtValue**))             \
  _(ReleaseTensorTypeAndShapeInfo, 99, void, (OrtTensorTypeAndShapeInfo*))                        \
  _(KernelInfoGetAttributeArray_int64, 163, OrtStatus*,                                           \
    (const OrtKernelInfo*, const char* name, int64_t* values, size_t* count))                     \
  _(KernelContext_GetGPUComputeStream, 193, OrtStatus*, (const OrtKernelContext*, void** stream)) \
  _(ShapeInferContext_GetInputTypeShape, 268, OrtStatus*,                                         \
    (const OrtShapeInferContext*, size_t index, OrtTensorTypeAndShapeInfo**))                     \
  _(ShapeInferContext_SetOutputTypeShape, 270, OrtStatus*,                                        \
    (const OrtShapeInferContext*, size_t index, const OrtTensorTypeAndShapeInfo*))                \
  _(KernelContext_ParallelFor, 274, OrtStatus*,                                                   \
    (const OrtKernelContext*, void (*part)(void* given, size_t index), size_t parts,              \
     size_t batches, void* given))

// The functions, taken from their places.
struct Api {
  explicit Api(const void* const* table)
#define ONNXPLAIN_PLACE(name, place, result, parameters) \
  , name(reinterpret_cast<result(*) parameters>(const_cast<void*>(table[place])))
      : table(table) ONNXPLAIN_ORT_FUNCTIONS(ONNXPLAIN_PLACE) {
  }
#undef ONNXPLAIN_PLACE

  const void* const* table;
#define ONNXPLAIN_MEMBER(name, place, result, parameters) result(*name) parameters;
  ONNXPLAIN_ORT_FUNCTIONS(ONNXPLAIN_MEMBER)
#undef ONNXPLAIN_MEMBER
};

// The one function of a table that may be too short for the others.
inline auto create_status(const void* const* table) {
  return reinterpret_cast<OrtStatus* (*)(int code, const char* message)>(const_cast<void*>(table[0]));
}

}  // namespace onnxplain

extern "C" {

// An operator for one provider and one set of types. ONNX Runtime reads as many fields as `version`
// has, and calls those that it does not document as optional without asking whether they are null.
struct OrtCustomOp {
  uint32_t version;
  void* CreateKernel;  // as CreateKernelV2, which has a status
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  onnxplain::ElementType (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  onnxplain::ElementType (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void* KernelCompute;  // as KernelComputeV2, which has a status
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);  // 0: must be given
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t index);  // 0: the provider's own
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const void* const* api, const OrtKernelInfo*,
                               void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);  // the caller hands both back, to be freed
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};
}
