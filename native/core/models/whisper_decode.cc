#include "core/models/whisper_decode.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "core/models/whisper_decode_job.h"
#include "core/runtime/recording.h"

namespace voxtorch::models {

using at::Tensor;
using nn::KvCache;
using nn::LayerNorm;
using nn::Linear;

namespace {

// More are oneDNN's.
constexpr int64_t kMostRows = 8;

using Identity = WhisperDecodeJob::Identity;

void add(Identity& identity, const Tensor& tensor) {
  identity.push_back(tensor.defined() ? reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) : 0);
  const bool counts = tensor.defined() && !tensor.is_inference();
  identity.push_back(counts ? static_cast<uintptr_t>(tensor._version()) : 0);
}

bool is_ours(const Tensor& tensor, at::ScalarType type) {
  return tensor.is_cpu() && tensor.scalar_type() == type && tensor.is_contiguous();
}

// Whether a layer is a plain product.
bool add(Identity& identity, const Linear& linear, at::ScalarType type) {
  if (linear.hooked() || linear.slot().active()) return false;
  if (const auto& quantized = linear.quantized()) {
    if (quantized->block != 0 || !is_ours(quantized->codes, at::kChar)) return false;
    add(identity, quantized->codes);
    add(identity, quantized->absmax);
  } else {
    if (!is_ours(linear.weight, type) || linear.weight.dim() != 2) return false;
    add(identity, linear.weight);
  }
  if (linear.bias.defined() && !is_ours(linear.bias, type)) return false;
  add(identity, linear.bias);
  return true;
}

bool add(Identity& identity, const LayerNorm& norm, at::ScalarType type) {
  if (norm.hooked() || !is_ours(norm.weight, type) || !is_ours(norm.bias, type)) return false;
  add(identity, norm.weight);
  add(identity, norm.bias);
  return true;
}

// None: something asks for a whole pass.
std::optional<Identity> identity_of(const Whisper& network, KvCache& cache, KvCache& heard, int64_t rows) {
  const WhisperDecoder& decoder = network.model.decoder;
  const WhisperConfig& c = network.config;
  const at::ScalarType type = decoder.words.weight.scalar_type();
  const int64_t head_dim = c.dim / c.decoder_heads;
  if (!is_inference() || at::autocast::is_autocast_enabled(at::kCPU)) return std::nullopt;
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) return std::nullopt;
  if (rows > kMostRows || head_dim > kernels::kMostQueryDim || network.training()) return std::nullopt;
  if (decoder.layers.size() == 0 || heard.length() == 0) return std::nullopt;
  if (decoder.hooked() || decoder.words.hooked() || decoder.positions.hooked()) return std::nullopt;
  if (decoder.words.adapters()->active() || decoder.positions.adapters()->active()) return std::nullopt;
  if (!is_ours(decoder.words.weight, type) || !is_ours(decoder.positions.weight, type)) return std::nullopt;
  Identity result{static_cast<uintptr_t>(rows), static_cast<uintptr_t>(heard.batch()),
                  static_cast<uintptr_t>(heard.length()), static_cast<uintptr_t>(at::get_num_threads())};
  add(result, decoder.words.weight);
  add(result, decoder.positions.weight);
  if (!add(result, decoder.norm, type)) return std::nullopt;
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    const WhisperDecoderLayer& layer = decoder.layers[i];
    if (layer.hooked() || !layer.feed_forward.activation.is_exact_gelu()) return std::nullopt;
    for (const LayerNorm* norm : {&layer.attention_norm, &layer.cross_norm, &layer.norm}) {
      if (!add(result, *norm, type)) return std::nullopt;
    }
    for (const WhisperAttention* attention : {&layer.attention, &layer.cross}) {
      if (attention->hooked()) return std::nullopt;
      for (const Linear* linear : {&attention->query, &attention->key, &attention->value, &attention->output}) {
        if (!add(result, *linear, type)) return std::nullopt;
      }
    }
    for (const Linear* linear : {&layer.feed_forward.up, &layer.feed_forward.down}) {
      if (!add(result, *linear, type)) return std::nullopt;
    }
    const int64_t more[] = {1, 0};
    KvCache* const caches[] = {&cache, &heard};
    for (int k = 0; k < 2; ++k) {
      const auto [keys, values] = caches[k]->memory(i, more[k]);
      if (!is_ours(keys, type) || !is_ours(values, type) || keys.size(3) != head_dim) return std::nullopt;
      result.push_back(reinterpret_cast<uintptr_t>(keys.const_data_ptr()));
      result.push_back(reinterpret_cast<uintptr_t>(values.const_data_ptr()));
      result.push_back(static_cast<uintptr_t>(keys.size(2)));
    }
  }
  const auto own = network.own_head();
  const Linear* const head = own ? own.get() : network.proj_out;
  result.push_back(reinterpret_cast<uintptr_t>(head));
  if (head != nullptr && !add(result, *head, type)) return std::nullopt;
  return result;
}

}  // namespace

WhisperDecode::WhisperDecode(const Whisper& network) : network_(network) {}
WhisperDecode::~WhisperDecode() = default;

Tensor WhisperDecode::logits(const Tensor& ids, const std::vector<int64_t>& clips, KvCache& cache, KvCache& heard) {
  const int64_t rows = ids.size(0), past = cache.length();
  if (!ids.is_cpu() || past == 0 || cache.batch() != rows) return {};
  if (past >= network_.config.target_positions) return {};  // a whole pass says what is wrong
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  auto now = identity_of(network_, cache, heard, rows);
  if (!now) {
    job_.reset();
    return {};
  }
  const Tensor here = ids.contiguous();
  const int64_t* const tokens = here.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row) {
    if (tokens[row] < 0 || tokens[row] >= network_.config.vocabulary) return {};
  }
  if (!job_ || job_->identity != *now) {
    kernels::Team::instance().shrink(at::get_num_threads());
    job_ = std::make_shared<WhisperDecodeJob>(network_, std::move(*now), cache, heard, rows);
  }
  Tensor result = at::empty({rows, network_.config.vocabulary}, at::TensorOptions().dtype(at::kFloat));
  job_->set(tokens, clips, past, result.mutable_data_ptr<float>());
  kernels::Team::instance().run(job_);
  cache.advance(1);
  return result;
}

}  // namespace voxtorch::models
