// Greedy decoding of transducers, RNN-T and TDT, in batches by label looping (Bataev et al. 2024,
// https://arxiv.org/abs/2406.06220): the inner loop runs the joint network until each row has found its next token or
// its end, the outer one runs the prediction network for all rows with a new token at once.
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
#include <string>
#include <vector>

#include "core/runtime/transfers.h"

namespace voxtorch::generation {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Ids = std::vector<int64_t>;

constexpr const char* kName = "transducer_greedy";

struct Weights {
  Tensor embedding;          // [vocabulary, dim]
  std::vector<Tensor> lstm;  // of each layer: input to gates, state to gates, and their biases
  Tensor projection;         // [dim, dim]
  OptionalTensor projection_bias;
  Tensor head;  // [vocabulary + durations, dim]
  OptionalTensor head_bias;
};

// The prediction network: reads the tokens of each row so far.
class Predictor {
 public:
  Predictor(const Weights& weights, int64_t batch, int64_t blank) : w(weights) {
    const Tensor& states = w.lstm[1];  // [4 dim, dim]
    for (size_t i = 0; i < w.lstm.size() / 4; ++i) {
      hidden.push_back(at::zeros({batch, states.size(1)}, states.options()));
      cell.push_back(at::zeros({batch, states.size(1)}, states.options()));
    }
    Ids rows;
    for (int64_t row = 0; row < batch; ++row) rows.push_back(row);
    output = at::zeros({batch, w.projection.size(0)}, states.options());
    read(rows, Ids(static_cast<size_t>(batch), blank));
  }

  void read(const Ids& rows, const Ids& tokens) {
    const Tensor places = on_device(rows);
    Tensor x = at::embedding(w.embedding, on_device(tokens));  // [rows, dim]
    for (size_t i = 0; i < hidden.size(); ++i) {
      const Tensor* const layer = &w.lstm[4 * i];
      auto [next_hidden, next_cell] =
          at::lstm_cell(x, {hidden[i].index_select(0, places), cell[i].index_select(0, places)}, layer[0], layer[1],
                        layer[2], layer[3]);
      hidden[i].index_copy_(0, places, next_hidden);
      cell[i].index_copy_(0, places, next_cell);
      x = next_hidden;
    }
    output.index_copy_(0, places, at::linear(x, w.projection, w.projection_bias));
  }

  Tensor of(const Tensor& places) const { return output.index_select(0, places); }
  Tensor on_device(const Ids& values) const {
    return upload(at::tensor(values, at::TensorOptions().dtype(at::kLong)), w.head.device());
  }

