// transducer_loss on CUDA, around the products of the joint network, which are cuBLAS's: joining frames and states,
// gathering what alignments can use of a chunk of logits, the sums over alignments, and their gradients. The lattice
// of a row is walked by one block, a diagonal t + u at a time: every arc leads to a later one. No atomics: the same
// bits every time. Sums over alignments are in float64. Nothing of ATen is included, so this compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/transducer_loss/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 256;
constexpr int kLatticeThreads = 128;
constexpr double kImpossible = -INFINITY;

__device__ float exponential(float x) { return expf(x); }
__device__ double exponential(double x) { return exp(x); }
__device__ float logarithm(float x) { return logf(x); }
__device__ double logarithm(double x) { return log(x); }
__device__ float hyperbolic(float x) { return tanhf(x); }
__device__ double hyperbolic(double x) { return tanh(x); }

// A pair by its number.
struct Pair {
  int64_t row, t, u, states;
};
__device__ Pair pair_of(const TransducerRows& rows, int64_t at) {
  int64_t row = 0, end = rows.batch;
  while (end - row > 1) {
    const int64_t middle = (row + end) / 2;
    if (rows.first_pairs[middle] <= at) {
      row = middle;
    } else {
      end = middle;
    }
  }
  const int64_t states = rows.first_targets[row + 1] - rows.first_targets[row] + 1, in_row = at - rows.first_pairs[row];
  return {row, in_row / states, in_row % states, states};
}

// The target that comes next; the last state has none, and stands for nothing that is used.
__device__ int64_t next_target(const TransducerRows& rows, const Pair& pair) {
  return pair.u + 1 < pair.states ? rows.targets[rows.first_targets[pair.row] + pair.u] : rows.blank;
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) join_kernel(TransducerJoin args) {
  using Acc = typename Accumulator<T>::type;
  const Pair pair = pair_of(args.rows, args.chunk.first + blockIdx.x);
  const int64_t dim = args.rows.dim;
  const T* const encoder = static_cast<const T*>(args.encoder) + (pair.row * args.rows.frames + pair.t) * dim;
  const T* const predictor = static_cast<const T*>(args.predictor) + (pair.row * args.rows.states + pair.u) * dim;
  T* const hidden = static_cast<T*>(args.hidden) + blockIdx.x * dim;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    // Rounded as an addition of tensors is.
    const Acc x = static_cast<Acc>(narrow<T, Acc>(static_cast<Acc>(encoder[d]) + static_cast<Acc>(predictor[d])));
    Acc y = x;
    if (args.activation == TransducerActivation::kRelu) {
      y = x < 0 ? 0 : x;
    } else if (args.activation == TransducerActivation::kTanh) {
      y = hyperbolic(x);
    } else {
      y = 1 / (1 + exponential(-x));
    }
    hidden[d] = narrow<T, Acc>(y);
  }
}

