// window_cross_attention on CUDA: ATen's side of the launch.
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "core/kernels/arguments.h"
#include "core/kernels/window_cross_attention/window_cross_attention.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

WindowOutput forward_cuda(const Tensor& query, const Tensor& key, const Tensor& value, int64_t window, int64_t stride,
                          const OptionalTensor& lengths, double dropout, int64_t seed) {
  WindowCall call{query, key, value, window, stride, lengths, dropout, seed};
  check_window_attention("window_cross_attention", call);
  const c10::cuda::CUDAGuard device(query.device());
  if (query.size(4) > kWindowCudaMaxDim) return composed_window_attention(call);
  call = call.readable();
  const Tensor output = at::empty_like(call.query, at::MemoryFormat::Contiguous);
  const Tensor logsumexp = empty_window_logsumexp(call);
  if (logsumexp.numel() == 0) return {output, logsumexp};
  const WindowForward args{call.args(), output.mutable_data_ptr(), logsumexp.mutable_data_ptr()};
  const auto error =
      launch_window_forward(kernel_type<WindowType>(query), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return {output, logsumexp};
}

WindowGradients backward_cuda(const Tensor& grad_output, const Tensor& logsumexp, const Tensor& query,
                              const Tensor& key, const Tensor& value, int64_t window, int64_t stride,
                              const OptionalTensor& lengths, double dropout, int64_t seed) {
  WindowCall call{query, key, value, window, stride, lengths, dropout, seed};
  check_window_attention_backward(call, grad_output, logsumexp);
  const c10::cuda::CUDAGuard device(query.device());
  if (query.size(4) > kWindowCudaMaxDim) return composed_window_attention_backward(grad_output, call);
  call = call.readable();
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_query = at::empty_like(call.query, at::MemoryFormat::Contiguous);
  const Tensor grad_key = at::empty_like(key, at::MemoryFormat::Contiguous);
  const Tensor grad_value = at::empty_like(value, at::MemoryFormat::Contiguous);
  const Tensor deltas = at::empty_like(logsumexp);
  const WindowBackward args{call.args(),
                            grad.const_data_ptr(),
                            logsumexp.const_data_ptr(),
                            grad_query.mutable_data_ptr(),
                            grad_key.mutable_data_ptr(),
                            grad_value.mutable_data_ptr()};
  const auto error = launch_window_backward(kernel_type<WindowType>(query), args, deltas.mutable_data_ptr(),
                                            c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return {grad_query, grad_key, grad_value};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) {
  m.impl("window_cross_attention_forward", forward_cuda);
  m.impl("window_cross_attention_backward", backward_cuda);
}

}  // namespace voxtorch::kernels
