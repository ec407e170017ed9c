#include "core/nn/segments.h"

#include <ATen/SDPBackend.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "core/nn/functions.h"
#include "core/runtime/transfers.h"

namespace voxtorch::nn {

using at::Tensor;

struct Segments::Tables {
  std::once_flag spread, mask, begins;
  Tensor spread_from, joined_from, is_there, starts;
};

Segments::Segments(int64_t batch, int64_t time, std::vector<int64_t> lengths, Tensor places, c10::Device device)
    : batch_(batch),
      time_(time),
      lengths_(std::move(lengths)),
      total_(std::accumulate(lengths_.begin(), lengths_.end(), int64_t{0})),
      longest_(*std::max_element(lengths_.begin(), lengths_.end())),
      places_(std::move(places)),
      device_(device),
      tables_(std::make_shared<Tables>()) {}

std::optional<Segments> Segments::of(const Tensor& mask, c10::Device device) {
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
  const int64_t total = static_cast<int64_t>(places.size());
  return Segments(batch, time, std::move(lengths), upload(places, {total}, device), device);
}

std::optional<Segments> Segments::of_blocks(const Tensor& mask, c10::Device device) {
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
  return Segments(batch, time, std::move(lengths), {}, device);
}

Segments Segments::of_lengths(int64_t batch, int64_t time, at::IntArrayRef given, c10::Device device) {
  std::vector<int64_t> lengths;
  int64_t end = 0;
  for (const int64_t length : given) {
    TORCH_CHECK(length >= 0, "a sequence cannot have ", length, " tokens");
    TORCH_CHECK(length <= batch * time - end && end % time + length <= time, "sequences of ", given,
                " tokens do not fit rows of ", time, ": the one of ", length, " that begins at ", end,
                " reaches beyond the end of its row");
    if (length > 0) lengths.push_back(length);
    end += length;
  }
  TORCH_CHECK(end == batch * time, "sequences of ", given, " tokens are ", end, " in all, and there are ",
              batch * time);
  return Segments(batch, time, std::move(lengths), {}, device);
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

int64_t Segments::longest() const { return longest_; }

Tensor Segments::positions() const {
  std::vector<int64_t> positions;
  for (const int64_t length : lengths_) {
    for (int64_t step = 0; step < length; ++step) positions.push_back(step);
  }
  return upload(positions, {1, total_}, device_);
}

Tensor Segments::numbers() const {
  std::vector<int64_t> numbers;
  for (size_t i = 0; i < lengths_.size(); ++i) {
    numbers.insert(numbers.end(), static_cast<size_t>(lengths_[i]), static_cast<int64_t>(i));
  }
  return upload(numbers, {1, total_}, device_);
}

bool Segments::spreads_well() const {
  return static_cast<int64_t>(lengths_.size()) * longest_ <= 4 * std::max(total_, int64_t{1024});
}

const Segments::Tables& Segments::spread_tables() const {
  std::call_once(tables_->spread, [&] {
    const int64_t count = static_cast<int64_t>(lengths_.size());
    std::vector<int64_t> spread_from, joined_from;
    int64_t begin = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t length = lengths_[static_cast<size_t>(i)];
      for (int64_t step = 0; step < longest_; ++step) {
        spread_from.push_back(step < length ? begin + step : begin);
        if (step < length) joined_from.push_back(i * longest_ + step);
      }
      begin += length;
    }
    tables_->spread_from = upload(spread_from, {count * longest_}, device_);
    tables_->joined_from = upload(joined_from, {total_}, device_);
  });
  return *tables_;
}

Tensor Segments::spread(const Tensor& packed) const {
  const int64_t count = static_cast<int64_t>(lengths_.size());
  return packed.squeeze(0).index_select(0, spread_tables().spread_from).unflatten(0, {count, longest_});
}

Tensor Segments::spread_mask() const {
  std::call_once(tables_->mask, [&] {
    const Tensor mask = at::zeros({static_cast<int64_t>(lengths_.size()), longest_}, at::TensorOptions(at::kBool));
    bool* row = mask.mutable_data_ptr<bool>();
    for (size_t i = 0; i < lengths_.size(); ++i, row += longest_) std::fill_n(row, lengths_[i], true);
    tables_->is_there = upload(mask, device_);
  });
  return tables_->is_there;
}

Tensor Segments::join(const Tensor& spread) const {
  return spread.flatten(0, 1).index_select(0, spread_tables().joined_from).unsqueeze(0);
}

Tensor Segments::begins() const {
  std::call_once(tables_->begins, [&] {
    const Tensor starts = at::zeros({static_cast<int64_t>(lengths_.size()) + 1}, at::TensorOptions(at::kInt));
    int32_t* start = starts.mutable_data_ptr<int32_t>();
    for (size_t i = 0; i < lengths_.size(); ++i) start[i + 1] = start[i] + static_cast<int32_t>(lengths_[i]);
    tables_->starts = upload(starts, device_);
  });
  return tables_->starts;
}

namespace {

// [1, heads, total, ...] -> [1, total, heads, ...].
Tensor steps_first(const Tensor& states) { return states.transpose(1, 2); }

// Flash attention is chosen by the rule of ATen's own attention: by the GPU, the dtype, the head dimension.
bool takes_flash(const Tensor& query, const Tensor& key, const Tensor& value, double dropout) {
  const c10::ScalarType dtype = query.scalar_type();
  if ((dtype != at::kBFloat16 && dtype != at::kHalf) || query.size(3) % 8 != 0) return false;
  return at::_fused_sdp_choice(query, key, value, std::nullopt, dropout) ==
         static_cast<int64_t>(at::SDPBackend::flash_attention);
}

// [1, heads, total, dim] -> [1, total, heads, dim]; window: of causal attention, 0 for none.
Tensor flash(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value, double dropout,
             bool causal = false, int64_t window = 0) {
  const auto rows = [](const Tensor& states) { return steps_first(states).squeeze(0); };  // [total, heads, dim]
  const Tensor begins = segments.begins();
  std::optional<int64_t> before, after;
  if (window > 0) before = window - 1, after = 0;
  const auto result = at::_flash_attention_forward(rows(query), rows(key), rows(value), begins, begins,
                                                   segments.longest(), segments.longest(), dropout, causal,
                                                   /*return_debug_mask=*/false, /*scale=*/std::nullopt, before, after);
  return std::get<0>(result).unsqueeze(0);
}

}  // namespace

Tensor attend_each(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value,
                   double dropout) {
  if (!segments.is_on_cpu()) {
    if (takes_flash(query, key, value, dropout)) return flash(segments, query, key, value, dropout).flatten(2);
    if (segments.spreads_well()) {
      const auto apart = [&](const Tensor& states) {
        return segments.spread(steps_first(states)).transpose(1, 2);  // [sequences, heads, longest, dim]
      };
      const Tensor mask = attention_mask(segments.spread_mask());
      return segments.join(join_heads(attend(apart(query), apart(key), apart(value), mask, dropout, false).output));
    }
  }
  const auto queries = segments.split(query, 2), keys = segments.split(key, 2), values = segments.split(value, 2);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < queries.size(); ++i) {
    outputs.push_back(join_heads(attend(queries[i], keys[i], values[i], {}, dropout, false).output));
  }
  return at::cat(outputs, 1);
}

