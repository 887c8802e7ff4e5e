// The kernels on the processor. Compiled once for each set of instructions, as the namespace
// ONNXPLAIN_ISA; nothing here has external linkage but that namespace's table, since a linker
// might take one set's instance of a function that another calls.

#include <cstring>

#include "cpu.h"
#include "cpu_numbers.h"

namespace {

using onnxplain::GateKind;
using onnxplain::Pool;
using onnxplain::product;
using onnxplain::reach;

// What is written may be what is read, but no other element of it.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INDEPENDENT _Pragma("GCC ivdep")
#else
#define INDEPENDENT
#endif

constexpr size_t kBlock = 512;  // elements whose gates are kept for the next target

template <float openness(float), class Number>
void gate(const void* z_, const void* g_, void* out_, size_t begin, size_t end, size_t n,
          size_t targets, float inv_T) {
  using Stored = typename Number::Stored;
  auto z = static_cast<const Stored*>(z_);
  if (targets == 1) {
    auto g = static_cast<const Stored*>(g_);
    auto out = static_cast<Stored*>(out_);
    INDEPENDENT
    for (size_t i = begin; i < end; ++i)
      out[i] = Number::store(Number::load(g[i]) * openness(Number::load(z[i]) * inv_T));
    return;
  }
  float open[kBlock];
  for (size_t first = begin; first < end; first += kBlock) {
    size_t count = end - first < kBlock ? end - first : kBlock;
    for (size_t i = 0; i < count; ++i) open[i] = openness(Number::load(z[first + i]) * inv_T);
    for (size_t k = 0; k < targets; ++k) {
      auto g = static_cast<const Stored*>(g_) + k * n + first;
      auto out = static_cast<Stored*>(out_) + k * n + first;
      INDEPENDENT
      for (size_t i = 0; i < count; ++i) out[i] = Number::store(Number::load(g[i]) * open[i]);
    }
  }
}

template <class Number>
void gate_of(GateKind kind, const void* z, const void* g, void* out, size_t begin, size_t end,
             size_t n, size_t targets, float inv_T) {
  auto run = kind == GateKind::kLogistic ? gate<logistic, Number> : gate<normal, Number>;
  run(z, g, out, begin, end, n, targets, inv_T);
}

// A plane with its padding, what no window reaches cut off, in which those elements of a row are
// neighbours that are one stride apart: [rows, phases, length]. So the same tap of the windows
// along a row is a piece of memory, and every loop below runs along one.
struct Strip {
  const Pool& pool;
  int64_t height, phases, length, row;

  explicit Strip(const Pool& pool)
      : pool(pool),
        height(reach(pool, 1)),
        phases(pool.strides[2]),
        length((reach(pool, 2) - 1) / phases + 1),
        row(phases * length) {}

  int64_t floats() const { return reach(pool, 0) * height * row; }

  // Of the tap (d, h, w) of the windows (od, oh, 0), (od, oh, 1), ….
  int64_t tap(int64_t od, int64_t oh, int64_t d, int64_t h, int64_t w) const {
    int64_t depth = od * pool.strides[0] + d * pool.dilations[0];
    int64_t line = oh * pool.strides[1] + h * pool.dilations[1];
    int64_t column = w * pool.dilations[2];
    return (depth * height + line) * row + column % phases * length + column / phases;
  }

