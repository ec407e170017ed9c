#include "core/models/decoder_lm_decode.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/kernels/decode_attention/args.h"
#include "core/kernels/decode_attention/decode_attention.h"
#include "core/kernels/rotary_append/rotary_append.h"
#include "core/runtime/recording.h"

namespace voxtorch::models {

using at::Tensor;
using kernels::Projection;
using nn::Linear;

namespace {

uintptr_t number(const void* address) { return reinterpret_cast<uintptr_t>(address); }
uintptr_t version_of(const Tensor& tensor) {
  return tensor.is_inference() ? 0 : static_cast<uintptr_t>(tensor._version());
}

// Adds what a graph reads of a tensor; of one that is copied for it, its version too.
void add(std::vector<uintptr_t>& identity, const Tensor& tensor, bool copied = false) {
  identity.push_back(tensor.defined() ? number(tensor.const_data_ptr()) : 0);
  identity.push_back(tensor.defined() ? static_cast<uintptr_t>(tensor.scalar_type()) : 0);
  if (copied) identity.push_back(tensor.defined() ? version_of(tensor) : 0);
}

// GGUF's blocks are for the CPU alone.
bool add(std::vector<uintptr_t>& identity, const nn::QuantizedWeight& weight) {
  add(identity, weight.codes);
  identity.push_back(static_cast<uintptr_t>(weight.type));
  return !kernels::is_blocks(weight.type) || weight.codes.is_cpu();
}

// Whether the first half of the rows ends where a scale of NF4 does.
bool halves(const Linear& linear) {
  const auto& quantized = linear.quantized();
  if (!quantized || quantized->block == 0 || kernels::is_blocks(quantized->type)) return true;
  const int64_t half = quantized->out / 2 * quantized->in;
  return half % quantized->block == 0 && half % 2 == 0;
}

// In a projection's columns by group: those of all queries, then of all keys, then of all values.
Tensor in_order(const DecoderLMConfig& c, const at::TensorOptions& integers) {
  const int64_t group = c.heads / c.kv_heads;
  const Tensor all = at::arange(c.kv_heads * (group + 2) * c.head_dim, integers).view({c.kv_heads, group + 2, -1});
  return at::cat(
      {all.narrow(1, 0, group).flatten(), all.select(1, group).flatten(), all.select(1, group + 1).flatten()});
}

// Whether a layer is a plain projection with one adapter at most.
bool add(std::vector<uintptr_t>& identity, const Linear& linear, at::ScalarType type) {
  if (linear.hooked() || (linear.bias.defined() && linear.bias.scalar_type() != type)) return false;
  if (const auto& quantized = linear.quantized()) {
    if (!add(identity, *quantized)) return false;
    add(identity, quantized->absmax, true);
    add(identity, quantized->nested_absmax, true);
    add(identity, quantized->nested_offset, true);
  } else {
    if (linear.weight.scalar_type() != type || linear.weight.dim() != 2) return false;
    add(identity, linear.weight);
  }
  add(identity, linear.bias, true);
  const auto adapters = linear.slot().active();
  identity.push_back(adapters ? 1 : 0);
  if (!adapters) return true;
  if (adapters->a.size() != 1 || adapters->magnitude || adapters->a[0].scalar_type() == at::kLong) return false;
  if (linear.training() && adapters->dropout > 0) return false;
  add(identity, adapters->a[0], true);
  add(identity, adapters->b[0], true);
  identity.push_back(static_cast<uintptr_t>(adapters->a[0].size(0)));
  identity.push_back(std::bit_cast<uintptr_t>(adapters->scaling[0]));
  return true;
}

}  // namespace

bool DecoderDecode::identify(const Tensor& ids, const Tensor& mask, const Tensor& shift, int64_t length) {
  const DecoderModel& model = network_.model;
  const at::ScalarType type = model.norm.weight.scalar_type();
  if (!is_inference() || at::autocast::is_autocast_enabled(ids.device().type())) return false;
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) return false;
  if (network_.config.head_dim > kernels::kMostDecodeDim) return false;
  // Which experts a token needs is known only in the middle of a layer.
  if (network_.config.experts > 0) return false;
  if (model.position_scale_beta != 0 && length > model.position_scale_length) return false;
  const int64_t angles = model.rotary.angles(length);
  // Each further token has angles of its own, or all are computed again for new ones.
  if (!model.rotary.has_two_sets() && angles != 0) return false;
  if (model.rotary.has_two_sets() && caches_.front()->angles() != angles) return false;
  if (model.hooked() || model.words.hooked() || model.norm.hooked()) return false;
  if (model.words.adapters()->active()) return false;
  Identity& result = now_;
  result.clear();
  result.push_back(static_cast<uintptr_t>(ids.size(0)));
  result.push_back(static_cast<uintptr_t>(angles));
  if (!ids.is_cpu() && network_.config.attention_cap > 0) return false;
  if (ids.is_cpu()) {
    if (ids.size(0) > kernels::kMostStepRows) return false;
    result.push_back(static_cast<uintptr_t>(at::get_num_threads()));
  } else {
    add(result, mask);
    add(result, shift);
  }
  if (const auto& packed = model.words.quantized()) {
    if (!add(result, *packed)) return false;
  } else {
    if (model.words.weight.scalar_type() != type) return false;
    add(result, model.words.weight);
  }
  add(result, model.norm.weight, true);
  for (const DecoderLayer* layer : model.layers) {
    const DecoderAttention& attention = layer->attention;
    const DecoderMLP& mlp = *layer->mlp;
    if (layer->hooked() || attention.hooked() || mlp.hooked()) return false;
    if (attention.training() && attention.dropout > 0) return false;
    for (const nn::RmsNorm* norm : layer->norms()) {
      if (norm->hooked() || norm->weight.scalar_type() != type) return false;
      add(result, norm->weight, true);
    }
    for (const Linear* linear : layer->linears()) {
      if (!add(result, *linear, type)) return false;
    }
    if (mlp.fused != nullptr && !halves(*mlp.fused)) return false;
    for (nn::KvCache* cache : caches_) {
      const auto [keys, values] = cache->memory(attention.index, 1);
      if (keys.scalar_type() != type) return false;
      add(result, keys);
      add(result, values);
      result.push_back(static_cast<uintptr_t>(keys.size(2)));
    }
  }
  const auto own = network_.own_head();
  const Linear* const head = own ? own.get() : network_.lm_head;
  result.push_back(number(head));
  if (head != nullptr && !add(result, *head, type)) return false;
  return true;
}

