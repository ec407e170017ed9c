#include "core/kernels/decode_step/plan.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/kernels/block_quantization.h"
#include "core/kernels/decode_step/screen.h"
#include "core/kernels/decode_step/team.h"
#include "core/kernels/many_rows/args.h"
#include "core/kernels/plain.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kChunkBytes = 64 << 10;  // of weights, some microseconds of reading
constexpr int64_t kColumns = 16;           // chunks of fewer would share a line of the processor's cache
constexpr int64_t kMostParts = 1 << 13;    // of a phase
constexpr int kPartsOfWorker = 8;          // so that the last ones do not wait long for each other

class Builder {
 public:
  Builder(const StepNetwork& network, int workers)
      : network_(network), type_(network.type), workers_(workers), plan_(new StepPlan()) {}

  std::unique_ptr<StepPlan> build() {
    if (!sizes() || !layers()) return nullptr;
    return std::move(plan_);
  }

 private:
  bool fits(const Tensor& tensor, at::ScalarType type) {
    if (!is_plain(tensor, type) || !tensor.is_contiguous()) return false;
    plan_->kept.push_back(tensor.storage());
    return true;
  }

  const float* floats(const Tensor& tensor) {
    if (!tensor.defined()) return nullptr;
    const Tensor copy = tensor.to(at::kFloat).contiguous();
    plan_->kept.push_back(copy.storage());
    return copy.const_data_ptr<float>();
  }

  bool sizes() {
    StepPlan& p = *plan_;
    if (type_ != at::kFloat && type_ != at::kBFloat16 && type_ != at::kHalf) return false;
    if (network_.words.defined() && !fits(network_.words, type_)) return false;
    const std::vector<Tensor>& keys = network_.layers.front().keys;
    p.type = step_type(weight_type_of(type_));
    p.rows = static_cast<int64_t>(keys.size());
    for (const Tensor& one : keys) p.capacities.push_back(one.size(1));
    p.capacity = *std::max_element(p.capacities.begin(), p.capacities.end());
    p.dim = network_.norm.size(0);
    if (network_.words.defined()) {
      p.words = network_.words.const_data_ptr();
      p.words_count = network_.words.size(0);
    }
    p.heads = network_.heads;
    p.kv_heads = keys.front().size(0);
    p.head_dim = keys.front().size(2);
    p.vocabulary = network_.head.out;
    p.eps = network_.eps;
    p.function = network_.function;
    p.by_group = network_.by_group;
    if (p.rows > kMostStepRows) return false;
    p.embedding_scale = static_cast<float>(network_.embedding_scale);
    p.residual_scale = static_cast<float>(network_.residual_scale);
    p.attention_scale = static_cast<float>(network_.attention_scale);
    p.attention_cap = static_cast<float>(network_.attention_cap);
    p.rotated = 2 * network_.layers.front().cos.size(1);
    const Tensor& query_norm = network_.layers.front().query_norm;
    if (query_norm.defined()) p.norm_heads = query_norm.size(0) / p.head_dim;
    if (p.norm_heads > 0 && p.by_group) return false;
    p.qkv_width = (p.heads + 2 * p.kv_heads) * p.head_dim;
    p.inner_width = network_.layers.front().gates.front().out;
    for (const StepLayer& layer : network_.layers) {
      p.low_width = std::max({p.low_width, ranks(layer.inputs), ranks(layer.output), ranks(layer.gates),
                              ranks(layer.down), ranks({network_.head})});
    }
    p.stream = p.memory(p.rows * p.dim);
    p.branch = p.memory(p.rows * p.dim);
    p.qkv = p.memory(p.rows * p.qkv_width);
    p.inner = p.memory(p.rows * p.inner_width);
    p.low = p.memory(p.rows * p.low_width);
    p.pieces = p.memory(p.most_pieces() * p.rows * p.heads * (p.head_dim + 2));
    // Attention takes fewer and longer chunks where there were more.
    p.most_chunks = kMostParts;
    return true;
  }

