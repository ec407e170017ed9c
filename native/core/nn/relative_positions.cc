#include "core/nn/relative_positions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/runtime/device_tables.h"

namespace voxtorch::nn {

using at::Tensor;

void DistanceBuckets::check(const char* count_name, const char* farthest_name) const {
  TORCH_CHECK(count >= 4 && farthest > count / 4, count_name, " must be at least 4 and ", farthest_name,
              " above a quarter of it, got ", count, " and ", farthest);
}

Tensor DistanceBuckets::of(int64_t time, c10::Device device) const {
  if (device.is_cuda()) {
    // The middle of a longer table.
    const int64_t most = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(time, 1024))));
    const Tensor table = kept_table(table_key("distance_buckets", count, farthest, most), at::kLong, device,
                                    [&] { return of(most, c10::kCPU); });
    return table.narrow(0, most - time, 2 * time - 1);
  }
  const int64_t half = count / 2, exact = half / 2;
  const Tensor offset = at::arange(1 - time, time, at::TensorOptions().dtype(at::kLong).device(device));
  const Tensor distance = offset.abs();
  const Tensor position = at::log(distance.to(at::kFloat) / exact) /
                          std::log(static_cast<double>(farthest) / static_cast<double>(exact)) * (half - exact);
  const Tensor far = (position + exact).to(at::kLong).clamp_max(half - 1);
  return offset.gt(0).to(at::kLong) * half + at::where(distance < exact, distance, far);
}

namespace {

// Each gate is the sum of kGateWidth projections, which is the projection with the sum of their weights.
Tensor sum_of_gates(const Tensor& x, const Linear& gates) {
  if (gates.altered()) return gates.forward(x).unflatten(-1, {2, kGateWidth}).sum(-1);
  const Tensor weight = gates.weight.unflatten(0, {2, kGateWidth}).sum(1);
  const Tensor bias = gates.bias.unflatten(0, {2, kGateWidth}).sum(1);
  return at::linear(x, weight, bias);
}

}  // namespace

Tensor relative_gate(const Tensor& x, const Linear& gates, const Tensor& scale) {
  const Tensor both = at::sigmoid(sum_of_gates(x, gates));  // [batch, time, heads, 2]
  const Tensor update = both.select(-1, 0), reset = both.select(-1, 1);
  return (update * (reset * scale.flatten() - 1) + 2).transpose(1, 2);  // [batch, heads, time]
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Of the distances key - query from 1 - time to time - 1.
  m.def("relative_position_buckets(int time, int num_buckets, int max_distance) -> Tensor",
        [](int64_t time, int64_t count, int64_t farthest) {
          TORCH_CHECK(time >= 1 && time <= (1 << 24),
                      "relative_position_buckets: time must be from 1 to 16777216, got ", time);
          const DistanceBuckets buckets{count, farthest};
          buckets.check("num_buckets", "max_distance");
          return buckets.of(time, c10::kCPU);
        });
}

}  // namespace voxtorch::nn
