// anti_aliased_snake on the CPU: vector rows for float32 and bfloat16 in the widest build the processor has
// (ATEN_CPU_CAPABILITY narrows it, as it does ATen's), plain loops for float64 and float16.
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/kernels/anti_aliased_snake/anti_aliased_snake.h"
#include "core/kernels/arguments.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kStretch = 16 * kSnakeTile;  // of a row, that one thread computes

const SnakeRows& vector_rows() { return VOXTORCH_BEST_BUILD(snake_rows); }

// One row by the formula; T is what is read and written, Acc what computes.
template <typename T, typename Acc>
struct PlainRow {
  PlainRow(const SnakeInputs& in, int64_t row)
      : time(in.time),
        input(static_cast<const T*>(in.input) + row * time),
        up(static_cast<const Acc*>(in.up)),
        down(static_cast<const Acc*>(in.down)),
        frequency(static_cast<const Acc*>(in.frequency)[row % in.channels]),
        magnitude(static_cast<const Acc*>(in.magnitude)[row % in.channels]),
        doubled(2 * time) {
    for (int64_t n = 0; n < 2 * time; ++n) {
      Acc sum = 0;
      each_source(n, [&](int64_t place, Acc tap) { sum += tap * static_cast<Acc>(input[place]); });
      doubled[n] = sum;
    }
  }

  // use(place, tap) for what number n of the doubled signal is made of.
  template <typename Use>
  void each_source(int64_t n, Use use) const {
    for (int k = (n + 1) % 2; k < kSnakeTaps; k += 2)
      use(std::clamp<int64_t>((n + 15 - k) / 2 - 5, 0, time - 1), 2 * up[k]);
  }
  // And of the doubled signal, what output i is made of.
  template <typename Use>
  void each_doubled(int64_t i, Use use) const {
    for (int k = 0; k < kSnakeTaps; ++k) use(std::clamp<int64_t>(2 * i + k - 5, 0, 2 * time - 1), down[k]);
  }

  void forward(T* output) const {
    std::vector<Acc> activated(2 * time);
    for (int64_t n = 0; n < 2 * time; ++n) {
      const Acc s = std::sin(doubled[n] * frequency);
      activated[n] = doubled[n] + magnitude * (s * s);
    }
    for (int64_t i = 0; i < time; ++i) {
      Acc sum = 0;
      each_doubled(i, [&](int64_t n, Acc tap) { sum += tap * activated[n]; });
      output[i] = static_cast<T>(sum);
    }
  }

  void backward(const T* grad_output, T* grad_input, Acc& grad_frequency, Acc& grad_magnitude) const {
    std::vector<Acc> grads(2 * time), result(time);
    for (int64_t i = 0; i < time; ++i)
      each_doubled(i, [&](int64_t n, Acc tap) { grads[n] += tap * static_cast<Acc>(grad_output[i]); });
    grad_frequency = grad_magnitude = 0;
    for (int64_t n = 0; n < 2 * time; ++n) {
      const Acc angle = doubled[n] * frequency, s = std::sin(angle);
      const Acc turned = grads[n] * magnitude * (2 * s * std::cos(angle));
      grad_frequency += turned * doubled[n];
      grad_magnitude += grads[n] * (s * s);
      const Acc grad = grads[n] + turned * frequency;
      each_source(n, [&](int64_t place, Acc tap) { result[place] += tap * grad; });
    }
    for (int64_t i = 0; i < time; ++i) grad_input[i] = static_cast<T>(result[i]);
  }

  const int64_t time;
  const T* const input;
  const Acc *const up, *const down;
  const Acc frequency, magnitude;
  std::vector<Acc> doubled;
};

template <typename T, typename Acc>
void forward_plain(const SnakeForward& args, int64_t row) {
  PlainRow<T, Acc>(args.inputs, row).forward(static_cast<T*>(args.output) + row * args.inputs.time);
}

template <typename T, typename Acc>
void backward_plain(const SnakeBackward& args, int64_t row) {
  const int64_t start = row * args.inputs.time;
  PlainRow<T, Acc>(args.inputs, row)
      .backward(static_cast<const T*>(args.grad_output) + start, static_cast<T*>(args.grad_input) + start,
                static_cast<Acc*>(args.grad_frequency)[row], static_cast<Acc*>(args.grad_magnitude)[row]);
}

Tensor forward_cpu(const Tensor& input, const Tensor& frequency, const Tensor& magnitude, const Tensor& up_filter,
                   const Tensor& down_filter) {
  check_snake("anti_aliased_snake", input, frequency, magnitude, up_filter, down_filter);
  const SnakeHeld held(input, frequency, magnitude, up_filter, down_filter);
  const Tensor output = at::empty_like(held.input, at::MemoryFormat::Contiguous);
  const SnakeForward args{held.inputs(), output.mutable_data_ptr()};
  const SnakeType type = kernel_type<SnakeType>(input);
  if (type == SnakeType::kFloat64 || type == SnakeType::kFloat16) {
    at::parallel_for(0, args.inputs.rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (type == SnakeType::kFloat64) {
          forward_plain<double, double>(args, row);
        } else {
          forward_plain<c10::Half, float>(args, row);
        }
      }
    });
    return output;
  }
  const auto run = vector_rows().forward[static_cast<int>(type)];
  const int64_t time = args.inputs.time, stretches = (time + kStretch - 1) / kStretch;
  const int64_t grain = std::max<int64_t>(1, kStretch / std::min(time, kStretch));
  at::parallel_for(0, args.inputs.rows * stretches, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % stretches * kStretch;
      run(args, task / stretches, first, std::min(time, first + kStretch));
    }
  });
  return output;
}

SnakeGradients backward_cpu(const Tensor& grad_output, const Tensor& input, const Tensor& frequency,
                            const Tensor& magnitude, const Tensor& up_filter, const Tensor& down_filter) {
  const char* op = "anti_aliased_snake_backward";
  check_snake(op, input, frequency, magnitude, up_filter, down_filter);
  TORCH_CHECK(grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type(), op,
              ": grad_output must have the shape ", input.sizes(), " and the dtype of input, got ",
              grad_output.sizes());
  const SnakeHeld held(input, frequency, magnitude, up_filter, down_filter);
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_input = at::empty_like(held.input, at::MemoryFormat::Contiguous);
  const Tensor parts = at::empty({2, input.size(0), input.size(1)}, held.frequency.options());
  const SnakeBackward args{held.inputs(), grad.const_data_ptr(), grad_input.mutable_data_ptr(),
                           parts[0].mutable_data_ptr(), parts[1].mutable_data_ptr()};
  const SnakeType type = kernel_type<SnakeType>(input);
  // A row is one thread's, so any number of threads gives the same bits.
  at::parallel_for(0, args.inputs.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (type == SnakeType::kFloat64) {
        backward_plain<double, double>(args, row);
      } else if (type == SnakeType::kFloat16) {
        backward_plain<c10::Half, float>(args, row);
      } else {
        vector_rows().backward[static_cast<int>(type)](args, row);
      }
    }
  });
  const Tensor sums = parts.sum({1});
  return {grad_input, sums[0].to(frequency.scalar_type()), sums[1].to(magnitude.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) {
  m.impl("anti_aliased_snake", forward_cpu);
  m.impl("anti_aliased_snake_backward", backward_cpu);
}

}  // namespace voxtorch::kernels
