// CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020) with the names of transformers' CLIPModel, CLIPTextModel
// and CLIPVisionModel; and what LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852) adds to its vision
// encoder: images that are not square, several frames with attention over time, a class token for each frame, patches
// that are dropped in training.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <torch/library.h>

#include <algorithm>

#include "core/models/clip_layers.h"
#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;

struct ClipTextConfig {
  explicit ClipTextConfig(const Config& config);
  ClipLayerConfig layer;
  int64_t vocabulary, positions;
  int64_t end;  // the token whose state stands for the text; -1: the one with the highest id
};

struct ClipVisionConfig {
  explicit ClipVisionConfig(const Config& config);
  ClipLayerConfig layer;
  int64_t channels, height, width, patch;
  int64_t frames;
  double patch_dropout, range;
  bool tubes;  // patches are tubes of one frame, and each frame has a class token of its own
  int64_t rows() const { return height / patch; }
  int64_t columns() const { return width / patch; }
};

class ClipTextEmbeddings;
class ClipVisionEmbeddings;

class ClipText : public Block {
 public:
  ClipText(const ModuleOptions& options, const Config& config);
  // ids [batch, time]; mask [batch, time], 1 for real tokens, or undefined; positions [batch or 1, time] or undefined
  ClipOutput forward(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& positions,
                     bool hidden_states = false, bool attentions = false) const;

  const ClipTextConfig config;

 private:
  ClipTextEmbeddings& embeddings;
  ClipEncoder& encoder;
  nn::LayerNorm& norm;
};

class ClipVision : public Block {
 public:
  ClipVision(const ModuleOptions& options, const Config& config);
  // [batch, channels, height, width] or, of frames, [batch, channels, frames, height, width]
  ClipOutput forward(const at::Tensor& pixels, bool hidden_states = false, bool attentions = false) const;

  const ClipVisionConfig config;

 private:
  at::Tensor drop_patches(const at::Tensor& x, int64_t frames) const;

  ClipVisionEmbeddings& embeddings;
  nn::LayerNorm& pre_norm;
  ClipEncoder& encoder;
  nn::LayerNorm& post_norm;
};

ClipTextConfig::ClipTextConfig(const Config& config)
    : layer(config, {512, 2048, 12, 8}),
      vocabulary(positive(config, "vocab_size", 49408)),
      positions(positive(config, "max_position_embeddings", 77)),
      end(config.integer("eos_token_id", 49407)) {
  // Published files say 2, which is not their end token: the end is then the highest id.
  if (end == 2) end = -1;
}

ClipVisionConfig::ClipVisionConfig(const Config& config)
    : layer(config, {768, 3072, 12, 12}),
      channels(positive(config, "num_channels", 3)),
      patch(positive(config, "patch_size", 32)),
      frames(positive(config, "num_frames", 1)),
      patch_dropout(config.probability("force_patch_dropout", 0)),
      range(config.number("initializer_range", 0.02)),
      tubes(false) {
  constexpr int64_t kMost = int64_t{1} << 20;
  const std::vector<int64_t> size = config.integers("image_size", {224, 224});
  TORCH_CHECK(size.size() == 2 && patch <= size[0] && patch <= size[1] && size[0] <= kMost && size[1] <= kMost,
              "image_size must be a height and a width, each at least patch_size ", patch, ", got ", size);
  height = size[0];
  width = size[1];
  TORCH_CHECK(patch_dropout < 1, "force_patch_dropout must be below 1, got ", patch_dropout);
  if (!config.boolean("add_time_attn", false)) return;
  layer.frames = frames;
  layer.temporal_mlp = config.boolean("temporal_mlp", false);
  const std::string type = config.text("clip_type", "vl");
  TORCH_CHECK(type == "vl" || type == "vl_new", "clip_type must be 'vl' or 'vl_new', got '", type, "'");
  tubes = type == "vl_new";
  const int64_t tube = config.integer("tube_size", 1);
  TORCH_CHECK(!tubes || tube == 1, "tube_size must be 1, as in every published checkpoint, got ", tube);
}

class ClipTextEmbeddings : public Block {
 public:
  ClipTextEmbeddings(const ModuleOptions& options, const ClipTextConfig& c)
      : Block("CLIPTextEmbeddings", options),
        tokens(*child<Embedding>("token_embedding", c.vocabulary, c.layer.dim, -1, 0.02 * c.layer.factor)),
        positions(*child<Embedding>("position_embedding", c.positions, c.layer.dim, -1, 0.02 * c.layer.factor)) {}

