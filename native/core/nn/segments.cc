#include "core/nn/segments.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "core/nn/functions.h"

namespace voxtorch::nn {

using at::Tensor;

std::optional<Segments> Segments::of(const Tensor& mask) {
  if (!mask.defined() || !mask.is_cpu()) return std::nullopt;
  const int64_t batch = mask.size(0), time = mask.size(1);
  const Tensor flags = mask.to(at::kBool).contiguous();
  const bool* is_there = flags.const_data_ptr<bool>();
  std::vector<int64_t> lengths, places;
  for (int64_t row = 0; row < batch; ++row) {
    if (time == 0 || !is_there[row * time]) return std::nullopt;
    const size_t before = places.size();
    for (int64_t place = row * time; place < (row + 1) * time; ++place) {
      if (is_there[place]) places.push_back(place);
    }
    lengths.push_back(static_cast<int64_t>(places.size() - before));
  }
  if (static_cast<int64_t>(places.size()) == batch * time) return std::nullopt;
  return Segments(batch, time, std::move(lengths), at::tensor(places, at::TensorOptions().dtype(at::kLong)));
}

std::optional<Segments> Segments::of_blocks(const Tensor& mask) {
  if (!mask.is_cpu() || mask.size(1) != 1 || mask.numel() == 0) return std::nullopt;
  const int64_t batch = mask.size(0), time = mask.size(2);
  const Tensor flags = mask.to(at::kBool).contiguous();
  const bool* is_seen = flags.const_data_ptr<bool>();
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < batch; ++row) {
    int64_t begin = 0, end = 0;  // of the block that the query is in
    for (int64_t query = 0; query < time; ++query, is_seen += time) {
      if (query == end) {
        begin = end;
        while (end < time && is_seen[end]) ++end;
        if (end == begin) return std::nullopt;
        lengths.push_back(end - begin);
      }
      for (int64_t key = 0; key < time; ++key) {
        if (is_seen[key] != (key >= begin && key < end)) return std::nullopt;
      }
    }
  }
  if (static_cast<int64_t>(lengths.size()) == batch) return std::nullopt;
  return Segments(batch, time, std::move(lengths), {});
}

Tensor Segments::pack(const Tensor& padded) const {
  const Tensor steps = padded.flatten(0, 1);
  return (places_.defined() ? steps.index_select(0, places_) : steps).unsqueeze(0);
}

Tensor Segments::pad(const Tensor& packed) const {
  if (!places_.defined()) return packed.squeeze(0).unflatten(0, {batch_, time_});
  std::vector<int64_t> shape = packed.sizes().vec();
  shape[1] = batch_ * time_;
  const Tensor zeros = packed.new_zeros(shape).squeeze(0);
  return zeros.index_copy(0, places_, packed.squeeze(0)).unflatten(0, {batch_, time_});
}

std::vector<Tensor> Segments::split(const Tensor& packed, int64_t dimension) const {
  return packed.split_with_sizes(lengths_, dimension);
}

int64_t Segments::longest() const { return *std::max_element(lengths_.begin(), lengths_.end()); }

Tensor attend_each(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value,
                   double dropout) {
  const auto queries = segments.split(query, 2), keys = segments.split(key, 2), values = segments.split(value, 2);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < queries.size(); ++i) {
    outputs.push_back(join_heads(attend(queries[i], keys[i], values[i], {}, dropout, false).output));
  }
  return at::cat(outputs, 1);
}

Tensor gated_attend_each(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value,
                         const Tensor& gate, const Tensor& relative, double dropout) {
  const auto queries = segments.split(query, 2), keys = segments.split(key, 2), values = segments.split(value, 2);
  const auto gates = segments.split(gate, 2);
  const int64_t longest = (relative.size(1) + 1) / 2;
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < queries.size(); ++i) {
    const int64_t time = queries[i].size(2);
    const Tensor near = relative.narrow(1, longest - time, 2 * time - 1);
    outputs.push_back(
        join_heads(gated_attend(queries[i], keys[i], values[i], gates[i], near, {}, dropout, false).output));
  }
  return at::cat(outputs, 1);
}

}  // namespace voxtorch::nn
