// InternViT, the image encoder of InternVL (Chen et al. 2023, https://arxiv.org/abs/2312.14238): a vision transformer
// with layer scale and no norm after its last layer. The small one (300M) has layer norms; the large one (6B), whose
// sizes are the defaults, RMS norms, of queries and keys as well. Names are those of the published checkpoints.
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <torch/library.h>

#include "core/nn/checkpoint.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/rms_norm.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Linear;

struct InternVitConfig {
  explicit InternVitConfig(const Config& config)
      : dim(config.integer("hidden_size", 3200)),
        layers(config.integer("num_hidden_layers", 48)),
        heads(config.integer("num_attention_heads", 25)),
        intermediate(config.integer("intermediate_size", 12800)),
        channels(config.integer("num_channels", 3)),
        patch(config.integer("patch_size", 14)),
        image(config.integer("image_size", 224)),
        qkv_bias(config.boolean("qkv_bias", false)),
        qk_norm(config.boolean("qk_normalization", true)),
        rms(config.text("norm_type", "rms_norm") == "rms_norm"),
        eps(config.number("layer_norm_eps", 1e-6)),
        std(config.number("initializer_range", 0.02)),
        scale(config.number("initializer_factor", 0.1)),
        dropout(config.probability("dropout", 0)),
        attention_dropout(config.probability("attention_dropout", 0)),
        drop_path(config.probability("drop_path_rate", 0)),
        activation(config.text("hidden_act", "gelu")) {
    const std::string norm = config.text("norm_type", "rms_norm");
    TORCH_CHECK(norm == "rms_norm" || norm == "layer_norm", "norm_type must be rms_norm or layer_norm, got '", norm,
                "'");
    TORCH_CHECK(heads > 0 && dim % heads == 0, "hidden_size ", dim, " is not divisible by num_attention_heads ", heads);
    TORCH_CHECK(patch > 0 && image >= patch && image % patch == 0, "image_size ", image,
                " is not divisible by patch_size ", patch);
    TORCH_CHECK(channels > 0 && layers >= 0, "num_channels and num_hidden_layers must be above 0");
    TORCH_CHECK(drop_path < 1, "drop_path_rate must be below 1, got ", drop_path);
  }

  int64_t dim, layers, heads, intermediate, channels, patch, image;
  bool qkv_bias, qk_norm, rms;
  double eps, std, scale, dropout, attention_dropout, drop_path;
  std::string activation;
};

struct InternVitOutput {
  Tensor last_hidden_state;           // [images, 1 + patches, dim], of the last layer
  std::vector<Tensor> hidden_states;  // the embeddings and each layer's output
  std::vector<Tensor> attentions;     // [images, heads, 1 + patches, 1 + patches] per layer
};

class InternVitEmbeddings;
class InternVitLayer;

class InternVitEncoder : public Module, public nn::Checkpointing {
 public:
  InternVitEncoder(const ModuleOptions& options, const InternVitConfig& c);
  ModuleList<InternVitLayer>& layers;
};

class InternVit : public Block {
 public:
  InternVit(const ModuleOptions& options, const Config& config);
  InternVitOutput forward(const Tensor& pixels, bool hidden_states, bool attentions) const;

  const InternVitConfig config;
  InternVitEmbeddings& embeddings;
  InternVitEncoder& encoder;
};

namespace {

// weight [dim, channels, patch, patch], as the convolution that it is, but as one product: patches do not overlap.
class PatchEmbedding : public Block {
 public:
  PatchEmbedding(const ModuleOptions& options, const InternVitConfig& c)
      : Block("PatchEmbedding", options),
        weight(parameter("weight", {c.dim, c.channels, c.patch, c.patch}, init::normal(c.std))),
        bias(parameter("bias", {c.dim}, init::zeros())) {}

  Tensor forward(const Tensor& pixels) const {
    const int64_t patch = weight.size(2), down = pixels.size(2) / patch, across = pixels.size(3) / patch;
    const Tensor patches = pixels.view({pixels.size(0), pixels.size(1), down, patch, across, patch})
                               .permute({0, 2, 4, 1, 3, 5})
                               .reshape({pixels.size(0), down * across, -1});
    return watched(pixels, kernels::linear(patches, weight.flatten(1), bias));  // [images, patches, dim]
  }

  const Tensor weight, bias;
};

}  // namespace