  bool layers() {
    StepPlan& p = *plan_;
    for (const StepLayer& layer : network_.layers) {
      StepPhase phase;
      phase.norm = floats(layer.attention_norm);
      phase.to = p.qkv;
      phase.width = p.qkv_width;
      if (!add(std::move(phase), layer.inputs)) return false;
      phase = StepPhase();
      for (size_t row = 0; row < layer.keys.size(); ++row) {
        const Tensor &keys = layer.keys[row], &values = layer.values[row];
        if (!fits(keys, type_) || !fits(values, type_) || keys.size(1) != p.capacities[row]) return false;
        phase.keys.push_back(static_cast<char*>(keys.mutable_data_ptr()));
        phase.values.push_back(static_cast<char*>(values.mutable_data_ptr()));
      }
      phase.window = layer.window;
      phase.cos = floats(layer.cos);
      phase.sin = floats(layer.sin);
      phase.query_norm = floats(layer.query_norm);
      phase.key_norm = floats(layer.key_norm);
      p.phases.push_back(std::move(phase));
      phase = StepPhase();
      phase.input = StepPhase::Input::attended;
      if (!add_to_stream(std::move(phase), layer.output, layer.attention_out_norm)) return false;
      phase = StepPhase();
      phase.norm = floats(layer.mlp_norm);
      phase.output = StepPhase::Output::gated;
      phase.to = p.inner;
      phase.width = p.inner_width;
      if (!add(std::move(phase), layer.gates)) return false;
      phase = StepPhase();
      phase.input = StepPhase::Input::inner;
      if (!add_to_stream(std::move(phase), layer.down, layer.mlp_out_norm)) return false;
    }
    StepPhase head;
    head.norm = floats(network_.norm);
    head.width = p.vocabulary;
    if (!add(std::move(head), {network_.head})) return false;
    const StepProduct& words = p.phases.back().products.front();
    // Its bounds are for the inputs of few rows.
    p.screened = !p.many() && words.lora_b == nullptr && HeadScreen::takes(words.weight);
    if (p.screened) prepare(FewRows::Weight::int8, p.dim);
    return true;
  }

  // The phase whose outputs are added, and after it one for their norm.
  bool add_to_stream(StepPhase phase, const std::vector<Projection>& projections, const Tensor& norm) {
    phase.width = plan_->dim;
    phase.to = norm.defined() ? plan_->branch : plan_->stream;
    if (!norm.defined()) phase.output = StepPhase::Output::add;
    if (!add(std::move(phase), projections)) return false;
    if (!norm.defined()) return true;
    StepPhase normed;
    normed.norm = floats(norm);
    normed.adds = true;
    plan_->phases.push_back(std::move(normed));
    return true;
  }

  // Memory for the inputs of such weights.
  void prepare(FewRows::Weight type, int64_t in) {
    const bool many = plan_->many() && has_integer_inputs(type);
    const int64_t bytes =
        many ? plan_->rows * many_rows_bytes(in) : static_cast<int64_t>(prepared_rows_bytes(type, plan_->rows, in));
    plan_->most_prepared = std::max(plan_->most_prepared, bytes);
  }

  static int64_t ranks(const std::vector<Projection>& projections) {
    int64_t sum = 0;
    for (const Projection& one : projections) sum += one.lora_a.defined() ? one.lora_a.size(0) : 0;
    return sum;
  }

  int64_t width_of(StepPhase::Input input) const {
    switch (input) {
      case StepPhase::Input::stream:
        return plan_->dim;
      case StepPhase::Input::attended:
        return plan_->heads * plan_->head_dim;
      case StepPhase::Input::inner:
        return plan_->inner_width;
    }
    return 0;
  }

  // The phase, and before it one for the first halves of its adapters.
  bool add(StepPhase phase, const std::vector<Projection>& projections) {
    const int64_t in = width_of(phase.input);
    StepPhase low;
    low.norm = phase.norm;
    low.input = phase.input;
    low.to = plan_->low;
    low.width = plan_->low_width;
    int64_t column = 0, lora_column = 0;
    for (const Projection& projection : projections) {
      StepProduct product;
      if (!set_weight(product.weight, projection, in)) return false;
      product.column = column;
      if (phase.output != StepPhase::Output::gated) column += projection.out;
      if (projection.lora_a.defined()) {
        StepProduct first;
        first.weight.weight = floats(projection.lora_a);
        first.weight.type = FewRows::Weight::float32;
        first.weight.in = in;
        first.weight.out = product.rank = projection.lora_a.size(0);
        first.column = product.lora_column = lora_column;
        lora_column += product.rank;
        product.lora_b = floats(projection.lora_b);
        product.lora_scaling = static_cast<float>(projection.lora_scaling);
        low.products.push_back(first);
      }
      phase.products.push_back(product);
    }
    if (!low.products.empty()) cut(std::move(low));
    cut(std::move(phase));
    return true;
  }

