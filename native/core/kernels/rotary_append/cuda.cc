// rotary_append_ on CUDA: ATen's side of the launch.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "core/kernels/arguments.h"
#include "core/kernels/rotary_append/args.h"
#include "core/kernels/rotary_append/rotary_append.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

CachePlaces places(const Tensor& cache) {
  return {cache.mutable_data_ptr(), cache.stride(0), cache.stride(1), cache.stride(2), cache.stride(3)};
}

Tensor rotary_append_cuda(const Tensor& qkv, const Tensor& cos, const Tensor& sin, Tensor& keys, Tensor& values,
                          const Tensor& position, int64_t heads) {
  check_rotary_append(qkv, cos, sin, keys, values, position, heads);
  const c10::cuda::CUDAGuard device(qkv.device());
  const Tensor all = qkv.contiguous(), c = cos.contiguous(), s = sin.contiguous();
  const int64_t rows = keys.size(0), dim = keys.size(3), half = cos.size(-1);
  const Tensor query = at::empty({rows, heads, dim}, qkv.options());
  if (rows == 0) return query;
  const RotaryAppend args{all.const_data_ptr(),
                          c.const_data_ptr(),
                          s.const_data_ptr(),
                          c.numel() == half ? 0 : half,
                          places(keys),
                          places(values),
                          position.const_data_ptr<int64_t>(),
                          query.mutable_data_ptr(),
                          rows,
                          heads,
                          keys.size(1),
                          keys.size(2),
                          dim,
                          2 * half};
  const int error =
      launch_rotary_append(kernel_type<RotaryType>(qkv), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return query;
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) { m.impl("rotary_append_", rotary_append_cuda); }

}  // namespace voxtorch::kernels
