// decode_attention on CUDA: ATen's side of the launch.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cmath>

#include "core/kernels/decode_attention/args.h"
#include "core/kernels/decode_attention/decode_attention.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kMostBlocks = 65535;  // of a grid, but in its first dimension

DecodeType decode_type(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16) return DecodeType::kBFloat16;
  return tensor.scalar_type() == at::kHalf ? DecodeType::kFloat16 : DecodeType::kFloat32;
}

DecodePlaces places(const Tensor& cache) {
  return {cache.const_data_ptr(), cache.stride(0), cache.stride(1), cache.stride(2), cache.stride(3)};
}

Tensor decode_attention_cuda(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& position,
                             const OptionalTensor& mask, int64_t window, std::optional<double> scale,
                             const OptionalTensor& tickets) {
  check_decode_attention(query, keys, values, position, mask, window, scale, tickets);
  const int64_t rows = query.size(0), heads = query.size(1), dim = query.size(2);
  const int64_t kv_heads = keys.size(1), capacity = keys.size(2), passes = decode_passes(heads, kv_heads);
  const bool fits = dim <= kMostDecodeDim && query.scalar_type() != at::kDouble && rows <= kMostBlocks &&
                    kv_heads * passes <= kMostBlocks;
  if (!fits) return decode_attention_in_parts(query, keys, values, position, mask, window, scale);
  const c10::cuda::CUDAGuard device(query.device());
  const Tensor q = query.contiguous();
  const Tensor output = at::empty({rows, heads * dim}, q.options());
  if (rows == 0) return output;
  const bool masked = mask.has_value() && mask->defined();
  const Tensor sees = masked ? mask->contiguous() : Tensor();
  const Tensor partial = at::empty({rows * heads * decode_splits(capacity) * (dim + 2)}, q.options().dtype(at::kFloat));
  const bool given = tickets.has_value() && tickets->defined();
  const Tensor zeros =
      given ? *tickets : at::zeros({decode_tickets(rows, heads, kv_heads)}, q.options().dtype(at::kInt));
  const DecodeAttention args{q.const_data_ptr(),
                             places(keys),
                             places(values),
                             position.const_data_ptr<int64_t>(),
                             masked ? sees.const_data_ptr<bool>() : nullptr,
                             masked ? sees.stride(0) : 0,
                             masked ? sees.size(1) : 0,
                             output.mutable_data_ptr(),
                             partial.mutable_data_ptr<float>(),
                             static_cast<unsigned*>(zeros.mutable_data_ptr()),
                             rows,
                             heads,
                             kv_heads,
                             capacity,
                             dim,
                             window,
                             static_cast<float>(scale.value_or(1 / std::sqrt(static_cast<double>(dim))))};
  const int error = launch_decode_attention(decode_type(q), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return output;
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) { m.impl("decode_attention", decode_attention_cuda); }

}  // namespace voxtorch::kernels
