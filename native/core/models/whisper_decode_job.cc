#include "core/models/whisper_decode_job.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace voxtorch::models {

using at::Tensor;
using kernels::FewRows;
using nn::KvCache;
using nn::Linear;

namespace {

// Of a chunk: some microseconds.
constexpr int64_t kChunkWeights = 1 << 15;

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

void widen(const Tensor& table, int64_t row, int64_t dim, float* to, bool adds) {
  const auto from = [&](int64_t i) {
    if (table.scalar_type() == at::kFloat) return table.const_data_ptr<float>()[row * dim + i];
    if (table.scalar_type() == at::kHalf) return static_cast<float>(table.const_data_ptr<at::Half>()[row * dim + i]);
    return static_cast<float>(table.const_data_ptr<at::BFloat16>()[row * dim + i]);
  };
  for (int64_t i = 0; i < dim; ++i) to[i] = adds ? to[i] + from(i) : from(i);
}

}  // namespace

int64_t WhisperDecodeJob::Product::width() const { return chunk_width(args.in, args.out); }

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
      type_(kernels::weight_type_of(network.model.decoder.words.weight.scalar_type())),
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
  args.type = quantized ? FewRows::Weight::int8 : type_;
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
  result.args.type = type_;
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
  const int64_t item = kernels::block_size(type_).bytes, past = past_.load(std::memory_order_relaxed);
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t at = ((own ? row : clip_of_[static_cast<size_t>(row)].load(std::memory_order_relaxed)) * memory.row +
                        chunk * memory.head) *
                       item;
    kernels::QueryAttention args{};
    args.query = desk.query.data() + row * head_dim_;
    args.keys = static_cast<const char*>(memory.keys) + at;
    args.values = static_cast<const char*>(memory.values) + at;
    args.key_stride = args.value_stride = memory.place;
    args.type = type_;
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
        if (type_ == FewRows::Weight::bfloat16)
          std::copy_n(values->data() + at, head_dim_, static_cast<at::BFloat16*>(place) + to);
        else if (type_ == FewRows::Weight::float16)
          std::copy_n(values->data() + at, head_dim_, static_cast<at::Half*>(place) + to);
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

}  // namespace voxtorch::models
