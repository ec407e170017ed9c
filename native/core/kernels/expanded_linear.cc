#include "core/kernels/expanded_linear.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "core/kernels/float_product/float_product.h"
#include "core/kernels/plain.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kPanelNumbers = 1 << 20;  // of the weight in float32 at a time
constexpr int64_t kFewProducts = 1 << 20;   // multiplications below which either way is quick

Tensor to_floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }
Tensor rows_of(const Tensor& tensor) { return tensor.reshape({-1, tensor.size(-1)}); }
Tensor to_float_rows(const Tensor& tensor) { return to_floats(rows_of(tensor)); }

template <typename Function>
void each_panel(int64_t outputs, int64_t width, const Function& function) {
  const int64_t side = std::max<int64_t>(32, kPanelNumbers / std::max<int64_t>(width, 1));
  for (int64_t first = 0; first < outputs; first += side) function(first, std::min(side, outputs - first));
}

bool is_supported(const char* question) {
  const auto op = c10::Dispatcher::singleton().findSchema({question, ""});
  if (!op) return false;
  torch::jit::Stack stack;
  op->callBoxed(stack);
  return stack.front().toBool();
}

}  // namespace

bool has_products(c10::ScalarType dtype) {
  static const bool bfloat16 = is_supported("mkldnn::_is_mkldnn_bf16_supported");
  static const bool float16 = is_supported("mkldnn::_is_mkldnn_fp16_supported");
  return dtype == at::kBFloat16 ? bfloat16 : dtype != at::kHalf || float16;
}

bool is_expanded(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const c10::ScalarType dtype = input.scalar_type();
  if (has_products(dtype)) return false;
  if (!is_plain(input, dtype) || !is_plain(weight, dtype) || weight.dim() != 2 || input.dim() == 0 ||
      input.size(-1) != weight.size(1) || input.numel() * weight.size(0) < kFewProducts)
    return false;
  if (bias.has_value() && bias->defined() &&
      (!is_plain(*bias, dtype) || bias->dim() != 1 || bias->size(0) != weight.size(0)))
    return false;
  return !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor expanded_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weight.size(0);
  if (has_widened_products()) {
    return widened_linear(input, weight, bias).to(input.scalar_type()).view(shape);
  }
  const Tensor rows = to_float_rows(input);
  const Tensor output = at::empty({rows.size(0), weight.size(0)}, rows.options());
  each_panel(weight.size(0), weight.size(1), [&](int64_t first, int64_t count) {
    Tensor part = output.narrow(1, first, count);
    at::mm_out(part, rows, to_floats(weight.narrow(0, first, count)).t());
  });
  if (bias.has_value() && bias->defined()) output.add_(*bias);
  return output.to(input.scalar_type()).view(shape);
}

Tensor expanded_input_gradient(const Tensor& grad, const Tensor& weight) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  std::vector<int64_t> shape = grad.sizes().vec();
  shape.back() = weight.size(1);
  if (has_widened_products()) return widened_mm(rows_of(grad), weight).to(grad.scalar_type()).view(shape);
  const Tensor rows = to_float_rows(grad);
  Tensor result = at::zeros({rows.size(0), weight.size(1)}, rows.options());
  each_panel(weight.size(0), weight.size(1), [&](int64_t first, int64_t count) {
    result.addmm_(rows.narrow(1, first, count), to_floats(weight.narrow(0, first, count)));
  });
  return result.to(grad.scalar_type()).view(shape);
}

Tensor expanded_weight_gradient(const Tensor& grad, const Tensor& input) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (has_widened_products()) return widened_mm(rows_of(grad).t(), rows_of(input)).to(grad.scalar_type());
  const Tensor rows = to_float_rows(grad), inputs = to_float_rows(input);
  const Tensor result = at::empty({rows.size(1), inputs.size(1)}, grad.options());
  each_panel(rows.size(1), inputs.size(1), [&](int64_t first, int64_t count) {
    result.narrow(0, first, count).copy_(at::mm(rows.narrow(1, first, count).t(), inputs));
  });
  return result;
}

}  // namespace voxtorch::kernels
