#include "core/models/decoder_layers.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>

#include <algorithm>

#include "core/runtime/recording.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::Linear;
using nn::RmsNorm;

namespace {

// `real`: bool [batch, total], undefined where all are; window: 0 for none. Every query sees itself, padding too:
// nothing reads what it answers, but it stays finite.
Sight sight_of(int64_t past, int64_t time, int64_t window, const Tensor& real, bool with_mask,
               const at::TensorOptions& on) {
  const int64_t total = past + time;
  Sight sight;
  if (window >= total) window = 0;
  if (window > 0 && !with_mask) sight.first_key = std::max<int64_t>(0, past - window + 1);
  const bool all = time == 1 && (window == 0 || !with_mask);
  if (!with_mask && !real.defined()) {
    if (all) return sight;
    sight.causal = past == 0;
    sight.window = window;
    if (sight.causal) return sight;
  }
  const auto integers = on.dtype(at::kLong);
  const Tensor queries = at::arange(past, total, integers).unsqueeze(1);
  const Tensor keys = at::arange(sight.first_key, total, integers).unsqueeze(0);
  Tensor mask = keys <= queries;
  if (window > 0) mask = mask & (keys > queries - window);
  if (real.defined()) {
    const Tensor known = real.narrow(1, sight.first_key, total - sight.first_key).unsqueeze(1).unsqueeze(1);
    mask = (mask & known) | (keys == queries);
  }
  sight.mask = mask.dim() == 2 ? mask.unsqueeze(0).unsqueeze(0) : mask;
  return sight;
}

// Each group of heads / kv_heads queries shares a key and a value.
nn::Attended attend(const Tensor& q, Tensor k, Tensor v, const Sight& sight,
                    const std::optional<nn::Segments>& segments, double dropout, bool with_weights, double cap) {
  if (sight.first_key > 0) {
    const int64_t seen = k.size(2) - sight.first_key;
    k = k.narrow(2, sight.first_key, seen);
    v = v.narrow(2, sight.first_key, seen);
  }
  const int64_t batch = q.size(0), heads = q.size(1), time = q.size(2), groups = k.size(1), dim = q.size(3);
  if (heads != groups && time == 1 && !sight.causal) {
    // The queries of a group are adjacent in time: no key is copied.
    nn::Attended result =
        nn::attend(q.reshape({batch, groups, heads / groups, dim}), k, v, sight.mask, dropout, with_weights, cap);
    result.output = result.output.reshape({batch, heads, 1, dim});
    if (with_weights) result.weights = result.weights.reshape({batch, heads, 1, k.size(2)});
    return result;
  }
  if (heads != groups) {
    const auto for_each_head = [&](const Tensor& shared) {
      return shared.unsqueeze(2).expand({batch, groups, heads / groups, shared.size(2), dim}).flatten(1, 2);
    };
    k = for_each_head(k);
    v = for_each_head(v);
  }
  if (sight.causal && segments) {
    return {nn::attend_causal_each(*segments, q, k, v, sight.window, dropout, cap), Tensor()};
  }
  if (sight.causal) return {nn::attend_causal(q, k, v, sight.window, dropout, cap), Tensor()};
  return nn::attend(q, k, v, sight.mask, dropout, with_weights, cap);
}

}  // namespace

namespace {

int64_t qkv_width(const DecoderLMConfig& c) { return (c.heads + 2 * c.kv_heads) * c.head_dim; }

// Of the tokens in `dim`; 0: all.
Tensor last(const Tensor& tensor, int64_t tokens, int64_t dim = 1) {
  return tokens == 0 ? tensor : tensor.narrow(dim, tensor.size(dim) - tokens, tokens).contiguous();
}

}  // namespace

