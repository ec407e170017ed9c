// Attention of a few queries to each window of a sequence of frames (the window-level Q-Former of SALMONN, Tang et al.
// 2024, https://arxiv.org/abs/2310.13289). Window w begins at frame w * stride and has `window` frames:
//
//   scores[b, w, q, h, j] = query[b, w, q, h] · key[b, w * stride + j, h] / sqrt(dim)
//   output[b, w, q, h]    = sum over j of dropout(softmax over j (scores))[b, w, q, h, j] * value[b, w * stride + j, h]
//
// query: [batch, windows, queries, heads, dim]; key, value: [batch, time, heads, dim], any strides, read where they
// are, however windows overlap. lengths: int64 [batch], the valid frames of each row; frames beyond them, and beyond
// the sequence, are in no window, and a window without any gives zeros. Dropout is a function of `seed` and the
// element's place, the same on every device. Gradients of any order: the first is fused, higher ones go through the
// same formula in plain operators, which copy the windows.
#include "core/kernels/window_cross_attention/window_cross_attention.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/arguments.h"
#include "core/kernels/fused_operator.h"
#include "core/kernels/gated_position_attention/dropout.h"
#include "core/kernels/gated_position_attention/gated_position_attention.h"

namespace voxtorch::kernels {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

at::ScalarType WindowCall::accumulator() const { return at::toOpMathType(query.scalar_type()); }

double WindowCall::scale() const { return 1 / std::sqrt(static_cast<double>(query.size(4))); }

AttentionDropout WindowCall::dropped() const { return attention_dropout(dropout, seed); }

WindowCall WindowCall::readable() const {
  WindowCall call = *this;
  call.query = query.contiguous();
  if (key.stride(3) != 1) call.key = key.contiguous();
  if (value.stride(3) != 1) call.value = value.contiguous();
  if (lengths && lengths->defined()) call.lengths = lengths->contiguous();
  return call;
}

WindowAttention WindowCall::args() const {
  const auto frames = [](const Tensor& tensor) {
    return WindowFrames{tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
  };
  return {query.const_data_ptr(),
          frames(key),
          frames(value),
          lengths && lengths->defined() ? lengths->const_data_ptr<int64_t>() : nullptr,
          query.size(0),
          query.size(1),
          query.size(2),
          query.size(3),
          query.size(4),
          key.size(1),
          window,
          stride,
          scale(),
          dropped()};
}

namespace {

void check_like_query(const char* op, const char* name, const Tensor& tensor, const Tensor& query) {
  check_device(op, name, tensor, "query", query);
  check_dtype(op, name, tensor, "query", query);
}

}  // namespace

void check_window_attention(const char* op, const WindowCall& call) {
  const Tensor& query = call.query;
  check_floating(op, "query", query);
  TORCH_CHECK(query.dim() == 5 && query.size(4) > 0, op,
              ": query must have shape [batch, windows, queries, heads, dim] with a dim of at least 1, got ",
              query.sizes());
  for (const auto& [name, frames] : {std::pair{"key", &call.key}, std::pair{"value", &call.value}}) {
    check_like_query(op, name, *frames, query);
    TORCH_CHECK(frames->dim() == 4 && frames->size(0) == query.size(0) && frames->size(2) == query.size(3) &&
                    frames->size(3) == query.size(4),
                op, ": ", name, " must have shape [batch, time, heads, dim] with the ", query.size(0), ", ",
                query.size(3), " and ", query.size(4), " of query ", query.sizes(), ", got ", frames->sizes());
  }
  TORCH_CHECK(call.key.size(1) == call.value.size(1), op, ": key has ", call.key.size(1), " frames but value has ",
              call.value.size(1));
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(call.window > 0 && call.window <= kMost && call.stride > 0 && call.stride <= kMost, op,
              ": window and stride must be from 1 to 2147483647 frames, got ", call.window, " and ", call.stride);
  TORCH_CHECK(call.dropout >= 0 && call.dropout <= 1, op, ": dropout must be a number from 0 to 1, got ", call.dropout);
  if (!call.lengths || !call.lengths->defined()) return;
  check_device(op, "lengths", *call.lengths, "query", query);
  TORCH_CHECK(
      call.lengths->scalar_type() == at::kLong && call.lengths->dim() == 1 && call.lengths->size(0) == query.size(0),
      op, ": lengths must be int64 [", query.size(0), "], the batch of query, got ", dtype_name(*call.lengths), " ",
      call.lengths->sizes());
}

void check_window_attention_backward(const WindowCall& call, const Tensor& grad_output, const Tensor& logsumexp) {
  const char* op = "window_cross_attention_backward";
  check_window_attention(op, call);
  check_like_query(op, "grad_output", grad_output, call.query);
  TORCH_CHECK(grad_output.sizes() == call.query.sizes(), op, ": grad_output must have the shape of query ",
              call.query.sizes(), ", got ", grad_output.sizes());
  check_device(op, "logsumexp", logsumexp, "query", call.query);
  TORCH_CHECK(logsumexp.scalar_type() == call.accumulator() && logsumexp.is_contiguous() &&
                  logsumexp.sizes() == call.query.sizes().slice(0, 4),
              op, ": logsumexp must be what window_cross_attention_forward returned");
}

Tensor empty_window_logsumexp(const WindowCall& call) {
  return at::empty(call.query.sizes().slice(0, 4), call.query.options().dtype(call.accumulator()));
}

namespace {

#define VOXTORCH_WINDOW_PARAMETERS                                                             \
  const Tensor &query, const Tensor &key, const Tensor &value, int64_t window, int64_t stride, \
      const OptionalTensor &lengths, double dropout, int64_t seed
#define VOXTORCH_WINDOW_ARGUMENTS query, key, value, window, stride, lengths, dropout, seed

WindowOutput forward_meta(VOXTORCH_WINDOW_PARAMETERS) {
  const WindowCall call{VOXTORCH_WINDOW_ARGUMENTS};
  check_window_attention("window_cross_attention", call);
  return {at::empty_like(query, at::MemoryFormat::Contiguous), empty_window_logsumexp(call)};
}

WindowGradients backward_meta(const Tensor& grad_output, const Tensor& logsumexp, VOXTORCH_WINDOW_PARAMETERS) {
  check_window_attention_backward({VOXTORCH_WINDOW_ARGUMENTS}, grad_output, logsumexp);
  return {at::empty_like(query, at::MemoryFormat::Contiguous), at::empty_like(key, at::MemoryFormat::Contiguous),
          at::empty_like(value, at::MemoryFormat::Contiguous)};
}

// What dropout multiplies the probabilities by, [batch, windows, heads, queries, window].
Tensor dropout_factors(const WindowCall& call) {
  const AttentionDropout dropout = call.dropped();
  const auto sizes = call.query.sizes();
  const Tensor factors = at::zeros({sizes[0], sizes[1], sizes[3], sizes[2], call.window},
                                   at::TensorOptions().dtype(at::kDouble).device(at::kCPU));
  double* next = factors.mutable_data_ptr<double>();
  for (int64_t b = 0; b < sizes[0]; ++b) {
    for (int64_t w = 0; w < sizes[1]; ++w) {
      for (int64_t h = 0; h < sizes[3]; ++h) {
        for (int64_t q = 0; q < sizes[2]; ++q) {
          for (int64_t j = 0; j < call.window; ++j) {
            *next++ = keeps(dropout, b * sizes[3] + h, w * sizes[2] + q, j) ? dropout.scale : 0;
          }
        }
      }
    }
  }
  return factors.to(call.query.device(), call.accumulator());
}

// The forward in plain operators, as far as the backward needs it too.
struct ComposedWindows {
  explicit ComposedWindows(const WindowCall& call);

  Tensor q;     // [batch, windows, heads, queries, dim]
  Tensor k, v;  // [batch, windows, heads, window, dim]
  Tensor scores, probabilities, dropped;
  Tensor factors;  // of dropout, or undefined
  Tensor flat;     // the frame of each place of each window
  Tensor empty;    // the windows without frames, [batch, windows, 1, 1, 1]
};

ComposedWindows::ComposedWindows(const WindowCall& call) {
  const at::ScalarType type = call.accumulator();
  const int64_t time = call.key.size(1), windows = call.query.size(1);
  const auto whole = call.query.options().dtype(at::kLong);
  const Tensor places = (at::arange(windows, whole) * call.stride).unsqueeze(1) + at::arange(call.window, whole);
  Tensor length = call.lengths && call.lengths->defined() ? call.lengths->clamp_max(time).view({-1, 1, 1})
                                                          : at::zeros({1, 1, 1}, whole) + time;
  const Tensor attend = (places.unsqueeze(0) < length).unsqueeze(2).unsqueeze(2);  // [batch, windows, 1, 1, window]
  flat = places.clamp_max(std::max<int64_t>(time - 1, 0)).flatten();
  // Frames beyond the lengths may hold anything, and zero times NaN is NaN.
  const auto cut = [&](const Tensor& frames) {
    const Tensor cuts = frames.to(type).index_select(1, flat).unflatten(1, {windows, call.window}).transpose(2, 3);
    return cuts.masked_fill(~attend.transpose(-1, -2), 0);
  };
  q = call.query.to(type).transpose(2, 3);
  k = cut(call.key), v = cut(call.value);
  empty = ~attend.any(-1, true);
  // A window without frames would be NaN, and so would its gradients.
  scores = (at::matmul(q, k.transpose(-1, -2)) * call.scale())
               .masked_fill(~attend, -std::numeric_limits<double>::infinity())
               .masked_fill(empty, 0);
  probabilities = at::softmax(scores, -1).masked_fill(~attend, 0);
  dropped = probabilities;
  if (call.dropped().threshold == 0) return;
  factors = dropout_factors(call);
  dropped = probabilities * factors;
}

// The backward in plain operators, which autograd can differentiate again.
WindowGradients backward_formula(const Tensor& grad_output, const WindowCall& call) {
  const auto [q, k, v, scores, probabilities, dropped, factors, flat, empty] = ComposedWindows(call);
  const Tensor grad = grad_output.to(call.accumulator()).transpose(2, 3);
  Tensor grad_probabilities = at::matmul(grad, v.transpose(-1, -2));
  if (factors.defined()) grad_probabilities = grad_probabilities * factors;
  const Tensor pull = (probabilities * grad_probabilities).sum(-1, true);
  const Tensor grad_scores = probabilities * (grad_probabilities - pull) * call.scale();
  const auto join = [&flat = flat](const Tensor& cuts, const Tensor& like) {
    const Tensor rows = cuts.transpose(2, 3).flatten(1, 2);  // [batch, windows * window, heads, dim]
    return at::zeros(like.sizes(), rows.options()).index_add(1, flat, rows).to(like.scalar_type());
  };
  return {at::matmul(grad_scores, k).transpose(2, 3).to(call.query.scalar_type()),
          join(at::matmul(grad_scores.transpose(-1, -2), q), call.key),
          join(at::matmul(dropped.transpose(-1, -2), grad), call.value)};
}

}  // namespace

WindowOutput composed_window_attention(const WindowCall& call) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Tensor logsumexp = empty_window_logsumexp(call);  // [batch, windows, queries, heads]
  const double infinite = std::numeric_limits<double>::infinity();
  if (call.key.size(1) == 0) return {at::zeros(call.query.sizes(), call.query.options()), logsumexp.fill_(infinite)};
  const ComposedWindows composed(call);
  const Tensor output = at::matmul(composed.dropped, composed.v).transpose(2, 3).to(call.query.scalar_type());
  const Tensor sums = at::logsumexp(composed.scores, {-1}).masked_fill(composed.empty.squeeze(-1), infinite);
  return {output.contiguous(), logsumexp.copy_(sums.transpose(2, 3))};
}

WindowGradients composed_window_attention_backward(const Tensor& grad_output, const WindowCall& call) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (call.key.size(1) == 0) {
    return {at::zeros(call.query.sizes(), call.query.options()), at::zeros(call.key.sizes(), call.key.options()),
            at::zeros(call.value.sizes(), call.value.options())};
  }
  return backward_formula(grad_output, call);
}

