#include "core/kernels/few_rows.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/kernels/few_rows_args.h"
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

}  // namespace

bool are_few_rows(const Tensor& input, const Tensor& weight) {
  const c10::ScalarType dtype = input.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kBFloat16) || !is_inference()) return false;
  if (input.dim() == 0 || weight.dim() != 2 || input.size(-1) != weight.size(1)) return false;
  if (input.numel() == 0 || input.numel() > kMostRows * input.size(-1) || weight.numel() < kFewWeights) return false;
  if (!is_plain(input, dtype) || !is_plain(weight, weight.scalar_type()) || !weight.is_contiguous()) return false;
  if (weight.scalar_type() != dtype && weight.scalar_type() != at::kChar) return false;
  return !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor few_rows_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const OptionalTensor& absmax) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto floats = [](const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); };
  const Tensor rows = floats(input);
  const Tensor offset = bias.has_value() && bias->defined() ? floats(*bias) : Tensor();
  const Tensor scale = absmax.has_value() ? floats(*absmax).div(127) : Tensor();
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weight.size(0);
  Tensor output = at::empty(shape, rows.options());
  const auto pointer = [](const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; };
  const int64_t in = weight.size(1), out = weight.size(0);
  const FewRows args{pointer(rows),
                     weight.const_data_ptr(),
                     pointer(scale),
                     pointer(offset),
                     output.mutable_data_ptr<float>(),
                     rows.numel() / in,
                     in,
                     out,
                     weight_type(weight)};
  const Outputs outputs = chosen_outputs();
  at::parallel_for(0, out, std::max<int64_t>(1, kGrain / in),
                   [&](int64_t begin, int64_t end) { outputs(args, begin, end); });
  return output.to(input.scalar_type());
}

}  // namespace voxtorch::kernels