  Tensor forward(const Tensor& ids, const Tensor& given) const {
    const Tensor& table = positions.weight;
    TORCH_CHECK(ids.size(1) <= table.size(0), "the text has ", ids.size(1),
                " tokens, but this network's positions end at ", table.size(0));
    const Tensor places =
        given.defined()
            ? given
            : at::arange(ids.size(1), at::TensorOptions().dtype(at::kLong).device(ids.device())).unsqueeze(0);
    return watched(ids, tokens.forward(ids) + positions.forward(places));  // [batch, time, dim]
  }

 private:
  Embedding &tokens, &positions;
};

ClipText::ClipText(const ModuleOptions& options, const Config& settings)
    : Block("CLIPTextModel", options),
      config(settings),
      embeddings(*child<ClipTextEmbeddings>("embeddings", config)),
      encoder(*child<ClipEncoder>("encoder", config.layer)),
      norm(*child<LayerNorm>("final_layer_norm", config.layer.dim, config.layer.eps)) {}

namespace {

// Which keys of a text each query sees, bool [batch, 1, time, time]: real ones up to its own. A query that would see
// none, in the padding before a text, sees itself.
Tensor text_mask(const Tensor& given, c10::Device device) {
  const Tensor real = nn::attention_mask(nn::mask_for(given, device));
  if (!real.defined()) return real;
  const int64_t time = real.size(-1);
  const Tensor seen = real.logical_and(clip_causal_mask(time, device));
  const Tensor itself = at::eye(time, at::TensorOptions().dtype(at::kBool).device(device));
  return seen.logical_or(seen.any(-1, true).logical_not().logical_and(itself));
}

}  // namespace

ClipOutput ClipText::forward(const Tensor& ids, const Tensor& mask, const Tensor& positions, bool hidden_states,
                             bool attentions) const {
  TORCH_CHECK(ids.dim() == 2 && ids.size(0) > 0 && ids.size(1) > 0 && !ids.is_floating_point(),
              "input_ids must be int64 [batch, time], at least one token, got ", ids.scalar_type(), " ", ids.sizes());
  TORCH_CHECK(!mask.defined() || mask.sizes().equals(ids.sizes()), "attention_mask must be [", ids.size(0), ", ",
              ids.size(1), "] like input_ids, got ", mask.sizes());
  TORCH_CHECK(!positions.defined() || (positions.dim() == 2 && positions.size(1) == ids.size(1) &&
                                       (positions.size(0) == 1 || positions.size(0) == ids.size(0))),
              "position_ids must be [", ids.size(0), " or 1, ", ids.size(1), "] like input_ids, got ",
              positions.sizes());
  const Tensor x = embeddings.forward(ids, positions);
  ClipOutput result = encoder.forward(x, text_mask(mask, ids.device()), true, hidden_states, attentions);
  const Tensor normed = norm.forward(result.last_hidden_state);
  // The first of equals.
  const Tensor last = (config.end < 0 ? ids : ids.eq(config.end).to(at::kInt)).argmax(-1);  // [batch]
  const Tensor places = last.view({-1, 1, 1}).expand({-1, 1, normed.size(2)});
  result.pooler_output = normed.gather(1, places).squeeze(1);  // [batch, dim]
  result.last_hidden_state = watched(ids, normed);
  return result;
}

class ClipVisionEmbeddings : public Block {
 public:
  ClipVisionEmbeddings(const ModuleOptions& options, const ClipVisionConfig& c)
      : Block("CLIPVisionEmbeddings", options),
        class_embedding(parameter("class_embedding", class_shape(c), init::normal(root(c.layer.dim) * c.layer.factor))),
        patches(*child<ClipPatches>("patch_embedding", patch_shape(c), false, c.range * c.layer.factor)),
        positions(*child<Embedding>("position_embedding", c.rows() * c.columns() + 1, c.layer.dim, -1,
                                    c.range * c.layer.factor)) {}

  // [batch, channels, frames, height, width] -> [batch * frames, patches + 1, dim]
  Tensor forward(const Tensor& pixels) const {
    const int64_t batch = pixels.size(0), frames = pixels.size(2), dim = class_embedding.size(-1);
    const Tensor seen = patches.forward(pixels.to(patches.weight.scalar_type()));
    const Tensor own = class_embedding.dim() == 2 ? class_embedding.repeat({batch, 1}).unsqueeze(1)
                                                  : class_embedding.expand({batch * frames, 1, dim});
    return watched(pixels, at::cat({own, seen}, 1) + positions.weight);
  }