namespace {

struct WindowCrossAttention {
  using Signature = Tensor(VOXTORCH_WINDOW_PARAMETERS);
  using Output = WindowOutput;
  using Kept = Types<const Tensor&>;  // logsumexp
  using Gradients = WindowGradients;
  static constexpr const char* kName = "voxtorch::window_cross_attention";
  static constexpr const char* kForward = "voxtorch::window_cross_attention_forward";
  static constexpr const char* kBackward = "voxtorch::window_cross_attention_backward";
  static constexpr size_t kCast = 3;

  static WindowGradients composed_backward(const Tensor& grad_output, const Tensor& logsumexp,
                                           VOXTORCH_WINDOW_PARAMETERS) {
    const WindowCall call{VOXTORCH_WINDOW_ARGUMENTS};
    check_window_attention_backward(call, grad_output, logsumexp);
    return backward_formula(grad_output, call);
  }
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "window_cross_attention(Tensor query, Tensor key, Tensor value, int window, int stride, Tensor? lengths=None, "
      "float dropout=0., int seed=0) -> Tensor");
  // logsumexp [batch, windows, queries, heads], of the scores; infinite for a window without frames.
  m.def(
      "window_cross_attention_forward(Tensor query, Tensor key, Tensor value, int window, int stride, Tensor? "
      "lengths=None, float dropout=0., int seed=0) -> (Tensor output, Tensor logsumexp)");
  m.def(
      "window_cross_attention_backward(Tensor grad_output, Tensor logsumexp, Tensor query, Tensor key, Tensor value, "
      "int "
      "window, int stride, Tensor? lengths=None, float dropout=0., int seed=0) -> (Tensor grad_query, Tensor grad_key, "
      "Tensor grad_value)");
}

VOXTORCH_FUSED_OPERATOR("window_cross_attention", FusedOperator<WindowCrossAttention>)

}  // namespace voxtorch::kernels
