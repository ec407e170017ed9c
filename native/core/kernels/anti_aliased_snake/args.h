// What the row kernels and the CUDA kernels of anti_aliased_snake are given: raw pointers only. Nothing of ATen, as in
// rms_norm_residual/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

enum class SnakeType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// Taps of both filters, of which each output of one phase sees half.
constexpr int kSnakeTaps = 12;
constexpr int kSnakeHalf = kSnakeTaps / 2;

// Where it says Acc, the element is float, for float64 double. All contiguous.
struct SnakeInputs {
  const void* input;      // [rows, time], rows = batch * channels
  const void* frequency;  // Acc [channels]
  const void* magnitude;  // Acc [channels]
  const void* up;         // Acc [kSnakeTaps]
  const void* down;       // Acc [kSnakeTaps]
  int64_t rows, channels, time;
};

struct SnakeForward {
  SnakeInputs inputs;
  void* output;  // [rows, time]
};

struct SnakeBackward {
  SnakeInputs inputs;
  const void* grad_output;  // [rows, time]
  void* grad_input;         // [rows, time]
  // Acc [rows] on the CPU, [rows, tiles] on CUDA: what each part adds to its channel's gradient.
  void* grad_frequency;
  void* grad_magnitude;
};

// One build of the vector rows, float32 and bfloat16, indexed by SnakeType. The forward computes [begin, end) of one
// row, which begins at a multiple of kSnakeTile; the backward a whole row. Every build computes in the same order
// without fused multiply-adds, so all give the same bits.
constexpr int64_t kSnakeTile = 512;
struct SnakeRows {
  void (*forward[2])(const SnakeForward& args, int64_t row, int64_t begin, int64_t end);
  void (*backward[2])(const SnakeBackward& args, int64_t row);
};

extern const SnakeRows snake_rows_default;
#if defined(__x86_64__)
extern const SnakeRows snake_rows_avx2;
extern const SnakeRows snake_rows_avx512;
#endif

// The rest is CUDA's: how many blocks a row has, and the launches on the cudaStream_t `stream`, which return a
// cudaError_t.
int64_t snake_tiles(int64_t time);
int launch_snake_forward(SnakeType type, const SnakeForward& args, void* stream);
int launch_snake_backward(SnakeType type, const SnakeBackward& args, void* stream);

}  // namespace voxtorch::kernels