  // visit(element of the plane, its place here) for all that some window reaches.
  template <class Visit>
  void each(Visit visit) const {
    for (int64_t d = 0; d < pool.size[0]; ++d)
      for (int64_t h = 0; h < pool.size[1]; ++h) {
        int64_t depth = d + pool.before[0], line = h + pool.before[1];
        if (depth >= reach(pool, 0) || line >= height) continue;
        int64_t from = (d * pool.size[1] + h) * pool.size[2];
        int64_t to = (depth * height + line) * row;
        int64_t columns = reach(pool, 2) - pool.before[2];
        if (columns > pool.size[2]) columns = pool.size[2];
        for (int64_t phase = 0; phase < phases; ++phase) {
          int64_t first = (phase - pool.before[2] % phases + phases) % phases;
          if (first >= columns) continue;
          int64_t at = to + phase * length + (first + pool.before[2]) / phases;
          visit(from + first, at, (columns - first - 1) / phases + 1);
        }
      }
  }
};

size_t pool_scratch(const Pool& pool, size_t targets) {
  Strip strip(pool);
  return (1 + targets) * strip.floats() + (4 + product(pool.kernel)) * pool.out[2];
}

// With u = (x - max) / T, e = e^u, Z = Σ e and ū = Σ e u / Z over a window, each element of it gets
// g e / Z · (1 - ū + u), or g e / Z where the weights are held.
template <class Number>
void pool_grad(const Pool& pool, bool held, const void* x_, const void* g_, void* out_,
               size_t targets, size_t g_step, size_t out_step, float inv_T, float* scratch) {
  using Stored = typename Number::Stored;
  auto x = static_cast<const Stored*>(x_);
  auto out = static_cast<Stored*>(out_);
  Strip strip(pool);
  int64_t windows = pool.out[2], floats = strip.floats();
  float* u = scratch;
  float* sums = u + floats;
  float* highest = sums + targets * floats;
  float* Z = highest + windows;
  float* mean = Z + windows;
  float* share = mean + windows;
  float* e = share + windows;
  std::memset(u, 0, (1 + targets) * floats * sizeof(float));
  strip.each([&](int64_t from, int64_t to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) u[to + i] = Number::load(x[from + i * strip.phases]) * inv_T;
  });
  for (int64_t od = 0; od < pool.out[0]; ++od)
    for (int64_t oh = 0; oh < pool.out[1]; ++oh) {
      auto each_tap = [&](auto visit) {
        int64_t tap = 0;
        for (int64_t d = 0; d < pool.kernel[0]; ++d)
          for (int64_t h = 0; h < pool.kernel[1]; ++h)
            for (int64_t w = 0; w < pool.kernel[2]; ++w)
              visit(e + tap++ * windows, strip.tap(od, oh, d, h, w));
      };
      for (int64_t i = 0; i < windows; ++i) highest[i] = -__builtin_inff(), Z[i] = mean[i] = 0;
      each_tap([&](float*, int64_t at) {
        for (int64_t i = 0; i < windows; ++i)
          highest[i] = u[at + i] > highest[i] ? u[at + i] : highest[i];
      });
      each_tap([&](float* of_tap, int64_t at) {
        for (int64_t i = 0; i < windows; ++i) {
          float below = u[at + i] - highest[i];
          of_tap[i] = exp_of_negative(below);
          Z[i] += of_tap[i];
          mean[i] += of_tap[i] * below;
        }
      });
      for (int64_t i = 0; i < windows; ++i) mean[i] /= Z[i];
      for (size_t k = 0; k < targets; ++k) {
        auto g = static_cast<const Stored*>(g_) + k * g_step + (od * pool.out[1] + oh) * windows;
        float* sum = sums + k * floats;
        for (int64_t i = 0; i < windows; ++i) share[i] = Number::load(g[i]) / Z[i];
        if (held) {
          each_tap([&](float* of_tap, int64_t at) {
            for (int64_t i = 0; i < windows; ++i) sum[at + i] += of_tap[i] * share[i];
          });
        } else {
          each_tap([&](float* of_tap, int64_t at) {
            for (int64_t i = 0; i < windows; ++i) {
              float slope = 1.0f - mean[i] + (u[at + i] - highest[i]);
              sum[at + i] += of_tap[i] * share[i] * slope;
            }
          });
        }
      }
    }
  for (size_t k = 0; k < targets; ++k, out += out_step) {
    for (int64_t i = 0; i < product(pool.size); ++i) out[i] = Number::store(0.0f);
    strip.each([&](int64_t to, int64_t from, int64_t count) {
      const float* sum = sums + k * floats + from;
      for (int64_t i = 0; i < count; ++i) out[to + i * strip.phases] = Number::store(sum[i]);
    });
  }
}

template <class Number>
float number(const void* x) {
  return Number::load(*static_cast<const typename Number::Stored*>(x));
}

template <class Number>
constexpr onnxplain::CpuKernels kernels() {
  return {number<Number>,
          gate_of<Number>,
          pool_scratch,
          pool_grad<Number>};
}

}  // namespace

namespace onnxplain::ONNXPLAIN_ISA {

extern const CpuKernels table[kDtypes];
const CpuKernels table[kDtypes] = {kernels<Float32>(), kernels<Float16>(), kernels<BFloat16>()};

}  // namespace onnxplain::ONNXPLAIN_ISA
