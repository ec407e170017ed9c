#include "core/nn/conformer.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/linear.h"
#include "core/nn/rotary.h"

namespace voxtorch::nn {

using at::Tensor;

Tensor inverse_frequencies(int64_t dim, double base, const at::TensorOptions& options) {
  const Tensor powers = at::arange(0, dim, 2, options.dtype(at::kFloat)) / static_cast<double>(dim);
  return at::pow(at::Scalar(base), powers).reciprocal();
}

Tensor distance_sines(const Tensor& frequencies, int64_t before, int64_t after) {
  const Tensor angles = at::arange(before, -after - 1, -1, frequencies.options()).unsqueeze(1) * frequencies;
  return at::stack({angles.sin(), angles.cos()}, -1).flatten(1).unsqueeze(0);
}

// Row i begins at column queries - 1 - i.
Tensor by_key(const Tensor& scores, int64_t keys) {
  const int64_t queries = scores.size(-2), width = scores.size(-1);
  if (queries == 1) return scores;
  return scores.flatten(-2)
      .narrow(-1, queries - 1, queries * (width - 1))
      .unflatten(-1, {queries, width - 1})
      .narrow(-1, 0, keys);
}

namespace {

double lowest(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return std::numeric_limits<double>::lowest();
    case at::kHalf:
      return -65504;
    case at::kBFloat16:
      return -3.3895313892515355e38;
    default:
      return std::numeric_limits<float>::lowest();
  }
}

}  // namespace

Tensor lowest_where_unseen(const Tensor& bias, const Tensor& seen) {
  return seen.defined() ? bias.masked_fill(seen.logical_not(), lowest(bias.scalar_type())) : bias;
}

namespace {

// Queries of one block of local attention.
int64_t local_step(const ConformerShape& s) { return std::max<int64_t>(s.left + s.right, 64); }

}  // namespace

struct ConformerAttention::Inputs {
  Tensor query, position_query, key, value;  // [batch, heads, frames, head dim]
  Tensor relative;                           // [1 or batch, heads, head dim, distances], the largest distance first
  Tensor valid;                              // bool [batch, 1, 1, frames], undefined: all
};

