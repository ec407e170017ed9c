// Greedy decoding of transducers, RNN-T and TDT, in batches by label looping (Bataev et al. 2024,
// https://arxiv.org/abs/2406.06220): the inner loop runs the joint network until each row has found its next token or
// its end, the outer one runs the prediction network for all rows with a new token at once.
#include "core/generation/transducer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/lstm_cell.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/runtime/transfers.h"

namespace voxtorch::generation {

using at::Tensor;

Transducer::Transducer(const char* name, const Tensor& encoder, const Tensor& all_lengths, const Tensor& embedding,
                       at::TensorList lstm, const Tensor& projection, const std::optional<Tensor>& projection_bias,
                       const Tensor& head, const std::optional<Tensor>& head_bias, int64_t blank,
                       at::IntArrayRef durations, int64_t max_symbols, std::string_view activation)
    : embedding(embedding),
      lstm(lstm.vec()),
      projection(projection),
      projection_bias(projection_bias),
      head(head),
      head_bias(head_bias),
      blank(blank),
      max_symbols(max_symbols),
      durations(durations.vec()),
      activation(activation) {
  TORCH_CHECK(encoder.dim() == 3 && encoder.is_floating_point(), name,
              ": encoder must be floating point [batch, frames, dim], got ", encoder.scalar_type(), " ",
              encoder.sizes());
  const int64_t batch = encoder.size(0), dim = encoder.size(2), kinds = this->kinds();
  width_ = encoder.size(1);
  TORCH_CHECK(head.dim() == 2 && head.size(1) == dim && head.size(0) > kinds, name,
              ": head must be [vocabulary + durations, ", dim, "], got ", head.sizes());
  const int64_t vocabulary = head.size(0) - kinds;
  TORCH_CHECK(projection.dim() == 2 && projection.size(0) == dim, name, ": projection must be [", dim, ", ..], got ",
              projection.sizes());
  TORCH_CHECK(embedding.dim() == 2 && embedding.size(0) == vocabulary, name, ": embedding must be [", vocabulary,
              ", ..], got ", embedding.sizes());
  TORCH_CHECK(!lstm.empty() && lstm.size() % 4 == 0, name, ": lstm must have four tensors for each layer, got ",
              lstm.size());
  TORCH_CHECK(all_lengths.dim() == 1 && all_lengths.size(0) == batch && !all_lengths.is_floating_point(), name,
              ": lengths must be integers [", batch, "], got ", all_lengths.scalar_type(), " ", all_lengths.sizes());
  TORCH_CHECK_VALUE(blank >= 0 && blank < vocabulary, name, ": blank must be one of ", vocabulary, " tokens, got ",
                    blank);
  TORCH_CHECK_VALUE(max_symbols > 0, name, ": max_symbols must be positive, got ", max_symbols);
  for (const int64_t duration : durations) {
    TORCH_CHECK_VALUE(duration >= 0 && duration <= (1 << 30), name,
                      ": durations must not be negative or above 2^30, got ", duration);
  }
  TORCH_CHECK_VALUE(activation == "relu" || activation == "tanh" || activation == "sigmoid", name,
                    ": activation must be 'relu', 'tanh' or 'sigmoid', got '", activation, "'");
  const Tensor here = all_lengths.to(at::kCPU, at::kLong).contiguous();
  lengths.assign(here.const_data_ptr<int64_t>(), here.const_data_ptr<int64_t>() + batch);
  for (const int64_t length : lengths) {
    TORCH_CHECK_VALUE(length >= 0 && length <= width_, name, ": lengths must be from 0 to ", width_, ", got ", length);
  }
  frames = encoder.reshape({batch * width_, dim});
}

Tensor Transducer::on_device(const Ids& values) const {
  return upload(values, {static_cast<int64_t>(values.size())}, head.device());
}

Tensor Transducer::joint(const Ids& rows, const Ids& at_frames, const Tensor& predicted) const {
  Ids places;
  for (size_t i = 0; i < rows.size(); ++i) places.push_back(rows[i] * width_ + at_frames[i]);
  const Tensor joined = frames.index_select(0, on_device(places)) + predicted;
  const Tensor hidden = activation == "relu"   ? at::relu(joined)
                        : activation == "tanh" ? at::tanh(joined)
                                               : at::sigmoid(joined);
  return at::linear(hidden, head, head_bias);
}

Predictor::Predictor(const Transducer& transducer, int64_t places) : t_(transducer) {
  const Tensor& states = t_.lstm[1];  // [4 dim, dim]
  for (size_t i = 0; i < t_.lstm.size() / 4; ++i) {
    hidden_.push_back(at::zeros({places, states.size(1)}, states.options()));
    cell_.push_back(at::zeros({places, states.size(1)}, states.options()));
  }
  output_ = at::zeros({places, t_.projection.size(0)}, states.options());
  Ids all;
  for (int64_t place = 0; place < places; ++place) all.push_back(place);
  read(all, Ids(all.size(), t_.blank), all);
}

void Predictor::read(const Ids& from, const Ids& tokens, const Ids& to) {
  const Tensor sources = t_.on_device(from), places = from == to ? sources : t_.on_device(to);
  Tensor x = at::embedding(t_.embedding, t_.on_device(tokens));  // [rows, dim]
  for (size_t i = 0; i < hidden_.size(); ++i) {
    const Tensor* const layer = &t_.lstm[4 * i];
    auto [next_hidden, next_cell] =
        at::lstm_cell(x, {hidden_[i].index_select(0, sources), cell_[i].index_select(0, sources)}, layer[0], layer[1],
                      layer[2], layer[3]);
    hidden_[i].index_copy_(0, places, next_hidden);
    cell_[i].index_copy_(0, places, next_cell);
    x = next_hidden;
  }
  output_.index_copy_(0, places, at::linear(x, t_.projection, t_.projection_bias));
}

Tensor Predictor::of(const Ids& places) const { return output_.index_select(0, t_.on_device(places)); }

namespace {

Ids most_likely(const Tensor& logits) {
  const Tensor ids = logits.argmax(-1).to(at::kCPU).contiguous();
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
}

struct Row {
  int64_t frame = 0, symbols = 0;  // tokens since the last step to another frame
  Ids tokens, frames, durations;
};

std::tuple<Ids, Ids, Ids, Ids> greedy(VOXTORCH_TRANSDUCER_SEARCH) {
  const at::NoGradGuard no_grad;
  const Transducer t("transducer_greedy", VOXTORCH_TRANSDUCER_SEARCH_ARGUMENTS);
  std::vector<Row> rows(static_cast<size_t>(t.batch()));
  Ids active;
  for (int64_t row = 0; row < t.batch(); ++row) {
    if (t.length(row) > 0) active.push_back(row);
  }
  if (!active.empty()) {
    Predictor predictor(t, t.batch());
    while (!active.empty()) {
      Ids searching = std::move(active), found, tokens;
      while (!searching.empty()) {
        Ids frames;
        for (const int64_t row : searching) frames.push_back(rows[static_cast<size_t>(row)].frame);
        const Tensor logits = t.joint(searching, frames, predictor.of(searching));  // [rows, vocabulary + durations]
        const Ids token = most_likely(logits.narrow(1, 0, t.vocabulary()));
        const Ids kind = t.kinds() == 0 ? Ids() : most_likely(logits.narrow(1, t.vocabulary(), t.kinds()));
        Ids left;
        for (size_t i = 0; i < searching.size(); ++i) {
          Row& row = rows[static_cast<size_t>(searching[i])];
          const bool is_blank = token[i] == t.blank;
          int64_t step = t.kinds() == 0 ? (is_blank ? 1 : 0) : t.durations[static_cast<size_t>(kind[i])];
          if (is_blank) {
            step = std::max<int64_t>(step, 1);
          } else {
            row.tokens.push_back(token[i]);
            row.frames.push_back(row.frame);
            // A token of RNN-T lasts for its frame.
            row.durations.push_back(t.kinds() == 0 ? 1 : step);
            if (step == 0 && ++row.symbols >= t.max_symbols) step = 1;
          }
          if (step > 0) row.symbols = 0;
          row.frame += step;
          if (row.frame >= t.length(searching[i])) continue;
          if (is_blank) {
            left.push_back(searching[i]);
          } else {
            found.push_back(searching[i]);
            tokens.push_back(token[i]);
          }
        }
        searching = std::move(left);
      }
      if (!found.empty()) predictor.read(found, tokens, found);
      active = std::move(found);
    }
  }
  Ids tokens, starts, spans, counts;
  for (const Row& row : rows) {
    tokens.insert(tokens.end(), row.tokens.begin(), row.tokens.end());
    starts.insert(starts.end(), row.frames.begin(), row.frames.end());
    spans.insert(spans.end(), row.durations.begin(), row.durations.end());
    counts.push_back(static_cast<int64_t>(row.tokens.size()));
  }
  return {std::move(tokens), std::move(starts), std::move(spans), std::move(counts)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // encoder [batch, frames, dim], lengths [batch] -> for each token of all rows its id, its frame and its duration in
  // frames, and how many tokens each row has. Without durations RNN-T.
  m.def(
      "transducer_greedy(Tensor encoder, Tensor lengths, Tensor embedding, Tensor[] lstm, Tensor projection, Tensor? "
      "projection_bias, Tensor head, Tensor? head_bias, *, int blank, int[] durations=[], int max_symbols=10, str "
      "activation='relu') -> (int[] tokens, int[] frames, int[] durations, int[] counts)",
      greedy);
}

}  // namespace voxtorch::generation
