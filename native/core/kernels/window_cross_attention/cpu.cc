// window_cross_attention on the CPU: vector rows for float32 and bfloat16 in the widest build the processor has
// (ATEN_CPU_CAPABILITY narrows it, as it does ATen's), plain loops for float64 and float16.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/kernels/arguments.h"
#include "core/kernels/window_cross_attention/walk.h"
#include "core/kernels/window_cross_attention/window_cross_attention.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kGrain = 32768;  // products below which a second thread costs more than it saves

const WindowRows& vector_rows() { return VOXTORCH_BEST_BUILD(window_rows); }

template <typename Type, typename Sum>
struct PlainOps {
  using T = Type;
  using Acc = Sum;
  static Acc dot(const T* a, const T* b, int64_t dim) {
    Acc sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += static_cast<Acc>(a[d]) * static_cast<Acc>(b[d]);
    return sum;
  }
  static void add(Acc* sum, Acc factor, const T* row, int64_t dim) {
    for (int64_t d = 0; d < dim; ++d) sum[d] += factor * static_cast<Acc>(row[d]);
  }
  static void write(T* to, const Acc* sum, int64_t dim) {
    for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<T>(sum[d]);
  }
  static Acc exp(Acc value) { return std::exp(value); }
  static Acc log(Acc value) { return std::log(value); }
};

// Tasks of one size each; each thread has its scratch.
template <typename Acc, typename Run>
void each_task(const WindowAttention& call, int64_t tasks, int64_t rows_of_task, Run run) {
  if (tasks == 0) return;
  const int64_t products = std::max<int64_t>(1, 2 * rows_of_task * call.window * call.dim);
  at::parallel_for(0, tasks, std::max<int64_t>(1, kGrain / products), [&](int64_t begin, int64_t end) {
    std::vector<Acc> scratch(call.dim + 2 * call.window);
    run(scratch.data(), begin, end);
  });
}

WindowOutput forward_cpu(const Tensor& query, const Tensor& key, const Tensor& value, int64_t window, int64_t stride,
                         const OptionalTensor& lengths, double dropout, int64_t seed) {
  WindowCall call{query, key, value, window, stride, lengths, dropout, seed};
  check_window_attention("window_cross_attention", call);
  call = call.readable();
  const Tensor output = at::empty_like(call.query, at::MemoryFormat::Contiguous);
  const Tensor logsumexp = empty_window_logsumexp(call);
  WindowForward args{call.args(), output.mutable_data_ptr(), logsumexp.mutable_data_ptr()};
  args.call.window = std::min(window, std::max<int64_t>(1, args.call.time));
  const WindowType type = kernel_type<WindowType>(query);
  const int64_t tasks = args.call.batch * args.call.windows, rows = args.call.queries * args.call.heads;
  if (type == WindowType::kFloat64) {
    each_task<double>(args.call, tasks, rows, [&](double* scratch, int64_t begin, int64_t end) {
      window_forward<PlainOps<double, double>>(args, scratch, begin, end);
    });
  } else {
    const auto run = type == WindowType::kFloat16 ? window_forward<PlainOps<c10::Half, float>>
                                                  : vector_rows().forward[static_cast<int>(type)];
    each_task<float>(args.call, tasks, rows,
                     [&](float* scratch, int64_t begin, int64_t end) { run(args, scratch, begin, end); });
  }
  return {output, logsumexp};
}

WindowGradients backward_cpu(const Tensor& grad_output, const Tensor& logsumexp, const Tensor& query, const Tensor& key,
                             const Tensor& value, int64_t window, int64_t stride, const OptionalTensor& lengths,
                             double dropout, int64_t seed) {
  WindowCall call{query, key, value, window, stride, lengths, dropout, seed};
  check_window_attention_backward(call, grad_output, logsumexp);
  call = call.readable();
  const Tensor grad = grad_output.contiguous();
  const Tensor grad_query = at::empty_like(call.query, at::MemoryFormat::Contiguous);
  const auto sums = query.options().dtype(call.accumulator());
  const Tensor grad_key = at::zeros(key.sizes(), sums), grad_value = at::zeros(key.sizes(), sums);
  WindowBackward args{call.args(),
                      grad.const_data_ptr(),
                      logsumexp.const_data_ptr(),
                      grad_query.mutable_data_ptr(),
                      grad_key.mutable_data_ptr(),
                      grad_value.mutable_data_ptr()};
  args.call.window = std::min(window, std::max<int64_t>(1, args.call.time));
  const WindowType type = kernel_type<WindowType>(query);
  const int64_t tasks = args.call.batch * args.call.heads, rows = 2 * args.call.windows * args.call.queries;
  if (type == WindowType::kFloat64) {
    each_task<double>(args.call, tasks, rows, [&](double* scratch, int64_t begin, int64_t end) {
      window_backward<PlainOps<double, double>>(args, scratch, begin, end);
    });
  } else {
    const auto run = type == WindowType::kFloat16 ? window_backward<PlainOps<c10::Half, float>>
                                                  : vector_rows().backward[static_cast<int>(type)];
    each_task<float>(args.call, tasks, rows,
                     [&](float* scratch, int64_t begin, int64_t end) { run(args, scratch, begin, end); });
  }
  return {grad_query, grad_key.to(key.scalar_type()), grad_value.to(value.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) {
  m.impl("window_cross_attention_forward", forward_cpu);
  m.impl("window_cross_attention_backward", backward_cpu);
}

}  // namespace voxtorch::kernels