// Joins a value of each thread, for every thread. `shared` holds one a warp; a call waits for the last one's readers.
template <typename Acc, typename Join>
__device__ Acc joined(Acc value, Acc* shared, const Join& join) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = join(value, __shfl_xor_sync(0xffffffffu, value, offset));
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = shared[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) value = join(value, shared[warp]);
  return value;
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) gather_kernel(TransducerGather args) {
  using Acc = typename Accumulator<T>::type;
  __shared__ Acc shared[kMaxThreads / kWarp];
  const TransducerRows& rows = args.rows;
  const int64_t at = args.chunk.first + blockIdx.x;
  const T* const logits = static_cast<const T*>(args.logits) + blockIdx.x * (rows.vocabulary + rows.kinds);
  const auto larger = [](Acc a, Acc b) { return b > a ? b : a; };
  const auto add = [](Acc a, Acc b) { return a + b; };
  Acc largest = -static_cast<Acc>(INFINITY), sum = 0;
  for (int64_t v = threadIdx.x; v < rows.vocabulary; v += blockDim.x)
    largest = larger(largest, static_cast<Acc>(logits[v]));
  largest = joined(largest, shared, larger);
  for (int64_t v = threadIdx.x; v < rows.vocabulary; v += blockDim.x)
    sum += exponential(static_cast<Acc>(logits[v]) - largest);
  sum = joined(sum, shared, add);
  Acc* const values = static_cast<Acc*>(args.values) + at * (kTransducerValues + rows.kinds);
  if (threadIdx.x == 0) {
    const Acc all = logarithm(sum), sigma = static_cast<Acc>(args.sigma);
    values[kTransducerLargest] = largest;
    values[kTransducerSum] = sum;
    values[kTransducerBlank] = static_cast<Acc>(logits[rows.blank]) - largest - all - sigma;
    values[kTransducerTarget] = static_cast<Acc>(logits[next_target(rows, pair_of(rows, at))]) - largest - all - sigma;
  }
  if (rows.kinds == 0) return;
  // There are few durations: each thread goes over all.
  const T* const kinds = logits + rows.vocabulary;
  Acc most = static_cast<Acc>(kinds[0]), total = 0;
  for (int64_t k = 1; k < rows.kinds; ++k) most = larger(most, static_cast<Acc>(kinds[k]));
  for (int64_t k = 0; k < rows.kinds; ++k) total += exponential(static_cast<Acc>(kinds[k]) - most);
  for (int64_t k = threadIdx.x; k < rows.kinds; k += blockDim.x)
    values[kTransducerValues + k] = static_cast<Acc>(kinds[k]) - most - logarithm(total);
}

// log Σ exp of term(0 .. count - 1). Of NaN it is NaN.
template <typename Term>
__device__ double log_sum(int64_t count, const Term& term) {
  double largest = kImpossible, sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double value = term(i);
    if (value > largest || value != value) largest = value;
  }
  if (largest == kImpossible) return kImpossible;
  for (int64_t i = 0; i < count; ++i) sum += exp(term(i) - largest);
  return largest + log(sum);
}

// A row's lattice. Of arcs there are two of each duration: number 2k is a blank's, number 2k + 1 a target's. Without
// durations a blank takes one frame and a target none.
template <typename Acc>
struct Lattice {
  __device__ Lattice(const TransducerLattice& args, int64_t row)
      : durations(args.rows.durations),
        kinds(args.rows.kinds),
        width(kTransducerValues + args.rows.kinds),
        states(args.rows.first_targets[row + 1] - args.rows.first_targets[row] + 1),
        frames((args.rows.first_pairs[row + 1] - args.rows.first_pairs[row]) / states),
        values(static_cast<const Acc*>(args.values) + args.rows.first_pairs[row] * width) {}

  __device__ int64_t arcs() const { return kinds == 0 ? 2 : 2 * kinds; }
  __device__ int64_t at(int64_t t, int64_t u) const { return t * states + u; }
  __device__ int64_t duration(int64_t arc) const { return kinds == 0 ? 1 - arc % 2 : durations[arc / 2]; }
  __device__ static bool is_target(int64_t arc) { return arc % 2 == 1; }
  // A blank of no duration leads nowhere.
  __device__ bool leads(int64_t arc) const { return is_target(arc) || duration(arc) > 0; }
  __device__ double value(int64_t pair, int64_t arc) const {
    const Acc* const of = values + pair * width;
    const double token = of[is_target(arc) ? kTransducerTarget : kTransducerBlank];
    return kinds == 0 ? token : token + of[kTransducerValues + arc / 2];
  }

  // Calls visit(t, u) for the pairs of a diagonal, spread over the block.
  template <typename Visit>
  __device__ void diagonal(int64_t n, const Visit& visit) const {
    const int64_t begin = n < frames ? 0 : n - frames + 1, end = n < states ? n + 1 : states;
    for (int64_t u = begin + threadIdx.x; u < end; u += blockDim.x) visit(n - u, u);
  }
  __device__ int64_t diagonals() const { return frames + states - 1; }

  const int64_t* durations;
  int64_t kinds, width, states, frames;
  const Acc* values;
};

