// A pool's geometry, one entry for each of three axes; a pool along fewer has ones in front.
#pragma once

#include <cstdint>

namespace onnxplain {

constexpr int kAxes = 3;

// The windows reach over before + size + after elements; outside the input they see padding, and
// an element that none of them reaches has a gradient of zero.
struct Pool {
  int64_t size[kAxes];
  int64_t out[kAxes];
  int64_t kernel[kAxes];
  int64_t strides[kAxes];
  int64_t dilations[kAxes];
  int64_t before[kAxes];
};

// Free and static, so that each set of instructions has its own.

static inline int64_t product(const int64_t (&of)[kAxes]) { return of[0] * of[1] * of[2]; }

// From the first window's first element to the last one's last.
static inline int64_t reach(const Pool& pool, int axis) {
  return (pool.out[axis] - 1) * pool.strides[axis] +
         (pool.kernel[axis] - 1) * pool.dilations[axis] + 1;
}

}  // namespace onnxplain
