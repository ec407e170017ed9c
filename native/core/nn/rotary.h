// Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) in the half-rotation layout of LLaMA:
// dimension i rotates with dimension i + dim / 2, where dim is the number of rotated dimensions. With the scalings that
// published decoders have, by the names in their configuration.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <optional>

#include "core/config.h"

namespace voxtorch::nn {

// cos and sin of the angles, [batch or 1, 1, time, dim / 2].
struct Rotation {
  at::Tensor cos, sin;
  // [batch, heads, time, head_dim] -> the same; the dimensions of a head after the first `dim` stay as they are.
  at::Tensor apply(const at::Tensor& x) const;
};

class Rotary {
 public:
  // Reads rope_parameters, or rope_theta and rope_scaling as older files have them. The lists of longrope's factors are
  // objects whose keys are their places, from 0. `partial`: whether the family may rotate only the first dimensions of
  // a head (partial_rotary_factor).
  Rotary(const Config& config, int64_t head_dim, int64_t max_positions, bool partial = false);

  // positions int64 [batch or 1, time]. Angles are float32, as transformers computes them; the result has `dtype`.
  // Where they depend on the length of the text, that is `length` tokens; without it, one more than the last position.
  Rotation at(const at::Tensor& positions, at::ScalarType dtype, std::optional<int64_t> length = {}) const;
  // The same where each token has the angles of the text that ends with it.
  Rotation at_each(const at::Tensor& positions, at::ScalarType dtype) const;
  // Whether the angles of a position depend on how long the text is.
  bool depends_on_length() const { return grows || inverse_long.defined(); }
  // A number for the angles of texts of `length` tokens: two lengths with the same number have the same angles.
  int64_t angles(int64_t length) const;
  // Whether there are two sets of angles only ('longrope'): a text that grows beyond the first is computed again.
  bool has_two_sets() const { return inverse_long.defined(); }
  // Of `most` tokens after a text of `length`, those that may follow before the angles of a two-set text change.
  int64_t before_change(int64_t length, int64_t most) const;
  int64_t rotated() const { return dim; }  // dimensions of a head

 private:
  at::Tensor frequencies(double base) const;
  at::Tensor llama3(const Config& scaling) const;
  at::Tensor yarn(const Config& scaling);
  void longrope(const Config& config, const Config& scaling, const std::string& type);
  at::Tensor inverse_on(c10::Device device, std::optional<int64_t> length) const;
  at::Tensor dynamic(int64_t length) const;

  const int64_t dim, max_positions;  // dim: of those that rotate
  double theta = 10000, factor = 1;
  double attention_scaling = 1;  // of cos and sin (YaRN, LongRoPE)
  bool grows = false;            // 'dynamic': the base depends on the length
  at::Tensor inverse;            // float32 [dim / 2] on the CPU
  at::Tensor inverse_long;       // LongRoPE: of texts of more than `original` tokens; else undefined
  int64_t original = 0;
  // The same where positions were last: a copy to a GPU waits for it.
  mutable std::mutex mutex;
  mutable at::Tensor inverse_there, inverse_long_there;
};

}  // namespace voxtorch::nn
