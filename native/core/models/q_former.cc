// A Q-Former with its queries. In a SALMONN checkpoint both names begin with speech_.
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "core/nn/q_former.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;

struct QFormerInputs {
  at::Tensor frames;                            // [batch, time, encoder_dim]
  std::optional<std::vector<int64_t>> lengths;  // valid frames of each row; none: all
  at::Tensor queries;                           // [1 or batch, queries, dim]; undefined: the network's own
  // The published way: windows that are whole, of all frames whatever the lengths; the rest is dropped.
  bool drop_remainder = false;
};

class QFormerModel : public Module {
 public:
  QFormerModel(const ModuleOptions& options, const Config& config);
  // [batch, windows * queries, dim]; 0 after the windows that a row has.
  at::Tensor forward(const QFormerInputs& inputs) const;

  const nn::QFormerConfig config;
  const at::Tensor query_tokens;  // [1, queries, dim]
  nn::QFormer& qformer;

 private:
  void check(const QFormerInputs& inputs) const;
};

QFormerModel::QFormerModel(const ModuleOptions& options, const Config& given)
    : Module("QFormerModel", options),
      config(given),
      query_tokens(parameter("query_tokens", {1, config.queries, config.dim}, init::normal(config.std))),
      qformer(*child<nn::QFormer>("Qformer", config)) {}

namespace {

// Windows that `frames` frames are read by; the last of them may reach beyond the end.
int64_t window_count(int64_t frames, int64_t window, int64_t stride) {
  if (frames <= window) return 1;
  return 1 + std::min((frames - window + stride - 1) / stride, (frames - 1) / stride);
}

}  // namespace

Tensor QFormerModel::forward(const QFormerInputs& inputs) const {
  check(inputs);
  const int64_t batch = inputs.frames.size(0), time = inputs.frames.size(1);
  const Tensor queries = inputs.queries.defined() ? inputs.queries : query_tokens;
  const Tensor frames = inputs.frames.to(query_tokens.scalar_type());
  const int64_t window = config.window == 0 ? time : config.window;
  const int64_t stride = config.window == 0 ? time : config.stride;
  if (inputs.drop_remainder) {
    return qformer.forward(queries, frames, {(time - window) / stride + 1, window, stride, {}}).flatten(1, 2);
  }
  const std::vector<int64_t> lengths = inputs.lengths.value_or(std::vector<int64_t>(batch, time));
  std::vector<int64_t> counts;
  for (const int64_t length : lengths) counts.push_back(window_count(length, window, stride));
  const int64_t most = *std::max_element(counts.begin(), counts.end());

  const auto whole = at::TensorOptions().dtype(at::kLong);
  const bool full = std::all_of(lengths.begin(), lengths.end(), [&](int64_t length) { return length == time; });
  const Tensor valid = full ? Tensor() : upload(lengths, {batch}, frames.device());
  Tensor result = qformer.forward(queries, frames, {most, window, stride, valid});  // [batch, windows, queries, dim]
  if (std::any_of(counts.begin(), counts.end(), [&](int64_t count) { return count != most; })) {
    const Tensor beyond = at::arange(most, whole).unsqueeze(0) >= at::tensor(counts, whole).unsqueeze(1);
    result = result.masked_fill(upload(beyond, frames.device()).unsqueeze(-1).unsqueeze(-1), 0);
  }
  return result.flatten(1, 2);
}

void QFormerModel::check(const QFormerInputs& inputs) const {
  const Tensor& frames = inputs.frames;
  TORCH_CHECK(frames.dim() == 3 && frames.size(0) > 0 && frames.size(1) > 0 && frames.size(2) == config.encoder_dim,
              "encoder_hidden_states must be [batch, time, ", config.encoder_dim, "], got ", frames.sizes());
  TORCH_CHECK(frames.is_floating_point(), "encoder_hidden_states must have a floating-point dtype, got ",
              frames.scalar_type());
  const int64_t batch = frames.size(0), time = frames.size(1);
  if (inputs.queries.defined()) {
    const Tensor& queries = inputs.queries;
    TORCH_CHECK(queries.dim() == 3 && (queries.size(0) == 1 || queries.size(0) == batch) && queries.size(1) > 0 &&
                    queries.size(2) == config.dim,
                "query_embeds must have the shape [1 or ", batch, ", queries, ", config.dim, "], got ",
                queries.sizes());
  }
  TORCH_CHECK(!inputs.drop_remainder || time >= config.window, "encoder_hidden_states has ", time,
              " frames, fewer than the ", config.window, " of the one window that would not be dropped");
  if (!inputs.lengths) return;
  TORCH_CHECK(static_cast<int64_t>(inputs.lengths->size()) == batch, "lengths must have one number for each of the ",
              batch, " rows, got ", inputs.lengths->size());
  for (const int64_t length : *inputs.lengths) {
    TORCH_CHECK(length >= 1 && length <= time, "lengths must be from 1 to the ", time, " frames, got ", length);
  }
}

namespace {

Tensor forward_q_former(const c10::intrusive_ptr<Module>& self, const Tensor& frames,
                        const std::optional<std::vector<int64_t>>& lengths, const std::optional<Tensor>& queries,
                        bool drop_remainder) {
  return network<QFormerModel>(self, "q_former_forward")
      .forward({frames, lengths, queries.value_or(Tensor()), drop_remainder});
}

const RegisteredModule registered_q_former("q_former", make_module<QFormerModel>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "q_former_forward(__torch__.torch.classes.voxtorch.Module self, Tensor encoder_hidden_states, int[]? "
      "lengths=None, *, Tensor? query_embeds=None, bool drop_remainder=False) -> Tensor last_hidden_state",
      forward_q_former);
}

}  // namespace voxtorch::models
