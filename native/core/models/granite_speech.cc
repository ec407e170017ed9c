// The audio encoder of Granite Speech (Saon et al. 2025, https://arxiv.org/abs/2505.08699) with the names of
// transformers' GraniteSpeechCTCEncoder: Conformer layers that attend within blocks of frames, with a learned vector
// for each distance (Shaw et al. 2018, https://arxiv.org/abs/1803.02155). After half of the layers the CTC head's
// probabilities come back into the states. Its projector is a Q-Former that reads windows of frames.
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <torch/library.h>

#include <cmath>

#include "core/nn/conformer.h"
#include "core/nn/q_former.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;

struct GraniteSpeechConfig {
  explicit GraniteSpeechConfig(const Config& config)
      : input(config.integer("input_dim", 160)),
        layers(config.integer("num_layers", 10)),
        dim(config.integer("hidden_dim", 1024)),
        expansion(config.integer("feedforward_mult", 4)),
        heads(config.integer("num_heads", 8)),
        head_dim(config.integer("dim_head", heads > 0 ? dim / heads : 0)),
        labels(config.integer("output_dim", 42)),
        context(config.integer("context_size", 200)),
        distances(config.integer("max_pos_emb", 512)),
        kernel(config.integer("conv_kernel_size", 15)),
        conv_expansion(config.integer("conv_expansion_factor", 2)),
        dropout(config.probability("dropout", 0.1)),
        std(config.number("initializer_range", 0.02)) {
    TORCH_CHECK(input > 0 && dim > 0 && expansion > 0 && heads > 0 && head_dim > 0 && labels > 0 && conv_expansion > 0,
                "input_dim, hidden_dim, feedforward_mult, num_heads, dim_head, output_dim and conv_expansion_factor "
                "must be positive, got ",
                input, ", ", dim, ", ", expansion, ", ", heads, ", ", head_dim, ", ", labels, " and ", conv_expansion);
    TORCH_CHECK(layers >= 0, "num_layers must not be negative, got ", layers);
    TORCH_CHECK(context > 0 && context <= distances, "context_size must be from 1 to max_pos_emb ", distances, ", got ",
                context);
    TORCH_CHECK(kernel > 0 && kernel % 2 == 1, "conv_kernel_size must be odd, got ", kernel);
  }

  nn::FeedForwardShape feed_forward() const {
    return {.dim = dim,
            .hidden = dim * expansion,
            .activation = "silu",
            .std = std,
            .activation_dropout = dropout,
            .dropout = dropout,
            .up = "up_proj",
            .down = "down_proj",
            .norm = "pre_norm"};
  }
  nn::ConformerShape convolution() const {
    nn::ConformerShape shape{.dim = dim, .heads = heads, .intermediate = dim, .kernel = kernel, .activation = "silu"};
    shape.convolution_std = std;
    shape.pointwise_bias = true;
    shape.expansion = conv_expansion;
    shape.convolution_dropout = dropout;
    shape.names.module_norm = "norm";
    shape.names.pointwise_up = "up_conv";
    shape.names.depthwise = "depth_conv";
    shape.names.depthwise_conv = "conv";
    shape.names.pointwise_down = "down_conv";
    return shape;
  }

  int64_t input, layers, dim, expansion, heads, head_dim;
  int64_t labels;     // of the CTC head
  int64_t context;    // frames of a block
  int64_t distances;  // the largest that there is a vector for
  int64_t kernel, conv_expansion;
  double dropout, std;
};

class GraniteSpeechAttention : public Block {
 public:
  GraniteSpeechAttention(const ModuleOptions& options, const GraniteSpeechConfig& c)
      : Block("GraniteSpeechConformerAttention", options),
        norm(*child<LayerNorm>("pre_norm", c.dim, 1e-5)),
        query(*child<Linear>("to_q", c.dim, c.heads * c.head_dim, false, c.std)),
        keys_values(*child<Linear>("to_kv", c.dim, 2 * c.heads * c.head_dim, false, c.std)),
        output(*child<Linear>("to_out", c.heads * c.head_dim, c.dim, true, c.std)),
        distances(*child<Embedding>("rel_pos_emb", 2 * c.distances + 1, c.head_dim, -1, c.std)),
        heads(c.heads),
        context(c.context),
        dropout(c.dropout) {}