DecoderAttention::DecoderAttention(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index)
    : Block("DecoderAttention", options),
      layout(c.qkv),
      fused(layout == QkvLayout::kApart ? nullptr
                                        : child<Linear>(layout == QkvLayout::kInOrder ? "qkv_proj" : "wqkv", c.dim,
                                                        qkv_width(c), c.qkv_bias, c.std)),
      query(fused ? nullptr : child<Linear>("q_proj", c.dim, c.heads * c.head_dim, c.qkv_bias, c.std)),
      key(fused ? nullptr : child<Linear>("k_proj", c.dim, c.kv_heads * c.head_dim, c.qkv_bias, c.std)),
      value(fused ? nullptr : child<Linear>("v_proj", c.dim, c.kv_heads * c.head_dim, c.qkv_bias, c.std)),
      output(*child<Linear>(c.names.output, c.heads * c.head_dim, c.dim, c.output_bias, c.std)),
      qk_norm(c.qk_norm),
      query_norm(
          qk_norm == QkNorm::kNone
              ? nullptr
              : child<RmsNorm>("q_norm", c.head_dim * (qk_norm == QkNorm::kHead ? 1 : c.heads), c.eps, c.norm_offset)),
      key_norm(qk_norm == QkNorm::kNone
                   ? nullptr
                   : child<RmsNorm>("k_norm", c.head_dim * (qk_norm == QkNorm::kHead ? 1 : c.kv_heads), c.eps,
                                    c.norm_offset)),
      heads(c.heads),
      kv_heads(c.kv_heads),
      index(static_cast<size_t>(index)),
      windowed(c.is_windowed(index)),
      rotates(c.rotates(index)),
      dropout(c.attention_dropout),
      query_scale(c.query_scale),
      cap(c.attention_cap) {}

DecoderAttention::Heads DecoderAttention::split(const Tensor& x, int64_t queries) const {
  if (layout == QkvLayout::kApart) {
    Tensor q = query->forward(last(x, queries)), k = key->forward(x);
    if (qk_norm == QkNorm::kProjection) {
      q = query_norm->forward(q).first;
      k = key_norm->forward(k).first;
    }
    return {nn::split_heads(q, heads), nn::split_heads(k, kv_heads), nn::split_heads(value->forward(x), kv_heads)};
  }
  const Tensor all = fused->forward(x);
  const int64_t dim = all.size(2) / (heads + 2 * kv_heads), group = heads / kv_heads;
  if (layout == QkvLayout::kInOrder) {
    const Tensor each = nn::split_heads(all, heads + 2 * kv_heads);  // [batch, heads + 2 * kv_heads, time, head_dim]
    return {last(each.narrow(1, 0, heads), queries, 2), each.narrow(1, heads, kv_heads),
            each.narrow(1, heads + kv_heads, kv_heads)};
  }
  const Tensor each = all.view({all.size(0), all.size(1), kv_heads, group + 2, dim}).permute({0, 2, 3, 1, 4});
  return {last(each.narrow(2, 0, group).flatten(1, 2), queries, 2), each.select(2, group), each.select(2, group + 1)};
}

DecoderAttention::Heads DecoderAttention::project(const Tensor& x, int64_t queries, const Angles& angles) const {
  Heads made = split(x, queries);
  if (qk_norm == QkNorm::kHead) {
    made.query = query_norm->forward(made.query).first;
    made.key = key_norm->forward(made.key).first;
  }
  if (rotates) {
    const nn::Rotation& turn = windowed && angles.windowed ? *angles.windowed : angles.full;
    made.query = nn::Rotation{last(turn.cos, queries, 2), last(turn.sin, queries, 2)}.apply(made.query);
    made.key = turn.apply(made.key);
  }
  if (angles.query_scale.defined()) made.query = made.query * last(angles.query_scale, queries, 2);
  if (query_scale != 1) made.query = made.query * query_scale;
  return made;
}

Linears DecoderAttention::inputs() const { return fused != nullptr ? Linears{fused} : Linears{query, key, value}; }

nn::Attended DecoderAttention::forward(const Tensor& x, const Pass& pass) const {
  auto [q, k, v] = project(x, pass.queries, pass.angles);
  if (pass.cache != nullptr) std::tie(k, v) = pass.cache->append(index, k, v);  // [batch, kv_heads, past + time, ...]
  nn::Attended result = attend(q, k, v, windowed ? pass.windowed : pass.full, pass.segments, training() ? dropout : 0,
                               pass.with_weights, cap);
  result.output = watched(x, output.forward(nn::join_heads(result.output)));  // [batch, queries, dim]
  return result;
}

