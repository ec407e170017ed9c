// rms_norm_residual on CUDA: ATen's side of the launch.
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "core/kernels/arguments.h"
#include "core/kernels/rms_norm_residual/rms_norm_residual.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

TensorPair forward_cuda(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, double eps) {
  check_rms_norm_forward(input, residual, weight, eps);
  const c10::cuda::CUDAGuard device(input.device());
  const Tensor in = input.contiguous();
  const Tensor added = contiguous_or_undefined(residual);
  const Tensor scale = contiguous_or_undefined(weight);
  const Tensor hidden = at::empty_like(in, at::MemoryFormat::Contiguous);
  const Tensor output = at::empty_like(in, at::MemoryFormat::Contiguous);
  const RmsNormForward args = forward_args(in, added, scale, eps, hidden, output);
  if (args.rows == 0) return {output, hidden};
  TORCH_CHECK(args.rows <= std::numeric_limits<int>::max(), "rms_norm_residual: input has ", args.rows,
              " rows; CUDA takes 2147483647 at most, split the batch");
  const auto error =
      launch_rms_norm_forward(kernel_type<RowType>(in), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return {output, hidden};
}

TensorPair backward_cuda(const Tensor& grad_output, const OptionalTensor& grad_residual_output, const Tensor& hidden,
                         const OptionalTensor& weight, double eps, bool weight_grad) {
  check_rms_norm_backward(grad_output, grad_residual_output, hidden, weight, eps);
  const c10::cuda::CUDAGuard device(hidden.device());
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_hidden = contiguous_or_undefined(grad_residual_output);
  const Tensor h = hidden.contiguous();
  const Tensor scale = contiguous_or_undefined(weight);
  const Tensor grad_input = at::empty_like(h, at::MemoryFormat::Contiguous);
  const RmsNormBackward args = backward_args(grad, grad_hidden, h, scale, eps, grad_input);
  const bool wants_weight = weight_grad && scale.defined();
  if (args.rows == 0) return {grad_input, wants_weight ? at::zeros_like(scale) : Tensor()};

  // A few blocks a multiprocessor keep memory busy, and keep the partial sums of the weight's gradient few.
  int multiprocessors = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, hidden.device().index()));
  const int64_t blocks = std::min<int64_t>(args.rows, 4 * multiprocessors);
  const RowType type = kernel_type<RowType>(h);
  Tensor partials;
  if (wants_weight) {
    partials = at::zeros({blocks, args.dim}, h.options().dtype(type == RowType::kFloat64 ? at::kDouble : at::kFloat));
  }
  const auto error = launch_rms_norm_backward(type, args, wants_weight ? partials.mutable_data_ptr() : nullptr, blocks,
                                              c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  if (!wants_weight) return {grad_input, Tensor()};
  return {grad_input, partials.sum({0}).to(scale.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) {
  m.impl("rms_norm_residual", forward_cuda);
  m.impl("rms_norm_residual_backward", backward_cuda);
}

}  // namespace voxtorch::kernels
