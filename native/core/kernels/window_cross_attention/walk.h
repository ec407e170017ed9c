// The walk of window_cross_attention over windows, queries and heads on the CPU, for whatever does the arithmetic of a
// row. Internal to each file that includes it, as row_blocks.h is.
//
// Ops: T, the inputs' type; Acc; dot(a, b, dim), sum of products of two rows of T; add(sum, factor, row, dim), which
// adds a row of T times a factor to Acc; write(to, sum, dim), Acc as T; exp and log.
#pragma once

#include "core/kernels/gated_position_attention/dropout.h"
#include "core/kernels/window_cross_attention/args.h"

namespace voxtorch::kernels {
namespace {

// The frames that a window has, from its first on.
inline int64_t window_frames(const WindowAttention& call, int64_t b, int64_t w) {
  const int64_t length = call.lengths == nullptr ? call.time : call.lengths[b];
  const int64_t left = (length < call.time ? length : call.time) - w * call.stride;
  return left < 0 ? 0 : left < call.window ? left : call.window;
}

template <typename T>
const T* frame(const WindowFrames& frames, int64_t b, int64_t t, int64_t h) {
  return static_cast<const T*>(frames.data) + b * frames.batch + t * frames.time + h * frames.head;
}

// What dropout multiplies a probability by.
template <typename Acc>
Acc window_factor(const WindowAttention& call, int64_t b, int64_t w, int64_t q, int64_t h, int64_t j) {
  if (call.dropout.threshold == 0) return 1;
  return keeps(call.dropout, b * call.heads + h, w * call.queries + q, j) ? static_cast<Acc>(call.dropout.scale) : 0;
}

template <typename Ops>
void window_forward(const WindowForward& args, typename Ops::Acc* scratch, int64_t begin, int64_t end) {
  using T = typename Ops::T;
  using Acc = typename Ops::Acc;
  const WindowAttention& call = args.call;
  const Acc infinity = static_cast<Acc>(__builtin_inf());
  Acc* const sum = scratch;
  Acc* const scores = scratch + call.dim;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / call.windows, w = row % call.windows, first = w * call.stride;
    const int64_t count = window_frames(call, b, w);
    for (int64_t q = 0; q < call.queries; ++q) {
      for (int64_t h = 0; h < call.heads; ++h) {
        const int64_t at = (row * call.queries + q) * call.heads + h;
        const T* query = static_cast<const T*>(call.query) + at * call.dim;
        Acc top = -infinity;
        for (int64_t j = 0; j < count; ++j) {
          scores[j] = static_cast<Acc>(call.scale) * Ops::dot(query, frame<T>(call.key, b, first + j, h), call.dim);
          top = scores[j] > top ? scores[j] : top;
        }
        Acc total = 0;
        for (int64_t j = 0; j < count; ++j) total += scores[j] = Ops::exp(scores[j] - top);
        for (int64_t d = 0; d < call.dim; ++d) sum[d] = 0;
        for (int64_t j = 0; j < count; ++j) {
          const Acc factor = window_factor<Acc>(call, b, w, q, h, j) * scores[j] / total;
          Ops::add(sum, factor, frame<T>(call.value, b, first + j, h), call.dim);
        }
        Ops::write(static_cast<T*>(args.output) + at * call.dim, sum, call.dim);
        static_cast<Acc*>(args.logsumexp)[at] = count == 0 ? infinity : top + Ops::log(total);
      }
    }
  }
}

// Of one head of one clip at a time, because windows that overlap add to the same frames.
template <typename Ops>
void window_backward(const WindowBackward& args, typename Ops::Acc* scratch, int64_t begin, int64_t end) {
  using T = typename Ops::T;
  using Acc = typename Ops::Acc;
  const WindowAttention& call = args.call;
  const Acc scale = static_cast<Acc>(call.scale);
  Acc* const sum = scratch;
  Acc* const probabilities = scratch + call.dim;
  Acc* const grads = probabilities + call.window;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / call.heads, h = row % call.heads;
    const auto grad_at = [&](void* grad, int64_t t) {
      return static_cast<Acc*>(grad) + ((b * call.time + t) * call.heads + h) * call.dim;
    };
    for (int64_t w = 0; w < call.windows; ++w) {
      const int64_t first = w * call.stride, count = window_frames(call, b, w);
      for (int64_t q = 0; q < call.queries; ++q) {
        const int64_t at = ((b * call.windows + w) * call.queries + q) * call.heads + h;
        const T* query = static_cast<const T*>(call.query) + at * call.dim;
        const T* grad = static_cast<const T*>(args.grad_output) + at * call.dim;
        const Acc logsumexp = static_cast<const Acc*>(args.logsumexp)[at];
        Acc total = 0, products = 0;
        for (int64_t j = 0; j < count; ++j) {
          const Acc score = scale * Ops::dot(query, frame<T>(call.key, b, first + j, h), call.dim);
          const Acc factor = window_factor<Acc>(call, b, w, q, h, j);
          probabilities[j] = Ops::exp(score - logsumexp);
          grads[j] = factor * Ops::dot(grad, frame<T>(call.value, b, first + j, h), call.dim);
          Ops::add(grad_at(args.grad_value, first + j), factor * probabilities[j], grad, call.dim);
          total += probabilities[j];
          products += probabilities[j] * grads[j];
        }
        // logsumexp is rounded: divided by what the probabilities sum up to, that cancels.
        const Acc mean = count == 0 ? 0 : products / total;
        for (int64_t d = 0; d < call.dim; ++d) sum[d] = 0;
        for (int64_t j = 0; j < count; ++j) {
          const Acc to_score = scale * probabilities[j] * (grads[j] - mean);
          Ops::add(sum, to_score, frame<T>(call.key, b, first + j, h), call.dim);
          Ops::add(grad_at(args.grad_key, first + j), to_score, query, call.dim);
        }
        Ops::write(static_cast<T*>(args.grad_query) + at * call.dim, sum, call.dim);
      }
    }
  }
}

}  // namespace
}  // namespace voxtorch::kernels
