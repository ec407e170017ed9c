#include "core/kernels/few_rows/few_rows.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/kernels/block_quantization.h"
#include "core/kernels/few_rows/args.h"
#include "core/kernels/plain.h"
#include "core/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Outputs = void (*)(const FewRows&, int64_t, int64_t);

// More rows are oneDNN's.
constexpr int64_t kMostRows = 8;
constexpr int64_t kGrain = 1 << 16;      // weights below which a second thread costs more than it saves
constexpr int64_t kFewWeights = kGrain;  // these are in a cache, and quick anyway

Outputs chosen_outputs() {
#if defined(__x86_64__)
  static const Outputs chosen = [] {
    const std::string capability = at::get_cpu_capability();
    if (capability.rfind("AVX512", 0) == 0) return few_rows_avx512;
    if (capability == "AVX2") return few_rows_avx2;
    return few_rows_default;
  }();
  return chosen;
#else
  return few_rows_default;
#endif
}

FewRows::Weight weight_type(const Tensor& weight) {
  switch (weight.scalar_type()) {
    case at::kBFloat16:
      return FewRows::Weight::bfloat16;
    case at::kChar:
      return FewRows::Weight::int8;
    default:
      return FewRows::Weight::float32;
  }
}

// Whether there are few rows of so many numbers, of a dtype and kind that the kernels take.
bool are_few(const Tensor& input, int64_t out, int64_t in) {
  const c10::ScalarType dtype = input.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kBFloat16) || !is_inference()) return false;
  if (input.dim() == 0 || input.size(-1) != in || out * in < kFewWeights) return false;
  if (input.numel() == 0 || input.numel() > kMostRows * in || !is_plain(input, dtype)) return false;
  return !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

const float* pointer(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

// `weights` has all but what follows from the other arguments.
Tensor product(const Tensor& input, const Tensor& rows, const OptionalTensor& bias, FewRows weights) {
  const Tensor offset = bias.has_value() && bias->defined() ? floats(*bias) : Tensor();
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weights.out;
  Tensor output = at::empty(shape, rows.options());
  weights.input = pointer(rows);
  weights.bias = pointer(offset);
  weights.output = output.mutable_data_ptr<float>();
  weights.rows = rows.numel() / weights.in;
  const Outputs outputs = chosen_outputs();
  at::parallel_for(0, weights.out, std::max<int64_t>(1, kGrain / weights.in),
                   [&](int64_t begin, int64_t end) { outputs(weights, begin, end); });
  return output.to(input.scalar_type());
}

// float32 in the order that nf4's codes want.
Tensor in_lanes(const Tensor& input) {
  constexpr int64_t kPlaces = kNf4Group / kNf4Lanes;
  const Tensor rows = floats(input);
  Tensor sorted = at::empty(rows.sizes(), rows.options());
  const auto* from = rows.const_data_ptr<float>();
  auto* to = sorted.mutable_data_ptr<float>();
  for (int64_t group = 0; group < rows.numel(); group += kNf4Group) {
    for (int64_t i = 0; i < kNf4Group; ++i) to[group + i % kPlaces * kNf4Lanes + i / kPlaces] = from[group + i];
  }
  return sorted;
}

}  // namespace

bool are_few_rows(const Tensor& input, const Tensor& weight) {
  if (weight.dim() != 2 || !are_few(input, weight.size(0), weight.size(1))) return false;
  if (!is_plain(weight, weight.scalar_type()) || !weight.is_contiguous()) return false;
  return weight.scalar_type() == input.scalar_type() || weight.scalar_type() == at::kChar;
}

Tensor few_rows_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const OptionalTensor& absmax) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(!absmax.has_value() || (absmax->is_cpu() && absmax->numel() == weight.size(0)),
              "few_rows_linear: absmax must be on the CPU and have shape [", weight.size(0), "]");
  const Tensor scale = absmax.has_value() ? floats(*absmax).div(127) : Tensor();
  FewRows weights{};
  weights.weight = weight.const_data_ptr();
  weights.scale = pointer(scale);
  weights.in = weight.size(1);
  weights.out = weight.size(0);
  weights.type = weight_type(weight);
  return product(input, floats(input), bias, weights);
}

bool are_few_rows_of_nf4(const Tensor& input, const Tensor& codes, int64_t out, int64_t in, int64_t block) {
  return in % kNf4Group == 0 && block % kNf4Group == 0 && are_few(input, out, in) && is_plain(codes, at::kByte) &&
         codes.is_contiguous() && codes.numel() == out * in / 2;
}

Tensor few_rows_nf4_linear(const Tensor& input, const Tensor& codes, const Tensor& scales, int64_t out, int64_t block,
                           const OptionalTensor& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t in = input.size(-1), blocks = (out * in + block - 1) / block;
  TORCH_CHECK(scales.is_cpu() && scales.numel() == blocks,
              "few_rows_nf4_linear: the scales must be on the CPU and have shape [", blocks, "]");
  const Tensor scale = floats(scales);
  FewRows weights{};
  weights.weight = codes.const_data_ptr();
  weights.scale = pointer(scale);
  weights.in = in;
  weights.out = out;
  weights.type = FewRows::Weight::nf4;
  weights.block = block;
  weights.values = nf4_values().data();
  return product(input, in_lanes(input), bias, weights);
}

}  // namespace voxtorch::kernels