  // x [batch, time, dim], mask bool [batch, time] or undefined
  Tensor forward(const Tensor& x, const Tensor& mask) const {
    const Tensor normed = norm.forward(x);
    const auto projected = keys_values.forward(normed).chunk(2, -1);
    const Tensor q = nn::split_heads(query.forward(normed), heads);
    const Tensor k = nn::split_heads(projected[0], heads), v = nn::split_heads(projected[1], heads);
    // The last block has the frames that are left, and no padding.
    const int64_t time = x.size(1), rest = time % context, whole = time - rest;
    std::vector<Tensor> parts;
    const auto add = [&](int64_t begin, int64_t end, int64_t size) {
      if (begin < end) parts.push_back(blocks(q, k, v, mask, begin, end, size));
    };
    add(0, whole, context);
    add(whole, time, rest);
    const Tensor attended = parts.size() == 1 ? parts[0] : at::cat(parts, 2);
    return watched(x, nn::drop(output.forward(nn::join_heads(attended)), dropout, training()));
  }

 private:
  // Of the frames from `begin` to `end` in blocks of `size`, [batch, heads, end - begin, dim].
  Tensor blocks(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, int64_t begin, int64_t end,
                int64_t size) const {
    const int64_t batch = q.size(0);
    const auto cut = [&](const Tensor& of) {
      const Tensor part = of.narrow(2, begin, end - begin).unflatten(2, {-1, size});
      return part.transpose(1, 2).flatten(0, 1);  // [batch * blocks, heads, size, dim]
    };
    const Tensor queries = cut(q);
    // Vectors of the distances from size - 1 down to 1 - size.
    const int64_t middle = (distances.weight.size(0) - 1) / 2;
    const Tensor rows = distances.weight.narrow(0, middle - (size - 1), 2 * size - 1).flip(0).to(q.scalar_type());
    const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
    const Tensor scores = nn::by_key(at::matmul(queries * scale, rows.t()), size);
    Tensor seen;
    if (mask.defined()) {
      seen = nn::attention_mask(mask.narrow(1, begin, end - begin).unflatten(1, {-1, size}).flatten(0, 1));
    }
    const Tensor attended = nn::attend(queries, cut(k), cut(v), nn::lowest_where_unseen(scores, seen), 0, false).output;
    return attended.unflatten(0, {batch, -1}).transpose(1, 2).flatten(2, 3);
  }

  LayerNorm& norm;
  Linear &query, &keys_values, &output;
  Embedding& distances;
  const int64_t heads, context;
  const double dropout;
};

class GraniteSpeechLayer : public nn::EncoderLayer {
 public:
  GraniteSpeechLayer(const ModuleOptions& options, const GraniteSpeechConfig& c)
      : EncoderLayer("GraniteSpeechConformerBlock", options),
        first(*child<nn::FeedForward>("ff1", c.feed_forward())),
        attention(*child<GraniteSpeechAttention>("attn", c)),
        convolution(*child<nn::ConformerConvolution>("conv", c.convolution())),
        second(*child<nn::FeedForward>("ff2", c.feed_forward())),
        norm(*child<LayerNorm>("post_norm", c.dim, 1e-5)) {}

  nn::Attended forward(const Tensor& input, const Tensor& mask, const std::optional<nn::Segments>& segments,
                       const Tensor&, bool) const override {
    TORCH_INTERNAL_ASSERT(!segments);
    Tensor x = at::add(input, first.forward(input), 0.5);
    x = x + attention.forward(x, mask);
    x = x + convolution.forward(x, mask);
    x = at::add(x, second.forward(x), 0.5);
    return {watched(input, norm.forward(x)), Tensor()};
  }

 private:
  nn::FeedForward& first;
  GraniteSpeechAttention& attention;
  nn::ConformerConvolution& convolution;
  nn::FeedForward& second;
  LayerNorm& norm;
};

struct GraniteSpeechEncoded {
  Tensor last_hidden_state;           // [batch, frames, dim], 0 at padding
  Tensor mask;                        // bool [batch, frames]; undefined: all frames are valid
  std::vector<Tensor> hidden_states;  // the first layer's input and what follows each layer
};

class GraniteSpeechEncoder : public Block, public nn::Checkpointing {
 public:
  GraniteSpeechEncoder(const ModuleOptions& options, const Config& settings)
      : Block("GraniteSpeechCTCEncoder", options),
        config(settings),
        input(*child<Linear>("input_linear", config.input, config.dim, true, config.std)),
        layers(*child<ModuleList<nn::EncoderLayer>>("layers")),
        head(*child<Linear>("out", config.dim, config.labels, true, config.std)),
        back(*child<Linear>("out_mid", config.labels, config.dim, true, config.std)) {
    for (int64_t i = 0; i < config.layers; ++i) layers.append(c10::make_intrusive<GraniteSpeechLayer>(options, config));
  }

