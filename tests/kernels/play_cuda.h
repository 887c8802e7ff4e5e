// CUDA's language, for a C++ compiler: the threads of a block are threads of the processor, which
// meet at a barrier where those of a GPU would; the blocks of a grid come one after another.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#undef __shared__
#define __shared__

using std::max;
using std::min;

struct Three {
  unsigned x = 1, y = 1, z = 1;
};

inline Three gridDim, blockIdx;
inline thread_local Three threadIdx;
inline std::barrier<>* meeting;

struct dim3_played : Three {
  dim3_played(size_t x, size_t y = 1, size_t z = 1) : Three{unsigned(x), unsigned(y), unsigned(z)} {}
};
#define dim3 dim3_played

#define __syncthreads() meeting->arrive_and_wait()
#define __expf expf
#define __logf logf
inline float normcdff(float u) { return 0.5f * std::erfc(-u * 0.707106781f); }

#define cudaGetLastError() cudaSuccess
#define cudaGetErrorString(error) ""

template <class Kernel>
void launch(dim3_played grid, unsigned threads, Kernel kernel) {
  gridDim = grid;
  std::barrier<> barrier(threads);
  meeting = &barrier;
  std::vector<std::thread> running;
  for (unsigned thread = 0; thread < threads; ++thread)
    running.emplace_back([&, thread] {
      threadIdx = {thread, 0, 0};
      for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
          for (unsigned x = 0; x < grid.x; ++x) {
            barrier.arrive_and_wait();
            if (thread == 0) blockIdx = {x, y, z};
            barrier.arrive_and_wait();
            kernel();
          }
    });
  for (auto& thread : running) thread.join();
}