DecoderMLP::DecoderMLP(const ModuleOptions& options, const DecoderLMConfig& c, int64_t intermediate)
    : Block("DecoderMLP", options),
      fused(c.fused_gate ? child<Linear>("gate_up_proj", c.dim, 2 * intermediate, c.mlp_bias, c.std) : nullptr),
      gate(fused ? nullptr : child<Linear>(c.names.gate, c.dim, intermediate, c.mlp_bias, c.std)),
      up(fused ? nullptr : child<Linear>(c.names.up, c.dim, intermediate, c.mlp_bias, c.std)),
      down(*child<Linear>(c.names.down, intermediate, c.dim, c.mlp_bias, c.std)),
      activation(nn::activation(c.activation)) {}

Linears DecoderMLP::inputs() const { return fused != nullptr ? Linears{fused} : Linears{gate, up}; }

Tensor DecoderMLP::forward(const Tensor& x, const Tensor& residual) const {
  Tensor inner;
  if (fused != nullptr) {
    const Tensor both = fused->forward(x);  // [batch, time, 2 * intermediate]
    const int64_t half = both.size(-1) / 2;
    inner = activation(both.narrow(-1, 0, half)) * both.narrow(-1, half, half);
  } else {
    inner = gate->forward(x, activation) * up->forward(x);
  }
  if (!residual.defined()) return watched(x, down.forward(inner));
  return hooked() ? watched(x, down.forward(inner)) + residual : down.forward_add(inner, residual);
}

DecoderExperts::DecoderExperts(const ModuleOptions& options, const DecoderLMConfig& c)
    : Block("DecoderExperts", options),
      router(*child<Linear>("gate", c.dim, c.experts, false, c.std)),
      experts(*child<ModuleList<DecoderMLP>>("experts")),
      per_token(c.experts_per_token),
      norm_weights(c.norm_expert_weights) {
  for (int64_t i = 0; i < c.experts; ++i) experts.add(c, c.expert_intermediate);
}

DecoderExperts::Routed DecoderExperts::forward(const Tensor& x, const Tensor& residual) const {
  const Tensor tokens = x.reshape({-1, x.size(-1)});
  Tensor logits = router.forward(tokens);  // [tokens, experts]
  auto [weights, chosen] = at::topk(at::softmax(logits, -1, at::toOpMathType(logits.scalar_type())), per_token, -1);
  if (norm_weights) weights = weights / weights.sum(-1, true);
  const auto count = static_cast<int64_t>(experts.size());
  const Tensor flat = chosen.flatten();
  const Tensor order = std::get<1>(at::sort(flat, true, 0, false));
  // A gather of copies, whose gradient is a permutation, has a deterministic sum; one of the tokens themselves has not.
  const Tensor copies = tokens.unsqueeze(1).expand({-1, per_token, -1}).reshape({-1, tokens.size(1)});
  const Tensor sorted = copies.index_select(0, order);  // [tokens * per_token, dim], by expert
  const Tensor sizes = at::bincount(flat, {}, count).cpu();
  std::vector<Tensor> outputs;
  int64_t begin = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t size = sizes.const_data_ptr<int64_t>()[i];
    if (size > 0) outputs.push_back(experts[static_cast<size_t>(i)].forward(sorted.narrow(0, begin, size), Tensor()));
    begin += size;
  }
  const Tensor inverse = at::empty_like(order).scatter_(0, order, at::arange(order.size(0), order.options()));
  const Tensor each = at::cat(outputs).index_select(0, inverse).view({-1, per_token, tokens.size(1)});
  const Tensor output = (each * weights.unsqueeze(-1)).sum(1).to(x.scalar_type()).view(x.sizes());
  const Tensor given = watched(x, output);
  return {residual.defined() ? given + residual : given, std::move(logits)};
}

Linears DecoderExperts::linears() const {
  Linears all{&router};
  for (const DecoderMLP* expert : experts) {
    const Linears gates = expert->inputs();
    all.append(gates.begin(), gates.end());
    all.push_back(&expert->down);
  }
  return all;
}

bool DecoderExperts::hooked_anywhere() const {
  return hooked() || std::any_of(experts.begin(), experts.end(), [](const DecoderMLP* one) { return one->hooked(); });
}