namespace {

Projection projection_of(const nn::QuantizedWeight& weight) {
  Projection result;
  result.weight = weight.codes;
  result.out = weight.out;
  if (kernels::is_blocks(weight.type)) {
    result.blocks = weight.type;
  } else {
    result.scale = weight.block == 0 ? weight.absmax : weight.scales();
    result.block = weight.block;
  }
  return result;
}

}  // namespace

Projection DecoderDecode::projection(const Linear& linear) {
  Projection result;
  const at::ScalarType type = network_.model.norm.weight.scalar_type();
  if (const auto& quantized = linear.quantized()) {
    result = projection_of(*quantized);
  } else {
    result.weight = linear.weight;
    result.out = linear.weight.size(0);
  }
  result.bias = linear.bias;
  if (auto adapters = linear.slot().active()) {
    result.lora_a = adapters->a[0].to(type);
    result.lora_b = adapters->b[0].to(type);
    result.lora_scaling = adapters->scaling[0];
    adapters_.push_back(std::move(adapters));
  }
  return result;
}

std::vector<Projection> DecoderDecode::projections(const Linears& linears) {
  std::vector<Projection> result;
  for (const Linear* linear : linears) result.push_back(projection(*linear));
  return result;
}

// Gate and up, which are the halves of one projection where the network has one for both.
std::vector<Projection> DecoderDecode::gates(const DecoderMLP& mlp) {
  std::vector<Projection> made = projections(mlp.inputs());
  if (mlp.fused == nullptr) return made;
  const Projection whole = std::move(made[0]);
  const int64_t half = whole.out / 2;
  made.clear();
  for (const int64_t begin : {int64_t{0}, half}) {
    const auto rows = [&](const Tensor& tensor) {
      return tensor.defined() ? tensor.narrow(0, begin * tensor.size(0) / whole.out, tensor.size(0) / 2) : Tensor();
    };
    Projection one = whole;
    one.out = half;
    one.weight = rows(whole.weight);
    one.scale = rows(whole.scale);
    one.bias = rows(whole.bias);
    one.lora_b = rows(whole.lora_b);
    made.push_back(std::move(one));
  }
  return made;
}