 private:
  static std::vector<int64_t> patch_shape(const ClipVisionConfig& c) {
    if (c.tubes) return {c.layer.dim, c.channels, 1, c.patch, c.patch};
    return {c.layer.dim, c.channels, c.patch, c.patch};
  }
  static std::vector<int64_t> class_shape(const ClipVisionConfig& c) {
    if (c.tubes) return {c.frames, c.layer.dim};
    return {c.layer.dim};
  }
  const Tensor class_embedding;  // [dim], or [frames, dim]
  ClipPatches& patches;
  Embedding& positions;
};

ClipVision::ClipVision(const ModuleOptions& options, const Config& settings)
    : Block("CLIPVisionModel", options),
      config(settings),
      embeddings(*child<ClipVisionEmbeddings>("embeddings", config)),
      pre_norm(*child<LayerNorm>("pre_layrnorm", config.layer.dim, config.layer.eps)),
      encoder(*child<ClipEncoder>("encoder", config.layer)),
      post_norm(*child<LayerNorm>("post_layernorm", config.layer.dim, config.layer.eps)) {}

// Patch dropout (Li et al. 2022, https://arxiv.org/abs/2212.00794): training uses a fraction of the patches, the same
// of all frames of a clip.
Tensor ClipVision::drop_patches(const Tensor& x, int64_t frames) const {
  if (!training() || config.patch_dropout == 0) return x;
  const int64_t patches = x.size(1) - 1;
  const auto kept =
      std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(patches) * (1 - config.patch_dropout)));
  const Tensor noise =
      at::randn({x.size(0) / frames, patches}, at::TensorOptions().dtype(at::kFloat).device(x.device()));
  Tensor chosen = std::get<1>(noise.topk(kept, -1));  // [batch, kept]
  if (frames > 1) chosen = chosen.repeat_interleave(frames, 0);
  const Tensor places = (chosen + 1).unsqueeze(-1).expand({-1, -1, x.size(2)});
  return at::cat({x.narrow(1, 0, 1), x.gather(1, places)}, 1);  // [batch * frames, kept + 1, dim]
}

ClipOutput ClipVision::forward(const Tensor& given, bool hidden_states, bool attentions) const {
  const ClipVisionConfig& c = config;
  const bool of_frames = given.dim() == 5;
  TORCH_CHECK((of_frames || given.dim() == 4) && given.size(0) > 0 && given.size(1) == c.channels &&
                  given.size(-2) == c.height && given.size(-1) == c.width && given.is_floating_point(),
              "pixel_values must be floating point [batch, ", c.channels, ", ", c.height, ", ", c.width,
              "], with the frames before the height where there are any, got ", given.scalar_type(), " ",
              given.sizes());
  const Tensor pixels = of_frames ? given : given.unsqueeze(2);
  const int64_t batch = pixels.size(0), frames = pixels.size(2);
  TORCH_CHECK(frames > 0, "pixel_values has no frames");
  TORCH_CHECK(c.layer.frames == 0 || frames == c.layer.frames, "pixel_values has ", frames,
              " frames, but this network's num_frames is ", c.layer.frames);
  const Tensor x = pre_norm.forward(drop_patches(embeddings.forward(pixels), frames));
  ClipOutput result = encoder.forward(x, {}, false, hidden_states, attentions);
  const Tensor first = post_norm.forward(result.last_hidden_state.select(1, 0));  // [batch * frames, dim]
  result.frame_output = first.unflatten(0, {batch, frames});                      // [batch, frames, dim]
  result.pooler_output = frames == 1 ? first : result.frame_output.mean(1);
  result.last_hidden_state = watched(given, std::move(result.last_hidden_state));
  return result;
}

namespace {

class Clip : public Module {
 public:
  Clip(const ModuleOptions& options, const Config& settings)
      : Module("CLIPModel", options),
        logit_scale(parameter("logit_scale", {}, init::constant(settings.number("logit_scale_init_value", 2.6592)))),
        text(*child<ClipText>("text_model", settings.object("text_config"))),
        vision(*child<ClipVision>("vision_model", settings.object("vision_config"))),
        visual_projection(projection(settings, "visual_projection", vision.config.layer)),
        text_projection(projection(settings, "text_projection", text.config.layer)) {}

  Tensor text_features(const Tensor& ids, const Tensor& mask, const Tensor& positions) const {
    return text_projection.forward(text.forward(ids, mask, positions).pooler_output);
  }
  Tensor image_features(const Tensor& pixels) const {
    return visual_projection.forward(vision.forward(pixels).pooler_output);
  }

  const Tensor logit_scale;
  ClipText& text;
  ClipVision& vision;

