// What the row kernels and the CUDA kernels of gated_position_attention are given: raw pointers only, as in
// rms_norm_residual_args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

// See gated_position_attention_dropout.h. A probability that is kept is multiplied by `scale`; a threshold of zero
// drops none.
struct AttentionDropout {
  uint64_t seed;
  uint32_t threshold;
  double scale;
};

// Some rows (queries) of one head on the CPU. Acc is float or double.
template <typename Acc>
struct AttentionBlock {
  const Acc* gate;         // [rows]
  const Acc* relative;     // of this head, [2 * time - 1], then 16 zeros
  const uint32_t* attend;  // [stride], all ones or zero; zero in the columns beyond the last key
  int64_t time;
  int64_t row;        // the index of the first query
  int64_t rows;       // how many there are
  int64_t stride;     // columns, a multiple of 16
  int64_t free_keys;  // the first so many keys have no bias
  uint32_t head;      // the index in batch * heads
  AttentionDropout dropout;
};

// `scores` [rows, stride] holds the scaled products and becomes the probabilities that multiply the values; logsumexp
// [rows] is written, infinite for a row that attends to nothing.
template <typename Acc>
using AttentionForwardRows = void (*)(const AttentionBlock<Acc>&, Acc* scores, Acc* logsumexp);

// `scores` as in forward; `grads` [rows, stride] holds the gradient of what forward left in scores and becomes that of
// the scaled products. grad_gate [rows] is written, grad_relative, like `relative`, is added to. `spare` [stride].
template <typename Acc>
using AttentionBackwardRows = void (*)(const AttentionBlock<Acc>&, Acc* scores, Acc* grads, const Acc* logsumexp,
                                       Acc* grad_gate, Acc* grad_relative, Acc* spare);

// One build of the float32 rows. Every build computes in the same order without fused multiply-adds, so all give the
// same bits.
struct AttentionRows {
  AttentionForwardRows<float> forward;
  AttentionBackwardRows<float> backward;
};

extern const AttentionRows attention_rows_default;
#if defined(__x86_64__)
extern const AttentionRows attention_rows_avx2;
extern const AttentionRows attention_rows_avx512;
#endif

// The rest is CUDA's.

enum class AttentionType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// [batch, heads, time, dim] with any strides, in elements.
template <typename Data>
struct Strided {
  Data* data;
  int64_t batch;
  int64_t head;
  int64_t time;
  int64_t dim;
};

// Where it says Acc, the element is float, for float64 double; these are contiguous.
struct AttentionInputs {
  Strided<const void> query;
  Strided<const void> key;
  Strided<const void> value;
  const void* gate;      // Acc [batch, heads, time]
  const void* relative;  // Acc [heads, 2 * time - 1]
  const bool* key_mask;  // [batch, time] or null
  int64_t batch;
  int64_t heads;
  int64_t time;
  int64_t dim;
  double scale;
  AttentionDropout dropout;
  int64_t free_keys;  // the first so many keys have no bias
};

struct AttentionForward {
  AttentionInputs inputs;
  Strided<void> output;
  void* logsumexp;  // Acc [batch, heads, time]
};

struct AttentionBackward {
  AttentionInputs inputs;
  Strided<const void> grad_output;
  const void* logsumexp;   // Acc [batch, heads, time]
  const void* correction;  // Acc [batch, heads, time], the sum over dim of grad_output * output
  Strided<void> grad_query;
  Strided<void> grad_key;
  Strided<void> grad_value;
  void* grad_gate;      // Acc [batch, heads, time]
  void* grad_relative;  // Acc [heads, 2 * time - 1]
  void* partials;       // Acc, zeros, as many as attention_partials() says
};

// The kernels' largest dim; beyond it cuda.cc composes the operator of ATen's.
constexpr int64_t kMaxAttentionDim = 128;

// How many blocks a launch has, and how many numbers the backward needs to sum grad_relative in a fixed order: about
// time² / 64 a head and batch row (time² / 32 where a tile has 32 rows).
int64_t attention_blocks(AttentionType type, const AttentionInputs& inputs);
int64_t attention_partials(AttentionType type, const AttentionInputs& inputs);

// On the cudaStream_t `stream`; each returns a cudaError_t.
int launch_attention_forward(AttentionType type, const AttentionForward& args, void* stream);
int launch_attention_backward(AttentionType type, const AttentionBackward& args, void* stream);

}  // namespace voxtorch::kernels