class InternVitEmbeddings : public Block {
 public:
  InternVitEmbeddings(const ModuleOptions& options, const InternVitConfig& c)
      : Block("InternVitEmbeddings", options),
        first(parameter("class_embedding", {1, 1, c.dim}, init::normal(1))),
        positions(parameter("position_embedding", {1, 1 + (c.image / c.patch) * (c.image / c.patch), c.dim},
                            init::normal(1))),
        patches(*child<PatchEmbedding>("patch_embedding", c)),
        side(c.image / c.patch) {}

  Tensor forward(const Tensor& pixels) const {
    const int64_t patch = patches.weight.size(2);
    const Tensor x = patches.forward(pixels.contiguous());
    const Tensor joined = at::cat({first.expand({x.size(0), 1, x.size(2)}), x}, 1);
    return watched(pixels, joined + positions_of(pixels.size(2) / patch, pixels.size(3) / patch));
  }

 private:
  // For images of another size the table is one of pixels, resized.
  Tensor positions_of(int64_t down, int64_t across) const {
    if (down == side && across == side) return positions;
    const Tensor grid = positions.narrow(1, 1, side * side).to(at::kFloat).view({1, side, side, -1});
    const Tensor resized = at::upsample_bicubic2d(grid.permute({0, 3, 1, 2}), {down, across}, false);
    const Tensor table = resized.permute({0, 2, 3, 1}).reshape({1, down * across, -1}).to(positions.scalar_type());
    return at::cat({positions.narrow(1, 0, 1), table}, 1);
  }

  const Tensor first, positions;
  const PatchEmbedding& patches;
  const int64_t side;
};

namespace {

// One or the other kind, under the same name.
class InternVitNorm {
 public:
  InternVitNorm(nn::LayerNorm* layer, nn::RmsNorm* rms) : layer_(layer), rms_(rms) {}
  Tensor forward(const Tensor& x) const { return layer_ != nullptr ? layer_->forward(x) : rms_->forward(x).first; }

 private:
  const nn::LayerNorm* layer_;
  const nn::RmsNorm* rms_;
};

class InternVitAttention : public Block {
 public:
  InternVitAttention(const ModuleOptions& options, const InternVitConfig& c)
      : Block("InternVitAttention", options),
        qkv(*child<Linear>("qkv", c.dim, 3 * c.dim, c.qkv_bias, c.std)),
        query_norm(c.qk_norm ? child<nn::RmsNorm>("q_norm", c.dim, c.eps) : nullptr),
        key_norm(c.qk_norm ? child<nn::RmsNorm>("k_norm", c.dim, c.eps) : nullptr),
        output(*child<Linear>("proj", c.dim, c.dim, true, c.std)),
        heads(c.heads),
        dropout(c.dropout),
        attention_dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& x, bool with_weights) const {
    const std::vector<Tensor> parts = qkv.forward(x).chunk(3, -1);
    const auto split = [&](const Tensor& part, const nn::RmsNorm* norm) {
      return nn::split_heads(norm != nullptr ? norm->forward(part.contiguous()).first : part, heads);
    };
    nn::Attended result = nn::attend(split(parts[0], query_norm), split(parts[1], key_norm), split(parts[2], nullptr),
                                     Tensor(), training() ? attention_dropout : 0, with_weights);
    const Tensor joined = output.forward(nn::join_heads(result.output));
    result.output = watched(x, nn::drop(joined, dropout, training()));  // [images, 1 + patches, dim]
    return result;
  }

  const Linear& qkv;
  const nn::RmsNorm *const query_norm, *const key_norm;
  const Linear& output;
  const int64_t heads;
  const double dropout, attention_dropout;
};

class InternVitMLP : public Block {
 public:
  InternVitMLP(const ModuleOptions& options, const InternVitConfig& c)
      : Block("InternVitMLP", options),
        up(*child<Linear>("fc1", c.dim, c.intermediate, true, c.std)),
        down(*child<Linear>("fc2", c.intermediate, c.dim, true, c.std)),
        activation(nn::activation(c.activation)) {}

  Tensor forward(const Tensor& x) const { return watched(x, down.forward(up.forward(x, activation))); }

  const Linear &up, &down;
  const nn::Activation activation;
};

}  // namespace