void DecoderDecode::prepare(const Tensor& ids, const Tensor& mask, const Tensor& shift, int64_t length) {
  const DecoderLMConfig& c = network_.config;
  const DecoderModel& model = network_.model;
  graph_.reset();
  graph_logits_ = Tensor();
  warm_ = false;
  adapters_.clear();
  layers_.clear();
  for (const DecoderLayer* layer : model.layers) {
    const DecoderAttention& attention = layer->attention;
    const DecoderMLP& mlp = *layer->mlp;
    std::vector<Tensor> keys, values;
    for (nn::KvCache* cache : caches_) {
      auto [of_keys, of_values] = cache->memory(attention.index, 1);
      keys.push_back(std::move(of_keys));
      values.push_back(std::move(of_values));
    }
    const size_t table = !attention.rotates ? 2 : attention.windowed && model.local_rotary ? 1 : 0;
    layers_.push_back({layer,
                       projections(attention.inputs()),
                       {projection(attention.output)},
                       gates(mlp),
                       {projection(mlp.down)},
                       std::move(keys),
                       std::move(values),
                       attention.windowed ? c.window : 0,
                       table});
  }
  const auto own = network_.own_head();
  const Linear* const head = own ? own.get() : network_.lm_head;
  head_.clear();
  if (head != nullptr) {
    head_.push_back(projection(*head));
  } else if (const auto& packed = model.words.quantized()) {
    head_.push_back(projection_of(*packed));
  } else {
    head_.emplace_back();
    head_[0].weight = model.words.weight;
    head_[0].out = model.words.weight.size(0);
  }
  const at::TensorOptions integers = at::TensorOptions().device(ids.device()).dtype(at::kLong);
  const int64_t rows = ids.size(0);
  int64_t capacity = 0;
  for (const Tensor& keys : layers_[0].keys) capacity = std::max(capacity, keys.size(2));
  const Tensor places = at::arange(capacity, integers).unsqueeze(0);
  const at::ScalarType type = model.norm.weight.scalar_type();
  const Angles angles = model.angles(model.rotary.at(places, type, length), places, type);
  const auto table = [](const nn::Rotation& one) { return Table{one.cos.flatten(0, 2), one.sin.flatten(0, 2)}; };
  tables_ = {table(angles.full)};
  tables_.push_back(angles.windowed ? table(*angles.windowed) : tables_[0]);
  tables_.push_back({at::ones_like(tables_[0].cos), at::zeros_like(tables_[0].sin)});
  if (ids.is_cpu()) {
    step_ = step(at::get_num_threads());
    return;
  }
  columns_ = c.qkv == QkvLayout::kByGroup ? in_order(c, integers) : Tensor();
  ids_ = at::empty({rows}, integers);
  position_ = at::empty({1}, integers);
  counted_ = -1;
  mask_ = mask;
  shift_ = shift.defined() ? shift.flatten() : Tensor();
  tickets_ = at::zeros({kernels::decode_tickets(rows, c.heads, c.kv_heads)}, integers.dtype(at::kInt));
}

// Weights that are not in codes go through ATen's products where there are more rows than the kernel takes.
Tensor DecoderDecode::product(const Tensor& x, const std::vector<Projection>& projections) const {
  bool joined = x.size(0) <= kernels::kMostJoinedRows;
  if (!joined) {
    joined = true;
    for (const Projection& one : projections) joined = joined && one.scale.defined();
  }
  return joined ? kernels::few_rows_joined(x, projections) : kernels::joined_in_parts(x, projections, {});
}

