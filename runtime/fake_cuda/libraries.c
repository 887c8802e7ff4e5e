/* cuBLAS and cuDNN, beside `cuda.c`: the functions that answer with more than success.

   The others, which `__init__.py` writes, are one kernel where they compute. All that give a status
   are counted, and fail where they are told to. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static int it;

int fake_cuda_library(const char *name, int computes);

/* A function of a library: counted, failing where it is told to, else its body and success. */
#define LIBRARY(name, parameters, ...)               \
    int name parameters {                            \
        int refused = fake_cuda_library(#name, 0);   \
        if (refused) return refused;                 \
        __VA_ARGS__;                                 \
        return 0;                                    \
    }

/* ----- cuBLAS ----- */

LIBRARY(cublasCreate_v2, (void **handle), *handle = &it)
LIBRARY(cublasLtCreate, (void **handle), *handle = &it)
LIBRARY(cublasGetMathMode, (void *handle, int *mode), *mode = 0)
LIBRARY(cublasLtMatmulAlgoGetHeuristic,
        (void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference, int wanted,
         void *results, int *found),
        *found = 1)

/* ----- cuDNN ----- */

uint64_t cudnnGetVersion(void) { return 91600; }
const char *cudnnGetErrorString(int status) { return status ? "failed" : "succeeded"; }
void cudnnGetLastErrorString(char *message, uint64_t size) { *message = 0; }
LIBRARY(cudnnCreate, (void **handle), *handle = &it)
LIBRARY(cudnnBackendCreateDescriptor, (int type, void **made), *made = &it)

/* Of a convolution's graph there is one way to run it, with no workspace, shared memory or notes. */
enum { ENGINEHEUR_RESULTS = 202, INT64 = 3, INT32 = 23 };
LIBRARY(cudnnBackendGetAttribute,
        (void *descriptor, int attribute, int type, int64_t wanted, int64_t *found, void *values),
        int size = type == INT64 ? 8 : type == INT32 ? 4 : 0;
        if (found) *found = size || attribute == ENGINEHEUR_RESULTS;
        if (wanted && values) memset(values, 0, size))

/* A recurrent layer's weights lie at the beginning of what is allocated for them, one by one. */
LIBRARY(cudnnDropoutGetStatesSize, (void *handle, size_t *size), *size = 1 << 10)
LIBRARY(cudnnGetRNNWeightSpaceSize, (void *handle, void *layer, size_t *size), *size = 1 << 20)
LIBRARY(cudnnGetRNNTempSpaceSizes,
        (void *handle, void *layer, int mode, void *x, size_t *work, size_t *reserve),
        *work = *reserve = 1 << 10)
LIBRARY(cudnnGetRNNWeightParams,
        (void *handle, void *layer, int32_t number, size_t size, void *space, int32_t which, void *matrix,
         void **weights, void *vector, void **bias),
        *weights = *bias = space)
LIBRARY(cudnnGetTensorNdDescriptor,
        (void *descriptor, int wanted, int *type, int *axes, int *sizes, int *strides),
        *type = 0; *axes = wanted; for (int i = 0; i < wanted; i++) sizes[i] = strides[i] = 1)
