/* CUDA's runtime and driver, answering and computing nothing.

   Preloaded before libcudart, in place of libcuda.so.1 (its soname): ONNX Runtime's CUDA provider
   then builds and runs whole sessions on a machine without a GPU. Memory on "the GPU" is the
   host's, copies are made, and checked for their direction; a kernel is counted and does nothing,
   so what a run gives back are no results. A stream is captured as CUDA would: kernels and copies
   on it become the graph's, and what a capture forbids (to allocate, to wait) ends it.

   FAKE_CUDA_DEVICES   how many GPUs there are (1)
   FAKE_CUDA_MEMORY    bytes on each (80 GiB)
   FAKE_CUDA_FAIL      what fails, read at every call: "cudaGraphLaunch=700,cublasSgemm_v2=13",
                       by status; "*=719" for everything: a GPU that is lost

   fake_cuda_calls(name)  how often a function was called; of "kernel", how many kernels were
                          launched, those of graphs and of libraries included
   fake_cuda_used()       bytes that are allocated on the GPU */

#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef cudaGetDeviceProperties

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread int device;
static __thread cudaError_t last;

static long number(const char *variable, long otherwise) {
    const char *text = getenv(variable);
    return text && *text ? atol(text) : otherwise;
}

/* ----- what is counted, and what fails ----- */

static struct { const char *name; long count; } calls[256];

static void count(const char *name, long times) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (calls[i].name && strcmp(calls[i].name, name)) i++;
    calls[i].name = name;
    calls[i].count += times;
    pthread_mutex_unlock(&lock);
}

long fake_cuda_calls(const char *name) {
    for (int i = 0; calls[i].name; i++)
        if (!strcmp(calls[i].name, name)) return calls[i].count;
    return 0;
}

static cudaError_t failure(const char *name) {
    const char *list = getenv("FAKE_CUDA_FAIL");
    for (size_t n = strlen(name); list && *list; list += strcspn(list, ","), list += *list == ',')
        if (!strncmp(list, "*=", 2) || (!strncmp(list, name, n) && list[n] == '='))
            return last = atoi(strchr(list, '=') + 1);
    return cudaSuccess;
}

static cudaError_t entered(const char *name) {
    count(name, 1);
    return failure(name);
}

