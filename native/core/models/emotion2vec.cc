// emotion2vec (Ma et al. 2023, https://arxiv.org/abs/2312.15185): data2vec 2.0 (Baevski et al. 2022,
// https://arxiv.org/abs/2212.07525) for emotions in speech, with a classifier of the mean over the frames.
#include <torch/library.h>

#include "core/models/speech_encoder.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Linear;

class Emotion2Vec : public SpeechEncoder {
 public:
  Emotion2Vec(const ModuleOptions& options, const Config& config);

  Linear* const classifier;  // null: none
};

namespace {

class Emotion2VecAttention : public SpeechAttention {
 public:
  Emotion2VecAttention(const ModuleOptions& options, const SpeechConfig& c, int64_t layer)
      : SpeechAttention("Emotion2VecAttention", options),
        joined(*child<Linear>("qkv", c.dim, 3 * c.dim, true, c.std)),
        output(*child<Linear>("proj", c.dim, c.dim, true, c.std)),
        heads(c.heads),
        extra_tokens(c.extra_tokens),
        layer(layer),
        dropout(c.attention_dropout) {}

  // relative: biases [heads, time, time], or the slopes of all layers [layers, heads]; undefined: none
  nn::Attended forward(const Tensor& x, const Tensor& mask, const Tensor& relative, bool with_weights) const override {
    const std::vector<Tensor> parts = joined.forward(x).chunk(3, -1);
    Tensor seen = nn::attention_mask(mask);
    if (relative.defined()) {
      const Tensor bias = relative.dim() == 3 ? relative : alibi_biases(relative[layer], x.size(1), extra_tokens);
      const Tensor pairs = bias.unsqueeze(0).to(x.scalar_type());
      seen = seen.defined() ? pairs.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity()) : pairs;
    }
    nn::Attended result = nn::attend(nn::split_heads(parts[0], heads), nn::split_heads(parts[1], heads),
                                     nn::split_heads(parts[2], heads), seen, training() ? dropout : 0, with_weights);
    result.output = output.forward(nn::join_heads(result.output));
    return result;
  }

  Tensor forward_each(const Tensor&, const nn::Segments&, const Tensor&) const override {
    TORCH_CHECK(false, "Emotion2Vec has no pass over sequences in one row");
  }

 private:
  Linear &joined, &output;
  const int64_t heads, extra_tokens, layer;
  const double dropout;
};

c10::intrusive_ptr<SpeechAttention> make_emotion2vec_attention(const ModuleOptions& options, const SpeechConfig& config,
                                                               int64_t layer) {
  return c10::make_intrusive<Emotion2VecAttention>(options, config, layer);
}

}  // namespace

Emotion2Vec::Emotion2Vec(const ModuleOptions& options, const Config& given)
    : SpeechEncoder("Emotion2Vec", options, SpeechConfig(given), make_emotion2vec_attention),
      classifier(given.integer("num_labels", 0) > 0
                     ? child<Linear>("classifier", config.dim, given.integer("num_labels", 0), true, config.std)
                     : nullptr) {}

namespace {

using Emotion2VecResult = std::tuple<Tensor, Tensor, std::optional<Tensor>, std::vector<Tensor>, std::vector<Tensor>>;

Emotion2VecResult forward_emotion2vec(const c10::intrusive_ptr<Module>& self, const Tensor& values,
                                      const std::optional<Tensor>& mask, bool hidden_states, bool attentions) {
  const Emotion2Vec& model = network<Emotion2Vec>(self, "emotion2vec_forward");
  SpeechOutput result = model.SpeechEncoder::forward({values, mask.value_or(Tensor()), {}}, hidden_states, attentions);
  const Tensor& states = result.last_hidden_state;  // [batch, frames, dim]
  Tensor pooled;                                    // [batch, dim]
  if (result.mask.defined()) {
    const Tensor valid = result.mask.unsqueeze(-1);
    pooled = states.masked_fill(valid.logical_not(), 0).sum(1) / valid.sum(1);
  } else {
    pooled = states.mean(1);
  }
  std::optional<Tensor> logits;
  if (model.classifier != nullptr) logits = model.classifier->forward(pooled);
  return {states, pooled, logits, std::move(result.hidden_states), std::move(result.attentions)};
}

const RegisteredModule registered_emotion2vec("emotion2vec", make_module<Emotion2Vec>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "emotion2vec_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor pooler_output, Tensor? logits, Tensor[] hidden_states, Tensor[] attentions)",
      forward_emotion2vec);
}

}  // namespace voxtorch::models
