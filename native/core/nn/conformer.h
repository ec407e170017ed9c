// Conformer layers (Gulati et al. 2020, https://arxiv.org/abs/2005.08100), as Parakeet, Wav2Vec2Conformer and w2v-BERT
// 2.0 have them.
#pragma once

#include <string>

#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/encoder_layer.h"

namespace voxtorch::nn {

// Names of the parameters in a published file; the defaults are those of Wav2Vec2Conformer.
struct ConformerNames {
  const char *first_norm = "ffn1_layer_norm", *first = "ffn1";
  const char *attention_norm = "self_attn_layer_norm", *attention = "self_attn";
  // Null: "layer_norm" of the convolution module. With a norm in the layer, all its norms follow the other parts.
  const char* convolution_norm = nullptr;
  const char* convolution = "conv_module";
  const char *second_norm = "ffn2_layer_norm", *second = "ffn2", *final_norm = "final_layer_norm";
  const char *up = "intermediate_dense", *down = "output_dense";
  const char *query = "linear_q", *key = "linear_k", *value = "linear_v", *output = "linear_out";
  const char *relative = "linear_pos", *content_bias = "pos_bias_u", *position_bias = "pos_bias_v";
  const char* batch_norm = "batch_norm";
  // Inside the convolution module; its first norm is there without a `convolution_norm`.
  const char* module_norm = "layer_norm";
  const char *pointwise_up = "pointwise_conv1", *depthwise = "depthwise_conv", *pointwise_down = "pointwise_conv2";
  const char* depthwise_conv = nullptr;  // of the convolution inside `depthwise`; null: `depthwise` is the convolution
};

struct ConformerShape {
  int64_t dim, heads, intermediate, kernel;
  std::string activation;
  double eps = 1e-5, std = 0.02;
  double convolution_std = 0;  // 0: by the fan-in
  bool attention_bias = true, convolution_bias = false;
  bool pointwise_bias = false;  // of the convolutions of one step, without a `convolution_bias`
  int64_t expansion = 1;        // of the channels inside the convolution module
  // "relative": sines of distances (Dai et al. 2019, https://arxiv.org/abs/1901.02860); "relative_key": a learned
  // vector for each distance from -left to right (Shaw et al. 2018, https://arxiv.org/abs/1803.02155); "rotary"; "":
  // none.
  std::string positions = {};
  Init position_biases = {};  // initial content and position biases of "relative"
  bool local = false;         // with "relative": a frame attends to `left` frames before and `right` after it
  int64_t left = 0, right = 0;
  bool causal = false;            // the convolution sees earlier frames only, and a layer norm follows it
  bool masks_convolution = true;  // padding is 0 in the convolution
  double attention_dropout = 0, activation_dropout = 0, feed_forward_dropout = 0;
  double residual_dropout = 0;  // of the attention's output
  double convolution_dropout = 0;
  ConformerNames names = {};
};

// Frequencies of positions, base^(-2i / dim), [dim / 2].
at::Tensor inverse_frequencies(int64_t dim, double base, const at::TensorOptions& options);
// Distances from `before` down to -`after` as a sine and a cosine of each frequency, [1, distances, 2 * frequencies].
at::Tensor distance_sines(const at::Tensor& frequencies, int64_t before, int64_t after);

// scores [..., queries, queries + keys - 1] of each query by distance, the largest of the last query first, as those of
// its keys, [..., queries, keys]. A view.
at::Tensor by_key(const at::Tensor& scores, int64_t keys);
// A finite number where `seen` is false, so that a frame of padding, which has nothing to attend to, gives a number.
at::Tensor lowest_where_unseen(const at::Tensor& bias, const at::Tensor& seen);

class ConformerAttention : public Block {
 public:
  ConformerAttention(const ModuleOptions& options, const ConformerShape& shape);
  // x [batch, time, dim]; mask bool [batch, time] or undefined; relative: with "relative" the sines of all distances
  // that occur, [1 or batch, distances, dim]; with "rotary" cosines and sines [2, time, 1, dim / heads / 2].
  Attended forward(const at::Tensor& x, const at::Tensor& mask, const at::Tensor& relative, bool with_weights) const;

  // The largest distances to a key before and after its query that occur among so many frames.
  struct Reach {
    int64_t before, after;
  };
  static Reach reach(const ConformerShape& shape, int64_t frames);

 private:
  struct Inputs;
  struct Span;
  at::Tensor rotate(const at::Tensor& x, const at::Tensor& turns) const;
  at::Tensor by_distance(const at::Tensor& q) const;
  Attended attend(const Inputs& in, Span queries, Span keys, const at::Tensor& near, bool with_weights) const;
  Attended local(const Inputs& in) const;

  const ConformerShape shape;
  Linear &query, &key, &value, &output;
  Linear* const sines;
  const at::Tensor content_bias, position_bias;  // [heads, dim / heads], with sines
  Embedding* const distances;
  const double scale;
};

class ConformerConvolution : public Block {
 public:
  ConformerConvolution(const ModuleOptions& options, const ConformerShape& shape);
  at::Tensor forward(const at::Tensor& input, const at::Tensor& mask) const;  // [batch, time, dim]

 private:
  const bool causal, masks;
  const LayerNorm* const norm;
  Conv1d& first;
  const Block* const depthwise_block;  // around `depthwise`, or null
  Conv1d& depthwise;
  const BatchNorm1d* const batch_norm;
  const LayerNorm* const depthwise_norm;
  Conv1d& second;
  const Activation activation;
  const double dropout;
};

class ConformerLayer : public EncoderLayer {
 public:
  ConformerLayer(const ModuleOptions& options, const ConformerShape& shape);
  Attended forward(const at::Tensor& input, const at::Tensor& mask, const std::optional<Segments>& segments,
                   const at::Tensor& relative, bool with_weights) const override;

 private:
  const LayerNorm *first_norm, *attention_norm, *convolution_norm, *second_norm, *final_norm;
  const FeedForward *first, *second;
  const ConformerAttention* attention;
  const ConformerConvolution* convolution;
  const double dropout;
};

}  // namespace voxtorch::nn