 private:
  Linear& projection(const Config& settings, const char* name, const ClipLayerConfig& c) {
    return *child<Linear>(name, c.dim, positive(settings, "projection_dim", 512), false, root(c.dim) * c.factor);
  }
  Linear &visual_projection, &text_projection;
};

Tensor normalized(const Tensor& x) { return x / x.norm(2, -1, true); }

using ModulePtr = c10::intrusive_ptr<Module>;
using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;

std::tuple<Tensor, Tensor, Tensors, Tensors> text_forward(const ModulePtr& self, const Tensor& ids,
                                                          const OptionalTensor& mask, const OptionalTensor& positions,
                                                          bool hidden_states, bool attentions) {
  ClipOutput result =
      network<ClipText>(self, "clip_text_forward")
          .forward(ids, mask.value_or(Tensor()), positions.value_or(Tensor()), hidden_states, attentions);
  return {result.last_hidden_state, result.pooler_output, std::move(result.hidden_states),
          std::move(result.attentions)};
}

std::tuple<Tensor, Tensor, Tensor, Tensors, Tensors> vision_forward(const ModulePtr& self, const Tensor& pixels,
                                                                    bool hidden_states, bool attentions) {
  ClipOutput result = network<ClipVision>(self, "clip_vision_forward").forward(pixels, hidden_states, attentions);
  return {result.last_hidden_state, result.pooler_output, result.frame_output, std::move(result.hidden_states),
          std::move(result.attentions)};
}

Tensor text_features(const ModulePtr& self, const Tensor& ids, const OptionalTensor& mask,
                     const OptionalTensor& positions) {
  return network<Clip>(self, "clip_text_features")
      .text_features(ids, mask.value_or(Tensor()), positions.value_or(Tensor()));
}

Tensor image_features(const ModulePtr& self, const Tensor& pixels) {
  return network<Clip>(self, "clip_image_features").image_features(pixels);
}

// Each row's own column is the right one, in both directions.
Tensor contrastive_loss(const Tensor& logits) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(0) == logits.size(1) && logits.size(0) > 0,
              "the loss needs as many texts as images, got ", logits.size(0), " and ", logits.size(1));
  const Tensor own = at::arange(logits.size(0), at::TensorOptions().dtype(at::kLong).device(logits.device()));
  return (at::cross_entropy_loss(logits, own) + at::cross_entropy_loss(logits.t(), own)) / 2;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward_clip(const ModulePtr& self, const Tensor& ids,
                                                                const Tensor& pixels, const OptionalTensor& mask,
                                                                const OptionalTensor& positions, bool with_loss) {
  const auto& clip = network<Clip>(self, "clip_forward");
  const Tensor images = normalized(clip.image_features(pixels));
  const Tensor texts = normalized(clip.text_features(ids, mask.value_or(Tensor()), positions.value_or(Tensor())));
  const Tensor logits = at::matmul(texts, images.t()) * clip.logit_scale.exp();  // [texts, images]
  return {with_loss ? contrastive_loss(logits) : Tensor(), logits.t(), logits, texts, images};
}

const RegisteredModule registered_clip("clip", make_module<Clip>);
const RegisteredModule registered_text("clip_text", make_module<ClipText>);
const RegisteredModule registered_vision("clip_vision", make_module<ClipVision>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "clip_text_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_ids, Tensor? attention_mask=None, "
      "*, Tensor? position_ids=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor pooler_output, Tensor[] hidden_states, Tensor[] attentions)",
      text_forward);
  // frame_output: each frame's class token after the last norm; pooler_output is its mean.
  m.def(
      "clip_vision_forward(__torch__.torch.classes.voxtorch.Module self, Tensor pixel_values, *, bool "
      "output_hidden_states=False, bool output_attentions=False) -> (Tensor last_hidden_state, Tensor pooler_output, "
      "Tensor frame_output, Tensor[] hidden_states, Tensor[] attentions)",
      vision_forward);
  m.def(
      "clip_text_features(__torch__.torch.classes.voxtorch.Module self, Tensor input_ids, Tensor? attention_mask=None, "
      "*, Tensor? position_ids=None) -> Tensor text_features",
      text_features);
  m.def(
      "clip_image_features(__torch__.torch.classes.voxtorch.Module self, Tensor pixel_values) -> Tensor image_features",
      image_features);
  m.def(
      "clip_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_ids, Tensor pixel_values, *, Tensor? "
      "attention_mask=None, Tensor? position_ids=None, bool return_loss=False) -> (Tensor loss, Tensor "
      "logits_per_image, Tensor logits_per_text, Tensor text_embeds, Tensor image_embeds)",
      forward_clip);
}

}  // namespace voxtorch::models
