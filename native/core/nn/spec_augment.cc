#include "core/nn/spec_augment.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/runtime/transfers.h"

namespace voxtorch::nn {
namespace {

// Of a row with `length` real positions out of `size`.
int64_t span_count(int64_t length, int64_t size, const SpanMasking& masking, double rounding) {
  const double expected = masking.probability * static_cast<double>(length) / static_cast<double>(masking.length);
  int64_t count = std::max(static_cast<int64_t>(expected + rounding), masking.min_spans);
  if (count * masking.length > size) count = size / masking.length;
  return std::max<int64_t>(0, std::min(count, length - masking.length + 1));
}

// The same in operators, where the lengths are.
at::Tensor drawn_on_device(int64_t rows, int64_t size, const SpanMasking& masking, const at::Tensor& lengths,
                           double rounding) {
  const int64_t most = span_count(size, size, masking, rounding);
  const auto whole = lengths.options().dtype(at::kLong);
  if (most == 0) return at::zeros({rows, size}, whole.dtype(at::kBool));
  const at::Tensor real = lengths.to(at::kLong).clamp_max(size).unsqueeze(1);  // [rows, 1]
  const at::Tensor starts = (real - (masking.length - 1)).clamp_min(0);        // how many places a span may begin at
  const at::Tensor expected = real.to(at::kDouble) * (masking.probability / static_cast<double>(masking.length));
  const at::Tensor counts =
      at::minimum((expected + rounding).to(at::kLong).clamp(masking.min_spans, size / masking.length), starts);

  // The places of the largest numbers are as many different ones, drawn alike.
  const at::Tensor drawn = at::rand({rows, size}, whole.dtype(at::kFloat));
  const at::Tensor possible = at::arange(size, whole) < starts;
  const at::Tensor chosen = std::get<1>(drawn.masked_fill(possible.logical_not(), -1).topk(most, 1));  // [rows, most]
  const at::Tensor taken = (at::arange(most, whole) < counts).to(at::kLong);
  const at::Tensor places = (chosen.unsqueeze(-1) + at::arange(masking.length, whole)).clamp_max(size - 1);
  const at::Tensor times =
      at::zeros({rows, size}, whole)
          .scatter_add_(1, places.flatten(1), taken.unsqueeze(-1).expand({rows, most, masking.length}).flatten(1));
  return times.gt(0);
}

}  // namespace

at::Tensor draw_spans(int64_t rows, int64_t size, const SpanMasking& masking, const at::Tensor& lengths,
                      c10::Device device) {
  const double rounding = at::rand({1}, at::TensorOptions(at::kCPU)).item<double>();
  if (lengths.defined() && !lengths.is_cpu()) {
    return drawn_on_device(rows, size, masking, lengths, rounding).to(device);
  }
  at::Tensor mask = at::zeros({rows, size}, at::kBool);
  const at::Tensor limits = lengths.defined() ? lengths.to(at::kLong).contiguous() : at::Tensor();
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
  return upload(mask, device);
}

}  // namespace voxtorch::nn
