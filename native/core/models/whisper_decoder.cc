#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include "core/models/whisper_layers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::KvCache;

namespace {

// The queries are the last `time` of all tokens. `real`: bool [batch, total], undefined where all are. Every query sees
// itself, padding too: nothing reads what it answers, but it stays finite.
void look(WhisperPass& pass, int64_t past, int64_t time, const Tensor& real, const at::TensorOptions& on) {
  if (!real.defined() && !pass.with_weights) {
    pass.causal = past == 0 && time > 1;
    if (pass.causal || time == 1) return;
  }
  const auto integers = on.dtype(at::kLong);
  const Tensor queries = at::arange(past, past + time, integers).unsqueeze(1);
  const Tensor keys = at::arange(past + time, integers).unsqueeze(0);
  pass.mask = (keys <= queries).unsqueeze(0).unsqueeze(0);
  if (real.defined()) pass.mask = (pass.mask & real.unsqueeze(1).unsqueeze(1)) | (keys == queries);
}

}  // namespace

WhisperLayered WhisperDecoderLayer::forward(const Tensor& x, const Tensor& encoder_states,
                                            const WhisperPass& pass) const {
  Tensor normed = attention_norm.forward(x);
  KeysValues keys = attention.keys_values(normed);
  if (pass.cache != nullptr) keys = pass.cache->append(index, keys.first, keys.second);
  const nn::Attended own = attention.attend(normed, keys, pass.mask, pass.causal, pass.with_weights);
  Tensor stream = attention.add(normed, own.output, x, dropout);

  normed = cross_norm.forward(stream);
  keys = pass.encoder_cache != nullptr ? pass.encoder_cache->get(index) : cross.keys_values(encoder_states);
  const nn::Attended heard = cross.attend(normed, keys, pass.encoder_mask, false, pass.with_weights);
  if (pass.watcher != nullptr && !pass.watcher->heads[index].empty()) {
    pass.watcher->on_layer(cross.weights(normed, keys.first, pass.watcher->heads[index]));
  }
  stream = cross.add(normed, heard.output, stream, dropout);
  return {watched(x, feed_forward.forward(norm.forward(stream), stream, training())), own.weights, heard.weights};
}

WhisperDecoder::WhisperDecoder(const ModuleOptions& options, const WhisperConfig& c)
    : Block("WhisperDecoder", options),
      config(c),
      words(*child<Embedding>("embed_tokens", c.vocabulary, c.dim, c.padding, c.std)),
      positions(*child<Embedding>("embed_positions", c.target_positions, c.dim, -1, c.std)),
      layers(*child<ModuleList<WhisperDecoderLayer>>("layers")),
      norm(*child<nn::LayerNorm>("layer_norm", c.dim, 1e-5)) {
  for (int64_t i = 0; i < c.decoder_layers; ++i) layers.add(c, i);
}

void WhisperDecoder::read_encoder(const Tensor& encoder_states, KvCache& cache) const {
  const at::NoGradGuard unrecorded;
  for (size_t i = 0; i < layers.size(); ++i) {
    const KeysValues keys = layers[i].cross.keys_values(encoder_states);
    cache.append(i, keys.first, keys.second);
  }
  cache.advance(encoder_states.size(1));
}

