// RMSNorm over the last dimension, fused with the addition of the residual stream that precedes it in a pre-norm
// transformer:
//
//   residual_output = input + residual                                          (a copy of input without a residual)
//   output          = residual_output / sqrt(mean(residual_output²) + eps) * weight
//
// Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019). The sum is rounded to its dtype before the norm,
// as a later reader of residual_output sees it; all else is float32 (float64 for float64). Neither output shares memory
// with an input. Gradients of any order: the first is fused, higher ones go through the same formula in plain
// operators.
#include "core/kernels/rms_norm_residual/rms_norm_residual.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <c10/core/ScalarType.h>
#include <c10/core/SymIntArrayRef.h>
#include <torch/library.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/kernels/arguments.h"
#include "core/kernels/fused_operator.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_like(const char* op, const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  check_device(op, name, tensor, other_name, other);
  check_dtype(op, name, tensor, other_name, other);
}

void check_same_shape(const char* op, const char* name, const Tensor& tensor, const char* other_name,
                      const Tensor& other) {
  check_like(op, name, tensor, other_name, other);
  TORCH_CHECK(tensor.sym_sizes() == other.sym_sizes(), op, ": ", name, " must have the shape of ", other_name, " ",
              other.sym_sizes(), ", got ", tensor.sym_sizes());
}

void check_rows(const char* op, const char* name, const Tensor& rows, const OptionalTensor& weight, double eps) {
  check_floating(op, name, rows);
  TORCH_CHECK(rows.dim() > 0, op, ": ", name, " must have at least one dimension, got a tensor without any");
  TORCH_CHECK(std::isfinite(eps) && eps >= 0, op, ": eps must be a finite number, zero or above, got ", eps);
  if (!present(weight)) return;
  check_like(op, "weight", *weight, name, rows);
  TORCH_CHECK(weight->dim() == 1 && weight->sym_size(0) == rows.sym_size(-1), op, ": weight must have shape [",
              rows.sym_size(-1), "], the last dimension of ", name, " ", rows.sym_sizes(), ", got ",
              weight->sym_sizes());
}

}  // namespace

Tensor contiguous_or_undefined(const OptionalTensor& tensor) {
  return present(tensor) ? tensor->contiguous() : Tensor();
}

void check_rms_norm_forward(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                            double eps) {
  const char* op = "rms_norm_residual";
  check_rows(op, "input", input, weight, eps);
  if (present(residual)) check_same_shape(op, "residual", *residual, "input", input);
}

void check_rms_norm_backward(const Tensor& grad_output, const OptionalTensor& grad_residual_output,
                             const Tensor& hidden, const OptionalTensor& weight, double eps) {
  const char* op = "rms_norm_residual_backward";
  check_rows(op, "hidden", hidden, weight, eps);
  check_same_shape(op, "grad_output", grad_output, "hidden", hidden);
  if (present(grad_residual_output))
    check_same_shape(op, "grad_residual_output", *grad_residual_output, "hidden", hidden);
}

