#include "core/nn/q_former.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"

namespace voxtorch::nn {

using at::Tensor;

QFormerConfig::QFormerConfig(const Config& config)
    : dim(config.integer("hidden_size", 768)),
      layers(config.integer("num_hidden_layers", 2)),
      heads(config.integer("num_attention_heads", 12)),
      intermediate(config.integer("intermediate_size", 3072)),
      activation(config.text("hidden_act", "gelu")),
      dropout(config.probability("hidden_dropout_prob", 0.1)),
      attention_dropout(config.probability("attention_probs_dropout_prob", 0.1)),
      eps(config.number("layer_norm_eps", 1e-12)),
      std(config.number("initializer_range", 0.02)),
      encoder_dim(config.integer("encoder_width", 2048)),
      cross_frequency(config.integer("cross_attention_freq", 1)),
      queries(config.integer("query_length", 1)),
      window(config.integer("window", 0)),
      stride(config.integer("stride", window)) {
  TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(layers >= 0 && intermediate > 0 && encoder_dim > 0 && cross_frequency > 0 && queries > 0,
              "num_hidden_layers must not be negative, and intermediate_size, encoder_width, cross_attention_freq and "
              "query_length must be positive, got ",
              layers, ", ", intermediate, ", ", encoder_dim, ", ", cross_frequency, " and ", queries);
  TORCH_CHECK(window >= 0 && (window == 0 || stride > 0),
              "window must not be negative and stride must be positive, got ", window, " and ", stride);
}

namespace {

class QFormerProjections : public Block {
 public:
  QFormerProjections(const ModuleOptions& options, const QFormerConfig& c, int64_t read)
      : Block("QFormerSelfAttention", options),
        query(*child<Linear>("query", c.dim, c.dim, true, c.std)),
        key(*child<Linear>("key", read, c.dim, true, c.std)),
        value(*child<Linear>("value", read, c.dim, true, c.std)),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  // Among the queries of a window: x [windows of all, queries, dim].
  Tensor among(const Tensor& x) const {
    const auto project = [&](const Linear& layer) { return split_heads(layer.forward(x), heads); };
    const double p = training() ? dropout : 0;
    return watched(x, join_heads(attend(project(query), project(key), project(value), {}, p, false).output));
  }

  // Of the queries to the frames of their window: each frame is projected once, however many windows it is in.
  Tensor across(const Tensor& x, const Tensor& frames, const QFormerWindows& windows) const {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("voxtorch::window_cross_attention", "")
                               .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, int64_t,
                                             const std::optional<Tensor>&, double, int64_t)>();
    const Tensor q = query.forward(x).unflatten(-1, {heads, -1}).unflatten(0, {frames.size(0), windows.count});
    const Tensor k = key.forward(frames).unflatten(-1, {heads, -1});  // [batch, time, heads, dim]
    const Tensor v = value.forward(frames).unflatten(-1, {heads, -1});
    const double p = training() ? dropout : 0;
    const std::optional<Tensor> lengths =
        windows.lengths.defined() ? std::optional<Tensor>(windows.lengths) : std::nullopt;
    const Tensor mixed = op.call(q, k, v, windows.window, windows.stride, lengths, p, p > 0 ? draw_seed() : 0);
    return watched(x, mixed.flatten(3, 4).flatten(0, 1));
  }

 private:
  Linear &query, &key, &value;
  const int64_t heads;
  const double dropout;
};

// dense, dropout, residual, norm: what follows each attention and the feed-forward.
class QFormerOutput : public Block {
 public:
  QFormerOutput(const ModuleOptions& options, const QFormerConfig& c, int64_t in)
      : Block("QFormerOutput", options),
        dense(*child<Linear>("dense", in, c.dim, true, c.std)),
        norm(*child<LayerNorm>("LayerNorm", c.dim, c.eps)),
        dropout(c.dropout) {}

  Tensor forward(const Tensor& x, const Tensor& residual) const {
    if (!training() || dropout == 0) return watched(x, norm.forward(dense.forward_add(x, residual)));
    return watched(x, norm.forward(drop(dense.forward(x), dropout, true) + residual));
  }

 private:
  Linear& dense;
  LayerNorm& norm;
  const double dropout;
};

class QFormerAttention : public Block {
 public:
  QFormerAttention(const ModuleOptions& options, const QFormerConfig& c, int64_t read)
      : Block("QFormerAttention", options),
        self(*child<QFormerProjections>(c.blip2 ? "attention" : "self", c, read)),
        output(*child<QFormerOutput>("output", c, c.dim)) {}

