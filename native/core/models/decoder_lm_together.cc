// One pass of the decoder for several texts of unlike length: their tokens stand one after the other, so that weights
// are read once for all, and each text attends to its own cache.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/models/decoder_layers.h"
#include "core/models/decoder_lm_decode.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using generation::Piece;

namespace {

// Where a piece stands among the tokens of a pass, and what its tokens see.
struct Span {
  int64_t first, time, past, text_length;
  nn::KvCache* cache;
  int64_t full_from = 0, windowed_from = 0;  // keys before it are seen by none
  Tensor full = {}, windowed = {};           // bool [1, 1, time, keys]; undefined: all, or see `causal`
  bool causal = false;                       // there is no past, and no window that matters
};

Tensor seen(int64_t past, int64_t time, int64_t from, int64_t window, c10::Device device) {
  const auto integers = at::TensorOptions().dtype(at::kLong).device(device);
  const Tensor queries = at::arange(past, past + time, integers).unsqueeze(1);
  const Tensor keys = at::arange(from, past + time, integers).unsqueeze(0);
  const Tensor before = keys <= queries;
  return (window > 0 ? before & (keys > queries - window) : before).unsqueeze(0).unsqueeze(0);
}

Span span_of(const Piece& piece, int64_t first, int64_t window, c10::Device device) {
  Span span{first, piece.time(), piece.cache->length(), piece.text_length, piece.cache};
  const int64_t total = span.past + span.time;
  if (window >= total) window = 0;
  if (window > 0) span.windowed_from = std::max<int64_t>(0, span.past - window + 1);
  if (span.time == 1) return span;
  span.causal = span.past == 0;
  if (!span.causal) span.full = seen(span.past, span.time, 0, 0, device);
  span.windowed = window > 0 ? seen(span.past, span.time, span.windowed_from, window, device) : span.full;
  return span;
}

// q [1, heads, time, head_dim]; keys and values [1, kv_heads, past + time, head_dim] -> like q
Tensor attend(const Tensor& q, Tensor k, Tensor v, const Span& span, bool is_windowed, double cap) {
  const int64_t heads = q.size(1), time = q.size(2), groups = k.size(1), dim = q.size(3);
  const int64_t from = is_windowed ? span.windowed_from : span.full_from;
  const Tensor& mask = is_windowed ? span.windowed : span.full;
  if (from > 0) {
    k = k.narrow(2, from, k.size(2) - from);
    v = v.narrow(2, from, v.size(2) - from);
  }
  if (time == 1) {
    // The queries of a group are adjacent in time: no key is copied.
    const Tensor grouped = q.reshape({1, groups, heads / groups, dim});
    return nn::attend(grouped, k, v, Tensor(), 0, false, cap).output.reshape({1, heads, 1, dim});
  }
  if (heads != groups) {
    const auto for_each_head = [&](const Tensor& shared) {
      return shared.unsqueeze(2).expand({1, groups, heads / groups, shared.size(2), dim}).flatten(1, 2);
    };
    k = for_each_head(k);
    v = for_each_head(v);
  }
  if (!mask.defined() && span.causal) return nn::scaled_attention(q, k, v, std::nullopt, 0, true, cap);
  return nn::attend(q, k, v, mask, 0, false, cap).output;
}

Tensor attend(const DecoderAttention& attention, const Tensor& x, const Angles& angles,
              const std::vector<Span>& spans) {
  const auto [q, k, v] = attention.project(x, 0, angles);  // k and v [1, kv_heads, tokens, head_dim]
  std::vector<Tensor> outputs;
  for (const Span& span : spans) {
    const auto mine = [&](const Tensor& all) { return all.narrow(2, span.first, span.time); };
    const auto [keys, values] = span.cache->append(attention.index, mine(k), mine(v));
    outputs.push_back(attend(mine(q), keys, values, span, attention.windowed, attention.cap));
  }
  const Tensor joined = outputs.size() == 1 ? outputs[0] : at::cat(outputs, 2);
  return attention.output.forward(nn::join_heads(joined));  // [1, tokens, dim]
}

// Whether no hook or gradient uses the parts of a pass.
bool goes_together(const DecoderModel& model) {
  if (model.hooked() || model.words.hooked() || model.norm.hooked()) return false;
  return std::none_of(model.layers.begin(), model.layers.end(), [](const DecoderLayer* layer) {
    return layer->hooked_anywhere() || (layer->attention.training() && layer->attention.dropout > 0);
  });
}

// Each text has the angles of its own length.
nn::Rotation turns(const nn::Rotary& rotary, const Tensor& positions, const std::vector<Span>& spans,
                   at::ScalarType dtype) {
  if (!rotary.depends_on_length()) return rotary.at(positions, dtype);
  std::vector<Tensor> cos, sin;
  for (const Span& span : spans) {
    const nn::Rotation one = rotary.at(positions.narrow(1, span.first, span.time), dtype, span.text_length);
    cos.push_back(one.cos);
    sin.push_back(one.sin);
  }
  return {at::cat(cos, 2), at::cat(sin, 2)};
}

Tensor apart(const DecoderLM& network, const std::vector<Piece>& pieces, c10::Device device) {
  std::vector<Tensor> logits;
  for (const Piece& piece : pieces) {
    DecoderLMInputs inputs;
    if (piece.embeddings.defined()) inputs.embeddings = piece.embeddings.unsqueeze(0);
    if (!piece.embeddings.defined()) inputs.ids = upload(piece.ids, device).unsqueeze(0);
    inputs.cache = piece.cache;
    inputs.text_length = piece.text_length;
    inputs.is_prompt = piece.is_prompt;
    const Tensor hidden = network.forward(inputs).last_hidden_state;
    if (piece.wanted) logits.push_back(network.logits(hidden.select(1, hidden.size(1) - 1).contiguous()));
  }
  return logits.empty() ? Tensor() : at::cat(logits, 0);
}

class Together final : public generation::TogetherReader {
 public:
  explicit Together(const DecoderLM& network) : network_(network) {}

