#include "core/models/whisper_decode.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/kernels/decode_step/team.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/layer_norm/args.h"
#include "core/recording.h"

namespace voxtorch::models {

using at::Tensor;
using kernels::FewRows;
using nn::KvCache;
using nn::LayerNorm;
using nn::Linear;

namespace {

// More are oneDNN's.
constexpr int64_t kMostRows = 8;
// Of a chunk: some microseconds.
constexpr int64_t kChunkWeights = 1 << 15;

using NormRows = void (*)(const kernels::LayerNormForward&, int64_t, int64_t);

NormRows norm_rows() {
#if defined(__x86_64__)
  const std::string capability = at::get_cpu_capability();
  if (capability.rfind("AVX512", 0) == 0) return kernels::layer_norm_rows_avx512;
  if (capability == "AVX2") return kernels::layer_norm_rows_avx2;
#endif
  return kernels::layer_norm_rows_default;
}

// Outputs of a product that are one chunk.
int64_t chunk_width(int64_t in, int64_t out) {
  const int64_t wanted = std::max<int64_t>(kChunkWeights / in, 1);
  return std::min(
      std::max((wanted + 15) / 16 * 16, (out + kernels::TeamJob::kMostChunks - 1) / kernels::TeamJob::kMostChunks),
      out);
}

int64_t most_chunks(const WhisperConfig& c) {
  const auto chunks = [](int64_t in, int64_t out) {
    const int64_t width = chunk_width(in, out);
    return (out + width - 1) / width;
  };
  return std::max({c.decoder_heads, chunks(c.dim, c.dim), chunks(c.dim, c.decoder_intermediate),
                   chunks(c.decoder_intermediate, c.dim), chunks(c.dim, c.vocabulary)});
}

// What a job was prepared for: addresses and versions. Another one needs another job.
using Identity = std::vector<uintptr_t>;

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

void widen(const Tensor& table, int64_t row, int64_t dim, float* to, bool adds) {
  const auto from = [&](int64_t i) {
    if (table.scalar_type() == at::kFloat) return table.const_data_ptr<float>()[row * dim + i];
    return static_cast<float>(table.const_data_ptr<at::BFloat16>()[row * dim + i]);
  };
  for (int64_t i = 0; i < dim; ++i) to[i] = adds ? to[i] + from(i) : from(i);
}

}  // namespace

class WhisperDecodeJob final : public kernels::TeamJob {
 public:
  WhisperDecodeJob(const Whisper& network, Identity identity, KvCache& cache, KvCache& heard, int64_t rows);

  const Identity identity;
  static std::optional<Identity> identity_of(const Whisper& network, KvCache& cache, KvCache& heard, int64_t rows);

  // Where the token is that comes next; `clips`: which of the heard each row is about.
  void set(const int64_t* ids, const std::vector<int64_t>& clips, int64_t past, float* logits);

 protected:
  int64_t chunks(int number) const override;
  void begin(int worker, int number) override;
  void compute(int worker, int number, int64_t chunk) override;
  void commit(int worker, int number, int64_t chunk) override;

 private:
  struct Product {
    FewRows args;  // without inputs and outputs
    int64_t item;  // bytes of a weight
    int64_t width() const { return chunk_width(args.in, args.out); }
    int64_t chunks() const { return (args.out + width() - 1) / width(); }
  };
  struct Norm {
    const float *weight, *bias;
    double eps;
  };
  // Keys and values of a layer, [batch, heads, places, head_dim], by elements.
  struct Memory {
    void *keys, *values;
    int64_t row, head, place;
  };
  struct Layer {
    Norm norm, cross_norm, mlp_norm;
    Product query, key, value, output, cross_query, cross_output, up, down;
    Memory own, heard;
  };
  enum Part { kOwn, kOutput, kCross, kCrossOutput, kUp, kDown, kParts };
  struct Phase {
    const Layer* layer;  // null: the head
    Part part;
  };
  // What one worker computes with.
  struct alignas(64) Desk {
    std::vector<float> normed, chunk, query, key, value, attended, scores;
    std::vector<float> prepared;  // the phase's input as integers
    const float* input = nullptr;
  };

  Phase phase(int number) const;
  const float* floats(const Tensor& tensor, double scale = 1);
  Product product(const Linear& linear);
  Product head(const Whisper& network);
  Norm norm(const LayerNorm& layer) { return {floats(layer.weight), floats(layer.bias), layer.eps}; }
  Memory memory(const std::pair<Tensor, Tensor>& both);
  void multiply(const Product& product, const Desk& desk, int64_t from, int64_t width, float* output) const;
  const Product& product_of(const Phase& now) const;

