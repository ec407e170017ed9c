#include "core/kernels/many_rows/many_rows.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/many_rows/args.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 1 << 14;  // inputs to prepare, below which a second thread costs more than it saves

Tensor floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

}  // namespace

const ManyRowsBuild& many_rows_build() {
  static const ManyRowsBuild build = [] {
#if defined(__x86_64__)
    if (has_integer_sums()) return ManyRowsBuild{many_rows_avx512_vnni, many_rows_prepare_avx512_vnni};
#endif
    return ManyRowsBuild{VOXTORCH_BEST_BUILD(many_rows), VOXTORCH_BEST_BUILD(many_rows_prepare)};
  }();
  return build;
}

Tensor many_rows_linear(const Tensor& input, const FewRows& weights, const std::optional<Tensor>& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Tensor rows = floats(input);
  const Tensor offset = bias.has_value() && bias->defined() ? floats(*bias) : Tensor();
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weights.out;
  const Tensor output = at::empty(shape, rows.options());
  FewRows args = weights;
  args.rows = rows.numel() / args.in;
  args.bias = offset.defined() ? offset.const_data_ptr<float>() : nullptr;
  args.output = output.mutable_data_ptr<float>();
  const int64_t bytes = many_rows_bytes(args.in);
  const Tensor prepared = at::empty({args.rows * bytes}, rows.options().dtype(at::kByte));
  const auto* const from = rows.const_data_ptr<float>();
  auto* const to = prepared.mutable_data_ptr<uint8_t>();
  const auto& [outputs, prepare] = many_rows_build();
  at::parallel_for(0, args.rows, std::max<int64_t>(1, kGrain / args.in), [&](int64_t begin, int64_t end) {
    prepare(from + begin * args.in, end - begin, args.in, to + begin * bytes);
  });
  args.input = to;
  const int64_t panels = (args.out + kPanelOutputs - 1) / kPanelOutputs;
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sums(static_cast<size_t>(args.rows * kPanelOutputs));
    outputs(args, begin * kPanelOutputs, std::min(end * kPanelOutputs, args.out), sums.data());
  });
  return output.to(input.scalar_type());
}

}  // namespace voxtorch::kernels