 private:
  const Weights& w;
  std::vector<Tensor> hidden, cell;
  Tensor output;  // [batch, dim]
};

Tensor activate(const std::string& name, const Tensor& x) {
  return name == "relu" ? at::relu(x) : name == "tanh" ? at::tanh(x) : at::sigmoid(x);
}

Ids most_likely(const Tensor& logits) {
  const Tensor ids = logits.argmax(-1).to(at::kCPU).contiguous();
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
}

struct Row {
  int64_t frame = 0, symbols = 0;  // tokens since the last step to another frame
  Ids tokens, frames, durations;
};

std::tuple<Ids, Ids, Ids, Ids> greedy(const Tensor& encoder, const Tensor& given_lengths, const Tensor& embedding,
                                      at::TensorList lstm, const Tensor& projection,
                                      const OptionalTensor& projection_bias, const Tensor& head,
                                      const OptionalTensor& head_bias, int64_t blank, at::IntArrayRef durations,
                                      int64_t max_symbols, std::string_view activation) {
  TORCH_CHECK(encoder.dim() == 3 && encoder.is_floating_point(), kName,
              ": encoder must be floating point [batch, frames, dim], got ", encoder.scalar_type(), " ",
              encoder.sizes());
  const int64_t batch = encoder.size(0), frames = encoder.size(1), dim = encoder.size(2);
  const auto kinds = static_cast<int64_t>(durations.size());
  TORCH_CHECK(head.dim() == 2 && head.size(1) == dim && head.size(0) > kinds, kName,
              ": head must be [vocabulary + durations, ", dim, "], got ", head.sizes());
  const int64_t vocabulary = head.size(0) - kinds;
  TORCH_CHECK(projection.dim() == 2 && projection.size(0) == dim, kName, ": projection must be [", dim, ", ..], got ",
              projection.sizes());
  TORCH_CHECK(embedding.dim() == 2 && embedding.size(0) == vocabulary, kName, ": embedding must be [", vocabulary,
              ", ..], got ", embedding.sizes());
  TORCH_CHECK(!lstm.empty() && lstm.size() % 4 == 0, kName, ": lstm must have four tensors for each layer, got ",
              lstm.size());
  TORCH_CHECK(given_lengths.dim() == 1 && given_lengths.size(0) == batch && !given_lengths.is_floating_point(), kName,
              ": lengths must be integers [", batch, "], got ", given_lengths.scalar_type(), " ",
              given_lengths.sizes());
  TORCH_CHECK_VALUE(blank >= 0 && blank < vocabulary, kName, ": blank must be one of ", vocabulary, " tokens, got ",
                    blank);
  TORCH_CHECK_VALUE(max_symbols > 0, kName, ": max_symbols must be positive, got ", max_symbols);
  for (const int64_t duration : durations) {
    TORCH_CHECK_VALUE(duration >= 0 && duration <= (1 << 30), kName,
                      ": durations must not be negative or above 2^30, got ", duration);
  }
  const std::string act(activation);
  TORCH_CHECK_VALUE(act == "relu" || act == "tanh" || act == "sigmoid", kName,
                    ": activation must be 'relu', 'tanh' or 'sigmoid', got '", act, "'");
  const Tensor lengths = given_lengths.to(at::kCPU, at::kLong).contiguous();
  const auto length = [&](int64_t row) { return lengths.const_data_ptr<int64_t>()[row]; };
  for (int64_t row = 0; row < batch; ++row) {
    TORCH_CHECK_VALUE(length(row) >= 0 && length(row) <= frames, kName, ": lengths must be from 0 to ", frames,
                      ", got ", length(row));
  }

  const at::NoGradGuard no_grad;
  const Weights weights{embedding, lstm.vec(), projection, projection_bias, head, head_bias};
  std::vector<Row> rows(static_cast<size_t>(batch));
  Ids active;
  for (int64_t row = 0; row < batch; ++row) {
    if (length(row) > 0) active.push_back(row);
  }
  if (!active.empty()) {
    Predictor predictor(weights, batch, blank);
    const Tensor flat = encoder.contiguous().view({batch * frames, dim});
    while (!active.empty()) {
      Ids searching = std::move(active), found, tokens;
      while (!searching.empty()) {
        Ids places;
        for (const int64_t row : searching) places.push_back(row * frames + rows[static_cast<size_t>(row)].frame);
        const Tensor joined =
            flat.index_select(0, predictor.on_device(places)) + predictor.of(predictor.on_device(searching));
        const Tensor logits = at::linear(activate(act, joined), head, head_bias);  // [rows, vocabulary + durations]
        const Ids token = most_likely(logits.narrow(1, 0, vocabulary));
        const Ids kind = kinds == 0 ? Ids() : most_likely(logits.narrow(1, vocabulary, kinds));
        Ids left;
        for (size_t i = 0; i < searching.size(); ++i) {
          Row& row = rows[static_cast<size_t>(searching[i])];
          const bool is_blank = token[i] == blank;
          int64_t step = kinds == 0 ? (is_blank ? 1 : 0) : durations[static_cast<size_t>(kind[i])];
          if (is_blank) {
            step = std::max<int64_t>(step, 1);
          } else {
            row.tokens.push_back(token[i]);
            row.frames.push_back(row.frame);
            // A token of RNN-T lasts for its frame.
            row.durations.push_back(kinds == 0 ? 1 : step);
            if (step == 0 && ++row.symbols >= max_symbols) step = 1;
          }
          if (step > 0) row.symbols = 0;
          row.frame += step;
          if (row.frame >= length(searching[i])) continue;
          if (is_blank) {
            left.push_back(searching[i]);
          } else {
            found.push_back(searching[i]);
            tokens.push_back(token[i]);
          }
        }
        searching = std::move(left);
      }
      if (!found.empty()) predictor.read(found, tokens);
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