  const int64_t rows_, dim_, inner_, heads_, head_dim_, frames_;
  const bool half_;  // keys and values are bfloat16
  const kernels::StepKernels& kernels_ = kernels::step_kernels();
  const kernels::FewRowsOutputs outputs_ = kernels::outputs_of();
  const NormRows norm_rows_ = norm_rows();
  const Tensor words_, positions_;
  std::vector<at::Storage> kept_;  // what pointers lead into
  std::vector<Layer> layers_;
  Norm norm_;
  Product head_;
  std::vector<Desk> desks_;
  std::vector<float> stream_, attended_, between_;  // [rows, dim or inner]
  // Of the token. Who comes too late may read the next one's.
  std::atomic<int64_t> past_{0};
  std::unique_ptr<std::atomic<int64_t>[]> clip_of_;
  float* logits_ = nullptr;
};

std::optional<Identity> WhisperDecodeJob::identity_of(const Whisper& network, KvCache& cache, KvCache& heard,
                                                      int64_t rows) {
  const WhisperDecoder& decoder = network.model.decoder;
  const WhisperConfig& c = network.config;
  const at::ScalarType type = decoder.words.weight.scalar_type();
  const int64_t head_dim = c.dim / c.decoder_heads;
  if (!is_inference() || at::autocast::is_autocast_enabled(at::kCPU)) return std::nullopt;
  if (type != at::kFloat && type != at::kBFloat16) return std::nullopt;
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

WhisperDecodeJob::WhisperDecodeJob(const Whisper& network, Identity known, KvCache& cache, KvCache& heard, int64_t rows)
    : TeamJob(at::get_num_threads(), static_cast<int>(network.model.decoder.layers.size()) * kParts + 1,
              most_chunks(network.config)),
      identity(std::move(known)),
      rows_(rows),
      dim_(network.config.dim),
      inner_(network.config.decoder_intermediate),
      heads_(network.config.decoder_heads),
      head_dim_(dim_ / heads_),
      frames_(heard.length()),
      half_(network.model.decoder.words.weight.scalar_type() == at::kBFloat16),
      words_(network.model.decoder.words.weight.detach()),
      positions_(network.model.decoder.positions.weight.detach()),
      norm_(norm(network.model.decoder.norm)),
      head_(head(network)) {
  const WhisperDecoder& decoder = network.model.decoder;
  for (size_t i = 0; i < decoder.layers.size(); ++i) {
    const WhisperDecoderLayer& layer = decoder.layers[i];
    const WhisperAttention &own = layer.attention, &cross = layer.cross;
    layers_.push_back({norm(layer.attention_norm), norm(layer.cross_norm), norm(layer.norm), product(own.query),
                       product(own.key), product(own.value), product(own.output), product(cross.query),
                       product(cross.output), product(layer.feed_forward.up), product(layer.feed_forward.down),
                       memory(cache.memory(i, 1)), memory(heard.memory(i, 0))});
  }
  const auto of = [&](int64_t count) { return std::vector<float>(static_cast<size_t>(rows_ * count)); };
  int64_t widest = head_.width();
  for (const Layer& layer : layers_) {
    for (const Product* one : {&layer.output, &layer.cross_output, &layer.up, &layer.down}) {
      widest = std::max(widest, one->width());
    }
  }
  const int64_t places = std::max(frames_, network.config.target_positions) + 1;
  const size_t prepared = kernels::prepared_rows_bytes(FewRows::Weight::int8, rows_, std::max(dim_, inner_));
  desks_.resize(static_cast<size_t>(workers()));
  for (Desk& desk : desks_) {
    desk = {of(dim_),
            of(widest),
            of(head_dim_),
            of(head_dim_),
            of(head_dim_),
            of(head_dim_),
            std::vector<float>(static_cast<size_t>(places)),
            std::vector<float>(prepared / sizeof(float) + 1)};
  }
  clip_of_ = std::make_unique<std::atomic<int64_t>[]>(static_cast<size_t>(rows_));
  stream_ = of(dim_);
  attended_ = of(dim_);
  between_ = of(inner_);
}

const float* WhisperDecodeJob::floats(const Tensor& tensor, double scale) {
  if (!tensor.defined()) return nullptr;
  Tensor values = tensor.detach().to(at::kFloat).contiguous();
  if (scale != 1) values = values * scale;
  kept_.push_back(values.storage());
  return values.const_data_ptr<float>();
}

WhisperDecodeJob::Product WhisperDecodeJob::product(const Linear& linear) {
  Product result{};
  const auto& quantized = linear.quantized();
  const Tensor& weight = quantized ? quantized->codes : linear.weight;
  kept_.push_back(weight.storage());
  FewRows& args = result.args;
  args.weight = weight.const_data_ptr();
  args.scale = quantized ? floats(quantized->absmax, 1.0 / 127) : nullptr;
  args.bias = floats(linear.bias);
  args.rows = rows_;
  args.out = weight.size(0);
  args.in = weight.size(1);
  args.type = quantized ? FewRows::Weight::int8 : half_ ? FewRows::Weight::bfloat16 : FewRows::Weight::float32;
  result.item = weight.element_size();
  return result;
}

WhisperDecodeJob::Product WhisperDecodeJob::head(const Whisper& network) {
  const auto own = network.own_head();
  if (own) return product(*own);
  if (network.proj_out != nullptr) return product(*network.proj_out);
  Product result{};
  result.args.weight = words_.const_data_ptr();
  result.args.rows = rows_;
  result.args.out = words_.size(0);
  result.args.in = dim_;
  result.args.type = half_ ? FewRows::Weight::bfloat16 : FewRows::Weight::float32;
  result.item = words_.element_size();
  return result;
}

WhisperDecodeJob::Memory WhisperDecodeJob::memory(const std::pair<Tensor, Tensor>& both) {
  const auto& [keys, values] = both;
  kept_.push_back(keys.storage());
  kept_.push_back(values.storage());
  return {keys.mutable_data_ptr(), values.mutable_data_ptr(), keys.stride(0), keys.stride(1), keys.stride(2)};
}

WhisperDecodeJob::Phase WhisperDecodeJob::phase(int number) const {
  const auto index = static_cast<size_t>(number) / kParts;
  if (index == layers_.size()) return {nullptr, kOwn};
  return {&layers_[index], static_cast<Part>(number % kParts)};
}

const WhisperDecodeJob::Product& WhisperDecodeJob::product_of(const Phase& now) const {
  if (now.layer == nullptr) return head_;
  switch (now.part) {
    case kOwn:
      return now.layer->query;
    case kOutput:
      return now.layer->output;
    case kCross:
      return now.layer->cross_query;
    case kCrossOutput:
      return now.layer->cross_output;
    case kUp:
      return now.layer->up;
    default:
      return now.layer->down;
  }
}

int64_t WhisperDecodeJob::chunks(int number) const {
  const Phase now = phase(number);
  if (now.layer != nullptr && (now.part == kOwn || now.part == kCross)) return heads_;
  return product_of(now).chunks();
}

void WhisperDecodeJob::begin(int worker, int number) {
  const Phase now = phase(number);
  Desk& desk = desks_[static_cast<size_t>(worker)];
  const Norm* norm = nullptr;
  if (now.layer == nullptr) {
    norm = &norm_;
  } else if (now.part == kOwn) {
    norm = &now.layer->norm;
  } else if (now.part == kCross) {
    norm = &now.layer->cross_norm;
  } else if (now.part == kUp) {
    norm = &now.layer->mlp_norm;
  }
  desk.input = now.part == kDown ? between_.data() : attended_.data();
  if (norm != nullptr) {
    desk.input = desk.normed.data();
    norm_rows_({stream_.data(), norm->weight, norm->bias, desk.normed.data(), false, nullptr, nullptr, dim_, norm->eps},
               0, rows_);
  }
  const auto prepare = [&](const Product& one) {
    const bool needs = kernels::needs_prepared_rows(one.args.type);
    if (needs) kernels::prepare_rows(one.args.type, desk.input, rows_, one.args.in, desk.prepared.data());
    return needs;
  };
  const bool own = now.layer != nullptr && now.part == kOwn;
  if (!prepare(product_of(now)) && own && !prepare(now.layer->key)) prepare(now.layer->value);
}

// The outputs [from, from + width) -> [rows, width].
void WhisperDecodeJob::multiply(const Product& product, const Desk& desk, int64_t from, int64_t width,
                                float* output) const {
  FewRows args = product.args;
  args.input = kernels::needs_prepared_rows(args.type) ? desk.prepared.data() : desk.input;
  args.output = output;
  args.weight = static_cast<const char*>(args.weight) + from * args.in * product.item;
  if (args.scale != nullptr) args.scale += from;
  if (args.bias != nullptr) args.bias += from;
  args.out = width;
  outputs_(args, 0, width);
}

void WhisperDecodeJob::compute(int worker, int number, int64_t chunk) {
  const Phase now = phase(number);
  Desk& desk = desks_[static_cast<size_t>(worker)];
  const bool own = now.part == kOwn, attends = now.layer != nullptr && (own || now.part == kCross);
  if (!attends) {
    const Product& product = product_of(now);
    const int64_t width = product.width(), from = chunk * width, here = std::min(width, product.args.out - from);
    multiply(product, desk, from, here, desk.chunk.data());
    if (now.layer != nullptr && now.part == kUp) kernels_.gelu(desk.chunk.data(), rows_ * here);
    return;
  }
  const Layer& layer = *now.layer;
  const int64_t from = chunk * head_dim_;
  multiply(own ? layer.query : layer.cross_query, desk, from, head_dim_, desk.query.data());
  if (own) {
    multiply(layer.key, desk, from, head_dim_, desk.key.data());
    multiply(layer.value, desk, from, head_dim_, desk.value.data());
  }
  const Memory& memory = own ? layer.own : layer.heard;
  const int64_t item = half_ ? 2 : 4, past = past_.load(std::memory_order_relaxed);
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t at = ((own ? row : clip_of_[static_cast<size_t>(row)].load(std::memory_order_relaxed)) * memory.row +
                        chunk * memory.head) *
                       item;
    kernels::QueryAttention args{};
    args.query = desk.query.data() + row * head_dim_;
    args.keys = static_cast<const char*>(memory.keys) + at;
    args.values = static_cast<const char*>(memory.values) + at;
    args.key_stride = args.value_stride = memory.place;
    args.is_bfloat16 = half_;
    args.count = own ? past : frames_;
    args.dim = head_dim_;
    args.own_key = own ? desk.key.data() + row * head_dim_ : nullptr;
    args.own_value = own ? desk.value.data() + row * head_dim_ : nullptr;
    args.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim_)));
    args.scores = desk.scores.data();
    args.output = desk.attended.data() + row * head_dim_;
    kernels_.attention(args);
  }
}