Tensor DecoderDecode::compute() {
  const DecoderLMConfig& c = network_.config;
  const DecoderModel& model = network_.model;
  const int64_t rows = ids_.size(0);
  const bool few = rows <= kernels::kMostJoinedRows;
  const Tensor places = shift_.defined() ? position_ + shift_ : position_;
  std::vector<Table> turns;  // [rows or 1, rotated / 2]
  for (size_t i = 0; i < tables_.size(); ++i) {
    const bool used = std::any_of(layers_.begin(), layers_.end(), [i](const Layer& one) { return one.table == i; });
    if (used) turns.push_back({tables_[i].cos.index_select(0, places), tables_[i].sin.index_select(0, places)});
    if (!used) turns.emplace_back();
  }
  const std::string gated = c.activation + "_mul";
  const std::optional<Tensor> mask = mask_.defined() ? std::optional<Tensor>(mask_) : std::nullopt;
  const double scale = c.query_scale / std::sqrt(static_cast<double>(c.head_dim));
  const auto read = [](const nn::RmsNorm* norm, const Tensor& added, const Tensor& stream) {
    if (norm != nullptr) return norm->forward(added, stream);
    const Tensor sum = stream.defined() ? added + stream : added;
    return std::pair(sum, sum);
  };
  Tensor added = model.scaled(model.embed(ids_)), stream;  // [rows, dim]
  for (Layer& layer : layers_) {
    const DecoderLayer& parts = *layer.layer;
    Tensor normed;
    std::tie(normed, stream) = read(parts.attention_norm, added, stream);
    Tensor qkv = product(normed, layer.inputs);  // [rows, (heads + 2 * kv_heads) * head_dim]
    if (columns_.defined()) qkv = qkv.index_select(1, columns_);
    if (parts.attention.query_norm != nullptr) qkv = with_normed_heads(parts.attention, qkv);
    const auto& [cos, sin] = turns[layer.table];
    Tensor &keys = layer.keys.front(), &values = layer.values.front();
    const Tensor query = kernels::rotary_append_(qkv, cos, sin, keys, values, position_, c.heads);
    const Tensor attended = kernels::decode_attention(query, keys, values, position_, mask, layer.window, scale,
                                                      tickets_);  // [rows, heads * head_dim]
    std::tie(normed, stream) =
        read(parts.mlp_norm, parts.branch(product(attended, layer.output), parts.attention_out_norm), stream);
    const bool coded = layer.gates[0].scale.defined() && layer.gates[1].scale.defined();
    const Tensor inner = few || coded
                             ? kernels::few_rows_joined(normed, layer.gates, gated)
                             : parts.mlp->activation(kernels::joined_in_parts(normed, {layer.gates[0]}, {})) *
                                   kernels::joined_in_parts(normed, {layer.gates[1]}, {});  // [rows, intermediate]
    added = parts.branch(product(inner, layer.down), parts.mlp_out_norm);
  }
  const Tensor hidden = model.norm.forward(added, stream).first;
  position_.add_(1);
  return network_.capped(product(network_.scaled(hidden), head_));
}

Tensor DecoderDecode::with_normed_heads(const DecoderAttention& attention, const Tensor& qkv) const {
  const int64_t dim = network_.config.head_dim, rows = qkv.size(0);
  const auto part = [&](int64_t first, int64_t heads, const nn::RmsNorm* norm) {
    const Tensor heads_of = qkv.narrow(1, first * dim, heads * dim);
    if (norm == nullptr) return heads_of;
    return norm->forward(heads_of.reshape({rows, -1, norm->weight.size(0)})).first.flatten(1);
  };
  const int64_t heads = attention.heads, kv_heads = attention.kv_heads;
  return at::cat({part(0, heads, attention.query_norm), part(heads, kv_heads, attention.key_norm),
                  part(heads + kv_heads, kv_heads, nullptr)},
                 1);
}

void DecoderDecode::keep_inputs(const Tensor& ids, const Tensor& shift) const {
  const DecoderModel& model = network_.model;
  if (!model.rotary.depends_on_length()) return;
  nn::KvCache& cache = *caches_.front();
  const Tensor positions =
      shift.defined() ? shift + cache.length() : at::full({ids.size(0), 1}, cache.length(), ids.options());
  model.keep_inputs(cache, model.embed(ids).unsqueeze(1), positions);
  // identify() takes no others.
  if (!model.rotary.has_two_sets() && cache.angles() != 0) cache.set_angles(nn::kMixedAngles);
}

int64_t DecoderDecode::length() const {
  int64_t most = 0;
  for (const nn::KvCache* cache : caches_) most = std::max(most, cache->length());
  return most;
}

std::unique_ptr<kernels::DecodeStep> DecoderDecode::step(int workers) const {
  const DecoderModel& model = network_.model;
  kernels::StepNetwork network;
  if (!model.words.quantized()) network.words = model.words.weight;
  std::vector<Table> tables;  // in float32, once for all layers
  for (const Table& one : tables_) tables.push_back({one.cos.to(at::kFloat), one.sin.to(at::kFloat)});
  const DecoderLMConfig& c = network_.config;
  const auto factors = [](const nn::RmsNorm* norm) {
    return norm != nullptr ? norm->factors().to(at::kFloat) : Tensor();
  };
  const auto by_row = [](const std::vector<Tensor>& caches) {
    std::vector<Tensor> rows;
    for (const Tensor& cache : caches) {
      for (int64_t row = 0; row < cache.size(0); ++row) rows.push_back(cache.select(0, row));
    }
    return rows;
  };
  for (const Layer& layer : layers_) {
    const DecoderLayer& parts = *layer.layer;
    network.layers.push_back({factors(parts.attention_norm), factors(parts.mlp_norm), factors(parts.attention_out_norm),
                              factors(parts.mlp_out_norm), factors(parts.attention.query_norm),
                              factors(parts.attention.key_norm), layer.inputs, layer.output, layer.gates, layer.down,
                              by_row(layer.keys), by_row(layer.values), layer.window, tables[layer.table].cos,
                              tables[layer.table].sin});
  }
  network.type = model.norm.weight.scalar_type();
  network.norm = network_.scaled(factors(&model.norm));
  network.head = head_.front();
  network.eps = c.eps;
  network.embedding_scale =
      at::scalar_tensor(c.embedding_scale, at::TensorOptions().dtype(network.type)).item<double>() * c.input_scale;
  network.residual_scale = c.residual_scale;
  network.attention_scale = c.query_scale / std::sqrt(static_cast<double>(c.head_dim));
  network.attention_cap = c.attention_cap;
  network.function = kernels::joined_function(c.activation);
  network.heads = c.heads;
  network.by_group = c.qkv == QkvLayout::kByGroup;
  return kernels::DecodeStep::make(network, workers);
}