  Tensor read(const std::vector<Piece>& pieces) override {
    if (const Tensor logits = next_tokens(pieces); logits.defined()) return logits;
    decode_.reset();
    return network_.read_together(pieces);
  }

 private:
  // One token of each text, as DecoderDecode computes them; undefined where there is more to read. Both at once, next
  // tokens and prompts, take as long apart (serve text with 8 and 32 clients).
  Tensor next_tokens(const std::vector<Piece>& pieces) {
    const bool alone = pieces.size() < 2 || static_cast<int64_t>(pieces.size()) > kernels::kMostStepRows;
    if (alone || network_.model.rotary.depends_on_length() || !network_.model.norm.weight.is_cpu()) return {};
    std::vector<nn::KvCache*> caches;
    std::vector<Tensor> ids;
    for (const Piece& piece : pieces) {
      if (piece.time() != 1 || piece.embeddings.defined() || !piece.wanted || piece.cache->length() == 0) return {};
      caches.push_back(piece.cache);
      ids.push_back(piece.ids);
    }
    if (!decode_ || decode_->caches() != caches) decode_ = std::make_unique<DecoderDecode>(network_, std::move(caches));
    return decode_->logits(at::cat(ids), {}, {}, 0);
  }

  const DecoderLM& network_;
  std::unique_ptr<DecoderDecode> decode_;
};

}  // namespace

std::unique_ptr<generation::TogetherReader> DecoderLM::together() const { return std::make_unique<Together>(*this); }

int64_t DecoderLM::token_bytes() const {
  const int64_t values = 2 * config.layers * config.kv_heads * config.head_dim;
  const auto size = static_cast<int64_t>(model.norm.weight.element_size());
  return model.rotary.depends_on_length() ? (values + config.dim) * size + 8 : values * size;
}

Tensor DecoderLM::read_together(const std::vector<Piece>& pieces) const {
  TORCH_CHECK(!pieces.empty(), "there is nothing to read");
  const c10::Device device = model.words.weight.device();
  for (const Piece& piece : pieces) piece.cache->check(1, cache_layers());
  if (pieces.size() == 1 || !goes_together(model)) return apart(*this, pieces, device);
  const bool keeps = model.rotary.depends_on_length();
  if (keeps) {
    for (const Piece& piece : pieces) refresh(*piece.cache, Tensor(), piece.text_length, piece.is_prompt);
  }
  std::vector<Span> spans;
  std::vector<Tensor> embedded, ids;
  std::vector<int64_t> positions, wanted;
  int64_t tokens = 0;
  const auto embed_ids = [&] {
    if (!ids.empty()) embedded.push_back(model.embed(upload(at::cat(ids), device)));
    ids.clear();
  };
  for (const Piece& piece : pieces) {
    spans.push_back(span_of(piece, tokens, config.window, device));
    for (int64_t i = 0; i < spans.back().time; ++i) positions.push_back(spans.back().past + i);
    tokens += spans.back().time;
    if (piece.wanted) wanted.push_back(tokens - 1);
    if (piece.embeddings.defined()) {
      embed_ids();
      embedded.push_back(piece.embeddings);
    } else {
      ids.push_back(piece.ids);
    }
  }
  embed_ids();
  Tensor x = (embedded.size() == 1 ? embedded[0] : at::cat(embedded)).unsqueeze(0);  // [1, tokens, dim]
  const Tensor places = upload(positions, {1, tokens}, device), read = x;
  const Angles angles = model.angles(turns(model.rotary, places, spans, x.scalar_type()), places, x.scalar_type());
  x = model.scaled(x);
  for (DecoderLayer* layer : model.layers) {
    x = layer->after(attend(layer->attention, layer->before(x), angles, spans), x).output;
  }
  Tensor result;
  if (!wanted.empty()) {
    const auto count = static_cast<int64_t>(wanted.size());
    const Tensor last = count == tokens ? x : x.index_select(1, upload(wanted, {count}, device));
    result = logits(model.norm.forward(last).first.squeeze(0));
  }
  for (const Span& span : spans) {
    if (keeps) {
      model.keep_inputs(*span.cache, read.narrow(1, span.first, span.time), places.narrow(1, span.first, span.time));
      model.note_angles(*span.cache, span.past, span.text_length);
    }
    span.cache->advance(span.time);
  }
  return result;
}

}  // namespace voxtorch::models