template <typename T>
__global__ void __launch_bounds__(kLatticeThreads, 1) forward_kernel(TransducerLattice args) {
  using Acc = typename Accumulator<T>::type;
  const int64_t row = blockIdx.x;
  const Lattice<Acc> lattice(args, row);
  double* const alpha = args.alpha + args.rows.first_pairs[row];
  for (int64_t n = 0; n < lattice.diagonals(); ++n) {
    lattice.diagonal(n, [&](int64_t t, int64_t u) {
      alpha[lattice.at(t, u)] = n == 0 ? 0 : log_sum(lattice.arcs(), [&](int64_t arc) {
        const int64_t from_t = t - lattice.duration(arc), from_u = u - (lattice.is_target(arc) ? 1 : 0);
        if (from_t < 0 || from_u < 0 || !lattice.leads(arc)) return kImpossible;
        const int64_t from = lattice.at(from_t, from_u);
        return alpha[from] + lattice.value(from, arc);
      });
    });
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  // The end is reached by a blank.
  const double total = log_sum(lattice.arcs(), [&](int64_t arc) {
    const int64_t t = lattice.frames - lattice.duration(arc);
    if (t < 0 || lattice.is_target(arc) || !lattice.leads(arc)) return kImpossible;
    const int64_t from = lattice.at(t, lattice.states - 1);
    return alpha[from] + lattice.value(from, arc);
  });
  args.total[row] = total;
  static_cast<Acc*>(args.losses)[row] = static_cast<Acc>(-total);
}

template <typename T>
__global__ void __launch_bounds__(kLatticeThreads, 1) backward_kernel(TransducerLattice args) {
  using Acc = typename Accumulator<T>::type;
  const int64_t row = blockIdx.x, first = args.rows.first_pairs[row];
  const Lattice<Acc> lattice(args, row);
  const double* const alpha = args.alpha + first;
  double* const beta = args.beta + first;
  const double total = args.total[row], factor = static_cast<const Acc*>(args.grad)[row];
  const bool is_used = total != kImpossible && factor != 0;
  for (int64_t n = lattice.diagonals() - 1; n >= 0; --n) {
    lattice.diagonal(n, [&](int64_t t, int64_t u) {
      const int64_t pair = lattice.at(t, u);
      const auto onward = [&](int64_t arc) {
        const int64_t to_t = t + lattice.duration(arc), to_u = u + (lattice.is_target(arc) ? 1 : 0);
        if (to_t > lattice.frames || to_u >= lattice.states || !lattice.leads(arc)) return kImpossible;
        if (to_t < lattice.frames) return beta[lattice.at(to_t, to_u)] + lattice.value(pair, arc);
        return !lattice.is_target(arc) && to_u == lattice.states - 1 ? lattice.value(pair, arc) : kImpossible;
      };
      beta[pair] = log_sum(lattice.arcs(), onward);
      Acc* const used = static_cast<Acc*>(args.used) + (first + pair) * (kTransducerUses + lattice.kinds);
      double uses[2] = {0, 0};
      for (int64_t arc = 0; arc < lattice.arcs(); arc += 2) {
        double together = 0;
        for (int kind = 0; kind < 2 && is_used; ++kind) {
          const double share = factor * exp(alpha[pair] + onward(arc + kind) - total);
          uses[kind] += share;
          together += share;
        }
        if (lattice.kinds > 0) used[kTransducerUses + arc / 2] = static_cast<Acc>(together);
      }
      for (int kind = 0; kind < 2; ++kind) used[kind] = static_cast<Acc>(uses[kind]);
    });
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) gradient_kernel(TransducerGradient args) {
  using Acc = typename Accumulator<T>::type;
  const TransducerRows& rows = args.rows;
  const int64_t at = args.chunk.first + blockIdx.x;
  const int64_t target = next_target(rows, pair_of(rows, at));
  T* const logits = static_cast<T*>(args.logits) + blockIdx.x * (rows.vocabulary + rows.kinds);
  const Acc* const values = static_cast<const Acc*>(args.values) + at * (kTransducerValues + rows.kinds);
  const Acc* const used = static_cast<const Acc*>(args.used) + at * (kTransducerUses + rows.kinds);
  const Acc largest = values[kTransducerLargest], any = used[0] + used[1], factor = any / values[kTransducerSum];
  for (int64_t v = threadIdx.x; v < rows.vocabulary; v += blockDim.x) {
    Acc grad = factor * exponential(static_cast<Acc>(logits[v]) - largest);
    if (v == rows.blank) grad -= used[0];
    if (v == target) grad -= used[1];
    logits[v] = narrow<T, Acc>(grad);
  }
  for (int64_t k = threadIdx.x; k < rows.kinds; k += blockDim.x) {
    logits[rows.vocabulary + k] =
        narrow<T, Acc>(any * exponential(values[kTransducerValues + k]) - used[kTransducerUses + k]);
  }
}

// The block of a frame's first pair in the chunk sums the frame's, that of a state's first pair the state's.
template <typename T>
__global__ void __launch_bounds__(kMaxThreads) scatter_kernel(TransducerScatter args) {
  using Acc = typename Accumulator<T>::type;
  const TransducerRows& rows = args.rows;
  const int64_t place = blockIdx.x, at = args.chunk.first + place, dim = rows.dim;
  const Pair pair = pair_of(rows, at);
  const int64_t left = rows.first_pairs[pair.row + 1] - args.chunk.first;  // of the row
  const int64_t end = left < args.chunk.count ? left : args.chunk.count;
  const T* const hidden = static_cast<const T*>(args.hidden);
  const T* const grads = static_cast<const T*>(args.grad);
  const auto add = [&](void* to, int64_t to_row, int64_t last, int64_t step) {
    for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
      Acc sum = 0;
      for (int64_t p = place; p < last; p += step) {
        const Acc y = static_cast<Acc>(hidden[p * dim + d]), grad = static_cast<Acc>(grads[p * dim + d]);
        if (args.activation == TransducerActivation::kRelu) {
          sum += y > 0 ? grad : 0;
        } else if (args.activation == TransducerActivation::kTanh) {
          sum += grad * (1 - y * y);
        } else {
          sum += grad * y * (1 - y);
        }
      }
      static_cast<Acc*>(to)[to_row * dim + d] += sum;
    }
  };
  if (args.encoder != nullptr && (place == 0 || pair.u == 0)) {
    const int64_t frame_end = place + pair.states - pair.u;
    add(args.encoder, pair.row * rows.frames + pair.t, frame_end < end ? frame_end : end, 1);
  }
  if (args.predictor != nullptr && (pair.t == 0 || place < pair.states))
    add(args.predictor, pair.row * rows.states + pair.u, end, pair.states);
}

unsigned threads_for(int64_t elements, int most = kMaxThreads) {
  return elements >= most ? most : static_cast<unsigned>((elements + kWarp - 1) / kWarp) * kWarp;
}

// Calls run(element) with a number of the type's element.
template <typename Run>
int with_type(TransducerType type, const Run& run) {
  if (type == TransducerType::kFloat64) {
    run(double());
  } else if (type == TransducerType::kBFloat16) {
    run(__nv_bfloat16());
  } else if (type == TransducerType::kFloat16) {
    run(__half());
  } else {
    run(float());
  }
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch_transducer_join(TransducerType type, const TransducerJoin& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.chunk.count), threads = threads_for(args.rows.dim);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    join_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

int launch_transducer_gather(TransducerType type, const TransducerGather& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.chunk.count), threads = threads_for(args.rows.vocabulary);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    gather_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

int launch_transducer_forward(TransducerType type, const TransducerLattice& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.rows.batch),
                 threads = threads_for(args.rows.states, kLatticeThreads);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    forward_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

int launch_transducer_backward(TransducerType type, const TransducerLattice& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.rows.batch),
                 threads = threads_for(args.rows.states, kLatticeThreads);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    backward_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

int launch_transducer_gradient(TransducerType type, const TransducerGradient& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.chunk.count), threads = threads_for(args.rows.vocabulary);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    gradient_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

int launch_transducer_scatter(TransducerType type, const TransducerScatter& args, void* stream) {
  const unsigned blocks = static_cast<unsigned>(args.chunk.count), threads = threads_for(args.rows.dim);
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    scatter_kernel<T><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

}  // namespace voxtorch::kernels