  bool set_weight(FewRows& weight, const Projection& projection, int64_t in) {
    weight.rows = plan_->rows;
    weight.in = in;
    weight.out = projection.out;
    weight.bias = floats(projection.bias);
    weight.weight = projection.weight.const_data_ptr();
    if (projection.blocks) {
      weight.type = *projection.blocks;
      const auto [weights, bytes] = block_size(weight.type);
      return in % weights == 0 && fits(projection.weight, at::kByte) &&
             projection.weight.numel() == weight.out * (in / weights) * bytes;
    }
    switch (weight_kind(projection)) {
      case JoinedWeight::kValues:
        weight.type = weight_type_of(type_);
        return plan_->rows <= kMostDenseStepRows && fits(projection.weight, type_) &&
               projection.weight.numel() == in * weight.out;
      case JoinedWeight::kInt8:
        weight.type = FewRows::Weight::int8;
        weight.scale = floats(projection.scale.div(127));
        return fits(projection.weight, at::kChar) && projection.weight.numel() == in * weight.out;
      case JoinedWeight::kNf4:
        weight.type = FewRows::Weight::nf4;
        weight.scale = floats(projection.scale);
        weight.block = projection.block;
        weight.values = nf4_values().data();
        return plan_->rows <= kMostDenseStepRows && in % kNf4Group == 0 && weight.block % kNf4Group == 0 &&
               fits(projection.weight, at::kByte) && projection.weight.numel() == in * weight.out / 2;
    }
    return false;
  }

  void cut(StepPhase phase) {
    const bool gated = phase.output == StepPhase::Output::gated;
    int64_t columns = 0, bytes = 0;
    for (StepProduct& product : phase.products) {
      product.weight.rows = plan_->rows;
      columns += product.weight.out;
      const auto [weights, size] = block_size(product.weight.type);
      bytes += product.weight.out * product.weight.in / weights * size;
      prepare(product.weight.type, product.weight.in);
      plan_->most_in = std::max(plan_->most_in, product.weight.in);
    }
    if (gated) columns /= 2;
    int64_t chunk =
        std::min(kChunkBytes * columns / std::max<int64_t>(1, bytes), columns / (workers_ * kPartsOfWorker));
    chunk = std::max(chunk, (columns + kMostParts / 2 - 1) / (kMostParts / 2));
    const int64_t step = plan_->many() ? kPanelOutputs : kColumns;
    chunk = std::max<int64_t>(1, (chunk + step / 2) / step) * step;
    plan_->most_chunk = std::max(plan_->most_chunk, chunk);
    const size_t cut_products = gated ? 1 : phase.products.size();
    for (size_t i = 0; i < cut_products; ++i) {
      const int64_t out = phase.products[i].weight.out;
      for (int64_t begin = 0; begin < out; begin += chunk) {
        phase.chunks.push_back({i, begin, std::min(out, begin + chunk)});
      }
    }
    plan_->phases.push_back(std::move(phase));
  }

  const StepNetwork& network_;
  const at::ScalarType type_;
  const int workers_;
  std::unique_ptr<StepPlan> plan_;
};

}  // namespace

const StepRows& step_rows() { return VOXTORCH_BEST_BUILD(step_rows); }

float* StepPlan::memory(int64_t count) {
  // ATen's memory begins at a line of the processor's cache.
  const Tensor made = at::zeros({std::max<int64_t>(1, count)}, at::TensorOptions().dtype(at::kFloat));
  kept.push_back(made.storage());
  return made.mutable_data_ptr<float>();
}

std::unique_ptr<StepPlan> step_plan(const StepNetwork& network, int workers) {
  return Builder(network, workers).build();
}

}  // namespace voxtorch::kernels