Tensor DecoderDecode::run_step(const Tensor& ids, const Tensor& mask, const Tensor& shift, bool only_likeliest) {
  if (!step_) return {};
  // A caller that keeps the last ones keeps their memory.
  if (!step_logits_.defined() || step_logits_.use_count() > 1 || step_logits_.storage().use_count() > 1 ||
      step_logits_.size(0) != ids.size(0) || step_logits_.size(1) != head_.front().out) {
    step_logits_ = at::empty({ids.size(0), head_.front().out}, at::TensorOptions().dtype(at::kFloat));
  }
  const nn::Embedding& words = network_.model.words;
  const Tensor embedded = words.quantized() ? words.forward(ids, at::kFloat) : Tensor();
  auto* const logits = step_logits_.mutable_data_ptr<float>();
  std::vector<int64_t> found, places;
  for (const nn::KvCache* cache : caches_) places.insert(places.end(), cache->batch(), cache->length());
  if (only_likeliest) {
    found = step_->likeliest(ids, embedded, places, mask, shift, logits);
  } else {
    step_->run(ids, embedded, places, mask, shift, logits);
  }
  keep_inputs(ids, shift);
  for (nn::KvCache* cache : caches_) cache->advance(1);
  if (!only_likeliest) return network_.capped(step_logits_);
  return found.empty() ? at::argmax(step_logits_, -1) : at::tensor(found, at::kLong);
}

Tensor DecoderDecode::likeliest(const Tensor& ids, const Tensor& mask, const Tensor& shift, int64_t most_shift) {
  if (!ids.is_cpu() || !ready(ids, mask, shift, most_shift)) return {};
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  return run_step(ids, mask, shift, true);
}

bool DecoderDecode::ready(const Tensor& ids, const Tensor& mask, const Tensor& shift, int64_t most_shift) {
  const auto rows = ids.size(0) / static_cast<int64_t>(caches_.size());
  for (const nn::KvCache* cache : caches_) cache->check(rows, network_.cache_layers());
  const int64_t length = this->length() + 1 + most_shift;
  if (!identify(ids, mask, shift, length)) {
    identity_.clear();
    graph_.reset();
    step_.reset();
    return false;
  }
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  if (now_ != identity_) {
    identity_ = now_;
    try {
      prepare(ids, mask, shift, length);
      // JavaScript may have attached an adapter meanwhile.
      if (!identify(ids, mask, shift, length) || now_ != identity_) {
        identity_.clear();
        return false;
      }
    } catch (...) {
      identity_.clear();
      throw;
    }
  }
  return true;
}

Tensor DecoderDecode::logits(const Tensor& ids, const Tensor& mask, const Tensor& shift, int64_t most_shift) {
  if (!ready(ids, mask, shift, most_shift)) return {};
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  if (ids.is_cpu()) return run_step(ids, mask, shift, false);
  const int64_t past = length();
  if (counted_ != past) position_.fill_(past);
  counted_ = -1;
  ids_.copy_(ids);
  if (warm_ && !graph_ && captures_ && Graph::available(ids.device())) {
    try {
      graph_ = std::make_unique<Graph>(ids.device(), [&] { graph_logits_ = compute(); });
    } catch (const std::exception& error) {
      captures_ = false;
      graph_logits_ = Tensor();
      const auto* const known = dynamic_cast<const c10::Error*>(&error);
      TORCH_WARN_ONCE("a token of ", network_.kind, " is not captured as a graph, but each kernel launched: ",
                      known != nullptr ? known->what_without_backtrace() : error.what());
    }
  }
  Tensor result;
  if (graph_) {
    graph_->replay();
    result = graph_logits_;
  } else {
    result = compute();
    warm_ = true;
  }
  counted_ = past + 1;
  keep_inputs(ids, shift);
  caches_.front()->advance(1);
  return result;
}

}  // namespace voxtorch::models
