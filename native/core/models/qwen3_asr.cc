// The audio encoder of Qwen3-ASR (Shi et al. 2026, https://arxiv.org/abs/2601.21337) with the names of transformers'
// Qwen3ASREncoder: log-mel steps in chunks of a second -> three 2-D convolutions -> Whisper's layers, in which a frame
// attends to those of its window of a few chunks.
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <torch/library.h>

#include "core/models/whisper.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Conv2d;
using nn::LayerNorm;
using nn::Linear;

int64_t halved(int64_t length) { return length == 0 ? 0 : (length - 1) / 2 + 1; }
int64_t shortened(int64_t length) { return halved(halved(halved(length))); }

struct Qwen3AsrConfig {
  explicit Qwen3AsrConfig(const Config& config)
      : layer(config),
        channels(config.integer("downsample_hidden_size", 480)),
        chunk(2 * config.integer("n_window", 50)),
        window(config.integer("n_window_infer", 800)),
        positions(config.integer("max_position_embeddings", 13)) {
    layer.key_bias = true;
    layer.std = config.number("initializer_range", 0.02);
    // The original has these keys and does not read them.
    layer.dropout = layer.attention_dropout = layer.activation_dropout = 0;
    constexpr int64_t kMost = int64_t{1} << 24;
    TORCH_CHECK(channels > 0 && chunk > 0 && chunk <= kMost,
                "downsample_hidden_size and n_window must be positive, got ", channels, " and ", chunk / 2);
    TORCH_CHECK(window >= chunk && window <= kMost && window % chunk == 0, "n_window_infer must be a multiple of ",
                chunk, ", 2 * n_window, got ", window);
    TORCH_CHECK(positions >= shortened(chunk), "max_position_embeddings must be at least the ", shortened(chunk),
                " frames of a chunk of 2 * n_window steps, got ", positions);
  }

  WhisperConfig layer;
  int64_t channels;
  int64_t chunk, window;  // in steps
  int64_t positions;
};

struct Qwen3AsrEncoded {
  Tensor last_hidden_state;           // [batch, frames, dim], after the last norm; 0 at padding
  Tensor mask;                        // bool [batch, frames]; undefined: all frames are valid
  std::vector<Tensor> hidden_states;  // the first layer's input and each layer's output
};

class Qwen3AsrEncoder : public Block, public nn::Checkpointing {
 public:
  Qwen3AsrEncoder(const ModuleOptions& options, const Config& settings)
      : Block("Qwen3ASREncoder", options),
        config(settings),
        layers(*child<ModuleList<nn::EncoderLayer>>("layers")),
        norm(*child<LayerNorm>("ln_post", config.layer.dim, 1e-5)),
        conv1(*child<Conv2d>("conv2d1", shape(1), config.layer.std)),
        conv2(*child<Conv2d>("conv2d2", shape(config.channels), config.layer.std)),
        conv3(*child<Conv2d>("conv2d3", shape(config.channels), config.layer.std)),
        projection(*child<Linear>("conv_out", config.channels * shortened(config.layer.mels), config.layer.dim, false,
                                  config.layer.std)) {
    for (int64_t i = 0; i < config.layer.encoder_layers; ++i) layers.append(make_whisper_layer(options, config.layer));
  }

