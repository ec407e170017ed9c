// rms_norm_residual on the CPU: vector rows for float32 and bfloat16 in the widest build the processor has
// (ATEN_CPU_CAPABILITY narrows it, as it does ATen's), plain loops for float64 and float16.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "core/kernels/arguments.h"
#include "core/kernels/rms_norm_residual/rms_norm_residual.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 32768;  // elements below which a second thread costs more than it saves, as in ATen

const RmsNormRows& vector_rows() { return VOXTORCH_BEST_BUILD(rms_norm_rows); }

template <typename T, typename Acc>
void forward_plain(const RmsNormForward& args, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t start = row * args.dim;
    const T* input = static_cast<const T*>(args.input) + start;
    const T* residual = args.residual ? static_cast<const T*>(args.residual) + start : nullptr;
    T* hidden = static_cast<T*>(args.hidden) + start;
    T* output = static_cast<T*>(args.output) + start;
    Acc squares = 0;
    for (int64_t i = 0; i < args.dim; ++i) {
      hidden[i] = residual ? static_cast<T>(static_cast<Acc>(input[i]) + static_cast<Acc>(residual[i])) : input[i];
      const Acc h = hidden[i];
      squares += h * h;
    }
    const Acc scale = 1 / std::sqrt(squares / static_cast<Acc>(args.dim) + static_cast<Acc>(args.eps));
    for (int64_t i = 0; i < args.dim; ++i) {
      const Acc y = static_cast<Acc>(hidden[i]) * scale;
      output[i] = static_cast<T>(weight ? y * static_cast<Acc>(weight[i]) : y);
    }
  }
}

template <typename T, typename Acc>
void backward_plain(const RmsNormBackward& args, int64_t begin, int64_t end, Acc* weight_grad) {
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t start = row * args.dim;
    const T* grad = static_cast<const T*>(args.grad_output) + start;
    const T* grad_hidden = args.grad_hidden_out ? static_cast<const T*>(args.grad_hidden_out) + start : nullptr;
    const T* hidden = static_cast<const T*>(args.hidden) + start;
    T* grad_input = static_cast<T*>(args.grad_input) + start;
    const auto scaled = [&](int64_t i) {
      return static_cast<Acc>(grad[i]) * (weight ? static_cast<Acc>(weight[i]) : Acc(1));
    };
    Acc squares = 0;
    Acc products = 0;
    for (int64_t i = 0; i < args.dim; ++i) {
      const Acc h = hidden[i];
      squares += h * h;
      products += scaled(i) * h;
    }
    const Acc scale = 1 / std::sqrt(squares / static_cast<Acc>(args.dim) + static_cast<Acc>(args.eps));
    const Acc pull = products / static_cast<Acc>(args.dim) * scale * scale;
    for (int64_t i = 0; i < args.dim; ++i) {
      const Acc h = hidden[i];
      if (weight_grad) weight_grad[i] += static_cast<Acc>(grad[i]) * (h * scale);
      const Acc value = (scaled(i) - h * pull) * scale;
      grad_input[i] = static_cast<T>(grad_hidden ? value + static_cast<Acc>(grad_hidden[i]) : value);
    }
  }
}

void forward_range(RowType type, const RmsNormForward& args, int64_t begin, int64_t end) {
  switch (type) {
    case RowType::kFloat64:
      return forward_plain<double, double>(args, begin, end);
    case RowType::kFloat16:
      return forward_plain<c10::Half, float>(args, begin, end);
    default:
      return vector_rows().forward[static_cast<int>(type)](args, begin, end);
  }
}

void backward_range(RowType type, const RmsNormBackward& args, int64_t begin, int64_t end, void* weight_grad) {
  switch (type) {
    case RowType::kFloat64:
      return backward_plain<double, double>(args, begin, end, static_cast<double*>(weight_grad));
    case RowType::kFloat16:
      return backward_plain<c10::Half, float>(args, begin, end, static_cast<float*>(weight_grad));
    default:
      return vector_rows().backward[static_cast<int>(type)](args, begin, end, static_cast<float*>(weight_grad));
  }
}

TensorPair forward_cpu(const Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight, double eps) {
  check_rms_norm_forward(input, residual, weight, eps);
  const Tensor in = input.contiguous();
  const Tensor added = contiguous_or_undefined(residual);
  const Tensor scale = contiguous_or_undefined(weight);
  const Tensor hidden = at::empty_like(in, at::MemoryFormat::Contiguous);
  const Tensor output = at::empty_like(in, at::MemoryFormat::Contiguous);
  const RmsNormForward args = forward_args(in, added, scale, eps, hidden, output);
  if (args.rows == 0) return {output, hidden};
  const RowType type = kernel_type<RowType>(in);
  const int64_t grain = std::max<int64_t>(1, kGrain / args.dim);
  at::parallel_for(0, args.rows, grain, [&](int64_t begin, int64_t end) { forward_range(type, args, begin, end); });
  return {output, hidden};
}

TensorPair backward_cpu(const Tensor& grad_output, const OptionalTensor& grad_residual_output, const Tensor& hidden,
                        const OptionalTensor& weight, double eps, bool weight_grad) {
  check_rms_norm_backward(grad_output, grad_residual_output, hidden, weight, eps);
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_hidden = contiguous_or_undefined(grad_residual_output);
  const Tensor h = hidden.contiguous();
  const Tensor scale = contiguous_or_undefined(weight);
  const Tensor grad_input = at::empty_like(h, at::MemoryFormat::Contiguous);
  const RmsNormBackward args = backward_args(grad, grad_hidden, h, scale, eps, grad_input);
  const bool wants_weight = weight_grad && scale.defined();
  if (args.rows == 0) return {grad_input, wants_weight ? at::zeros_like(scale) : Tensor()};

  // The weight's gradient is summed per block of rows, then over blocks in order. Blocks depend on the shape alone, so
  // any number of threads gives the same bits.
  const int64_t smallest = std::max<int64_t>(1, kGrain / args.dim);
  const int64_t block_rows = std::max(smallest, (args.rows + 63) / 64);
  const int64_t blocks = (args.rows + block_rows - 1) / block_rows;
  const RowType type = kernel_type<RowType>(h);
  Tensor partials;
  if (wants_weight) {
    partials = at::zeros({blocks, args.dim}, h.options().dtype(type == RowType::kFloat64 ? at::kDouble : at::kFloat));
  }
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      void* partial = wants_weight
                          ? static_cast<char*>(partials.mutable_data_ptr()) + block * args.dim * partials.element_size()
                          : nullptr;
      backward_range(type, args, block * block_rows, std::min(args.rows, (block + 1) * block_rows), partial);
    }
  });
  if (!wants_weight) return {grad_input, Tensor()};
  return {grad_input, partials.sum({0}).to(scale.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) {
  m.impl("rms_norm_residual", forward_cpu);
  m.impl("rms_norm_residual_backward", backward_cpu);
}

}  // namespace voxtorch::kernels
