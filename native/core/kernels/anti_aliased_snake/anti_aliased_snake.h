// What the CPU, CUDA and meta implementations of anti_aliased_snake share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "core/kernels/anti_aliased_snake/args.h"

namespace voxtorch::kernels {

using SnakeGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of input, frequency and magnitude

// The operator, for networks.
at::Tensor anti_aliased_snake(const at::Tensor& input, const at::Tensor& frequency, const at::Tensor& magnitude,
                              const at::Tensor& up_filter, const at::Tensor& down_filter);

// Throws a sentence that names the argument and the shapes, dtypes or devices when one does not fit.
void check_snake(const char* op, const at::Tensor& input, const at::Tensor& frequency, const at::Tensor& magnitude,
                 const at::Tensor& up_filter, const at::Tensor& down_filter);

// The tensors that SnakeInputs points into, contiguous and in the dtypes that it names.
struct SnakeHeld {
  SnakeHeld(const at::Tensor& input, const at::Tensor& frequency, const at::Tensor& magnitude, const at::Tensor& up,
            const at::Tensor& down);
  SnakeInputs inputs() const;
  at::Tensor input, frequency, magnitude, up, down;
};

}  // namespace voxtorch::kernels