  // features [batch, mels, steps], a multiple of the chunk; mask [batch, steps], 1 for what is there, on the left of
  // the padding; undefined: all.
  Qwen3AsrEncoded forward(const Tensor& features, const Tensor& mask, bool hidden_states) const {
    check_mel_features(features, mask, config.layer.mels);
    const int64_t batch = features.size(0), chunk = config.chunk;
    TORCH_CHECK(features.size(2) % chunk == 0, "input_features must have a multiple of ", chunk,
                " steps, 2 * n_window, got ", features.size(2), "; pad them with 0 and give attention_mask");
    Qwen3AsrEncoded result;
    Tensor x = convolved(features.to(conv1.weight.scalar_type()));  // [batch, chunks, frames of a chunk, dim]
    x = x + sinusoids(x.size(2), x.size(3), x.device()).to(x.scalar_type());
    Tensor valid;
    if (mask.defined()) {
      Tensor lengths = mask.to(at::kLong).unflatten(1, {x.size(1), chunk}).sum(-1, true);  // [batch, chunks, 1]
      for (int i = 0; i < 3; ++i) lengths = (lengths - 1).floor_divide(2) + 1;
      valid = (at::arange(x.size(2), lengths.options()) < lengths).flatten(1);
      result.mask = upload(valid, x.device());
    }
    const int64_t window = config.window / chunk * x.size(2);
    x = x.flatten(1, 2);
    const int64_t time = x.size(1);
    nn::EncoderStates states;
    std::function<Tensor(const Tensor&)> restored;  // [batch, frames, dim]
    if (valid.defined() && valid.is_cpu() && !valid.all().item<bool>()) {
      // Nothing is computed for padding: the windows of all clips stand one after the other.
      const Rows rows(valid, window, x.device());
      restored = [rows, batch, time](const Tensor& packed) {
        const Tensor zeros = packed.new_zeros({batch * time, packed.size(2)});
        return zeros.index_copy(0, rows.places, packed.squeeze(0)).unflatten(0, {batch, time});
      };
      x = x.flatten(0, 1).index_select(0, rows.places).unsqueeze(0);
      states = nn::run_layers(layers, *this, std::move(x), {{}, rows.windows, {}, hidden_states});
    } else {
      const int64_t width = std::min(time, window), count = (time + width - 1) / width;
      const auto cut = [&](const Tensor& of, std::initializer_list<int64_t> padding) {
        return at::constant_pad_nd(of, padding).unflatten(1, {count, width}).flatten(0, 1);
      };
      Tensor seen;
      if (valid.defined() && !valid.is_cpu()) seen = valid;
      if (count * width > time && !seen.defined()) seen = at::ones({batch, time}, x.options().dtype(at::kBool));
      if (seen.defined()) {
        seen = cut(seen, {0, count * width - time});
        // A window of padding alone attends to its first frame, so that its unused result stays finite.
        seen = seen.logical_or(at::arange(width, x.options().dtype(at::kLong)) == 0);
      }
      restored = [batch, count, time](const Tensor& windows) {
        return windows.unflatten(0, {batch, count}).flatten(1, 2).narrow(1, 0, time);
      };
      states = nn::run_layers(layers, *this, cut(x, {0, 0, 0, count * width - time}), {seen, {}, {}, hidden_states});
    }
    for (const Tensor& one : states.hidden_states) result.hidden_states.push_back(restored(one));
    Tensor last = restored(norm.forward(states.last));
    if (result.mask.defined()) last = last.masked_fill(result.mask.logical_not().unsqueeze(-1), 0);
    result.last_hidden_state = watched(features, std::move(last));
    return result;
  }

 private:
  // The valid frames of all rows, and which of them make a window.
  struct Rows {
    Rows(const Tensor& valid, int64_t window, c10::Device device) {
      const Tensor flags = valid.contiguous();
      const bool* is_valid = flags.const_data_ptr<bool>();
      std::vector<int64_t> found, lengths;
      for (int64_t row = 0; row < valid.size(0); ++row) {
        const size_t before = found.size();
        for (int64_t place = row * valid.size(1); place < (row + 1) * valid.size(1); ++place) {
          if (is_valid[place]) found.push_back(place);
        }
        const auto count = static_cast<int64_t>(found.size() - before);
        TORCH_CHECK(count > 0, "attention_mask must have a 1 in each row, got none in row ", row);
        for (int64_t left = count; left > 0; left -= window) lengths.push_back(std::min(left, window));
      }
      const auto total = static_cast<int64_t>(found.size());
      places = upload(found, {total}, device);
      windows = nn::Segments::of_lengths(1, total, lengths, device);
    }

    Tensor places;  // int64 [total]
    std::optional<nn::Segments> windows;
  };

  nn::Conv2dShape shape(int64_t in) const { return {in, config.channels, 3, 2}; }

  // [batch, mels, steps] -> [batch, chunks, frames of a chunk, dim]
  Tensor convolved(const Tensor& features) const {
    const int64_t batch = features.size(0);
    Tensor x = features.unflatten(2, {-1, config.chunk}).transpose(1, 2).flatten(0, 1).unsqueeze(1);
    for (const Conv2d* conv : {&conv1, &conv2, &conv3}) x = at::gelu(conv->forward(x));
    x = x.permute({0, 3, 1, 2}).flatten(2);  // [batch * chunks, frames, channels * bins]
    return projection.forward(x).unflatten(0, {batch, -1});
  }

  const Qwen3AsrConfig config;
  ModuleList<nn::EncoderLayer>& layers;
  LayerNorm& norm;
  Conv2d &conv1, &conv2, &conv3;
  Linear& projection;
};

const RegisteredModule registered_qwen3_asr("qwen3_asr_encoder", make_module<Qwen3AsrEncoder>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "qwen3_asr_encoder_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False) -> (Tensor last_hidden_state, Tensor attention_mask, "
      "Tensor[] hidden_states)",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& features, const std::optional<Tensor>& mask,
         bool hidden_states) -> std::tuple<Tensor, Tensor, std::vector<Tensor>> {
        Qwen3AsrEncoded result = network<Qwen3AsrEncoder>(self, "qwen3_asr_encoder_forward")
                                     .forward(features, mask.value_or(Tensor()), hidden_states);
        return {std::move(result.last_hidden_state), std::move(result.mask), std::move(result.hidden_states)};
      });
}

}  // namespace voxtorch::models