namespace {

const void* read(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

int64_t row_count(const Tensor& tensor) { return tensor.numel() == 0 ? 0 : tensor.numel() / tensor.size(-1); }

}  // namespace

RmsNormForward forward_args(const Tensor& input, const Tensor& residual, const Tensor& weight, double eps,
                            const Tensor& hidden, const Tensor& output) {
  return {read(input),      read(residual), read(weight), hidden.mutable_data_ptr(), output.mutable_data_ptr(),
          row_count(input), input.size(-1), eps};
}

RmsNormBackward backward_args(const Tensor& grad_output, const Tensor& grad_residual_output, const Tensor& hidden,
                              const Tensor& weight, double eps, const Tensor& grad_input) {
  return {read(grad_output),
          read(grad_residual_output),
          read(hidden),
          read(weight),
          grad_input.mutable_data_ptr(),
          row_count(hidden),
          hidden.size(-1),
          eps};
}

namespace {

using ForwardOp = TensorPair(const Tensor&, const OptionalTensor&, const OptionalTensor&, double);
using BackwardOp = TensorPair(const Tensor&, const OptionalTensor&, const Tensor&, const OptionalTensor&, double, bool);

TensorPair call_forward(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, double eps) {
  static const auto op = operator_of<ForwardOp>("voxtorch::rms_norm_residual");
  return op.call(input, residual, weight, eps);
}

TensorPair call_backward(const Tensor& grad_output, const OptionalTensor& grad_residual_output, const Tensor& hidden,
                         const OptionalTensor& weight, double eps, bool weight_grad) {
  static const auto op = operator_of<BackwardOp>("voxtorch::rms_norm_residual_backward");
  return op.call(grad_output, grad_residual_output, hidden, weight, eps, weight_grad);
}

TensorPair forward_meta(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, double eps) {
  check_rms_norm_forward(input, residual, weight, eps);
  return {at::empty_like(input, at::MemoryFormat::Contiguous), at::empty_like(input, at::MemoryFormat::Contiguous)};
}

TensorPair backward_meta(const Tensor& grad_output, const OptionalTensor& grad_residual_output, const Tensor& hidden,
                         const OptionalTensor& weight, double eps, bool weight_grad) {
  check_rms_norm_backward(grad_output, grad_residual_output, hidden, weight, eps);
  return {at::empty_like(hidden, at::MemoryFormat::Contiguous),
          weight_grad && present(weight) ? at::empty_like(*weight, at::MemoryFormat::Contiguous) : Tensor()};
}

// The backward in plain operators, which autograd can differentiate again.
TensorPair backward_formula(const Tensor& grad_output, const OptionalTensor& grad_residual_output, const Tensor& hidden,
                            const OptionalTensor& weight, double eps, bool weight_grad) {
  check_rms_norm_backward(grad_output, grad_residual_output, hidden, weight, eps);
  const at::ScalarType type = at::toOpMathType(hidden.scalar_type());
  const Tensor h = hidden.to(type);
  const Tensor scale = at::rsqrt(at::mean(h * h, {-1}, true) + eps);
  const Tensor normed = h * scale;
  const Tensor grad = grad_output.to(type);
  const Tensor grad_normed = present(weight) ? grad * weight->to(type) : grad;
  Tensor grad_input = scale * (grad_normed - normed * at::mean(grad_normed * normed, {-1}, true));
  if (present(grad_residual_output)) grad_input = grad_input + grad_residual_output->to(type);
  Tensor grad_weight;
  if (weight_grad && present(weight)) {
    grad_weight = grad * normed;
    std::vector<int64_t> leading(hidden.dim() - 1);
    std::iota(leading.begin(), leading.end(), 0);
    if (!leading.empty()) grad_weight = grad_weight.sum(leading);
    grad_weight = grad_weight.to(weight->scalar_type());
  }
  return {grad_input.to(hidden.scalar_type()), grad_weight};
}

Tensor or_undefined(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }

struct RmsNormResidual : torch::autograd::Function<RmsNormResidual> {
  static variable_list forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& residual,
                               const OptionalTensor& weight, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [output, residual_output] = call_forward(input, residual, weight, eps);
    ctx->save_for_backward({residual_output, or_undefined(weight)});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["has_residual"] = present(residual);
    ctx->set_materialize_grads(false);
    return {output, residual_output};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const bool has_residual = ctx->saved_data["has_residual"].toBool();
    if (!grads[0].defined()) return {grads[1], has_residual ? grads[1] : Tensor(), Tensor(), Tensor()};
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& weight = saved[1];
    // Edges are counted over the tensors that forward was given.
    const bool weight_grad = weight.defined() && ctx->needs_input_grad(has_residual ? 2 : 1);
    auto [grad_input, grad_weight] =
        call_backward(grads[0], grads[1], saved[0], weight, ctx->saved_data["eps"].toDouble(), weight_grad);
    return {grad_input, has_residual ? grad_input : Tensor(), grad_weight, Tensor()};
  }
};

TensorPair forward_autograd(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                            double eps) {
  if (!any_requires_grad({&input, residual ? &*residual : &input, weight ? &*weight : &input})) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_forward(input, residual, weight, eps);
  }
  const variable_list outputs = RmsNormResidual::apply(input, residual, weight, eps);
  return {outputs[0], outputs[1]};
}

TensorPair backward_autograd(const Tensor& grad_output, const OptionalTensor& grad_residual_output,
                             const Tensor& hidden, const OptionalTensor& weight, double eps, bool weight_grad) {
  const Tensor grad_hidden = or_undefined(grad_residual_output);
  const Tensor weights = or_undefined(weight);
  if (any_requires_grad({&grad_output, &grad_hidden, &hidden, &weights})) {
    return backward_formula(grad_output, grad_residual_output, hidden, weight, eps, weight_grad);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return call_backward(grad_output, grad_residual_output, hidden, weight, eps, weight_grad);
}

// Under autocast the widest dtype of the arguments is used, so a float32 weight keeps the norm in float32.
TensorPair forward_autocast(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                            double eps) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  at::ScalarType widest = input.scalar_type();
  for (const OptionalTensor* tensor : {&residual, &weight}) {
    if (present(*tensor)) widest = c10::promoteTypes(widest, (*tensor)->scalar_type());
  }
  const auto widened = [&](const OptionalTensor& tensor) {
    return present(tensor) ? OptionalTensor(tensor->to(widest)) : std::nullopt;
  };
  return call_forward(input.to(widest), widened(residual), widened(weight), eps);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "rms_norm_residual(Tensor input, Tensor? residual=None, Tensor? weight=None, float eps=1e-6) -> "
      "(Tensor output, Tensor residual_output)");
  // hidden is the forward's residual_output. grad_weight is undefined without a weight or when weight_grad is false.
  m.def(
      "rms_norm_residual_backward(Tensor grad_output, Tensor? grad_residual_output, Tensor hidden, Tensor? weight, "
      "float eps, "
      "bool weight_grad=True) -> (Tensor grad_input, Tensor grad_weight)");
}

VOXTORCH_META("rms_norm_residual", forward_meta, "rms_norm_residual_backward", backward_meta)
VOXTORCH_AUTOGRAD("rms_norm_residual", forward_autograd, backward_autograd)
VOXTORCH_AUTOCAST("rms_norm_residual", forward_autocast)

}  // namespace voxtorch::kernels
