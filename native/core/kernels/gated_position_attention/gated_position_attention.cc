// Self-attention with WavLM's gated relative position bias (Chen et al. 2021, https://arxiv.org/abs/2110.13900; the
// bias is that of Chi et al., https://arxiv.org/abs/2106.16138):
//
//   scores[b, h, i, j] = scale * query[b, h, i] · key[b, h, j] + gate[b, h, i] * relative[h, j - i + time - 1]
//                        (without the bias for the first `free_keys` keys)
//   output[b, h, i]    = sum over j of dropout(softmax over j (scores))[b, h, i, j] * value[b, h, j]
//
// query, key, value: [batch, heads, time, dim], any strides. gate: [batch, heads, time]; relative: [heads,
// 2 * time - 1], one number for each distance from -(time - 1) to time - 1; both of query's dtype, or float32 next to
// half precision. key_mask: bool [batch, time], true where a key is attended to; a row without any such key gives
// zeros. scale: 1 / sqrt(dim) where none is given. With gates of 1 and relative = -slope * |distance| it is ALiBi
// (Press et al. 2021, https://arxiv.org/abs/2108.12409), where a token before the frames that all see alike is a free
// key. Nothing of size [time, time] is ever held: the CPU computes a block of rows at a time, CUDA a tile. Dropout is a
// function of `seed` and the element's place (see AttentionDropout), so the same seed drops the same elements on every
// device and again in the backward. Gradients of any order: the first is fused, higher ones go through the same formula
// in plain operators and hold [batch, heads, time, time].
#include "core/kernels/gated_position_attention/gated_position_attention.h"

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

#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/arguments.h"
#include "core/kernels/fused_operator.h"
#include "core/kernels/gated_position_attention/dropout.h"