  // features [batch, frames, input_dim]; mask [batch, frames], 1 for what is there, on the left of the padding: a row's
  // result in evaluation is then that of its valid frames alone. Undefined: all.
  GraniteSpeechEncoded forward(const Tensor& features, const Tensor& given, bool hidden_states) const {
    TORCH_CHECK(features.dim() == 3 && features.size(0) > 0 && features.size(1) > 0 && features.size(2) == config.input,
                "input_features must be [batch, frames, ", config.input, "], got ", features.sizes());
    TORCH_CHECK(features.is_floating_point(), "input_features must have a floating-point dtype, got ",
                features.scalar_type());
    TORCH_CHECK(!given.defined() || given.sizes().equals(features.sizes().slice(0, 2)),
                "attention_mask must have the shape ", features.sizes().slice(0, 2), " of input_features, got ",
                given.sizes());
    GraniteSpeechEncoded result;
    result.mask = nn::mask_for(given.defined() ? given.to(at::kBool) : Tensor(), features.device());
    nn::EncoderPass pass{.mask = result.mask, .hidden_states = hidden_states};
    pass.after = [this](size_t layer, const Tensor& x) {
      if (static_cast<int64_t>(layer) + 1 != config.layers / 2) return x;
      return x + back.forward(at::softmax(head.forward(x), -1));
    };
    nn::EncoderStates states =
        nn::run_layers(layers, *this, input.forward(features.to(input.weight.scalar_type())), pass);
    // The projector fills up windows with zeros.
    if (result.mask.defined()) states.last = states.last.masked_fill(result.mask.logical_not().unsqueeze(-1), 0);
    result.last_hidden_state = watched(features, std::move(states.last));
    result.hidden_states = std::move(states.hidden_states);
    return result;
  }

 private:
  const GraniteSpeechConfig config;
  Linear& input;
  ModuleList<nn::EncoderLayer>& layers;
  Linear &head, &back;
};

// Learned queries read each window of frames; zeros fill up the last window, and are read.
class GraniteProjector : public Block {
 public:
  GraniteProjector(const ModuleOptions& options, const Config& settings)
      : Block("GraniteSpeechEncoderProjector", options),
        config(config_of(settings)),
        query(parameter("query", {1, config.queries, config.dim}, init::normal(1))),
        qformer(*child<nn::QFormerBert>("qformer", config)),
        linear(*child<Linear>("linear", config.dim, settings.integer("output_size"), true, config.std)) {}

  // states [batch, frames, encoder_dim] -> [batch, tokens, output_size]
  Tensor forward(const Tensor& states) const {
    TORCH_CHECK(states.dim() == 3 && states.size(0) > 0 && states.size(1) > 0 && states.size(2) == config.encoder_dim &&
                    states.is_floating_point(),
                "states must be floating point [batch, frames, ", config.encoder_dim, "], got ", states.scalar_type(),
                " ", states.sizes());
    const int64_t time = states.size(1), count = (time + config.window - 1) / config.window;
    const Tensor filled = at::constant_pad_nd(states.to(query.scalar_type()), {0, 0, 0, count * config.window - time});
    const Tensor read = qformer.forward(query, filled, {count, config.window, config.window, {}});
    return watched(states, linear.forward(read.flatten(1, 2)));
  }

 private:
  static nn::QFormerConfig config_of(const Config& settings) {
    nn::QFormerConfig config(settings);
    config.blip2 = true;
    config.window = config.stride = settings.integer("window_size");
    const int64_t rate = settings.integer("downsample_rate");
    TORCH_CHECK(rate > 0 && config.window > 0 && config.window % rate == 0,
                "window_size must be a multiple of downsample_rate ", rate, ", got ", config.window);
    config.queries = config.window / rate;
    return config;
  }

  const nn::QFormerConfig config;
  const Tensor query;
  nn::QFormerBert& qformer;
  Linear& linear;
};

const RegisteredModule registered_granite_speech("granite_speech_encoder", make_module<GraniteSpeechEncoder>);
const RegisteredModule registered_granite_projector("granite_speech_projector", make_module<GraniteProjector>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "granite_speech_encoder_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False) -> (Tensor last_hidden_state, Tensor attention_mask, "
      "Tensor[] hidden_states)",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& features, const std::optional<Tensor>& mask,
         bool hidden_states) -> std::tuple<Tensor, Tensor, std::vector<Tensor>> {
        GraniteSpeechEncoded result = network<GraniteSpeechEncoder>(self, "granite_speech_encoder_forward")
                                          .forward(features, mask.value_or(Tensor()), hidden_states);
        return {std::move(result.last_hidden_state), std::move(result.mask), std::move(result.hidden_states)};
      });
  m.def("granite_speech_project(__torch__.torch.classes.voxtorch.Module self, Tensor states) -> Tensor embeddings",
        [](const c10::intrusive_ptr<Module>& self, const Tensor& states) {
          return network<GraniteProjector>(self, "granite_speech_project").forward(states);
        });
}

}  // namespace voxtorch::models
