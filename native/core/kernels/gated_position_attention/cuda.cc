// gated_position_attention on CUDA: ATen's side of the launch.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <limits>

#include "core/kernels/arguments.h"
#include "core/kernels/gated_position_attention/gated_position_attention.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Strided<const void> read(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

Strided<void> written(const Tensor& tensor) {
  return {tensor.mutable_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

// The tensors that AttentionInputs points into.
struct Held {
  explicit Held(const GatedAttention& call)
      : gate(call.gate.to(call.accumulator()).contiguous()),
        relative(call.relative.to(call.accumulator()).contiguous()),
        mask(call.mask()) {}

  AttentionInputs inputs(const char* op, const GatedAttention& call) const {
    const Tensor& query = call.query;
    const AttentionInputs result{read(query),
                                 read(call.key),
                                 read(call.value),
                                 gate.const_data_ptr(),
                                 relative.const_data_ptr(),
                                 mask.defined() ? mask.const_data_ptr<bool>() : nullptr,
                                 query.size(0),
                                 query.size(1),
                                 query.size(2),
                                 query.size(3),
                                 call.score_scale(),
                                 call.dropped(),
                                 call.free_keys};
    TORCH_CHECK(attention_blocks(kernel_type<AttentionType>(query), result) <= std::numeric_limits<int32_t>::max(), op,
                ": query ", query.sizes(), " needs more than 2147483647 blocks; split the batch");
    return result;
  }

  Tensor gate, relative, mask;
};

AttentionOutput forward_cuda(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& gate,
                             const Tensor& relative, const OptionalTensor& key_mask, double dropout, int64_t seed,
                             std::optional<double> scale, int64_t free_keys) {
  const char* op = "gated_position_attention";
  const GatedAttention call{query, key, value, gate, relative, key_mask, dropout, seed, scale, free_keys};
  check_attention(op, call);
  const c10::cuda::CUDAGuard device(query.device());
  if (query.size(3) > kMaxAttentionDim) return composed_attention(call);
  const Tensor output = empty_attention_output(call);
  const Tensor logsumexp = empty_logsumexp(call);
  if (output.numel() == 0) return {output, logsumexp};
  const Held held(call);
  const AttentionForward args{held.inputs(op, call), written(output), logsumexp.mutable_data_ptr()};
  const auto error =
      launch_attention_forward(kernel_type<AttentionType>(query), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return {output, logsumexp};
}

AttentionGradients backward_cuda(const Tensor& grad_output, const Tensor& output, const Tensor& logsumexp,
                                 const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& gate,
                                 const Tensor& relative, const OptionalTensor& key_mask, double dropout, int64_t seed,
                                 std::optional<double> scale, int64_t free_keys) {
  const GatedAttention call{query, key, value, gate, relative, key_mask, dropout, seed, scale, free_keys};
  check_attention_backward(call, grad_output, output, logsumexp);
  const c10::cuda::CUDAGuard device(query.device());
  if (query.size(3) > kMaxAttentionDim) return composed_attention_backward(grad_output, call);
  const Held held(call);
  const Tensor grad_query = at::empty_like(query);
  const Tensor grad_key = at::empty_like(key);
  const Tensor grad_value = at::empty_like(value);
  const Tensor grad_gate = at::empty_like(held.gate);
  if (query.numel() == 0) {
    return {grad_query, grad_key, grad_value, grad_gate.to(gate.scalar_type()),
            at::zeros(relative.sizes(), relative.options())};
  }
  const Tensor grad_relative = at::empty_like(held.relative);
  const AttentionType type = kernel_type<AttentionType>(query);
  const AttentionInputs inputs = held.inputs("gated_position_attention_backward", call);
  // What softmax's gradient subtracts, of each row: the sum of probability times gradient.
  const Tensor correction = grad_output.to(call.accumulator()).mul(output.to(call.accumulator())).sum({3}).contiguous();
  const Tensor partials = at::zeros({attention_partials(type, inputs)}, held.gate.options());
  const AttentionBackward args{inputs,
                               read(grad_output),
                               logsumexp.const_data_ptr(),
                               correction.const_data_ptr(),
                               written(grad_query),
                               written(grad_key),
                               written(grad_value),
                               grad_gate.mutable_data_ptr(),
                               grad_relative.mutable_data_ptr(),
                               partials.mutable_data_ptr()};
  const auto error = launch_attention_backward(type, args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return {grad_query, grad_key, grad_value, grad_gate.to(gate.scalar_type()), grad_relative.to(relative.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) {
  m.impl("gated_position_attention_forward", forward_cuda);
  m.impl("gated_position_attention_backward", backward_cuda);
}

}  // namespace voxtorch::kernels
