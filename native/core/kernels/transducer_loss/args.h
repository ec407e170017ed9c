// What the CUDA kernels of transducer_loss are given: raw pointers only. Nothing of ATen.
//
// The pairs (t, u) of all rows are numbered: row by row, in a row frame by frame, in a frame by u.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

enum class TransducerType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };
enum class TransducerActivation { kRelu, kTanh, kSigmoid };

// Columns of what is kept of a pair's logits: the largest of the tokens', the sum of exp of all minus that, and the log
// probabilities of the blank, of the next target and of each duration.
constexpr int kTransducerLargest = 0, kTransducerSum = 1, kTransducerBlank = 2, kTransducerTarget = 3,
              kTransducerValues = 4;
// Columns of how often alignments use them: of the blank, of the target, then of each duration.
constexpr int kTransducerUses = 2;

// Where it says Acc, the element is float, for float64 double. All contiguous.
struct TransducerRows {
  const int64_t* first_pairs;                                    // [batch + 1]
  const int64_t* first_targets;                                  // [batch + 1], in targets
  const int64_t* targets;                                        // those of all rows, one after the other
  const int64_t* durations;                                      // [kinds]; without any RNN-T
  int64_t batch, frames, states, dim, vocabulary, kinds, blank;  // frames and states: of the padded tensors
};

// Pairs whose logits exist at the same time.
struct TransducerChunk {
  int64_t first, count;
};

struct TransducerJoin {
  TransducerRows rows;
  TransducerChunk chunk;
  TransducerActivation activation;
  const void* encoder;    // [batch, frames, dim]
  const void* predictor;  // [batch, states, dim]
  void* hidden;           // [count, dim]
};

struct TransducerGather {
  TransducerRows rows;
  TransducerChunk chunk;
  double sigma;
  const void* logits;  // [count, vocabulary + kinds]
  void* values;        // Acc [pairs, kTransducerValues + kinds]
};

struct TransducerLattice {
  TransducerRows rows;
  const void* values;  // Acc [pairs, kTransducerValues + kinds]
  double* alpha;       // [pairs]
  double* total;       // [batch]
  void* losses;        // Acc [batch]; only the forward writes it
  // Of the backward.
  double* beta;      // [pairs]
  const void* grad;  // Acc [batch]
  void* used;        // Acc [pairs, kTransducerUses + kinds]
};

struct TransducerGradient {
  TransducerRows rows;
  TransducerChunk chunk;
  const void* values;
  const void* used;
  void* logits;  // [count, vocabulary + kinds]; becomes its gradient
};

struct TransducerScatter {
  TransducerRows rows;
  TransducerChunk chunk;
  TransducerActivation activation;
  const void* hidden;  // [count, dim]
  const void* grad;    // [count, dim], of hidden
  void* encoder;       // Acc, added to; null where it is not wanted
  void* predictor;
};

// On the cudaStream_t `stream`; return a cudaError_t.
int launch_transducer_join(TransducerType type, const TransducerJoin& args, void* stream);
int launch_transducer_gather(TransducerType type, const TransducerGather& args, void* stream);
int launch_transducer_forward(TransducerType type, const TransducerLattice& args, void* stream);
int launch_transducer_backward(TransducerType type, const TransducerLattice& args, void* stream);
int launch_transducer_gradient(TransducerType type, const TransducerGradient& args, void* stream);
int launch_transducer_scatter(TransducerType type, const TransducerScatter& args, void* stream);

}  // namespace voxtorch::kernels