Tensor gated_attend_each(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value,
                         const Tensor& gate, const Tensor& relative, double dropout) {
  const int64_t longest = (relative.size(1) + 1) / 2;
  if (!segments.is_on_cpu() && segments.spreads_well() && longest == segments.longest()) {
    const auto apart = [&](const Tensor& states) { return segments.spread(steps_first(states)).transpose(1, 2); };
    return segments.join(join_heads(gated_attend(apart(query), apart(key), apart(value), apart(gate), relative,
                                                 segments.spread_mask(), dropout, false)
                                        .output));
  }
  const auto queries = segments.split(query, 2), keys = segments.split(key, 2), values = segments.split(value, 2);
  const auto gates = segments.split(gate, 2);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < queries.size(); ++i) {
    const int64_t time = queries[i].size(2);
    const Tensor near = relative.narrow(1, longest - time, 2 * time - 1);
    outputs.push_back(
        join_heads(gated_attend(queries[i], keys[i], values[i], gates[i], near, {}, dropout, false).output));
  }
  return at::cat(outputs, 1);
}

Tensor attend_causal(const Tensor& query, const Tensor& key, const Tensor& value, int64_t window, double dropout,
                     double cap) {
  const int64_t time = query.size(2);
  if (window <= 0 || window >= time) {
    return scaled_attention(query, key, value, std::nullopt, dropout, /*is_causal=*/true, cap);
  }
  const auto part = [](const Tensor& states, int64_t from, int64_t to) { return states.narrow(2, from, to - from); };
  // The first queries have no more keys than a window; the others come in blocks, all of which see alike.
  std::vector<Tensor> outputs = {scaled_attention(part(query, 0, window), part(key, 0, window), part(value, 0, window),
                                                  std::nullopt, dropout, /*is_causal=*/true, cap)};
  const int64_t block = std::min(std::max<int64_t>(window / 4, 64), time - window);
  const auto integers = at::TensorOptions().dtype(at::kLong).device(query.device());
  const Tensor first = at::arange(block, integers).unsqueeze(1);  // the first key of a query
  const Tensor places = at::arange(block + window - 1, integers).unsqueeze(0);
  const Tensor mask = (places >= first) & (places < first + window);
  for (int64_t begin = window; begin < time; begin += block) {
    const int64_t end = std::min(begin + block, time), from = begin - window + 1;
    const Tensor seen = mask.narrow(0, 0, end - begin).narrow(1, 0, end - from);
    outputs.push_back(scaled_attention(part(query, begin, end), part(key, from, end), part(value, from, end), seen,
                                       dropout,
                                       /*is_causal=*/false, cap));
  }
  return at::cat(outputs, 2);
}

Tensor attend_causal_each(const Segments& segments, const Tensor& query, const Tensor& key, const Tensor& value,
                          int64_t window, double dropout, double cap) {
  if (window >= segments.longest()) window = 0;
  if (!segments.is_on_cpu()) {
    if (cap == 0 && takes_flash(query, key, value, dropout)) {
      return flash(segments, query, key, value, dropout, true, window).transpose(1, 2);
    }
    if (segments.spreads_well()) {
      // After the end of a sequence nothing is seen by what stands before it.
      const auto apart = [&](const Tensor& states) {
        return segments.spread(steps_first(states)).transpose(1, 2);  // [sequences, heads, longest, dim]
      };
      const Tensor attended = attend_causal(apart(query), apart(key), apart(value), window, dropout, cap);
      return segments.join(attended.transpose(1, 2)).transpose(1, 2);
    }
  }
  const auto queries = segments.split(query, 2), keys = segments.split(key, 2), values = segments.split(value, 2);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < queries.size(); ++i) {
    outputs.push_back(attend_causal(queries[i], keys[i], values[i], window, dropout, cap));
  }
  return at::cat(outputs, 2);
}

}  // namespace voxtorch::nn
