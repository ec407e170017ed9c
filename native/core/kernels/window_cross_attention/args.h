// What the row kernels and the CUDA kernels of window_cross_attention are given: raw pointers only, nothing of ATen
// (see rms_norm_residual_args.h for why).
#pragma once

#include <cstdint>

#include "core/kernels/gated_position_attention/args.h"

namespace voxtorch::kernels {

// [batch, time, heads, dim], whose rows of dim are contiguous; strides in elements.
struct WindowFrames {
  const void* data;
  int64_t batch, time, head;
};

struct WindowAttention {
  const void* query;  // [batch, windows, queries, heads, dim], contiguous
  WindowFrames key, value;
  const int64_t* lengths;  // [batch], or null: all frames are valid
  int64_t batch, windows, queries, heads, dim, time;
  int64_t window, stride;
  double scale;
  AttentionDropout dropout;
};

// Contiguous. logsumexp is Acc [batch, windows, queries, heads]: float, or double for double.
struct WindowForward {
  WindowAttention call;
  void* output;
  void* logsumexp;
};
struct WindowBackward {
  WindowAttention call;
  const void* grad_output;
  const void* logsumexp;
  void* grad_query;
  // [batch, time, heads, dim]: zeros of Acc on the CPU, which adds to them; of the inputs' dtype on CUDA, which sets
  // them.
  void* grad_key;
  void* grad_value;
};

// One build of the vector rows, float32 and bfloat16. Forward computes rows [begin, end) of batch * windows, backward
// of batch * heads; scratch has dim + 2 * window numbers. Every build gives the same bits.
struct WindowRows {
  void (*forward[2])(const WindowForward& args, float* scratch, int64_t begin, int64_t end);
  void (*backward[2])(const WindowBackward& args, float* scratch, int64_t begin, int64_t end);
};

extern const WindowRows window_rows_default;
#if defined(__x86_64__)
extern const WindowRows window_rows_avx2;
extern const WindowRows window_rows_avx512;
#endif

enum class WindowType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// On the cudaStream_t `stream`; each returns a cudaError_t. `deltas` has the size of logsumexp, for what the two
// kernels of the backward share.
constexpr int64_t kWindowCudaMaxDim = 256;  // beyond it cuda.cc composes the operator of ATen's
int launch_window_forward(WindowType type, const WindowForward& args, void* stream);
int launch_window_backward(WindowType type, const WindowBackward& args, void* deltas, void* stream);

}  // namespace voxtorch::kernels
