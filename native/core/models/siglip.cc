// SigLIP's vision encoder (Zhai et al. 2023, https://arxiv.org/abs/2303.15343) with the names of transformers'
// SiglipVisionModel: CLIP's layers over patches without a class token, and a head that pools them by attention. With
// fractional positions and without the head it is the vision encoder of Idefics3 and SmolVLM.
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <torch/library.h>

#include "core/models/clip_layers.h"
#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;

struct SiglipConfig {
  explicit SiglipConfig(const Config& config)
      : layer(config, {768, 3072, 12, 12}),
        channels(positive(config, "num_channels", 3)),
        image(positive(config, "image_size", 224)),
        patch(positive(config, "patch_size", 16)),
        side(image / patch),
        head(config.boolean("vision_use_head", true)),
        fractional(config.boolean("fractional_positions", false)) {
    constexpr int64_t kMost = int64_t{1} << 20;
    TORCH_CHECK(patch <= image && image <= kMost, "image_size must be at least patch_size ", patch, ", got ", image);
    layer.family = "Siglip";
    const double std = config.number("normal_std", 0);
    TORCH_CHECK(std >= 0, "normal_std must not be negative, got ", std);
    // Without it the standard deviations are those of Xavier's and LeCun's initializations.
    layer.in_std = layer.out_std = std > 0 ? std : root(layer.dim);
    layer.up_std = layer.down_std = std > 0 ? std : std::sqrt(2.0) * root(layer.dim + layer.intermediate);
    patch_std = std > 0 ? std : root(channels * patch * patch);
    position_std = std > 0 ? std : root(layer.dim);
  }

  ClipLayerConfig layer;
  int64_t channels, image, patch, side;  // side: patches of one
  bool head;
  bool fractional;  // positions follow from where a patch is in its image, as a fraction of the image
  double patch_std, position_std;
};

namespace {

class SiglipEmbeddings : public Block {
 public:
  SiglipEmbeddings(const ModuleOptions& options, const SiglipConfig& c)
      : Block("SiglipVisionEmbeddings", options),
        patches(*child<ClipPatches>("patch_embedding", std::vector<int64_t>{c.layer.dim, c.channels, c.patch, c.patch},
                                    true, c.patch_std)),
        positions(*child<Embedding>("position_embedding", c.side * c.side, c.layer.dim, -1, c.position_std)),
        side(c.side),
        patch(c.patch),
        fractional(c.fractional) {}

  // [images, channels, height, width] -> [images, patches, dim]
  Tensor forward(const Tensor& pixels) const {
    const int64_t rows = pixels.size(2) / patch, columns = pixels.size(3) / patch;
    const Tensor x = patches.forward(pixels.to(patches.weight.scalar_type()).unsqueeze(2));
    return watched(pixels, x + table(rows, columns, pixels.device()));
  }

 private:
  Tensor table(int64_t rows, int64_t columns, c10::Device device) const {
    if (fractional) {
      const Tensor ids = buckets(rows, device).unsqueeze(1) * side + buckets(columns, device);  // [rows, columns]
      return positions.forward(ids.flatten());
    }
    if (rows == side && columns == side) return positions.weight;
    const Tensor grid = positions.weight.view({1, side, side, -1}).permute({0, 3, 1, 2});
    return at::upsample_bicubic2d(grid, {rows, columns}, false).flatten(2).squeeze(0).t();
  }

  // The position of each of `count` patches in a row of `side`. It is computed as transformers does, in float32, since
  // rounding may move a patch to the bucket before.
  Tensor buckets(int64_t count, c10::Device device) const {
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    const double step = 1 / static_cast<double>(side);
    const Tensor boundaries = at::arange(step, 1.0, step, options);
    const Tensor places = at::arange(count, options) * (1 / static_cast<float>(count));
    return at::bucketize(places.clamp_max(1 - 1e-6), boundaries, false, true);
  }

  ClipPatches& patches;
  Embedding& positions;
  const int64_t side, patch;
  const bool fractional;
};

// PyTorch's MultiheadAttention of one query.
class SiglipPoolingAttention : public Block {
 public:
  SiglipPoolingAttention(const ModuleOptions& options, const ClipLayerConfig& c)
      : Block("MultiheadAttention", options),
        weight(parameter("in_proj_weight", {3 * c.dim, c.dim}, init::normal(root(2 * c.dim)))),
        bias(parameter("in_proj_bias", {3 * c.dim}, init::zeros())),
        output(*child<Linear>("out_proj", c.dim, c.dim, true, root(c.dim))),
        heads(c.heads) {}

