// The kernels on a GPU. Arithmetic in float32, whatever the tensors hold; no atomics: every element
// of a result is computed by one thread in a fixed order, so the bits are the same in every run.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda.h"

namespace onnxplain {
namespace {

__device__ float load(const float* x) { return *x; }
__device__ float load(const __half* x) { return __half2float(*x); }
__device__ float load(const __nv_bfloat16* x) { return __bfloat162float(*x); }
__device__ void store(float* x, float y) { *x = y; }
__device__ void store(__half* x, float y) { *x = __float2half_rn(y); }
__device__ void store(__nv_bfloat16* x, float y) { *x = __float2bfloat16_rn(y); }

struct Logistic {
  static __device__ float of(float u) { return 1.0f / (1.0f + __expf(-u)); }
};

struct Normal {
  static __device__ float of(float u) { return normcdff(u); }
};

constexpr unsigned kThreads = 256;

// Sixteen bytes of a tensor: one load, one store.
template <class Number>
struct alignas(16) Pack {
  static constexpr unsigned kCount = 16 / sizeof(Number);
  Number at[kCount];
};

template <class Number>
bool aligned(const void* x) {
  return reinterpret_cast<uintptr_t>(x) % sizeof(Pack<Number>) == 0;
}

// One thread per element, or per pack of them.
unsigned blocks(size_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__device__ size_t thread() { return size_t{blockIdx.x} * kThreads + threadIdx.x; }

// out[k, i] = g[k, i] · gate(z[i]): z is read, and its gate computed, once for all targets.
template <class Gate, class Number, class Unit>
__global__ void gate(const Number* z, const Number* g, Number* out, size_t units, size_t n,
                     size_t targets, const Number* T) {
  size_t i = thread();
  if (i >= units) return;
  constexpr unsigned count = sizeof(Unit) / sizeof(Number);
  float inv_T = 1.0f / load(T);
  Unit of_z = reinterpret_cast<const Unit*>(z)[i];
  float open[count];
#pragma unroll
  for (unsigned j = 0; j < count; ++j)
    open[j] = Gate::of(load(reinterpret_cast<const Number*>(&of_z) + j) * inv_T);
  for (size_t k = 0; k < targets; ++k) {
    Unit given = reinterpret_cast<const Unit*>(g + k * n)[i];
#pragma unroll
    for (unsigned j = 0; j < count; ++j) {
      Number* element = reinterpret_cast<Number*>(&given) + j;
      store(element, load(element) * open[j]);
    }
    reinterpret_cast<Unit*>(out + k * n)[i] = given;
  }
}

// ----- pools -----
//
// A block takes a tile of one plane. It computes the statistics of all windows that touch the tile,
// into shared memory if there is room; then each thread adds up what the windows that hold one of
// its elements give to it.

constexpr int kTileHeight = 16, kTileWidth = 32;
constexpr size_t kShared = 48 * 1024;  // bytes, which every GPU has

// A `Pool` in the numbers that a GPU divides fast.
struct Geometry {
  int size[kAxes], out[kAxes], kernel[kAxes], strides[kAxes], dilations[kAxes], before[kAxes];

  explicit Geometry(const Pool& pool) {
    for (int axis = 0; axis < kAxes; ++axis) {
      size[axis] = static_cast<int>(pool.size[axis]);
      out[axis] = static_cast<int>(pool.out[axis]);
      kernel[axis] = static_cast<int>(pool.kernel[axis]);
      strides[axis] = static_cast<int>(pool.strides[axis]);
      dilations[axis] = static_cast<int>(pool.dilations[axis]);
      before[axis] = static_cast<int>(pool.before[axis]);
    }
  }
};

// Some windows along an axis: from `low` to before `low + count`.
struct Range {
  int low, count;
};

// Those that begin at or before the element `last` and do not end before `first`.
__device__ Range windows_of(const Geometry& pool, int axis, int first, int last) {
  int begin = first + pool.before[axis] - (pool.kernel[axis] - 1) * pool.dilations[axis];
  int low = begin <= 0 ? 0 : (begin + pool.strides[axis] - 1) / pool.strides[axis];
  int high = min((last + pool.before[axis]) / pool.strides[axis] + 1, pool.out[axis]);
  return {low, max(high - low, 0)};
}

// Whether the element is under a tap of the window, with dilation, and not between two.
__device__ bool tapped(const Geometry& pool, int axis, int at, int window) {
  if (pool.dilations[axis] == 1) return true;
  return (at + pool.before[axis] - window * pool.strides[axis]) % pool.dilations[axis] == 0;
}

// Of a window: an element's weight is e^((x - highest) / T - log Z), and their mean of x is
// `highest + mean`.
struct Statistics {
  float highest, log_Z, mean;
};

template <class Number>
__device__ Statistics statistics(const Geometry& pool, const Number* plane, int d, int h, int w,
                                 float inv_T) {
  auto each = [&](auto visit) {
    for (int i = 0; i < pool.kernel[0]; ++i) {
      int depth = d * pool.strides[0] - pool.before[0] + i * pool.dilations[0];
      for (int j = 0; j < pool.kernel[1]; ++j) {
        int line = h * pool.strides[1] - pool.before[1] + j * pool.dilations[1];
        bool inside = depth >= 0 && depth < pool.size[0] && line >= 0 && line < pool.size[1];
        const Number* row = plane + (static_cast<size_t>(depth) * pool.size[1] + line) * pool.size[2];
        int column = w * pool.strides[2] - pool.before[2];
        for (int k = 0; k < pool.kernel[2]; ++k, column += pool.dilations[2])
          visit(inside && column >= 0 && column < pool.size[2] ? load(row + column) : 0.0f);
      }
    }
  };
  float highest = -INFINITY, Z = 0.0f, weighted = 0.0f;
  each([&](float x) { highest = x > highest ? x : highest; });
  each([&](float x) {
    float e = __expf((x - highest) * inv_T);
    Z += e;
    weighted += e * (x - highest);
  });
  return {highest, __logf(Z), weighted / Z};
}

// out_i = Σ g w_i (1 + (x_i - mean) / T) over the windows that hold element i, or Σ g w_i where the
// weights are held. Grid: (tiles, depth, planes); `across` of the tiles are beside one another.
template <class Number, bool held>
__global__ void pool_grad(Geometry pool, const Number* x, const Number* g, Number* out, int planes,
                          size_t targets, const Number* T, int across, bool shared) {
  extern __shared__ Statistics kept[];
  float inv_T = 1.0f / load(T);
  int depth = blockIdx.y;
  int top = blockIdx.x / across * kTileHeight, left = blockIdx.x % across * kTileWidth;
  Range ds = windows_of(pool, 0, depth, depth);
  Range hs = windows_of(pool, 1, top, min(top + kTileHeight, pool.size[1]) - 1);
  Range ws = windows_of(pool, 2, left, min(left + kTileWidth, pool.size[2]) - 1);
  size_t elements = static_cast<size_t>(pool.size[0]) * pool.size[1] * pool.size[2];
  size_t windows = static_cast<size_t>(pool.out[0]) * pool.out[1] * pool.out[2];
  for (int plane = blockIdx.z; plane < planes; plane += gridDim.z) {
    const Number* values = x + plane * elements;
    if (shared) {
      for (int i = threadIdx.x; i < ds.count * hs.count * ws.count; i += kThreads)
        kept[i] = statistics(pool, values, ds.low + i / (hs.count * ws.count),
                             hs.low + i / ws.count % hs.count, ws.low + i % ws.count, inv_T);
      __syncthreads();
    }
    for (int i = threadIdx.x; i < kTileHeight * kTileWidth; i += kThreads) {
      int line = top + i / kTileWidth, column = left + i % kTileWidth;
      if (line >= pool.size[1] || column >= pool.size[2]) continue;
      size_t place = (static_cast<size_t>(depth) * pool.size[1] + line) * pool.size[2] + column;
      Range rows = windows_of(pool, 1, line, line), columns = windows_of(pool, 2, column, column);
      float value = load(values + place);
      for (size_t target = 0; target < targets; ++target) {
        const Number* cotangents = g + (target * planes + plane) * windows;
        float total = 0.0f;
        for (int d = ds.low; d < ds.low + ds.count; ++d) {
          if (!tapped(pool, 0, depth, d)) continue;
          for (int h = rows.low; h < rows.low + rows.count; ++h) {
            if (!tapped(pool, 1, line, h)) continue;
            for (int w = columns.low; w < columns.low + columns.count; ++w) {
              if (!tapped(pool, 2, column, w)) continue;
              int i = ((d - ds.low) * hs.count + h - hs.low) * ws.count + w - ws.low;
              Statistics of = shared ? kept[i] : statistics(pool, values, d, h, w, inv_T);
              float below = value - of.highest;
              float weight = __expf(below * inv_T - of.log_Z);
              float slope = held ? 1.0f : 1.0f + (below - of.mean) * inv_T;
              size_t window = (static_cast<size_t>(d) * pool.out[1] + h) * pool.out[2] + w;
              total += load(cotangents + window) * weight * slope;
            }
          }
        }
        store(out + (target * planes + plane) * elements + place, total);
      }
    }
    if (shared) __syncthreads();
  }
}

const char* said() {
  cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <class Number, class Gate>
const char* launch_gate(const void* z, const void* g, void* out, size_t n, size_t targets,
                        const void* T, cudaStream_t stream) {
  using Unit = Pack<Number>;
  auto in = static_cast<const Number*>(z), given = static_cast<const Number*>(g);
  auto of = static_cast<const Number*>(T);
  auto to = static_cast<Number*>(out);
  if (n % Unit::kCount == 0 && aligned<Number>(z) && aligned<Number>(g) && aligned<Number>(out)) {
    size_t units = n / Unit::kCount;
    gate<Gate, Number, Unit>
        <<<blocks(units), kThreads, 0, stream>>>(in, given, to, units, n, targets, of);
  } else {
    gate<Gate, Number, Number>
        <<<blocks(n), kThreads, 0, stream>>>(in, given, to, n, n, targets, of);
  }
  return said();
}

template <class Number>
const char* launch_pool_grad(const Pool& pool, bool held, const void* x, const void* g, void* out,
                             size_t planes, size_t targets, const void* T, cudaStream_t stream) {
  constexpr int tile[kAxes] = {1, kTileHeight, kTileWidth};
  size_t bytes = sizeof(Statistics);  // of the windows that touch a tile, at most
  for (int axis = 0; axis < kAxes; ++axis) {
    int64_t reach = (pool.kernel[axis] - 1) * pool.dilations[axis];
    bytes *= (tile[axis] - 1 + reach) / pool.strides[axis] + 1;
  }
  bool shared = bytes <= kShared;
  int across = static_cast<int>((pool.size[2] + kTileWidth - 1) / kTileWidth);
  int down = static_cast<int>((pool.size[1] + kTileHeight - 1) / kTileHeight);
  constexpr size_t most = 65535;  // blocks along the grid's second and third axis
  dim3 grid(across * down, pool.size[0], planes < most ? planes : most);
  auto run = held ? pool_grad<Number, true> : pool_grad<Number, false>;
  run<<<grid, kThreads, shared ? bytes : 0, stream>>>(
      Geometry(pool), static_cast<const Number*>(x), static_cast<const Number*>(g),
      static_cast<Number*>(out), static_cast<int>(planes), targets, static_cast<const Number*>(T),
      across, shared);
  return said();
}

// call(a number of the dtype) for each of `kFloat32Kernels`, ….
template <class Call>
const char* with_dtype(int dtype, Call call) {
  if (dtype == kFloat32Kernels) return call(float{});
  if (dtype == kFloat16Kernels) return call(__half{});
  return call(__nv_bfloat16{});
}

}  // namespace

bool has_cuda() { return true; }

const char* cuda_gate(int dtype, GateKind kind, const void* z, const void* g, void* out, size_t n,
                      size_t targets, const void* T, void* stream) {
  return with_dtype(dtype, [&](auto number) {
    using Number = decltype(number);
    auto run = kind == GateKind::kLogistic ? launch_gate<Number, Logistic>
                                           : launch_gate<Number, Normal>;
    return run(z, g, out, n, targets, T, static_cast<cudaStream_t>(stream));
  });
}

const char* cuda_pool_grad(int dtype, const Pool& pool, bool held, const void* x, const void* g,
                           void* out, size_t planes, size_t targets, const void* T, void* stream) {
  return with_dtype(dtype, [&](auto number) {
    return launch_pool_grad<decltype(number)>(pool, held, x, g, out, planes, targets, T,
                                              static_cast<cudaStream_t>(stream));
  });
}

}  // namespace onnxplain
