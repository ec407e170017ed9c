// Batches without padding: the sequences of all rows stand one after the other in one row, so that nothing is computed
// for steps that are not there. Only attention, and what else looks at neighbours, must know where each sequence ends.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace voxtorch::nn {

class Segments {
 public:
  // Of a mask [batch, time], true for what is there, at any places of a row. None where that saves no work: where
  // nothing is padding, or not on the CPU. None either where the first step of a row is padding, since networks may
  // read a state there.
  static std::optional<Segments> of(const at::Tensor& mask);
  // Of a mask [batch, 1, time, time] that has blocks on its diagonal, as packed rows have: each block is a sequence.
  // None where the mask says anything else, where all rows are one sequence, or not on the CPU.
  static std::optional<Segments> of_blocks(const at::Tensor& mask);

  at::Tensor pack(const at::Tensor& padded) const;  // [batch, time, ...] -> [1, total, ...]
  at::Tensor pad(const at::Tensor& packed) const;   // [1, total, ...] -> [batch, time, ...], padding is 0
  // One view for each sequence, along the dimension that holds the total.
  std::vector<at::Tensor> split(const at::Tensor& packed, int64_t dimension) const;
  int64_t longest() const;

 private:
  Segments(int64_t batch, int64_t time, std::vector<int64_t> lengths, at::Tensor places)
      : batch_(batch), time_(time), lengths_(std::move(lengths)), places_(std::move(places)) {}

  int64_t batch_, time_;
  std::vector<int64_t> lengths_;  // of each row's sequence, at least 1
  at::Tensor places_;             // int64 [total]: where each step is among batch * time; undefined: all are there
};

// attend and gated_attend (functions.h) for each sequence by itself: queries, keys and values [1, heads, total, dim],
// gate [1, heads, total], relative [heads, 2 * longest - 1] -> [1, total, heads * dim].
at::Tensor attend_each(const Segments& segments, const at::Tensor& query, const at::Tensor& key,
                       const at::Tensor& value, double dropout);
at::Tensor gated_attend_each(const Segments& segments, const at::Tensor& query, const at::Tensor& key,
                             const at::Tensor& value, const at::Tensor& gate, const at::Tensor& relative,
                             double dropout);

}  // namespace voxtorch::nn