DecoderLayer::DecoderLayer(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index)
    : Block("DecoderLayer", options),
      attention(*child<DecoderAttention>(c.names.attention, c, index)),
      mlp(c.has_experts(index) ? nullptr : child<DecoderMLP>(c.names.mlp, c, c.intermediate)),
      experts(c.has_experts(index) ? child<DecoderExperts>(c.names.mlp, c) : nullptr),
      attention_norm(norm_named(c.names.attention_norm, c)),
      mlp_norm(norm_named(c.names.mlp_norm, c)),
      attention_out_norm(norm_named(c.names.attention_out_norm, c)),
      mlp_out_norm(norm_named(c.names.mlp_out_norm, c)),
      residual_scale(c.residual_scale) {}

RmsNorm* DecoderLayer::norm_named(const std::string& name, const DecoderLMConfig& c) {
  return name.empty() ? nullptr : child<RmsNorm>(name, c.dim, c.eps, c.norm_offset);
}

c10::SmallVector<const RmsNorm*, 6> DecoderLayer::norms() const {
  c10::SmallVector<const RmsNorm*, 6> found;
  for (const RmsNorm* norm :
       {attention_norm, mlp_norm, attention_out_norm, mlp_out_norm, attention.query_norm, attention.key_norm}) {
    if (norm != nullptr) found.push_back(norm);
  }
  return found;
}

Linears DecoderLayer::linears() const {
  Linears all = attention.inputs();
  all.push_back(&attention.output);
  if (experts != nullptr) {
    const Linears parts = experts->linears();
    all.append(parts.begin(), parts.end());
    return all;
  }
  const Linears gates = mlp->inputs();
  all.append(gates.begin(), gates.end());
  all.push_back(&mlp->down);
  return all;
}

bool DecoderLayer::hooked_anywhere() const {
  bool any = hooked() || attention.hooked() || (mlp != nullptr ? mlp->hooked() : experts->hooked_anywhere());
  for (const RmsNorm* norm : norms()) any = any || norm->hooked();
  for (const Linear* linear : linears()) any = any || linear->hooked();
  return any;
}

DecoderLayer::Output DecoderLayer::forward(const Tensor& x, const Pass& pass) const {
  nn::Attended attended = attention.forward(before(x), pass);
  auto [output, router_logits] = after(attended.output, last(x, pass.queries));
  return {watched(x, output), std::move(attended.weights), pass.with_router ? std::move(router_logits) : Tensor()};
}

Tensor DecoderLayer::before(const Tensor& x) const {
  return attention_norm != nullptr ? attention_norm->forward(x).first : x;
}

DecoderExperts::Routed DecoderLayer::feed_forward(const Tensor& x, const Tensor& residual) const {
  if (experts != nullptr) return experts->forward(x, residual);
  return {mlp->forward(x, residual), Tensor()};
}

DecoderExperts::Routed DecoderLayer::after(const Tensor& attended, const Tensor& residual) const {
  const Tensor added = branch(attended, attention_out_norm);
  Tensor normed, stream;
  if (mlp_norm != nullptr) {
    std::tie(normed, stream) = mlp_norm->forward(added, residual);
  } else {
    normed = stream = added + residual;
  }
  if (mlp_out_norm == nullptr && residual_scale == 1) return feed_forward(normed, stream);
  auto [output, router_logits] = feed_forward(normed, Tensor());
  return {branch(output, mlp_out_norm) + stream, std::move(router_logits)};
}

Tensor DecoderLayer::branch(const Tensor& output, const RmsNorm* norm) const {
  const Tensor normed = norm != nullptr ? norm->forward(output).first : output;
  return residual_scale == 1 ? normed : normed * residual_scale;
}

DecoderModel::DecoderModel(const ModuleOptions& options, const DecoderLMConfig& c)
    : Block("DecoderModel", options),
      words(*child<Embedding>(c.names.embeddings, c.vocabulary, c.dim, c.padding, c.std)),
      layers(*child<ModuleList<DecoderLayer>>("layers")),
      norm(*child<RmsNorm>("norm", c.dim, c.eps, c.norm_offset)),
      rotary(c.rope, c.head_dim, c.positions, c.partial_rotary),
      local_rotary(c.has_local_rope
                       ? std::make_unique<nn::Rotary>(c.local_rope, c.head_dim, c.positions, c.partial_rotary)
                       : nullptr),
      window(c.window),
      embedding_scale(c.embedding_scale),
      input_scale(c.input_scale),
      position_scale_beta(c.position_scale_beta),
      position_scale_length(c.position_scale_length) {
  TORCH_CHECK(!local_rotary || !(rotary.depends_on_length() || local_rotary->depends_on_length()),
              "RoPE scalings that depend on the length of the text ('dynamic', 'longrope') are not supported with a "
              "RoPE of windowed layers");
  for (int64_t i = 0; i < c.layers; ++i) layers.add(c, i);
}

