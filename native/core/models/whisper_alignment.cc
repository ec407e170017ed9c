// When in the audio each token of a text is said. Some heads of Whisper's cross-attention follow the speech: their
// weights, normalized and smoothed, are a matrix of tokens and frames, through which dynamic time warping finds the
// most likely monotonic path. As transformers' return_token_timestamps, which has it from openai/whisper.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/std_mean.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/models/whisper.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

// The median of each value and its neighbors in a row, which goes on mirrored beyond its ends; added to `sum`.
void add_smoothed(const float* row, float* sum, int64_t size, int64_t width) {
  const int64_t reach = width / 2;
  if (size <= reach) {
    for (int64_t i = 0; i < size; ++i) sum[i] += row[i];
    return;
  }
  const auto value = [&](int64_t i) {
    const int64_t at = std::abs(i);
    return row[at < size ? at : 2 * (size - 1) - at];
  };
  std::vector<float> window;  // in order
  for (int64_t i = -reach; i <= reach; ++i) window.push_back(value(i));
  std::sort(window.begin(), window.end());
  const auto last = static_cast<size_t>(width - 1), middle = static_cast<size_t>(reach);
  sum[0] += window[middle];
  for (int64_t i = 1; i < size; ++i) {
    const float leaving = value(i - 1 - reach), entering = value(i + reach);
    size_t at = 0;
    while (at < last && window[at] < leaving) ++at;
    for (; at < last && window[at + 1] < entering; ++at) window[at] = window[at + 1];
    for (; at > 0 && window[at - 1] > entering; --at) window[at] = window[at - 1];
    window[at] = entering;
    sum[i] += window[middle];
  }
}

// weights [heads, tokens, frames], added to sum [tokens, frames]. A frame that no token looks at more than another says
// nothing.
void add_heads(const Tensor& weights, const Tensor& sum, int64_t width) {
  const auto [deviation, mean] = at::std_mean(weights, at::OptionalIntArrayRef({1}), 0, /*keepdim=*/true);
  const Tensor scaled = (weights - mean) / deviation;
  const Tensor clear = at::where(deviation > 0, scaled, at::zeros({}, scaled.options())).contiguous();
  const int64_t heads = clear.size(0), tokens = clear.size(1), frames = clear.size(2);
  const float* from = clear.const_data_ptr<float>();
  float* to = sum.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, std::max<int64_t>(1, 2048 / std::max<int64_t>(1, heads * frames)),
                   [&](int64_t a, int64_t b) {
                     for (int64_t token = a; token < b; ++token) {
                       for (int64_t head = 0; head < heads; ++head) {
                         add_smoothed(from + (head * tokens + token) * frames, to + token * frames, frames, width);
                       }
                     }
                   });
}

// The first frame of each token on the path of the largest sum from the first token and frame to the last ones.
std::vector<int64_t> first_frames(const Tensor& matrix) {
  const int64_t tokens = matrix.size(0), frames = matrix.size(1);
  const float* values = matrix.const_data_ptr<float>();
  enum Step : uint8_t { kBoth, kToken, kFrame };
  std::vector<uint8_t> steps(static_cast<size_t>((tokens + 1) * (frames + 1)), kFrame);
  const auto step_at = [&](int64_t i, int64_t j) -> uint8_t& {
    return steps[static_cast<size_t>(j * (tokens + 1) + i)];
  };
  constexpr float kNever = std::numeric_limits<float>::infinity();
  std::vector<float> before(static_cast<size_t>(tokens + 1), kNever), costs(before);
  before[0] = 0;
  for (int64_t j = 1; j <= frames; ++j) {
    costs[0] = kNever;
    for (int64_t i = 1; i <= tokens; ++i) {
      const auto at = static_cast<size_t>(i);
      const float both = before[at - 1], token = costs[at - 1], frame = before[at];
      const Step step = both < token && both < frame ? kBoth : token < both && token < frame ? kToken : kFrame;
      const float least = step == kBoth ? both : step == kToken ? token : frame;
      costs[at] = static_cast<float>(static_cast<double>(least) - values[(i - 1) * frames + j - 1]);
      step_at(i, j) = step;
    }
    std::swap(before, costs);
  }
  std::vector<int64_t> first(static_cast<size_t>(tokens), 0);
  for (int64_t i = tokens, j = frames; i > 0 && j > 0;) {
    first[static_cast<size_t>(i - 1)] = j - 1;
    const uint8_t step = step_at(i, j);
    if (step != kFrame) --i;
    if (step != kToken) --j;
  }
  return first;
}

std::vector<std::vector<int64_t>> heads_by_layer(const WhisperConfig& c, at::IntArrayRef pairs) {
  TORCH_CHECK(!pairs.empty() && pairs.size() % 2 == 0, "alignment_heads must be pairs of a layer and a head");
  std::vector<std::vector<int64_t>> heads(static_cast<size_t>(c.decoder_layers));
  for (size_t i = 0; i < pairs.size(); i += 2) {
    const int64_t layer = pairs[i], head = pairs[i + 1];
    TORCH_CHECK(layer >= 0 && layer < c.decoder_layers && head >= 0 && head < c.decoder_heads, "alignment_heads has [",
                layer, ", ", head, "], but there are ", c.decoder_layers, " decoder layers of ", c.decoder_heads,
                " heads");
    heads[static_cast<size_t>(layer)].push_back(head);
  }
  return heads;
}