/* A function of the runtime: counted, failing where it is told to, else its body and success. */
#define CUDA(name, parameters, ...)             \
    cudaError_t name parameters {               \
        cudaError_t refused = entered(#name);   \
        if (refused) return refused;            \
        __VA_ARGS__;                            \
        return cudaSuccess;                     \
    }

static cudaError_t failed(cudaError_t status) { return last = status; }

/* ----- streams, graphs and kernels ----- */

typedef struct { long kernels; } Graph;

static struct { cudaStream_t stream; long kernels; int on, broken; } capture;

static void launch(cudaStream_t stream) {
    if (capture.on && stream == capture.stream) capture.kernels++;
    else count("kernel", 1);
}

/* A function of cuBLAS or cuDNN; what it computes is one kernel, on the one stream that there is. */
int fake_cuda_library(const char *name, int computes) {
    int refused = entered(name);
    if (!refused && computes) launch(capture.stream);
    return refused;
}

/* What a capture forbids, in every thread: it ends the capture. */
#define NOT_CAPTURED if (capture.on) { capture.broken = 1; return failed(cudaErrorStreamCaptureUnsupported); }

CUDA(cudaStreamCreate, (cudaStream_t *stream), *stream = malloc(1))
CUDA(cudaStreamCreateWithFlags, (cudaStream_t *stream, unsigned flags), *stream = malloc(1))
CUDA(cudaStreamDestroy, (cudaStream_t stream), free(stream))
CUDA(cudaStreamSynchronize, (cudaStream_t stream), NOT_CAPTURED)
CUDA(cudaStreamWaitEvent, (cudaStream_t stream, cudaEvent_t event, unsigned flags), )
CUDA(cudaStreamIsCapturing, (cudaStream_t stream, enum cudaStreamCaptureStatus *status),
     *status = capture.on && stream == capture.stream ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone)
CUDA(cudaStreamBeginCapture, (cudaStream_t stream, enum cudaStreamCaptureMode mode),
     NOT_CAPTURED; capture.on = 1; capture.broken = 0; capture.stream = stream; capture.kernels = 0)
CUDA(cudaStreamEndCapture, (cudaStream_t stream, cudaGraph_t *graph),
     capture.on = 0;
     if (capture.broken) return failed(cudaErrorStreamCaptureInvalidated);
     Graph *recorded = malloc(sizeof(Graph)); recorded->kernels = capture.kernels; *graph = (void *)recorded)
CUDA(cudaGraphInstantiate, (cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long flags),
     *ready = malloc(sizeof(Graph)); *(Graph *)*ready = *(Graph *)graph)
CUDA(cudaGraphLaunch, (cudaGraphExec_t ready, cudaStream_t stream), count("kernel", ((Graph *)ready)->kernels))
CUDA(cudaGraphDestroy, (cudaGraph_t graph), free(graph))
CUDA(cudaGraphExecDestroy, (cudaGraphExec_t ready), free(ready))

CUDA(cudaLaunchKernel, (const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream), launch(stream))
CUDA(__cudaLaunchKernel, (cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream), launch(stream))
CUDA(cudaLaunchKernelExC, (const cudaLaunchConfig_t *config, const void *kernel, void **arguments), launch(config->stream))
CUDA(cudaLaunchCooperativeKernel, (const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream), launch(stream))
CUDA(cudaLaunchHostFunc, (cudaStream_t stream, cudaHostFn_t function, void *data), if (!capture.on) function(data))

CUDA(cudaEventCreate, (cudaEvent_t *event), *event = malloc(1))
CUDA(cudaEventCreateWithFlags, (cudaEvent_t *event, unsigned flags), *event = malloc(1))
CUDA(cudaEventDestroy, (cudaEvent_t event), free(event))
CUDA(cudaEventRecord, (cudaEvent_t event, cudaStream_t stream), )
CUDA(cudaEventRecordWithFlags, (cudaEvent_t event, cudaStream_t stream, unsigned flags), )
CUDA(cudaEventSynchronize, (cudaEvent_t event), NOT_CAPTURED)
CUDA(cudaEventElapsedTime, (float *milliseconds, cudaEvent_t from, cudaEvent_t to), *milliseconds = 1)

/* ----- memory ----- */

typedef struct Block { struct Block *next; char *start; size_t size; } Block;
static Block *blocks;
static size_t used;

size_t fake_cuda_used(void) { return used; }

#define LARGE ((size_t)16 << 20)  // bytes

static size_t memory(void) { return number("FAKE_CUDA_MEMORY", 80l << 30); }

static Block **block_of(const void *pointer) {
    Block **at = &blocks;
    while (*at && !((char *)pointer >= (*at)->start && (char *)pointer < (*at)->start + (*at)->size)) at = &(*at)->next;
    return at;
}

static int on_device(const void *pointer) {
    pthread_mutex_lock(&lock);
    int found = *block_of(pointer) != NULL;
    pthread_mutex_unlock(&lock);
    return found;
}

static cudaError_t allocate(void **pointer, size_t size) {
    pthread_mutex_lock(&lock);
    int fits = used + size <= memory();
    if (fits) {
        Block *block = malloc(sizeof *block);
        *block = (Block){blocks, *pointer = calloc(size + 1, 1), size + 1};
        blocks = block;
        used += block->size;
    }
    pthread_mutex_unlock(&lock);
    return fits ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

static cudaError_t release(void *pointer) {
    if (!pointer) return cudaSuccess;
    pthread_mutex_lock(&lock);
    Block **at = block_of(pointer), *block = *at;
    int ours = block && block->start == pointer;
    if (ours) {
        used -= block->size;
        *at = block->next;
        free(block->start);
        free(block);
    }
    pthread_mutex_unlock(&lock);
    return ours ? cudaSuccess : failed(cudaErrorInvalidValue);
}

static cudaError_t copy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    int to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    int from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && size && (on_device(to) != to_device || on_device(from) != from_device))
        return failed(cudaErrorInvalidValue);
    // Nothing is computed of a device's numbers here, and pages that nobody writes take no memory.
    if (!to_device || size < LARGE)
        memcpy(to, from, size);
    return cudaSuccess;
}

CUDA(cudaMalloc, (void **pointer, size_t size), NOT_CAPTURED; return allocate(pointer, size))
CUDA(cudaFree, (void *pointer), NOT_CAPTURED; return release(pointer))
CUDA(cudaMallocFromPoolAsync, (void **pointer, size_t size, cudaMemPool_t pool, cudaStream_t stream), return allocate(pointer, size))
CUDA(cudaFreeAsync, (void *pointer, cudaStream_t stream), return release(pointer))
CUDA(cudaMallocHost, (void **pointer, size_t size), NOT_CAPTURED; *pointer = malloc(size))
CUDA(cudaHostAlloc, (void **pointer, size_t size, unsigned flags), NOT_CAPTURED; *pointer = malloc(size))
CUDA(cudaFreeHost, (void *pointer), NOT_CAPTURED; free(pointer))
CUDA(cudaMemGetInfo, (size_t *free, size_t *total), *free = used < memory() ? memory() - used : 0; *total = memory())
CUDA(cudaMemcpy, (void *to, const void *from, size_t size, enum cudaMemcpyKind kind), NOT_CAPTURED; return copy(to, from, size, kind))
CUDA(cudaMemcpyAsync, (void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream),
     if (capture.on && stream == capture.stream) launch(stream); else return copy(to, from, size, kind))
CUDA(cudaMemset, (void *to, int value, size_t size), NOT_CAPTURED; memset(to, value, size))
CUDA(cudaMemsetAsync, (void *to, int value, size_t size, cudaStream_t stream), memset(to, value, size))
CUDA(cudaPointerGetAttributes, (struct cudaPointerAttributes *attributes, const void *pointer),
     memset(attributes, 0, sizeof *attributes);
     if (on_device(pointer)) *attributes = (struct cudaPointerAttributes){cudaMemoryTypeDevice, device, (void *)pointer, NULL})