namespace voxtorch::kernels {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

at::ScalarType GatedAttention::accumulator() const { return at::toOpMathType(query.scalar_type()); }

double GatedAttention::score_scale() const {
  return scale.has_value() ? *scale : 1 / std::sqrt(static_cast<double>(query.size(3)));
}

AttentionDropout attention_dropout(double probability, int64_t seed) {
  const double words = 4294967296.0;
  const double threshold = std::min(std::round(probability * words), words - 1);
  return {static_cast<uint64_t>(seed), static_cast<uint32_t>(threshold), probability < 1 ? 1 / (1 - probability) : 0};
}

AttentionDropout GatedAttention::dropped() const { return attention_dropout(dropout, seed); }

Tensor GatedAttention::mask() const {
  return key_mask.has_value() && key_mask->defined() ? key_mask->contiguous() : Tensor();
}

namespace {

void check_tensor(const char* op, const char* name, const Tensor& tensor, const Tensor& query,
                  c10::SymIntArrayRef sizes, const char* layout, bool float32_too = false) {
  check_device(op, name, tensor, "query", query);
  check_dtype(op, name, tensor, "query", query, float32_too);
  TORCH_CHECK(tensor.sym_sizes() == sizes, op, ": ", name, " must have shape ", layout, " = ", sizes,
              ", which follows from query ", query.sym_sizes(), ", got ", tensor.sym_sizes());
}

constexpr const char* kHeadsLayout = "[batch, heads, time, dim]";

}  // namespace

void check_attention(const char* op, const GatedAttention& call) {
  const Tensor& query = call.query;
  check_floating(op, "query", query);
  TORCH_CHECK(query.dim() == 4 && query.sym_size(2) > 0 && query.sym_size(3) > 0, op, ": query must have shape ",
              kHeadsLayout, " with time and dim of at least 1, got ", query.sym_sizes());
  const c10::SymInt batch = query.sym_size(0), heads = query.sym_size(1), time = query.sym_size(2);
  TORCH_CHECK(time <= std::numeric_limits<int32_t>::max(), op, ": query has ", time,
              " frames; 2147483647 at most can be attended to");
  check_tensor(op, "key", call.key, query, query.sym_sizes(), kHeadsLayout);
  check_tensor(op, "value", call.value, query, query.sym_sizes(), kHeadsLayout);
  check_tensor(op, "gate", call.gate, query, {batch, heads, time}, "[batch, heads, time]", true);
  check_tensor(op, "relative", call.relative, query, {heads, time * 2 - 1}, "[heads, 2 * time - 1]", true);
  if (call.key_mask.has_value() && call.key_mask->defined()) {
    const Tensor& mask = *call.key_mask;
    check_device(op, "key_mask", mask, "query", query);
    TORCH_CHECK(mask.scalar_type() == at::kBool, op, ": key_mask must have dtype bool (true: attend), got ",
                dtype_name(mask));
    const std::vector<c10::SymInt> sizes{batch, time};
    TORCH_CHECK(mask.sym_sizes() == c10::SymIntArrayRef(sizes), op,
                ": key_mask must have shape [batch, time] = ", c10::SymIntArrayRef(sizes),
                ", which follows from query ", query.sym_sizes(), ", got ", mask.sym_sizes());
  }
  TORCH_CHECK(call.dropout >= 0 && call.dropout <= 1, op, ": dropout must be a number from 0 to 1, got ", call.dropout);
  TORCH_CHECK(call.free_keys >= 0, op, ": free_keys must not be negative, got ", call.free_keys);
  TORCH_CHECK(!call.scale.has_value() || std::isfinite(*call.scale), op, ": scale must be a finite number, got ",
              call.scale.value_or(0));
}

void check_attention_backward(const GatedAttention& call, const Tensor& grad_output, const Tensor& output,
                              const Tensor& logsumexp) {
  const char* op = "gated_position_attention_backward";
  check_attention(op, call);
  check_tensor(op, "grad_output", grad_output, call.query, call.query.sym_sizes(), kHeadsLayout);
  check_tensor(op, "output", output, call.query, call.query.sym_sizes(), kHeadsLayout);
  check_tensor(op, "logsumexp", logsumexp, call.query,
               {call.query.sym_size(0), call.query.sym_size(1), call.query.sym_size(2)}, "[batch, heads, time]", true);
  TORCH_CHECK(logsumexp.scalar_type() == call.accumulator() && logsumexp.is_contiguous(), op,
              ": logsumexp must be what gated_position_attention_forward returned");
}

Tensor empty_attention_output(const GatedAttention& call) {
  const auto sizes = call.query.sym_sizes();
  return at::empty_symint({sizes[0], sizes[2], sizes[1], sizes[3]}, call.query.options()).transpose(1, 2);
}

Tensor empty_logsumexp(const GatedAttention& call) {
  const auto sizes = call.query.sym_sizes();
  return at::empty_symint({sizes[0], sizes[1], sizes[2]}, call.query.options().dtype(call.accumulator()));
}

namespace {

#define VOXTORCH_ATTENTION_PARAMETERS                                                                      \
  const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &gate, const Tensor &relative, \
      const OptionalTensor &key_mask, double dropout, int64_t seed, std::optional<double> scale, int64_t free_keys
#define VOXTORCH_ATTENTION_ARGUMENTS query, key, value, gate, relative, key_mask, dropout, seed, scale, free_keys

AttentionOutput forward_meta(VOXTORCH_ATTENTION_PARAMETERS) {
  const GatedAttention call{VOXTORCH_ATTENTION_ARGUMENTS};
  check_attention("gated_position_attention", call);
  return {empty_attention_output(call), empty_logsumexp(call)};
}

AttentionGradients backward_meta(const Tensor& grad_output, const Tensor& output, const Tensor& logsumexp,
                                 VOXTORCH_ATTENTION_PARAMETERS) {
  check_attention_backward({VOXTORCH_ATTENTION_ARGUMENTS}, grad_output, output, logsumexp);
  return {at::empty_like(query), at::empty_like(key), at::empty_like(value),
          at::empty_like(gate, at::MemoryFormat::Contiguous), at::empty_like(relative, at::MemoryFormat::Contiguous)};
}

// What dropout multiplies the probabilities by, [batch, heads, time, time].
Tensor dropout_factors(const GatedAttention& call) {
  const AttentionDropout dropout = call.dropped();
  const int64_t heads = call.query.size(0) * call.query.size(1);
  const int64_t time = call.query.size(2);
  const Tensor factors = at::zeros({call.query.size(0), call.query.size(1), time, time},
                                   at::TensorOptions().dtype(at::kDouble).device(at::kCPU));
  double* next = factors.mutable_data_ptr<double>();
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < time; ++i) {
      for (int64_t j = 0; j < time; ++j) {
        *next++ = keeps(dropout, head, i, j) ? dropout.scale : 0;
      }
    }
  }
  return factors.to(call.query.device(), call.accumulator());
}

// Zeros in the columns of the keys that have no bias, [..., time, time].
Tensor without_free(const Tensor& columns, const GatedAttention& call) {
  if (call.free_keys == 0) return columns;
  const Tensor keys = at::arange(columns.size(-1), columns.options().dtype(at::kLong));
  return columns.masked_fill(keys < call.free_keys, 0);
}

// The forward in plain operators, as far as the backward needs it too.
struct ComposedAttention {
  explicit ComposedAttention(const GatedAttention& call) {
    const at::ScalarType type = call.accumulator();
    q = call.query.to(type), k = call.key.to(type), v = call.value.to(type);
    gate = call.gate.to(type).unsqueeze(-1);  // [batch, heads, time, 1]
    bias = without_free(call.relative.to(type).unfold(1, call.query.size(2), 1).flip(1), call);  // [heads, time, time]
    Tensor attend = call.mask();
    if (attend.defined()) {
      // Masked keys and values may hold anything, and zero times NaN is NaN.
      const Tensor masked = ~attend.unsqueeze(1).unsqueeze(-1);  // [batch, 1, time, 1]
      k = k.masked_fill(masked, 0);
      v = v.masked_fill(masked, 0);
    }
    scores = at::matmul(q, k.transpose(-1, -2)) * call.score_scale() + gate * bias;  // [batch, heads, time, time]
    if (attend.defined()) {
      attend = attend.unsqueeze(1).unsqueeze(1);  // [batch, 1, 1, time]
      empty = ~attend.any(-1, true);
      scores = scores.masked_fill(~attend, -std::numeric_limits<double>::infinity());
      // A row that attends to nothing would be NaN, and so would its gradients.
      scores = scores.masked_fill(empty, 0);
    }
    probabilities = at::softmax(scores, -1);
    if (attend.defined()) probabilities = probabilities.masked_fill(~attend, 0);
    dropped = probabilities;
    if (call.dropped().threshold == 0) return;
    factors = dropout_factors(call);
    dropped = probabilities * factors;
  }

