#include "core/nn/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

namespace voxtorch::nn {

using at::Tensor;

namespace {

constexpr double kPi = 3.14159265358979323846;

double needed(const Config& scaling, const char* key, const std::string& type) {
  TORCH_CHECK(scaling.has(key), "the configuration's RoPE scaling of type '", type, "' has no ", key);
  return scaling.number(key, 0);
}

Config scaling_of(const Config& config) {
  return config.object(config.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
}

int64_t rotated_of(const Config& config, int64_t head_dim, bool partial) {
  TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0, "the dimension of a head must be even for RoPE, got ", head_dim);
  // Its table takes time before anything takes memory.
  TORCH_CHECK(head_dim <= 65536, "the dimension of a head must be at most 65536 for RoPE, got ", head_dim);
  const double factor = scaling_of(config).number("partial_rotary_factor", config.number("partial_rotary_factor", 1));
  TORCH_CHECK(partial || factor == 1, "partial_rotary_factor: expected 1, got ", factor,
              ". Of this family's networks only Phi-3's rotate a part of each head.");
  const double exact = static_cast<double>(head_dim) * factor;
  TORCH_CHECK(factor > 0 && factor <= 1, "partial_rotary_factor: expected a number above 0, at most 1, got ", factor);
  const auto rotated = static_cast<int64_t>(exact);
  TORCH_CHECK(rotated > 0 && rotated % 2 == 0, "partial_rotary_factor: expected an even number of the ", head_dim,
              " dimensions of a head, got ", factor, " of them, which is ", exact);
  return rotated;
}

}  // namespace

Tensor Rotation::apply(const Tensor& x) const {
  const int64_t half = cos.size(-1), rest = x.size(-1) - 2 * half;
  const Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  if (rest == 0) return at::cat({first * cos - second * sin, second * cos + first * sin}, -1);
  return at::cat({first * cos - second * sin, second * cos + first * sin, x.narrow(-1, 2 * half, rest)}, -1);
}

Rotary::Rotary(const Config& config, int64_t head_dim, int64_t max_positions, bool partial)
    : dim(rotated_of(config, head_dim, partial)), max_positions(max_positions) {
  const Config scaling = scaling_of(config);
  theta = scaling.number("rope_theta", config.number("rope_theta", 10000));
  TORCH_CHECK(theta > 0, "rope_theta must be above 0, got ", theta);
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  if (type == "default") {
    inverse = frequencies(theta);
    return;
  }
  // Early files of Phi-3 call the same lists of factors by these names.
  if (type == "longrope" || type == "su" || (type == "yarn" && scaling.has("long_factor"))) {
    longrope(config, scaling, type);
    return;
  }
  const bool known = type == "linear" || type == "dynamic" || type == "llama3" || type == "yarn";
  TORCH_CHECK(known, "the configuration names an unknown RoPE scaling '", type,
              "'; known are default, linear, dynamic, llama3, yarn, longrope");
  factor = needed(scaling, "factor", type);
  TORCH_CHECK(factor > 0, "the factor of the RoPE scaling must be above 0, got ", factor);
  grows = type == "dynamic";
  TORCH_CHECK(!grows || dim > 2, "RoPE scaling of type 'dynamic' needs heads of more than 2 rotated dimensions");
  if (type == "llama3") {
    inverse = llama3(scaling);
  } else if (type == "yarn") {
    inverse = yarn(scaling);
  } else {
    inverse = type == "linear" ? frequencies(theta) / factor : frequencies(theta);
  }
}

Rotation Rotary::at(const Tensor& positions, at::ScalarType dtype, std::optional<int64_t> length) const {
  if (depends_on_length() && !length) {
    length = positions.is_meta() || positions.numel() == 0 ? 0 : positions.max().item<int64_t>() + 1;
  }
  const Tensor there = grows ? dynamic(*length).to(positions.device()) : inverse_on(positions.device(), length);
  const Tensor angles = (positions.to(at::kFloat).unsqueeze(-1) * there).unsqueeze(1);  // [batch, 1, time, dim / 2]
  return {(angles.cos() * attention_scaling).to(dtype), (angles.sin() * attention_scaling).to(dtype)};
}

Rotation Rotary::at_each(const Tensor& positions, at::ScalarType dtype) const {
  if (!grows || positions.is_meta()) return at(positions, dtype);
  const Tensor ends = positions.to(at::kCPU).flatten().contiguous();
  std::vector<Tensor> each;
  for (int64_t i = 0; i < ends.numel(); ++i) each.push_back(dynamic(ends.const_data_ptr<int64_t>()[i] + 1));
  const Tensor inverses = at::stack(each).view({positions.size(0), positions.size(1), dim / 2}).to(positions.device());
  const Tensor angles = (positions.to(at::kFloat).unsqueeze(-1) * inverses).unsqueeze(1);
  return {(angles.cos() * attention_scaling).to(dtype), (angles.sin() * attention_scaling).to(dtype)};
}

Tensor Rotary::frequencies(double base) const {
  return at::reciprocal(at::pow(base, at::arange(0, dim, 2, at::TensorOptions().dtype(at::kFloat)) / dim));
}

int64_t Rotary::angles(int64_t length) const {
  if (grows) return length <= max_positions ? 0 : length;
  return inverse_long.defined() && length > original ? 1 : 0;
}

int64_t Rotary::before_change(int64_t length, int64_t most) const {
  return has_two_sets() && length <= original ? std::min(most, original - length) : most;
}

Tensor Rotary::inverse_on(c10::Device device, std::optional<int64_t> length) const {
  const bool is_long = inverse_long.defined() && *length > original;
  const std::lock_guard<std::mutex> lock(mutex);
  Tensor& there = is_long ? inverse_long_there : inverse_there;
  if (!there.defined() || there.device() != device) {
    const c10::InferenceMode normal(false);
    there = (is_long ? inverse_long : inverse).to(device);
  }
  return there;
}

// NTK-aware scaling that begins where the text is longer than those of pre-training.
Tensor Rotary::dynamic(int64_t length) const {
  if (length <= max_positions) return inverse;
  const double share = static_cast<double>(length) / static_cast<double>(max_positions), d = static_cast<double>(dim);
  return frequencies(theta * std::pow(factor * share - (factor - 1), d / (d - 2)));
}

// LongRoPE (Ding et al. 2024, https://arxiv.org/abs/2402.13753): a factor for each frequency, one list for texts as
// long as those of pre-training and one for all tokens of longer texts.
void Rotary::longrope(const Config& config, const Config& scaling, const std::string& type) {
  const auto positions = static_cast<double>(max_positions);
  original = static_cast<int64_t>(
      scaling.number("original_max_position_embeddings", config.number("original_max_position_embeddings", positions)));
  TORCH_CHECK(original > 1, "original_max_position_embeddings must be above 1 for RoPE scaling of type '", type,
              "', got ", original);
  const auto list = [&](const char* key) {
    const Config given = scaling.object(key);
    std::vector<double> factors;
    while (given.has(std::to_string(factors.size()))) {
      factors.push_back(given.number(std::to_string(factors.size()), 0));
      TORCH_CHECK(factors.back() > 0, "the numbers in ", key, " must be above 0, got ", factors.back());
    }
    TORCH_CHECK(static_cast<int64_t>(factors.size()) == dim / 2, "RoPE scaling of type '", type, "' needs ", dim / 2,
                " numbers in ", key, ", one for each pair of a head's dimensions, got ", factors.size());
    const Tensor factor = at::tensor(factors, at::TensorOptions().dtype(at::kFloat));
    return at::reciprocal(factor * at::pow(theta, at::arange(0, dim, 2, factor.options()) / dim));
  };
  inverse = list("short_factor");
  inverse_long = list("long_factor");
  factor = scaling.number("factor", positions / static_cast<double>(original));
  if (factor > 1 && type == "yarn") attention_scaling = 0.1 * std::log(factor) + 1;
  if (factor > 1 && type != "yarn") {
    attention_scaling = std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  }
  attention_scaling = scaling.number("attention_factor", attention_scaling);
}

// Llama 3.1 (https://arxiv.org/abs/2407.21783): long wavelengths are stretched by the factor, short ones stay.
Tensor Rotary::llama3(const Config& scaling) const {
  const double low = needed(scaling, "low_freq_factor", "llama3"), high = needed(scaling, "high_freq_factor", "llama3");
  TORCH_CHECK(low > 0 && high > low, "RoPE scaling of type 'llama3' needs 0 < low_freq_factor < high_freq_factor");
  const double original = scaling.number("original_max_position_embeddings", static_cast<double>(max_positions));
  const Tensor plain = frequencies(theta);
  const Tensor wavelength = 2 * kPi / plain;
  const Tensor stretched = plain / factor;
  const Tensor smooth = (original / wavelength - low) / (high - low);
  const Tensor between = (1 - smooth) * stretched + smooth * plain;
  return at::where(wavelength > original / low, stretched, at::where(wavelength < original / high, plain, between));
}

// YaRN (Peng et al. 2023, https://arxiv.org/abs/2309.00071).
Tensor Rotary::yarn(const Config& scaling) {
  const auto scale = [&](double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; };
  const double mscale = scaling.number("mscale", 0), all_dim = scaling.number("mscale_all_dim", 0);
  attention_scaling = mscale != 0 && all_dim != 0 ? scale(mscale) / scale(all_dim) : scale(1);
  attention_scaling = scaling.number("attention_factor", attention_scaling);
  const double original = scaling.number("original_max_position_embeddings", static_cast<double>(max_positions));
  const auto dimension_of = [&](double rotations) {
    return static_cast<double>(dim) * std::log(original / (rotations * 2 * kPi)) / (2 * std::log(theta));
  };
  double low = dimension_of(scaling.number("beta_fast", 32)), high = dimension_of(scaling.number("beta_slow", 1));
  if (scaling.boolean("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  const Tensor ramp = ((at::arange(dim / 2, at::TensorOptions().dtype(at::kFloat)) - low) / (high - low)).clamp(0, 1);
  const Tensor plain = frequencies(theta);
  return plain / factor * ramp + plain * (1 - ramp);
}

}  // namespace voxtorch::nn
