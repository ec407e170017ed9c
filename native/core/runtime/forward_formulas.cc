#include "core/runtime/forward_formulas.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/decomposition_registry.h>
#include <torch/jit.h>

#include <memory>
#include <mutex>

namespace voxtorch {
namespace {

// Each function has the name and the arguments of an operator, and computes it with operators that have forward
// derivatives. Statistics are computed again, because the saved ones have no tangents.
constexpr const char* kFormulas = R"(
def trace(self):
    # type: (Tensor) -> Tensor
    return torch.sum(torch.diagonal(self))

def log_sigmoid_forward(self):
    # type: (Tensor) -> Tuple[Tensor, Tensor]
    small = torch.exp(-torch.abs(self))
    return torch.clamp_max(self, 0) - torch.log1p(small), small

def _softmax_backward_data(grad_output, output, dim, input_dtype):
    # type: (Tensor, Tensor, int, int) -> Tensor
    product = grad_output * output
    return (product - output * torch.sum(product, [dim], True)).to(dtype=input_dtype)

def _log_softmax_backward_data(grad_output, output, dim, input_dtype):
    # type: (Tensor, Tensor, int, int) -> Tensor
    return (grad_output - torch.exp(output) * torch.sum(grad_output, [dim], True)).to(dtype=input_dtype)

def nll_loss_backward(grad_output, self, target, weight, reduction, ignore_index, total_weight):
    # type: (Tensor, Tensor, Tensor, Optional[Tensor], int, int, Tensor) -> Tensor
    dim = 1
    if self.dim() < 2:
        dim = 0
    counts = torch.ne(target, ignore_index)
    classes = torch.where(counts, target, torch.zeros_like(target))
    factor = counts.to(dtype=self.dtype)
    if weight is not None:
        factor = factor * torch.index_select(weight, 0, torch.flatten(classes)).view_as(factor)
    scale = grad_output * factor
    if reduction == 1:
        scale = scale / total_weight
    chosen = torch.scatter(torch.zeros_like(self), dim, torch.unsqueeze(classes, dim), -1.0)
    return chosen * torch.unsqueeze(scale, dim)

def nll_loss2d_backward(grad_output, self, target, weight, reduction, ignore_index, total_weight):
    # type: (Tensor, Tensor, Tensor, Optional[Tensor], int, int, Tensor) -> Tensor
    return nll_loss_backward(grad_output, self, target, weight, reduction, ignore_index, total_weight)

def native_layer_norm_backward(grad_out, input, normalized_shape, mean, rstd, weight, bias, output_mask):
    # type: (Tensor, Tensor, List[int], Tensor, Tensor, Optional[Tensor], Optional[Tensor], List[bool]) -> Tuple[Tensor, Tensor, Tensor]
    inner: List[int] = []
    outer: List[int] = []
    for i in range(input.dim()):
        if i < input.dim() - len(normalized_shape):
            outer.append(i)
        else:
            inner.append(i)
    centered = input - torch.mean(input, inner, True)
    variance = torch.mean(centered * centered, inner, True)
    saved = rstd.detach().view_as(variance)
    eps = torch.reciprocal(saved * saved) - variance.detach()
    scale = torch.rsqrt(variance + eps)
    normal = centered * scale
    grad = grad_out
    if weight is not None:
        grad = grad_out * weight
    through = grad - torch.mean(grad, inner, True) - normal * torch.mean(grad * normal, inner, True)
    grad_weight = grad_out * normal
    grad_bias = grad_out
    if len(outer) > 0:
        grad_weight = torch.sum(grad_weight, outer, False)
        grad_bias = torch.sum(grad_bias, outer, False)
    return through * scale, grad_weight, grad_bias

def native_batch_norm_backward(grad_out, input, weight, running_mean, running_var, save_mean, save_invstd, train, eps, output_mask):
    # type: (Tensor, Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor], Optional[Tensor], Optional[Tensor], bool, float, List[bool]) -> Tuple[Tensor, Tensor, Tensor]
    shape: List[int] = []
    dims: List[int] = []
    for i in range(input.dim()):
        if i == 1:
            shape.append(input.size(1))
        else:
            shape.append(1)
            dims.append(i)
    grad = grad_out
    if weight is not None:
        grad = grad_out * torch.reshape(weight, shape)
    if train or running_mean is None or running_var is None:
        centered = input - torch.mean(input, dims, True)
        scale = torch.rsqrt(torch.mean(centered * centered, dims, True) + eps)
        normal = centered * scale
        grad_input = (grad - torch.mean(grad, dims, True) - normal * torch.mean(grad * normal, dims, True)) * scale
    else:
        scale = torch.rsqrt(torch.reshape(running_var, shape) + eps)
        normal = (input - torch.reshape(running_mean, shape)) * scale
        grad_input = grad * scale
    return grad_input, torch.sum(grad_out * normal, dims, False), torch.sum(grad_out, dims, False)
)";

}  // namespace

void add_forward_formulas() {
  static std::once_flag once;
  std::call_once(once, [] {
    const auto formulas = torch::jit::compile(kFormulas);
    for (torch::jit::Function* function : formulas->get_functions()) {
      const auto op = c10::Dispatcher::singleton().findSchema({"aten::" + function->name(), ""});
      if (!op || torch::jit::has_jit_decomposition(op->schema())) continue;
      const auto graph = torch::jit::toGraphFunction(*function).graph()->copy();
      torch::jit::Inline(*graph);
      torch::jit::RegisterDecomposition(op->schema(), graph);
    }
  });
}

}  // namespace voxtorch
