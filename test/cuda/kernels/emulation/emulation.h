// CUDA's kernel language as C++ for the CPU. ../translate.mjs rewrites a .cu file's launches and shared variables to
// what is declared here; everything else of it is compiled as it stands. How a launch runs stands in emulation.cc.
//
// Only what the project's kernels use is here: what a new kernel needs besides does not compile until it is added.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>

#define __CUDACC__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

using __half = c10::Half;
using __nv_bfloat16 = c10::BFloat16;
inline __half __float2half_rn(float value) { return value; }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return value; }
// Never fused: the baseline of x86-64 has nothing to fuse them to.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };

extern "C" {
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
}

namespace emulation {

// Of the thread that runs, and of its launch.
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

// Called before and after every launch that is not refused, where a pretended device sets them. `kernel`: its name.
extern void (*launch_begins)(const char* kernel);
extern void (*launch_ends)();
extern int shared_requests;  // calls of cudaFuncSetAttribute
extern uint64_t streamed;    // bytes that __ldcs read
void stream(size_t bytes);

void wait_for_block();
// Waits for the lanes of the mask, and returns what the lane `from` gave. `fence`: what they wrote before is seen.
uint64_t wait_for_lanes(unsigned mask, uint64_t value, unsigned from, bool fence = false);
unsigned lane();

// What the thread knew at a fence is passed on by its atomic operations after it, and what those that others did before
// passed on is seen after the next fence.
void fence();
void atomic(void* to);

void* dynamic_memory();
// The block's variable of this key, which is NaN until it is written.
void* shared_memory_of(const void* key, size_t bytes);
template <typename T>
T& shared_variable(const char& key) {
  return *static_cast<T*>(shared_memory_of(&key, sizeof(T)));
}

void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread);
cudaError_t allow_shared(const void* kernel, int bytes);

// kernel<<<grid, block, shared, stream>>>(arguments...) is launch("kernel", kernel, grid, block, shared,
// stream)(arguments...).
template <typename... Parameters>
auto launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared = 0, cudaStream_t = nullptr) {
  return [=](Parameters... arguments) {
    run(name, reinterpret_cast<const void*>(kernel), grid, block, shared, [&] { kernel(arguments...); });
  };
}

template <typename T>
T shuffle(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = wait_for_lanes(mask, bits, from);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation

#define threadIdx (::emulation::thread_index)
#define blockIdx (::emulation::block_index)
#define blockDim (::emulation::block_size)
#define gridDim (::emulation::grid_size)

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::wait_for_lanes(mask, 0, emulation::lane(), true); }
template <typename T>
T __shfl_sync(unsigned mask, T value, int from) {
  return emulation::shuffle(mask, value, static_cast<unsigned>(from) % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return emulation::shuffle(mask, value, emulation::lane() ^ static_cast<unsigned>(bits));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  const unsigned lane = emulation::lane();
  return emulation::shuffle(mask, value, lane + by < 32 ? lane + by : lane);
}


// Loads that go by or stay in a cache are loads here; those that no cache is to keep are counted.
template <typename T>
T __ldcs(const T* from) {
  emulation::stream(sizeof(T));
  return *from;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
// An atomic operation orders nothing by itself, but between two fences it does (ThreadSanitizer is told).
inline unsigned atomicInc(unsigned* to, unsigned last) {
  emulation::atomic(to);
  unsigned was = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(to, &was, was >= last ? 0 : was + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return was;
}
inline void __threadfence() { emulation::fence(); }

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  return emulation::allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}