  // query [images, 1, dim], x [images, patches, dim] -> [images, 1, dim]
  Tensor forward(const Tensor& query, const Tensor& x) const {
    const int64_t dim = x.size(2);
    const auto project = [&](const Tensor& input, int64_t from) {
      const Tensor result = kernels::linear(input, weight.narrow(0, from * dim, dim), bias.narrow(0, from * dim, dim));
      return nn::split_heads(result, heads);
    };
    const nn::Attended attended = nn::attend(project(query, 0), project(x, 1), project(x, 2), Tensor(), 0, false);
    return watched(query, output.forward(nn::join_heads(attended.output)));
  }

 private:
  const Tensor weight, bias;
  Linear& output;
  const int64_t heads;
};

class SiglipPoolingHead : public Block {
 public:
  SiglipPoolingHead(const ModuleOptions& options, const ClipLayerConfig& c)
      : Block("SiglipMultiheadAttentionPoolingHead", options),
        probe(parameter("probe", {1, 1, c.dim}, init::normal(root(c.dim)))),
        attention(*child<SiglipPoolingAttention>("attention", c)),
        norm(*child<LayerNorm>("layernorm", c.dim, c.eps)),
        mlp(*child<ClipMlp>("mlp", c)) {}

  Tensor forward(const Tensor& x) const {
    const Tensor pooled = attention.forward(probe.expand({x.size(0), 1, x.size(2)}), x);
    return watched(x, mlp.add(norm.forward(pooled), pooled).select(1, 0));  // [images, dim]
  }

 private:
  const Tensor probe;
  SiglipPoolingAttention& attention;
  LayerNorm& norm;
  ClipMlp& mlp;
};

class SiglipVision : public Block {
 public:
  SiglipVision(const ModuleOptions& options, const Config& settings)
      : Block("SiglipVisionModel", options),
        config(settings),
        embeddings(*child<SiglipEmbeddings>("embeddings", config)),
        encoder(*child<ClipEncoder>("encoder", config.layer)),
        norm(*child<LayerNorm>("post_layernorm", config.layer.dim, config.layer.eps)),
        head(config.head ? child<SiglipPoolingHead>("head", config.layer) : nullptr) {}

  ClipOutput forward(const Tensor& pixels, bool interpolates, bool hidden_states, bool attentions) const {
    TORCH_CHECK(pixels.dim() == 4 && pixels.size(0) > 0 && pixels.size(1) == config.channels &&
                    pixels.size(2) >= config.patch && pixels.size(3) >= config.patch && pixels.is_floating_point(),
                "pixel_values must be floating point [images, ", config.channels, ", height, width], at least ",
                config.patch, " high and wide, got ", pixels.scalar_type(), " ", pixels.sizes());
    const bool fits = pixels.size(2) / config.patch == config.side && pixels.size(3) / config.patch == config.side;
    TORCH_CHECK(fits || interpolates || config.fractional, "pixel_values must be [images, ", config.channels, ", ",
                config.image, ", ", config.image, "] unless interpolate_pos_encoding is set, got ", pixels.sizes());
    ClipOutput result = encoder.forward(embeddings.forward(pixels), {}, false, hidden_states, attentions);
    const Tensor normed = norm.forward(result.last_hidden_state);
    if (head != nullptr) result.pooler_output = head->forward(normed);
    result.last_hidden_state = watched(pixels, normed);
    return result;
  }

 private:
  const SiglipConfig config;
  SiglipEmbeddings& embeddings;
  ClipEncoder& encoder;
  LayerNorm& norm;
  SiglipPoolingHead* const head;
};

const RegisteredModule registered_siglip("siglip_vision", make_module<SiglipVision>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "siglip_vision_forward(__torch__.torch.classes.voxtorch.Module self, Tensor pixel_values, *, bool "
      "interpolate_pos_encoding=False, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor pooler_output, Tensor[] hidden_states, Tensor[] attentions)",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& pixels, bool interpolates, bool hidden_states,
         bool attentions) -> std::tuple<Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> {
        ClipOutput output = voxtorch::network<SiglipVision>(self, "siglip_vision_forward")
                                .forward(pixels, interpolates, hidden_states, attentions);
        return {std::move(output.last_hidden_state), std::move(output.pooler_output), std::move(output.hidden_states),
                std::move(output.attentions)};
      });
}

}  // namespace voxtorch::models
