#include "core/nn/spec_augment.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace voxtorch::nn {
namespace {

// Of a row with `length` real positions out of `size`.
int64_t span_count(int64_t length, int64_t size, const SpanMasking& masking, double rounding) {
  const double expected = masking.probability * static_cast<double>(length) / static_cast<double>(masking.length);
  int64_t count = std::max(static_cast<int64_t>(expected + rounding), masking.min_spans);
  if (count * masking.length > size) count = size / masking.length;
  return std::max<int64_t>(0, std::min(count, length - masking.length + 1));
}

}  // namespace

at::Tensor draw_spans(int64_t rows, int64_t size, const SpanMasking& masking, const at::Tensor& lengths) {
  at::Tensor mask = at::zeros({rows, size}, at::kBool);
  const at::Tensor limits = lengths.defined() ? lengths.to(at::kCPU, at::kLong).contiguous() : at::Tensor();
  const double rounding = at::rand({1}).item<double>();
  bool* row = mask.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < rows; ++i, row += size) {
    const int64_t length = limits.defined() ? std::min(limits.const_data_ptr<int64_t>()[i], size) : size;
    const int64_t count = span_count(length, size, masking, rounding);
    if (count == 0) continue;
    const at::Tensor starts = at::randperm(length - masking.length + 1, at::kLong);
    for (int64_t span = 0; span < count; ++span) {
      std::fill_n(row + starts.const_data_ptr<int64_t>()[span], masking.length, true);
    }
  }
  return mask;
}

}  // namespace voxtorch::nn