  Tensor among(const Tensor& x) const { return watched(x, output.forward(self.among(x), x)); }
  Tensor across(const Tensor& x, const Tensor& frames, const QFormerWindows& windows) const {
    return watched(x, output.forward(self.across(x, frames, windows), x));
  }

 private:
  QFormerProjections& self;
  QFormerOutput& output;
};

class QFormerIntermediate : public Block {
 public:
  QFormerIntermediate(const ModuleOptions& options, const QFormerConfig& c)
      : Block("QFormerIntermediate", options),
        dense(*child<Linear>("dense", c.dim, c.intermediate, true, c.std)),
        activation(nn::activation(c.activation)) {}

  Tensor forward(const Tensor& x) const { return watched(x, dense.forward(x, activation)); }

 private:
  Linear& dense;
  const Activation activation;
};

class QFormerLayer : public Block {
 public:
  QFormerLayer(const ModuleOptions& options, const QFormerConfig& c, int64_t i)
      : Block("QFormerLayer", options),
        attention(*child<QFormerAttention>("attention", c, c.dim)),
        cross_attention(i % c.cross_frequency == 0 ? child<QFormerAttention>("crossattention", c, c.encoder_dim)
                                                   : nullptr),
        intermediate(*child<QFormerIntermediate>("intermediate_query", c)),
        output(*child<QFormerOutput>("output_query", c, c.intermediate)) {}

  Tensor forward(const Tensor& input, const Tensor& frames, const QFormerWindows& windows) const {
    Tensor x = attention.among(input);
    if (cross_attention != nullptr) x = cross_attention->across(x, frames, windows);
    return watched(input, output.forward(intermediate.forward(x), x));
  }

 private:
  QFormerAttention& attention;
  QFormerAttention* const cross_attention;
  QFormerIntermediate& intermediate;
  QFormerOutput& output;
};

}  // namespace

// Nothing but the norm: queries have no words and no positions.
class QFormerEmbeddings : public Block {
 public:
  QFormerEmbeddings(const ModuleOptions& options, const QFormerConfig& c)
      : Block("QFormerEmbeddings", options), norm(*child<LayerNorm>("LayerNorm", c.dim, c.eps)) {}

  Tensor forward(const Tensor& queries) const { return watched(queries, norm.forward(queries)); }

 private:
  LayerNorm& norm;
};

class QFormerEncoder : public Block {
 public:
  QFormerEncoder(const ModuleOptions& options, const QFormerConfig& c)
      : Block("QFormerEncoder", options), layers(*child<ModuleList<QFormerLayer>>("layer")) {
    for (int64_t i = 0; i < c.layers; ++i) layers.add(c, i);
  }

  Tensor forward(const Tensor& input, const Tensor& frames, const QFormerWindows& windows) const {
    Tensor x = input;
    for (const QFormerLayer* layer : layers) x = layer->forward(x, frames, windows);
    return watched(input, std::move(x));
  }

 private:
  ModuleList<QFormerLayer>& layers;
};

QFormerBert::QFormerBert(const ModuleOptions& options, const QFormerConfig& c)
    : Block("QFormerBert", options),
      embeddings(c.blip2 ? nullptr : child<QFormerEmbeddings>("embeddings", c)),
      norm(c.blip2 ? child<LayerNorm>("layernorm", c.dim, c.eps) : nullptr),
      encoder(*child<QFormerEncoder>("encoder", c)),
      dropout(c.dropout) {}

Tensor QFormerBert::forward(const Tensor& queries, const Tensor& frames, const QFormerWindows& windows) const {
  const int64_t batch = frames.size(0);
  Tensor x = (norm != nullptr ? norm->forward(queries) : embeddings->forward(queries)).unsqueeze(1);
  x = x.expand({batch, windows.count, x.size(2), x.size(3)}).reshape({-1, x.size(2), x.size(3)});
  x = drop(x, dropout, training());
  return watched(queries, encoder.forward(x, frames, windows).unflatten(0, {batch, windows.count}));
}

QFormer::QFormer(const ModuleOptions& options, const QFormerConfig& config)
    : Block("QFormer", options), bert(*child<QFormerBert>("bert", config)) {}

Tensor QFormer::forward(const Tensor& queries, const Tensor& frames, const QFormerWindows& windows) const {
  return watched(queries, bert.forward(queries, frames, windows));
}

}  // namespace voxtorch::nn