  Tensor q, k, v, gate, bias, scores, probabilities, dropped;
  Tensor factors;  // of dropout, or undefined
  Tensor empty;    // the rows that attend to nothing, [batch, 1, 1, 1], or undefined
};

// The backward in plain operators, which autograd can differentiate again.
AttentionGradients backward_formula(const Tensor& grad_output, const GatedAttention& call) {
  const int64_t time = call.query.size(2);
  const double scale = call.score_scale();
  const auto [q, k, v, gate, bias, scores, probabilities, dropped, factors, empty] = ComposedAttention(call);
  const Tensor grad = grad_output.to(call.accumulator());
  Tensor grad_probabilities = at::matmul(grad, v.transpose(-1, -2));
  if (factors.defined()) grad_probabilities = grad_probabilities * factors;
  const Tensor pull = (probabilities * grad_probabilities).sum(-1, true);
  const Tensor grad_scores = probabilities * (grad_probabilities - pull);
  const Tensor steps = at::arange(time, q.options().dtype(at::kLong));
  const Tensor distances = (steps.unsqueeze(0) - steps.unsqueeze(1) + (time - 1)).flatten();
  const Tensor grad_relative = at::zeros(call.relative.sizes(), q.options())
                                   .index_add(1, distances, without_free((grad_scores * gate).sum(0), call).flatten(1));
  return {(at::matmul(grad_scores, k) * scale).to(call.query.scalar_type()),
          (at::matmul(grad_scores.transpose(-1, -2), q) * scale).to(call.key.scalar_type()),
          at::matmul(dropped.transpose(-1, -2), grad).to(call.value.scalar_type()),
          (grad_scores * bias).sum(-1).to(call.gate.scalar_type()), grad_relative.to(call.relative.scalar_type())};
}

}  // namespace

AttentionOutput composed_attention(const GatedAttention& call) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const ComposedAttention composed(call);
  const Tensor output = empty_attention_output(call);
  output.copy_(at::matmul(composed.dropped, composed.v));
  Tensor logsumexp = at::logsumexp(composed.scores, {-1});
  if (composed.empty.defined()) {
    logsumexp = logsumexp.masked_fill(composed.empty.squeeze(-1), std::numeric_limits<double>::infinity());
  }
  return {output, logsumexp.contiguous()};
}

AttentionGradients composed_attention_backward(const Tensor& grad_output, const GatedAttention& call) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return backward_formula(grad_output, call);
}

namespace {

struct GatedPositionAttention {
  using Signature = Tensor(VOXTORCH_ATTENTION_PARAMETERS);
  using Output = AttentionOutput;
  using Kept = Types<const Tensor&, const Tensor&>;  // output, logsumexp
  using Gradients = AttentionGradients;
  static constexpr const char* kName = "voxtorch::gated_position_attention";
  static constexpr const char* kForward = "voxtorch::gated_position_attention_forward";
  static constexpr const char* kBackward = "voxtorch::gated_position_attention_backward";
  static constexpr size_t kCast = 3;  // not the bias

  static AttentionGradients composed_backward(const Tensor& grad_output, const Tensor& output, const Tensor& logsumexp,
                                              VOXTORCH_ATTENTION_PARAMETERS) {
    const GatedAttention call{VOXTORCH_ATTENTION_ARGUMENTS};
    check_attention_backward(call, grad_output, output, logsumexp);
    return backward_formula(grad_output, call);
  }
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "gated_position_attention(Tensor query, Tensor key, Tensor value, Tensor gate, Tensor relative, "
      "Tensor? key_mask=None, float dropout=0., int seed=0, float? scale=None, int free_keys=0) -> Tensor");
  // logsumexp [batch, heads, time], of the scores; infinite for a row that attends to nothing.
  m.def(
      "gated_position_attention_forward(Tensor query, Tensor key, Tensor value, Tensor gate, Tensor relative, "
      "Tensor? key_mask=None, float dropout=0., int seed=0, float? scale=None, int free_keys=0) -> (Tensor output, "
      "Tensor logsumexp)");
  m.def(
      "gated_position_attention_backward(Tensor grad_output, Tensor output, Tensor logsumexp, Tensor query, Tensor "
      "key, "
      "Tensor value, Tensor gate, Tensor relative, Tensor? key_mask=None, float dropout=0., int seed=0, "
      "float? scale=None, int free_keys=0) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor "
      "grad_gate, "
      "Tensor grad_relative)");
}

VOXTORCH_FUSED_OPERATOR("gated_position_attention", FusedOperator<GatedPositionAttention>)

}  // namespace voxtorch::kernels
