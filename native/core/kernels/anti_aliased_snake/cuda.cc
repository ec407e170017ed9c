// anti_aliased_snake on CUDA: ATen's side of the launch.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "core/kernels/anti_aliased_snake/anti_aliased_snake.h"
#include "core/kernels/arguments.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

void check_blocks(const char* op, const SnakeInputs& inputs) {
  TORCH_CHECK(inputs.rows * snake_tiles(inputs.time) <= std::numeric_limits<int32_t>::max(), op,
              ": input needs more than 2147483647 blocks; split the batch");
}

Tensor forward_cuda(const Tensor& input, const Tensor& frequency, const Tensor& magnitude, const Tensor& up_filter,
                    const Tensor& down_filter) {
  const char* op = "anti_aliased_snake";
  check_snake(op, input, frequency, magnitude, up_filter, down_filter);
  const c10::cuda::CUDAGuard device(input.device());
  const SnakeHeld held(input, frequency, magnitude, up_filter, down_filter);
  const Tensor output = at::empty_like(held.input, at::MemoryFormat::Contiguous);
  if (output.numel() == 0) return output;
  const SnakeForward args{held.inputs(), output.mutable_data_ptr()};
  check_blocks(op, args.inputs);
  const int error =
      launch_snake_forward(kernel_type<SnakeType>(input), args, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  return output;
}

SnakeGradients backward_cuda(const Tensor& grad_output, const Tensor& input, const Tensor& frequency,
                             const Tensor& magnitude, const Tensor& up_filter, const Tensor& down_filter) {
  const char* op = "anti_aliased_snake_backward";
  check_snake(op, input, frequency, magnitude, up_filter, down_filter);
  TORCH_CHECK(grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type() &&
                  grad_output.device() == input.device(),
              op, ": grad_output must have the shape ", input.sizes(), ", the dtype and the device of input, got ",
              grad_output.sizes(), " on ", grad_output.device());
  const c10::cuda::CUDAGuard device(input.device());
  const SnakeHeld held(input, frequency, magnitude, up_filter, down_filter);
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_input = at::empty_like(held.input, at::MemoryFormat::Contiguous);
  // Summed in ATen's order over the parts: no atomics, the same bits every time.
  const Tensor parts =
      at::empty({2, input.size(0), input.size(1), snake_tiles(input.size(2))}, held.frequency.options());
  if (input.numel() > 0) {
    const SnakeBackward args{held.inputs(), grad.const_data_ptr(), grad_input.mutable_data_ptr(),
                             parts[0].mutable_data_ptr(), parts[1].mutable_data_ptr()};
    check_blocks(op, args.inputs);
    const int error =
        launch_snake_backward(kernel_type<SnakeType>(input), args, c10::cuda::getCurrentCUDAStream().stream());
    C10_CUDA_CHECK(static_cast<cudaError_t>(error));
  }
  const Tensor sums = parts.sum({1, 3});
  return {grad_input, sums[0].to(frequency.scalar_type()), sums[1].to(magnitude.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) {
  m.impl("anti_aliased_snake", forward_cuda);
  m.impl("anti_aliased_snake_backward", backward_cuda);
}

}  // namespace voxtorch::kernels