void WhisperDecoder::check(const WhisperDecoderInputs& inputs) const {
  const Tensor& ids = inputs.ids;
  TORCH_CHECK(ids.defined() && ids.dim() == 2 && ids.size(0) > 0 && ids.size(1) > 0,
              "decoder_input_ids must be [batch, time], at least one token, got ",
              ids.defined() ? ids.sizes() : at::IntArrayRef{});
  const int64_t batch = ids.size(0), time = ids.size(1);
  const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0;
  if (inputs.cache != nullptr) inputs.cache->check(batch, config.decoder_layers);
  const bool known = inputs.encoder_cache != nullptr && inputs.encoder_cache->length() > 0;
  TORCH_CHECK(known || inputs.encoder_states.defined(),
              "there is nothing to hear: give input_features, "
              "encoder_hidden_states or an encoder_cache that was filled");
  int64_t rows = 0, frames = 0;
  if (known) {
    rows = inputs.encoder_cache->batch();
    frames = inputs.encoder_cache->length();
    inputs.encoder_cache->check(rows, config.decoder_layers);
  } else {
    const at::IntArrayRef shape = inputs.encoder_states.sizes();
    TORCH_CHECK(shape.size() == 3 && shape[2] == config.dim && shape[1] > 0, "encoder_hidden_states must be [batch, ",
                "frames, ", config.dim, "], got ", shape);
    rows = shape[0];
    frames = shape[1];
  }
  TORCH_CHECK(rows > 0 && batch % rows == 0, "decoder_input_ids has ", batch, " rows, but there are ", rows,
              " rows of audio");
  TORCH_CHECK(!inputs.encoder_mask.defined() || inputs.encoder_mask.sizes().equals({rows, frames}),
              "encoder_attention_mask must be [", rows, ", ", frames, "] like the frames, got ",
              inputs.encoder_mask.sizes());
  if (inputs.mask.defined()) {
    TORCH_CHECK(inputs.mask.sizes().equals({batch, past + time}), "decoder_attention_mask must be [", batch, ", ",
                past + time, "], a column for each token", past > 0 ? " in the cache and in the input" : "", ", got ",
                inputs.mask.sizes());
  }
  if (inputs.positions.defined()) {
    const at::IntArrayRef shape = inputs.positions.sizes();
    TORCH_CHECK(shape.equals({batch, time}) || shape.equals({1, time}), "decoder_position_ids must be [", batch, ", ",
                time, "] like the tokens, got ", shape);
  } else if (!inputs.mask.defined()) {
    TORCH_CHECK(past + time <= config.target_positions, "the text has ", past + time,
                " tokens, but max_target_positions is ", config.target_positions);
  }
}

WhisperDecoded WhisperDecoder::forward(const WhisperDecoderInputs& inputs, bool hidden_states, bool attentions) const {
  check(inputs);
  const Tensor& ids = inputs.ids;
  const at::TensorOptions on = at::TensorOptions().device(ids.device());
  const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0, time = ids.size(1);
  Tensor real = inputs.mask.defined() ? inputs.mask.to(on.dtype(at::kBool)) : Tensor();
  Tensor places = inputs.positions;
  if (!places.defined() && real.defined()) {
    places = (real.to(at::kLong).cumsum(1) - 1).clamp_min(0).narrow(1, past, time);
  } else if (!places.defined()) {
    places = at::arange(past, past + time, on.dtype(at::kLong)).unsqueeze(0);
  }
  if (real.defined() && real.is_cpu() && real.all().item<bool>()) real = Tensor();
  WhisperPass pass;
  pass.with_weights = attentions;
  pass.cache = inputs.cache;
  pass.encoder_cache = inputs.encoder_cache;
  pass.watcher = inputs.watcher;
  pass.encoder_mask = nn::attention_mask(inputs.encoder_mask);
  look(pass, past, time, real, on);
  Tensor heard = inputs.encoder_states.defined() ? inputs.encoder_states.to(words.weight.scalar_type()) : Tensor();
  if (pass.encoder_cache != nullptr && pass.encoder_cache->length() == 0) read_encoder(heard, *pass.encoder_cache);

  WhisperDecoded result;
  Tensor x = nn::drop(words.forward(ids) + positions.forward(places), config.dropout, training());
  for (WhisperDecoderLayer* layer : layers) {
    if (hidden_states) result.hidden_states.push_back(x);
    if (pass.cache == nullptr && is_dropped(config.decoder_layer_drop, training())) continue;
    WhisperLayered one;
    if (pass.cache == nullptr && pass.encoder_cache == nullptr && nn::should_checkpoint(*this)) {
      nn::Tensors outputs = nn::checkpoint(*layer, {x, heard}, [layer, pass](const nn::Tensors& in) -> nn::Tensors {
        const WhisperLayered again = layer->forward(in[0], in[1], pass);
        if (!pass.with_weights) return {again.output};
        return {again.output, again.weights, again.cross_weights};
      });
      one.output = outputs[0];
      if (attentions) one = {outputs[0], outputs[1], outputs[2]};
    } else {
      one = layer->forward(x, heard, pass);
    }
    x = std::move(one.output);
    if (attentions) {
      result.attentions.push_back(std::move(one.weights));
      result.cross_attentions.push_back(std::move(one.cross_weights));
    }
  }
  result.last_hidden_state = watched(ids, norm.forward(x));
  if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
  if (pass.cache != nullptr) pass.cache->advance(time);
  return result;
}

}  // namespace voxtorch::models
