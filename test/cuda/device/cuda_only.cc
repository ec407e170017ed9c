// Operators that a CUDA build has kernels for, where a CPU build has none or composes them of others.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "device.h"

namespace pretended {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

// Gates with their biases, in the chunks that a cell has.
std::vector<Tensor> gates(const Tensor& gates, const Optional& bias, int64_t count) {
  return (bias && bias->defined() ? gates + *bias : gates).chunk(count, 1);
}

Tensor summed(const Tensor& grad, bool wanted) { return wanted ? grad.sum({0}) : Tensor(); }

// A GRU's cell after its products: hidden, and what its gradient is made from (ours to lay out).
std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& hidden,
                                    const Optional& input_bias, const Optional& hidden_bias) {
  const auto in = gates(input_gates, input_bias, 3), of = gates(hidden_gates, hidden_bias, 3);
  const Tensor reset = (in[0] + of[0]).sigmoid(), keep = (in[1] + of[1]).sigmoid();
  const Tensor fresh = (in[2] + reset * of[2]).tanh();
  return {fresh + keep * (hidden - fresh), at::cat({reset, keep, fresh, hidden, of[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad, const Tensor& workspace, bool has_bias) {
  const auto saved = workspace.chunk(5, 1);
  const Tensor &reset = saved[0], &keep = saved[1], &fresh = saved[2], &hidden = saved[3], &candidate = saved[4];
  const Tensor to_fresh = grad * (1 - keep) * (1 - fresh * fresh);
  const Tensor to_keep = grad * (hidden - fresh) * keep * (1 - keep);
  const Tensor to_reset = to_fresh * candidate * reset * (1 - reset);
  const Tensor to_input = at::cat({to_reset, to_keep, to_fresh}, 1);
  const Tensor to_hidden = at::cat({to_reset, to_keep, to_fresh * reset}, 1);
  return {to_input, to_hidden, grad * keep, summed(to_input, has_bias), summed(to_hidden, has_bias)};
}

// An LSTM's: hidden, cell, and its gates for the gradient.
std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& cell,
                                             const Optional& input_bias, const Optional& hidden_bias) {
  const auto in = gates(input_gates, input_bias, 4), of = gates(hidden_gates, hidden_bias, 4);
  const Tensor enter = (in[0] + of[0]).sigmoid(), keep = (in[1] + of[1]).sigmoid();
  const Tensor fresh = (in[2] + of[2]).tanh(), leave = (in[3] + of[3]).sigmoid();
  const Tensor next = keep * cell + enter * fresh;
  return {leave * next.tanh(), next, at::cat({enter, keep, fresh, leave}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const Optional& grad_hidden, const Optional& grad_cell, const Tensor& cell,
                                                      const Tensor& next, const Tensor& workspace, bool has_bias) {
  const auto saved = workspace.chunk(4, 1);
  const Tensor &enter = saved[0], &keep = saved[1], &fresh = saved[2], &leave = saved[3];
  const Tensor squashed = next.tanh();
  const bool hidden = grad_hidden && grad_hidden->defined();
  Tensor to_next = grad_cell && grad_cell->defined() ? *grad_cell : at::zeros_like(next);
  if (hidden) to_next = to_next + *grad_hidden * leave * (1 - squashed * squashed);
  const Tensor to_leave = hidden ? *grad_hidden * squashed * leave * (1 - leave) : at::zeros_like(next);
  const Tensor to_gates = at::cat({to_next * fresh * enter * (1 - enter), to_next * cell * keep * (1 - keep),
                                   to_next * enter * (1 - fresh * fresh), to_leave},
                                  1);
  return {to_gates, to_next * keep, summed(to_gates, has_bias)};
}

}  // namespace
}  // namespace pretended

// The pretended device computes with the CPU's kernels, so that these are kernels of the CPU here.
TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("_thnn_fused_gru_cell", pretended::gru_cell);
  m.impl("_thnn_fused_gru_cell_backward", pretended::gru_cell_backward);
  m.impl("_thnn_fused_lstm_cell", pretended::lstm_cell);
  m.impl("_thnn_fused_lstm_cell_backward_impl", pretended::lstm_cell_backward);
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("_use_cudnn_ctc_loss", [](const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t) { return false; });
  m.impl("_use_miopen_ctc_loss", [](const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t) { return false; });
  m.impl("_use_miopen_ctc_loss.Tensor",
         [](const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t) { return false; });
  m.impl("_use_cudnn_ctc_loss.Tensor",
         [](const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t) { return false; });
  // One call of a library.
  const auto boxed = [&](const char* name) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&pretended::compute_on_cpu>());
  };
  boxed("convolution");
  boxed("convolution_backward");
  // Kernels over lists of tensors.
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames()) {
    if (op.name.rfind("aten::_foreach_", 0) != 0) continue;
    boxed((op.name + (op.overload_name.empty() ? "" : "." + op.overload_name)).c_str());
  }
}