class InternVitLayer : public Block {
 public:
  InternVitLayer(const ModuleOptions& options, const InternVitConfig& c, int64_t index)
      : Block("InternVitLayer", options),
        attention(*child<InternVitAttention>("attn", c)),
        attention_norm(norm("norm1", c)),
        mlp(*child<InternVitMLP>("mlp", c)),
        mlp_norm(norm("norm2", c)),
        attention_scale(parameter("ls1", {c.dim}, init::constant(c.scale))),
        mlp_scale(parameter("ls2", {c.dim}, init::constant(c.scale))),
        dropped(c.layers > 1 ? c.drop_path * static_cast<double>(index) / static_cast<double>(c.layers - 1) : 0) {}

  nn::Attended forward(const Tensor& x, bool with_weights) const {
    nn::Attended result = attention.forward(attention_norm.forward(x), with_weights);
    const Tensor stream = x + kept(result.output * attention_scale);
    result.output = watched(x, stream + kept(mlp.forward(mlp_norm.forward(stream)) * mlp_scale));
    return result;
  }

 private:
  InternVitNorm norm(const char* name, const InternVitConfig& c) {
    if (c.rms) return {nullptr, child<nn::RmsNorm>(name, c.dim, c.eps)};
    return {child<nn::LayerNorm>(name, c.dim, c.eps), nullptr};
  }

  // Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382), for each image by itself.
  Tensor kept(const Tensor& branch) const {
    if (!training() || dropped == 0) return branch;
    return branch * at::rand({branch.size(0), 1, 1}, branch.options()).ge(dropped) / (1 - dropped);
  }

  const InternVitAttention& attention;
  const InternVitNorm attention_norm;
  const InternVitMLP& mlp;
  const InternVitNorm mlp_norm;
  const Tensor attention_scale, mlp_scale;
  const double dropped;
};

InternVitEncoder::InternVitEncoder(const ModuleOptions& options, const InternVitConfig& c)
    : Module("InternVitEncoder", options), layers(*child<ModuleList<InternVitLayer>>("layers")) {
  for (int64_t i = 0; i < c.layers; ++i) layers.add(c, i);
}

InternVit::InternVit(const ModuleOptions& options, const Config& settings)
    : Block("InternVit", options),
      config(settings),
      embeddings(*child<InternVitEmbeddings>("embeddings", config)),
      encoder(*child<InternVitEncoder>("encoder", config)) {}

InternVitOutput InternVit::forward(const Tensor& pixels, bool hidden_states, bool attentions) const {
  TORCH_CHECK(pixels.dim() == 4 && pixels.size(0) > 0 && pixels.size(1) == config.channels,
              "pixel_values must be [images, ", config.channels, ", height, width], got ", pixels.sizes());
  TORCH_CHECK(pixels.size(2) > 0 && pixels.size(3) > 0 && pixels.size(2) % config.patch == 0 &&
                  pixels.size(3) % config.patch == 0,
              "height and width of pixel_values must be divisible by the patches' ", config.patch, ", got ",
              pixels.sizes());
  Tensor x = embeddings.forward(pixels);
  InternVitOutput result;
  for (InternVitLayer* layer : encoder.layers) {
    if (hidden_states) result.hidden_states.push_back(x);
    nn::Attended attended;
    if (nn::should_checkpoint(encoder)) {
      const auto run = [layer, attentions](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        nn::Attended made = layer->forward(in[0], attentions);
        if (!attentions) return {made.output};
        return {made.output, made.weights};
      };
      const std::vector<Tensor> outputs = nn::checkpoint(*layer, {x}, run);
      attended = {outputs[0], attentions ? outputs[1] : Tensor()};
    } else {
      attended = layer->forward(x, attentions);
    }
    x = std::move(attended.output);
    if (attentions) result.attentions.push_back(std::move(attended.weights));
  }
  result.last_hidden_state = watched(pixels, x);
  if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
  return result;
}

namespace {

const RegisteredModule registered_intern_vit("intern_vit", make_module<InternVit>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "intern_vit_forward(__torch__.torch.classes.voxtorch.Module self, Tensor pixel_values, *, bool "
      "output_hidden_states=False, bool output_attentions=False) -> (Tensor last_hidden_state, Tensor[] hidden_states, "
      "Tensor[] attentions)",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& pixels, bool hidden_states,
         bool attentions) -> std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> {
        const auto& network = voxtorch::network<InternVit>(self, "intern_vit_forward");
        InternVitOutput output = network.forward(pixels, hidden_states, attentions);
        return {std::move(output.last_hidden_state), std::move(output.hidden_states), std::move(output.attentions)};
      });
}

}  // namespace voxtorch::models