/* ----- the GPU ----- */

static int devices(void) { return number("FAKE_CUDA_DEVICES", 1); }

CUDA(cudaGetDeviceCount, (int *found), *found = devices())
CUDA(cudaSetDevice, (int index), if (index < 0 || index >= devices()) return failed(cudaErrorInvalidDevice); device = index)
CUDA(cudaGetDevice, (int *index), *index = device)
CUDA(cudaDeviceSynchronize, (void), NOT_CAPTURED)
CUDA(cudaDriverGetVersion, (int *version), *version = CUDART_VERSION)
CUDA(cudaRuntimeGetVersion, (int *version), *version = CUDART_VERSION)
CUDA(cudaGetDeviceProperties, (struct cudaDeviceProp *gpu, int index),
     if (index < 0 || index >= devices()) return failed(cudaErrorInvalidDevice);
     *gpu = (struct cudaDeviceProp){
         .name = "Fake", .major = 9, .minor = 0, .totalGlobalMem = memory(), .multiProcessorCount = 132,
         .warpSize = 32, .maxThreadsPerBlock = 1024, .maxThreadsPerMultiProcessor = 2048,
         .sharedMemPerBlock = 48 << 10, .sharedMemPerBlockOptin = 227 << 10, .sharedMemPerMultiprocessor = 228 << 10,
         .regsPerBlock = 65536, .l2CacheSize = 50 << 20,
         .maxGridSize = {2147483647, 65535, 65535}, .maxThreadsDim = {1024, 1024, 64}})
CUDA(cudaDeviceGetAttribute, (int *value, enum cudaDeviceAttr attribute, int index), switch (attribute) {
     case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
     case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
     case cudaDevAttrMultiProcessorCount: *value = 132; break;
     case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
     case cudaDevAttrWarpSize: *value = 32; break;
     case cudaDevAttrMemoryPoolsSupported: *value = 0; break;
     default: *value = 1024; })

CUDA(cudaFuncSetAttribute, (const void *kernel, enum cudaFuncAttribute attribute, int value), )
CUDA(cudaFuncGetAttributes, (struct cudaFuncAttributes *attributes, const void *kernel),
     *attributes = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024})
CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, (int *blocks, const void *kernel, int threads, size_t shared, unsigned flags), *blocks = 2)

cudaError_t cudaPeekAtLastError(void) { return last; }
cudaError_t cudaGetLastError(void) {
    cudaError_t status = last;
    last = failure("cudaGetLastError");
    return status;
}

/* What nvcc puts into every file: kernels are registered, and then launched by handles. */
void **__cudaRegisterFatBinary(void *code) { static void *handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterFunction(void **handle, const char *host, char *kernel, const char *name, int threads, uint3 *t, uint3 *b, dim3 *block, dim3 *grid, int *size) {}
void __cudaRegisterVar(void **handle, char *host, char *address, const char *name, int external, size_t size, int constant, int global) {}
CUDA(__cudaGetKernel, (cudaKernel_t *kernel, const void *host), *kernel = (void *)host)

static __thread struct { dim3 grid, block; size_t shared; cudaStream_t stream; } configuration;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    configuration.grid = grid, configuration.block = block, configuration.shared = shared, configuration.stream = stream;
    return 0;
}
CUDA(__cudaPopCallConfiguration, (dim3 *grid, dim3 *block, size_t *shared, void *stream),
     *grid = configuration.grid; *block = configuration.block; *shared = configuration.shared; *(cudaStream_t *)stream = configuration.stream)

/* ----- the driver, as far as onnxplain and the provider call it themselves ----- */

CUDA(cuInit, (unsigned flags), )
CUDA(cuDeviceGetCount, (int *found), *found = devices())
CUDA(cuDeviceGet, (int *found, int index), if (index >= devices()) return cudaErrorInvalidDevice; *found = index)
CUDA(cuDeviceGetAttribute, (int *value, int attribute, int index), *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0)
CUDA(cuDeviceGetName, (char *name, int size, int index), snprintf(name, size, "Fake %d", index))
CUDA(cuDevicePrimaryCtxRetain, (void **context, int index), *context = &capture)
CUDA(cuCtxPushCurrent_v2, (void *context), )
CUDA(cuCtxPopCurrent_v2, (void **context), )
CUDA(cuStreamSynchronize, (cudaStream_t stream), NOT_CAPTURED)
CUDA(cuMemcpyDtoD_v2, (void *to, const void *from, size_t size), NOT_CAPTURED; return copy(to, from, size, cudaMemcpyDeviceToDevice))
CUDA(cuTensorMapEncodeTiled, (void), return cudaErrorNotSupported)
int cuGetErrorString(int status, const char **words) { *words = cudaGetErrorString(status); return 0; }