void WhisperDecodeJob::commit(int worker, int number, int64_t chunk) {
  const Phase now = phase(number);
  const Desk& desk = desks_[static_cast<size_t>(worker)];
  if (now.layer != nullptr && (now.part == kOwn || now.part == kCross)) {
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t at = row * head_dim_;
      std::copy_n(desk.attended.data() + at, head_dim_, attended_.data() + row * dim_ + chunk * head_dim_);
      if (now.part != kOwn) continue;
      const Memory& memory = now.layer->own;
      const int64_t past = past_.load(std::memory_order_relaxed);
      const int64_t to = row * memory.row + chunk * memory.head + past * memory.place;
      for (const auto& [values, place] : {std::pair{&desk.key, memory.keys}, std::pair{&desk.value, memory.values}}) {
        if (half_)
          std::copy_n(values->data() + at, head_dim_, static_cast<at::BFloat16*>(place) + to);
        else
          std::copy_n(values->data() + at, head_dim_, static_cast<float*>(place) + to);
      }
    }
    return;
  }
  const Product& product = product_of(now);
  const int64_t width = product.width(), from = chunk * width, here = std::min(width, product.args.out - from);
  for (int64_t row = 0; row < rows_; ++row) {
    const float* result = desk.chunk.data() + row * here;
    float* to = (now.layer == nullptr ? logits_
                 : now.part == kUp    ? between_.data()
                                      : stream_.data()) +
                row * product.args.out + from;
    if (now.layer == nullptr || now.part == kUp)
      std::copy_n(result, here, to);
    else
      for (int64_t i = 0; i < here; ++i) to[i] += result[i];
  }
}

void WhisperDecodeJob::set(const int64_t* ids, const std::vector<int64_t>& clips, int64_t past, float* logits) {
  for (int64_t row = 0; row < rows_; ++row) {
    float* const to = stream_.data() + row * dim_;
    widen(words_, ids[row], dim_, to, false);
    widen(positions_, past, dim_, to, true);
    clip_of_[static_cast<size_t>(row)].store(clips[static_cast<size_t>(row)], std::memory_order_relaxed);
  }
  past_.store(past, std::memory_order_relaxed);
  logits_ = logits;
}

WhisperDecode::WhisperDecode(const Whisper& network) : network_(network) {}
WhisperDecode::~WhisperDecode() = default;

Tensor WhisperDecode::logits(const Tensor& ids, const std::vector<int64_t>& clips, KvCache& cache, KvCache& heard) {
  const int64_t rows = ids.size(0), past = cache.length();
  if (!ids.is_cpu() || past == 0 || cache.batch() != rows) return {};
  if (past >= network_.config.target_positions) return {};  // a whole pass says what is wrong
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  auto now = WhisperDecodeJob::identity_of(network_, cache, heard, rows);
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