DecoderOutput DecoderModel::forward(const DecoderLMInputs& inputs, bool hidden_states, bool attentions) const {
  const bool embedded = inputs.embeddings.defined();
  Tensor x = embedded ? inputs.embeddings : embed(inputs.ids);  // [batch, time, dim]
  const int64_t time = x.size(1);
  const Places where = inputs.lengths ? Places() : places(inputs);
  Pass pass = inputs.lengths ? prepare_packed(inputs, x, attentions) : prepare(inputs, where, x, attentions);
  pass.with_router = inputs.router_logits;
  std::optional<Pass> last_pass;
  if (inputs.wanted > 0 && inputs.wanted < time && is_inference() && !inputs.lengths) {
    const bool looked_at = hidden_states || attentions || pass.with_router || hooked() || norm.hooked();
    const bool cut = !looked_at && layers.size() > 0 && !layers.items.back()->hooked_anywhere();
    if (cut) last_pass = prepare(inputs, where, x, attentions, inputs.wanted);
  }
  const auto in_rows = [&](const Tensor& states) { return pass.segments ? pass.segments->pad(states) : states; };
  if (pass.segments) x = pass.segments->pack(x);  // [1, batch * time, dim]
  const Tensor read = x;
  x = scaled(x);
  DecoderOutput result;
  for (DecoderLayer* layer : layers) {
    if (hidden_states) result.hidden_states.push_back(in_rows(x));
    const bool again = pass.cache == nullptr && nn::should_checkpoint(*this);
    const Pass& mine = last_pass && layer == layers.items.back() ? *last_pass : pass;
    DecoderLayer::Output output = again ? again_later(*layer, x, pass) : layer->forward(x, mine);
    x = std::move(output.stream);
    if (attentions) result.attentions.push_back(std::move(output.attention));
    if (output.router_logits.defined()) result.router_logits.push_back(std::move(output.router_logits));
  }
  x = in_rows(norm.forward(x).first);
  result.last_hidden_state = watched(embedded ? inputs.embeddings : inputs.ids, x);
  if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
  if (pass.cache == nullptr) return result;
  if (rotary.depends_on_length()) {
    keep_inputs(*pass.cache, read, where.positions);
    note_angles(*pass.cache, pass.cache->length(), *where.length);
  }
  pass.cache->advance(time);
  return result;
}

void DecoderModel::keep_inputs(nn::KvCache& cache, const Tensor& x, const Tensor& positions) const {
  const int64_t batch = x.size(0), time = x.size(1);
  const Tensor places = positions.to(x.device(), at::kLong).expand({batch, time}).unsqueeze(1).unsqueeze(3);
  cache.append(layers.items.size(), x.unsqueeze(1), places);
}

void DecoderModel::note_angles(nn::KvCache& cache, int64_t past, int64_t length) const {
  const int64_t angles = rotary.angles(length);
  cache.set_angles(past == 0 || cache.angles() == angles ? angles : nn::kMixedAngles);
}

// Packed embeddings have no dtype to tell that of the network by.
Tensor DecoderModel::embed(const Tensor& ids) const {
  const Tensor found = words.forward(ids, norm.weight.scalar_type());
  // The scale is rounded to the network's dtype, as Gemma's is.
  return embedding_scale == 1 ? found : found * at::scalar_tensor(embedding_scale, found.options().device(at::kCPU));
}

Tensor DecoderModel::scaled(const Tensor& embeddings) const {
  return input_scale == 1 ? embeddings : embeddings * input_scale;
}

Angles DecoderModel::angles(const nn::Rotation& full, const Tensor& positions, at::ScalarType dtype) const {
  Angles made{full, local_rotary ? std::optional(local_rotary->at(positions, dtype)) : std::nullopt};
  if (position_scale_beta == 0) return made;
  const Tensor turns = at::floor(positions.to(at::kFloat) / position_scale_length);
  made.query_scale = (1 + position_scale_beta * at::log1p(turns)).to(dtype).unsqueeze(1).unsqueeze(-1);
  return made;
}

