// Layers of speech encoders and the pass through a stack of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/block.h"
#include "core/nn/checkpoint.h"
#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/segments.h"

namespace voxtorch::nn {

class EncoderLayer : public Block {
 public:
  using Block::Block;
  // A bias for pairs of positions that the first layer computes for all, [heads, 2 * time - 1]; undefined: none.
  virtual at::Tensor relative_bias(int64_t) const { return {}; }
  // x [batch, time, dim] and mask bool [batch, time] or undefined; or sequences in one row, x [1, total, dim].
  virtual Attended forward(const at::Tensor& x, const at::Tensor& mask, const std::optional<Segments>& segments,
                           const at::Tensor& relative, bool with_weights) const = 0;
};

// Inputs that all layers of a pass share.
struct EncoderPass {
  at::Tensor mask = {};                   // bool [batch, time]; undefined: all frames are valid
  std::optional<Segments> segments = {};  // of sequences in one row
  at::Tensor relative = {};               // positions or biases, which may have a gradient
  bool hidden_states = false, attentions = false;
  double layer_drop = 0;     // probability that training skips a layer
  bool keeps_first = false;  // the first layer is never skipped
  // What becomes of the output of a layer, by its place from 0; null: it stays as it is.
  std::function<at::Tensor(size_t layer, const at::Tensor& output)> after = {};
};

struct EncoderStates {
  at::Tensor last;                        // [batch, time, dim]
  std::vector<at::Tensor> hidden_states;  // the first layer's input and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, time, time] per layer, where asked for
};

EncoderStates run_layers(const ModuleList<EncoderLayer>& layers, const Checkpointing& checkpointing, at::Tensor x,
                         const EncoderPass& pass);

// Whether layer drop skips a layer now.
bool is_dropped(double probability);

struct FeedForwardShape {
  int64_t dim, hidden;
  std::string activation;
  double std = 0.02;  // of the initial weights
  double activation_dropout = 0, dropout = 0;
  bool bias = true;
  const char *up = "intermediate_dense", *down = "output_dense";
  const char* norm = nullptr;  // of a layer norm before `up`; null: none
};

// down(activation(up(norm(x)))), with dropout after each product.
class FeedForward : public Block {
 public:
  FeedForward(const ModuleOptions& options, const FeedForwardShape& shape);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual) const;  // residual + forward(x)

 private:
  at::Tensor hidden(const at::Tensor& x) const;
  const LayerNorm* const norm;
  Linear &up, &down;
  const Activation activation;
  const double activation_dropout, dropout;
};

}  // namespace voxtorch::nn
