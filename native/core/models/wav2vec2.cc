// wav2vec 2.0 (Baevski et al. 2020, https://arxiv.org/abs/2006.11477) and its multilingual descendants XLSR-53
// (https://arxiv.org/abs/2006.13979) and XLS-R (https://arxiv.org/abs/2111.09296), with the names of transformers'
// Wav2Vec2Model; HuBERT, data2vec for speech, Wav2Vec2Conformer and w2v-BERT 2.0 by their configurations.
#include <torch/library.h>

#include "core/models/speech_encoder.h"
#include "core/nn/linear.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Linear;

class Wav2Vec2 : public SpeechEncoder {
 public:
  Wav2Vec2(const ModuleOptions& options, const Config& config);
};

namespace {

class Wav2Vec2Attention : public SpeechAttention {
 public:
  Wav2Vec2Attention(const ModuleOptions& options, const SpeechConfig& c)
      : SpeechAttention("Wav2Vec2Attention", options),
        key(*child<Linear>("k_proj", c.dim, c.dim, true, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, true, c.std)),
        query(*child<Linear>("q_proj", c.dim, c.dim, true, c.std)),
        output(*child<Linear>("out_proj", c.dim, c.dim, true, c.std)),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Tensor&, bool with_weights) const override {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    nn::Attended result = nn::attend(project(query), project(key), project(value), nn::attention_mask(mask),
                                     training() ? dropout : 0, with_weights);
    result.output = output.forward(nn::join_heads(result.output));
    return result;
  }

  Tensor forward_each(const Tensor& x, const nn::Segments& segments, const Tensor&) const override {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    return output.forward(
        nn::attend_each(segments, project(query), project(key), project(value), training() ? dropout : 0));
  }

 private:
  Linear &key, &value, &query, &output;
  const int64_t heads;
  const double dropout;
};

c10::intrusive_ptr<SpeechAttention> make_attention(const ModuleOptions& options, const SpeechConfig& config, int64_t) {
  return c10::make_intrusive<Wav2Vec2Attention>(options, config);
}

}  // namespace

Wav2Vec2::Wav2Vec2(const ModuleOptions& options, const Config& config)
    : SpeechEncoder("Wav2Vec2", options, SpeechConfig(config), make_attention) {}

namespace {

SpeechResult forward_wav2vec2(const c10::intrusive_ptr<Module>& self, const Tensor& values,
                              const std::optional<Tensor>& mask, const std::optional<Tensor>& time_mask,
                              bool hidden_states, bool attentions) {
  return speech_forward(network<Wav2Vec2>(self, "wav2vec2_forward"), values, mask, time_mask, hidden_states,
                        attentions);
}

SpeechResult forward_wav2vec2_bert(const c10::intrusive_ptr<Module>& self, const Tensor& features,
                                   const std::optional<Tensor>& mask, const std::optional<Tensor>& time_mask,
                                   bool hidden_states, bool attentions) {
  return speech_forward(network<Wav2Vec2>(self, "wav2vec2_bert_forward"), features, mask, time_mask, hidden_states,
                        attentions);
}

const RegisteredModule registered_wav2vec2("wav2vec2", make_module<Wav2Vec2>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "wav2vec2_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, Tensor? "
      "attention_mask=None, "
      "*, Tensor? mask_time_indices=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor extract_features, Tensor[] hidden_states, Tensor[] attentions)",
      forward_wav2vec2);
  m.def(
      "wav2vec2_bert_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, "
      "*, Tensor? mask_time_indices=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor extract_features, Tensor[] hidden_states, Tensor[] attentions)",
      forward_wav2vec2_bert);
}

}  // namespace voxtorch::models