DecoderModel::Places DecoderModel::places(const DecoderLMInputs& inputs) const {
  const Tensor& given = inputs.embeddings.defined() ? inputs.embeddings : inputs.ids;
  const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0, time = given.size(1);
  const at::TensorOptions on = at::TensorOptions().device(given.device());
  Places made{inputs.mask.defined() ? inputs.mask.to(on.dtype(at::kBool)) : Tensor(), inputs.positions, {}};
  if (!made.positions.defined() && !made.real.defined()) made.length = past + time;
  if (!made.positions.defined() && made.real.defined()) {
    made.positions = (made.real.to(at::kLong).cumsum(1) - 1).clamp_min(0).narrow(1, past, time);
  } else if (!made.positions.defined()) {
    made.positions = at::arange(past, past + time, on.dtype(at::kLong)).unsqueeze(0);
  }
  if (!rotary.depends_on_length()) return made;
  if (!made.length) {
    const Tensor& at = made.positions;
    made.length = at.is_meta() || at.numel() == 0 ? 0 : at.max().item<int64_t>() + 1;
  }
  if (inputs.text_length) made.length = std::max(*made.length, *inputs.text_length);
  return made;
}

Pass DecoderModel::prepare(const DecoderLMInputs& inputs, const Places& places, const Tensor& x, bool attentions,
                           int64_t wanted) const {
  const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0, time = x.size(1);
  const at::TensorOptions on = at::TensorOptions().device(x.device());
  Tensor real = places.real;
  // Kernels are faster without a mask; on other devices the question would wait for them.
  if (real.defined() && real.is_cpu() && real.all().item<bool>()) real = Tensor();
  const int64_t queries = wanted > 0 ? wanted : time;
  const auto see = [&](int64_t wide) { return sight_of(past + time - queries, queries, wide, real, attentions, on); };
  const nn::Rotation rotation = inputs.is_guess ? rotary.at_each(places.positions, x.scalar_type())
                                                : rotary.at(places.positions, x.scalar_type(), places.length);
  return {angles(rotation, places.positions, x.scalar_type()),
          see(0),
          window > 0 ? see(window) : Sight(),
          {},
          inputs.cache,
          attentions,
          wanted};
}

Pass DecoderModel::prepare_packed(const DecoderLMInputs& inputs, const Tensor& x, bool attentions) const {
  auto segments = nn::Segments::of_lengths(x.size(0), x.size(1), *inputs.lengths, x.device());
  const Tensor positions = inputs.positions.defined() ? inputs.positions.expand({x.size(0), x.size(1)}).reshape({1, -1})
                                                      : segments.positions();
  const auto see = [&](int64_t wide) {
    Sight sight;
    sight.causal = !attentions;
    sight.window = wide;
    if (sight.causal) return sight;
    // A caller that requests the attention weights also has the memory for their mask.
    const Tensor number = segments.numbers(), place = segments.positions();
    const Tensor before = place.unsqueeze(2) - place.unsqueeze(1);  // [1, queries, keys]
    Tensor mask = (number.unsqueeze(2) == number.unsqueeze(1)) & (before >= 0);
    if (wide > 0) mask = mask & (before < wide);
    sight.mask = mask.unsqueeze(1);
    return sight;
  };
  Pass pass{angles(rotary.at(positions, x.scalar_type()), positions, x.scalar_type()),
            see(0),
            window > 0 ? see(window) : Sight(),
            {},
            nullptr,
            attentions};
  pass.segments = std::move(segments);
  return pass;
}

DecoderLayer::Output DecoderModel::again_later(DecoderLayer& layer, const Tensor& x, const Pass& pass) {
  const bool with_router = pass.with_router && layer.experts != nullptr;
  // Nothing but x takes part in the gradient, so the rest may stay with the function.
  std::vector<Tensor> outputs =
      nn::checkpoint(layer, {x}, [&layer, pass, with_router](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        DecoderLayer::Output output = layer.forward(in[0], pass);
        std::vector<Tensor> all{output.stream};
        if (pass.with_weights) all.push_back(output.attention);
        if (with_router) all.push_back(output.router_logits);
        return all;
      });
  return {outputs[0], pass.with_weights ? outputs[1] : Tensor(), with_router ? outputs.back() : Tensor()};
}

}  // namespace voxtorch::models
