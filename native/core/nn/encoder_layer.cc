#include "core/nn/encoder_layer.h"

#include <ATen/ops/rand.h>

namespace voxtorch::nn {

namespace {

Attended checkpointed(EncoderLayer& layer, const at::Tensor& x, const EncoderPass& pass) {
  const Run run = [&layer, segments = pass.segments, weights = pass.attentions](const Tensors& in) -> Tensors {
    Attended attended = layer.forward(in[0], in[1], segments, in[2], weights);
    if (!weights) return {attended.output};
    return {attended.output, attended.weights};
  };
  const Tensors outputs = checkpoint(layer, {x, pass.mask, pass.relative}, run);
  return {outputs[0], pass.attentions ? outputs[1] : at::Tensor()};
}

}  // namespace

bool is_dropped(double probability) { return probability > 0 && at::rand({1}).item<double>() < probability; }

EncoderStates run_layers(const ModuleList<EncoderLayer>& layers, const Checkpointing& checkpointing, at::Tensor x,
                         const EncoderPass& pass) {
  EncoderStates result;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (pass.hidden_states) result.hidden_states.push_back(x);
    const bool may_skip = layers.training() && !(pass.keeps_first && i == 0);
    if (may_skip && is_dropped(pass.layer_drop)) continue;
    Attended attended = should_checkpoint(checkpointing)
                            ? checkpointed(layers[i], x, pass)
                            : layers[i].forward(x, pass.mask, pass.segments, pass.relative, pass.attentions);
    x = std::move(attended.output);
    if (pass.after) x = pass.after(i, x);
    if (pass.attentions) result.attentions.push_back(std::move(attended.weights));
  }
  if (pass.hidden_states) result.hidden_states.push_back(x);
  result.last = std::move(x);
  return result;
}

FeedForward::FeedForward(const ModuleOptions& options, const FeedForwardShape& s)
    : Block("FeedForward", options),
      norm(s.norm != nullptr ? child<LayerNorm>(s.norm, s.dim, 1e-5) : nullptr),
      up(*child<Linear>(s.up, s.dim, s.hidden, s.bias, s.std)),
      down(*child<Linear>(s.down, s.hidden, s.dim, s.bias, s.std)),
      activation(nn::activation(s.activation)),
      activation_dropout(s.activation_dropout),
      dropout(s.dropout) {}

at::Tensor FeedForward::hidden(const at::Tensor& x) const {
  return drop(up.forward(norm != nullptr ? norm->forward(x) : x, activation), activation_dropout, training());
}

at::Tensor FeedForward::forward(const at::Tensor& x) const {
  return watched(x, drop(down.forward(hidden(x)), dropout, training()));
}

at::Tensor FeedForward::forward(const at::Tensor& x, const at::Tensor& residual) const {
  if ((!training() || dropout == 0) && !hooked()) return down.forward_add(hidden(x), residual);
  return residual + forward(x);
}

}  // namespace voxtorch::nn