struct ConformerAttention::Span {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

ConformerAttention::ConformerAttention(const ModuleOptions& options, const ConformerShape& s)
    : Block("ConformerAttention", options),
      shape(s),
      query(*child<Linear>(s.names.query, s.dim, s.dim, s.attention_bias, s.std)),
      key(*child<Linear>(s.names.key, s.dim, s.dim, s.attention_bias, s.std)),
      value(*child<Linear>(s.names.value, s.dim, s.dim, s.attention_bias, s.std)),
      output(*child<Linear>(s.names.output, s.dim, s.dim, s.attention_bias, s.std)),
      sines(s.positions == "relative" ? child<Linear>(s.names.relative, s.dim, s.dim, false, s.std) : nullptr),
      content_bias(sines == nullptr ? Tensor()
                                    : parameter(s.names.content_bias, {s.heads, s.dim / s.heads}, s.position_biases)),
      position_bias(sines == nullptr ? Tensor()
                                     : parameter(s.names.position_bias, {s.heads, s.dim / s.heads}, s.position_biases)),
      distances(s.positions == "relative_key"
                    ? child<Embedding>("distance_embedding", s.left + s.right + 1, s.dim / s.heads, -1, s.std)
                    : nullptr),
      scale(1 / std::sqrt(static_cast<double>(s.dim / s.heads))) {}

ConformerAttention::Reach ConformerAttention::reach(const ConformerShape& s, int64_t frames) {
  if (!s.local) return {frames - 1, frames - 1};
  const int64_t step = local_step(s) - 1;
  return {std::min(frames - 1, step + s.left), std::min(frames - 1, step + s.right)};
}

Attended ConformerAttention::forward(const Tensor& x, const Tensor& mask, const Tensor& relative,
                                     bool with_weights) const {
  const auto project = [&](const Linear& layer, const Tensor& input) {
    return split_heads(layer.forward(input), shape.heads);
  };
  const Tensor turned = shape.positions == "rotary" ? rotate(x, relative) : x;
  const Tensor q = project(query, turned), k = project(key, turned), v = project(value, x);
  const Tensor seen = attention_mask(mask);
  Attended result;
  if (sines != nullptr) {
    const Inputs in{q + content_bias.unsqueeze(1),
                    q + position_bias.unsqueeze(1),
                    k,
                    v,
                    project(*sines, relative).transpose(-1, -2),
                    seen};
    result = shape.local ? local(in) : attend(in, {0, x.size(1)}, {0, x.size(1)}, {}, with_weights);
  } else {
    const Tensor bias = distances != nullptr ? lowest_where_unseen(by_distance(q) * scale, seen) : seen;
    result = nn::attend(q, k, v, bias, training() ? shape.attention_dropout : 0, with_weights);
  }
  result.output = watched(x, output.forward(join_heads(result.output)));
  return result;
}

Tensor ConformerAttention::rotate(const Tensor& x, const Tensor& turns) const {
  const Rotation rotation{turns.select(0, 0), turns.select(0, 1)};
  return rotation.apply(x.unflatten(-1, {shape.heads, -1})).flatten(-2);
}

Tensor ConformerAttention::by_distance(const Tensor& q) const {
  const int64_t time = q.size(2);
  const Tensor rows = at::matmul(q.flatten(0, 2), distances->weight.to(q.scalar_type()).t());
  const Tensor all = rows.unflatten(0, {q.size(0), shape.heads, time});  // [batch, heads, time, distances]
  const Tensor steps = at::arange(time, q.options().dtype(at::kLong));
  const Tensor places =
      (steps.unsqueeze(0) - steps.unsqueeze(1)).clamp(-shape.left, shape.right) + shape.left;  // [time, time]
  return all.gather(3, places.expand({q.size(0), shape.heads, time, time}));
}

// Queries of a span attend to keys of a span; `near` is bool [queries, keys], undefined: all.
Attended ConformerAttention::attend(const Inputs& in, Span queries, Span keys, const Tensor& near,
                                    bool with_weights) const {
  const auto part = [](const Tensor& x, Span span) {
    return span.size() == x.size(2) ? x : x.narrow(2, span.begin, span.size());
  };
  // The largest distance is that of the last query to the first key.
  const int64_t largest = queries.end - 1 - keys.begin, count = queries.size() + keys.size() - 1;
  const int64_t before = reach(shape, in.query.size(2)).before;
  const Tensor relative = in.relative.narrow(-1, before - largest, count);
  Tensor bias = by_key(at::matmul(part(in.position_query, queries) * scale, relative), keys.size());
  Tensor seen = near;
  if (in.valid.defined()) {
    const Tensor valid = in.valid.narrow(-1, keys.begin, keys.size());
    seen = seen.defined() ? seen.logical_and(valid) : valid;
  }
  return nn::attend(part(in.query, queries), part(in.key, keys), part(in.value, keys), lowest_where_unseen(bias, seen),
                    training() ? shape.attention_dropout : 0, with_weights);
}

// The same numbers as under a mask of the frames near each, in memory that grows with time, not with its square.
Attended ConformerAttention::local(const Inputs& in) const {
  const int64_t frames = in.query.size(2), step = local_step(shape);
  std::vector<Tensor> parts;
  for (int64_t begin = 0; begin < frames; begin += step) {
    const Span queries{begin, std::min(begin + step, frames)};
    const Span keys{std::max<int64_t>(begin - shape.left, 0), std::min(queries.end + shape.right, frames)};
    const at::TensorOptions options = in.query.options().dtype(at::kLong);
    const Tensor distance = at::arange(queries.begin, queries.end, options).unsqueeze(1) -
                            at::arange(keys.begin, keys.end, options).unsqueeze(0);
    const Tensor near = distance.le(shape.left).logical_and(distance.ge(-shape.right));
    parts.push_back(attend(in, queries, keys, near, false).output);
  }
  return {at::cat(parts, 2), Tensor()};
}

namespace {

Conv1dShape pointwise_shape(const ConformerShape& s, int64_t in, int64_t out) {
  return {in, out, 1, 1, s.convolution_bias || s.pointwise_bias, 1, 0, true, s.convolution_std};
}

Conv1dShape depthwise_shape(const ConformerShape& s) {
  const int64_t padding = s.causal ? 0 : s.kernel / 2, channels = s.expansion * s.dim;
  return {channels, channels, s.kernel, 1, s.convolution_bias, channels, padding, true, s.convolution_std};
}

// The convolution as the one part of a block of its own.
class ConformerDepthwise : public Block {
 public:
  ConformerDepthwise(const ModuleOptions& options, const ConformerShape& s)
      : Block("ConformerDepthwise", options), conv(*child<Conv1d>(s.names.depthwise_conv, depthwise_shape(s))) {}
  Conv1d& conv;
};

// A convolution of one step is a product of each frame, [batch, frames, in] -> [batch, frames, out].
Tensor pointwise(const Conv1d& conv, const Tensor& x) {
  if (conv.altered()) return conv.forward(x.transpose(1, 2)).transpose(1, 2);
  const auto bias = conv.bias.defined() ? std::optional<Tensor>(conv.bias) : std::nullopt;
  // As rows: with three dimensions matmul chooses its way by whether a gradient is needed, and so its rounding.
  return kernels::linear(x.flatten(0, 1), conv.weight.squeeze(-1), bias).unflatten(0, {x.size(0), x.size(1)});
}

}  // namespace

ConformerConvolution::ConformerConvolution(const ModuleOptions& options, const ConformerShape& s)
    : Block("ConformerConvolution", options),
      causal(s.causal),
      masks(s.masks_convolution),
      norm(s.names.convolution_norm == nullptr ? child<LayerNorm>(s.names.module_norm, s.dim, s.eps) : nullptr),
      first(*child<Conv1d>(s.names.pointwise_up, pointwise_shape(s, s.dim, 2 * s.expansion * s.dim))),
      depthwise_block(s.names.depthwise_conv != nullptr ? child<ConformerDepthwise>(s.names.depthwise, s) : nullptr),
      depthwise(depthwise_block != nullptr ? static_cast<const ConformerDepthwise*>(depthwise_block)->conv
                                           : *child<Conv1d>(s.names.depthwise, depthwise_shape(s))),
      batch_norm(causal ? nullptr : child<BatchNorm1d>(s.names.batch_norm, s.expansion * s.dim)),
      depthwise_norm(causal ? child<LayerNorm>("depthwise_layer_norm", s.expansion * s.dim, s.eps) : nullptr),
      second(*child<Conv1d>(s.names.pointwise_down, pointwise_shape(s, s.expansion * s.dim, s.dim))),
      activation(nn::activation(s.activation)),
      dropout(s.convolution_dropout) {}

Tensor ConformerConvolution::forward(const Tensor& input, const Tensor& mask) const {
  Tensor x = at::glu(pointwise(first, norm != nullptr ? norm->forward(input) : input), -1);
  if (masks && mask.defined()) x = x.masked_fill(mask.logical_not().unsqueeze(-1), 0);
  x = x.transpose(1, 2);
  if (causal) x = at::constant_pad_nd(x, {depthwise.weight.size(2) - 1, 0});
  x = depthwise_block != nullptr ? depthwise_block->watched(x, depthwise.forward(x)) : depthwise.forward(x);
  x = causal ? depthwise_norm->forward(x.transpose(1, 2).contiguous()) : batch_norm->forward(x).transpose(1, 2);
  return watched(input, drop(pointwise(second, activation(std::move(x))), dropout, training()));
}

ConformerLayer::ConformerLayer(const ModuleOptions& options, const ConformerShape& s)
    : EncoderLayer("ConformerLayer", options), convolution_norm(nullptr), dropout(s.residual_dropout) {
  const ConformerNames& n = s.names;
  const FeedForwardShape half{
      s.dim, s.intermediate, s.activation, s.std, s.activation_dropout, s.feed_forward_dropout, s.attention_bias,
      n.up,  n.down};
  const bool norms_last = n.convolution_norm != nullptr;
  const auto add_norm = [&](const char* name) { return child<LayerNorm>(name, s.dim, s.eps); };
  if (!norms_last) first_norm = add_norm(n.first_norm);
  first = child<FeedForward>(n.first, half);
  if (!norms_last) attention_norm = add_norm(n.attention_norm);
  attention = child<ConformerAttention>(n.attention, s);
  convolution = child<ConformerConvolution>(n.convolution, s);
  if (!norms_last) second_norm = add_norm(n.second_norm);
  second = child<FeedForward>(n.second, half);
  if (norms_last) {
    first_norm = add_norm(n.first_norm);
    attention_norm = add_norm(n.attention_norm);
    convolution_norm = add_norm(n.convolution_norm);
    second_norm = add_norm(n.second_norm);
  }
  final_norm = add_norm(n.final_norm);
}

Attended ConformerLayer::forward(const Tensor& input, const Tensor& mask, const std::optional<Segments>& segments,
                                 const Tensor& relative, bool with_weights) const {
  TORCH_INTERNAL_ASSERT(!segments, "Conformer layers see neighbors by convolution and need padded rows");
  Tensor x = at::add(input, first->forward(first_norm->forward(input)), 0.5);
  Attended result = attention->forward(attention_norm->forward(x), mask, relative, with_weights);
  x = x + drop(result.output, dropout, training());
  x = x + convolution->forward(convolution_norm != nullptr ? convolution_norm->forward(x) : x, mask);
  x = at::add(x, second->forward(second_norm->forward(x)), 0.5);
  result.output = watched(input, final_norm->forward(x));
  return result;
}

}  // namespace voxtorch::nn