// Of each token that follows the prompt, among the first `texts` words of the vocabulary; 0 for other tokens.
Tensor probabilities(const Whisper& whisper, const Tensor& hidden, const Tensor& ids, int64_t prompt, int64_t texts) {
  constexpr int64_t kChunk = 64;  // tokens for which there are logits at once
  const int64_t time = ids.size(1);
  Tensor result = at::zeros({ids.size(0), time - prompt}, at::TensorOptions(at::kFloat).device(ids.device()));
  for (int64_t from = prompt; from < time; from += kChunk) {
    const int64_t count = std::min(kChunk, time - from);
    const Tensor logits = whisper.logits(hidden.narrow(1, from - 1, count).contiguous());
    const Tensor logs = at::log_softmax(logits.narrow(2, 0, texts).to(at::kFloat), -1);
    const Tensor wanted = ids.narrow(1, from, count), text = wanted < texts;
    const Tensor found = logs.gather(2, wanted.clamp_max(texts - 1).unsqueeze(2)).squeeze(2).exp();
    result.narrow(1, from - prompt, count).copy_(found * text.to(at::kFloat));
  }
  return result;
}

using ModulePtr = c10::intrusive_ptr<Module>;

std::tuple<Tensor, Tensor> align(const ModulePtr& self, const Tensor& ids, int64_t prompt, at::IntArrayRef lengths,
                                 at::IntArrayRef frames, at::IntArrayRef alignment_heads, int64_t texts,
                                 const std::optional<Tensor>& encoder_states,
                                 const std::optional<ModulePtr>& encoder_cache) {
  const at::NoGradGuard unrecorded;
  const auto& whisper = network<Whisper>(self, "whisper_align");
  const WhisperConfig& c = whisper.config;
  TORCH_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kLong, "decoder_input_ids must be int64 [batch, time], got ",
              ids.scalar_type(), " ", ids.sizes());
  const int64_t batch = ids.size(0), time = ids.size(1), width = c.median_filter_width;
  TORCH_CHECK(prompt > 0 && prompt < time, "the prompt must have from 1 to ", time - 1, " of the ", time,
              " tokens, got ", prompt);
  TORCH_CHECK(texts > 0 && texts <= c.vocabulary, "text_tokens must be from 1 to ", c.vocabulary, ", got ", texts);
  TORCH_CHECK(static_cast<int64_t>(lengths.size()) == batch && static_cast<int64_t>(frames.size()) == batch,
              "lengths and frames need an entry for each of ", batch, " rows");
  WhisperWatcher watcher;
  watcher.heads = heads_by_layer(c, alignment_heads);
  std::vector<Tensor> sums;
  for (size_t row = 0; row < lengths.size(); ++row) {
    TORCH_CHECK(lengths[row] > 0 && lengths[row] <= time - prompt, "lengths must be from 1 to ", time - prompt,
                ", got ", lengths[row]);
    TORCH_CHECK(frames[row] >= 0, "frames must not be negative, got ", frames[row]);
  }
  // The last token is not read: it was written only.
  watcher.on_layer = [&](const Tensor& weights) {
    for (int64_t row = 0; row < batch; ++row) {
      const auto at = static_cast<size_t>(row);
      const int64_t seen = std::min(frames[at], weights.size(3));
      if (sums.size() <= at) sums.push_back(at::zeros({lengths[at] - 1, seen}, at::kFloat));
      if (sums[at].numel() == 0) continue;
      const Tensor read = weights.select(0, row).narrow(1, prompt, lengths[at] - 1).narrow(2, 0, seen);
      add_heads(read.to(at::kCPU), sums[at], width);
    }
  };
  WhisperDecoderInputs inputs;
  inputs.ids = ids;
  if (encoder_states) inputs.encoder_states = *encoder_states;
  if (encoder_cache) inputs.encoder_cache = &network<nn::KvCache>(*encoder_cache, "whisper_align");
  inputs.watcher = &watcher;
  const Tensor hidden = whisper.model.decoder.forward(inputs).last_hidden_state;

  Tensor found = at::zeros({batch, time - prompt}, at::kLong);
  for (size_t row = 0; row < sums.size(); ++row) {
    if (sums[row].numel() == 0) continue;
    const std::vector<int64_t> first = first_frames(sums[row].div_(static_cast<double>(alignment_heads.size() / 2)));
    int64_t* to = found.mutable_data_ptr<int64_t>() + static_cast<int64_t>(row) * (time - prompt);
    std::copy(first.begin(), first.end(), to);
    to[first.size()] = first.back();
  }
  return {found, probabilities(whisper, hidden, ids, prompt, texts).to(at::kCPU)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // decoder_input_ids [batch, time]: `prompt` tokens, then those to be aligned, as many as `lengths` says in each row,
  // padded on the right. frames: how many frames of the audio count, in each row. alignment_heads: layer, head, layer,
  // head, ... -> the frame (20 ms) of each token [batch, time - prompt] and its probability among the first text_tokens
  // of the vocabulary.
  m.def(
      "whisper_align(__torch__.torch.classes.voxtorch.Module self, Tensor decoder_input_ids, *, int prompt, int[] "
      "lengths, int[] frames, int[] alignment_heads, int text_tokens, Tensor? encoder_hidden_states=None, "
      "__torch__.torch.classes.voxtorch.Module? encoder_cache=None) -> (Tensor frame, Tensor probability)",
      align);
}

}  // namespace voxtorch::models
