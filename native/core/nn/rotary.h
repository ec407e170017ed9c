// Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) in the half-rotation layout of LLaMA:
// dimension i turns with dimension i + dim / 2. With the scalings that published decoders have, by the names in their
// configuration.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>

#include "core/config.h"

namespace voxtorch::nn {

// cos and sin of the angles, [batch or 1, 1, time, dim / 2].
struct Rotation {
  at::Tensor cos, sin;
  at::Tensor apply(const at::Tensor& x) const;  // [batch, heads, time, dim] -> the same
};

class Rotary {
 public:
  // Reads rope_parameters, or rope_theta and rope_scaling as older files have them.
  Rotary(const Config& config, int64_t dim, int64_t max_positions);

  // positions int64 [batch or 1, time]. Angles are float32, as transformers computes them; the result has `dtype`.
  Rotation at(const at::Tensor& positions, at::ScalarType dtype) const;
  // Whether the angles of a position depend on how long the text is.
  bool depends_on_length() const { return grows; }

 private:
  at::Tensor frequencies(double base) const;
  at::Tensor llama3(const Config& scaling) const;
  at::Tensor yarn(const Config& scaling);
  at::Tensor inverse_on(c10::Device device) const;
  at::Tensor dynamic(const at::Tensor& positions) const;

  const int64_t dim, max_positions;
  double theta = 10000, factor = 1;
  double attention_scaling = 1;  // of cos and sin (YaRN)
  bool grows = false;            // 'dynamic': the base depends on the length
  at::Tensor inverse;            // float32 [dim / 2] on the CPU
  // The same where positions were last: a copy to a GPU waits for it.
  mutable std::mutex mutex;
  mutable at::Tensor inverse_there;
};

}  // namespace voxtorch::nn
