// Batches without padding: the sequences of all rows stand one after the other in one row, so that nothing is computed
// for steps that are not there. Only attention, and what else looks at neighbors, must know where each sequence ends.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

namespace voxtorch::nn {

class Segments {
 public:
  // Of a mask [batch, time], true for what is there, at any places of a row, for states on `device`. None where that
  // saves no work, since nothing is padding, and where the mask is not on the CPU: a device would have to be waited
  // for. None either where the first step of a row is padding, since networks may read a state there.
  static std::optional<Segments> of(const at::Tensor& mask, c10::Device device);
  // Of a mask [batch, 1, time, time] that has blocks on its diagonal, as packed rows have: each block is a sequence.
  // None where the mask says anything else, where all rows are one sequence, or where it is not on the CPU.
  static std::optional<Segments> of_blocks(const at::Tensor& mask, c10::Device device);
  // Of the lengths of the sequences that stand one after the other in rows [batch, time]; each row ends with one. Empty
  // ones are left out. Throws where they do not fit.
  static Segments of_lengths(int64_t batch, int64_t time, at::IntArrayRef lengths, c10::Device device);

  at::Tensor pack(const at::Tensor& padded) const;  // [batch, time, ...] -> [1, total, ...]
  at::Tensor pad(const at::Tensor& packed) const;   // [1, total, ...] -> [batch, time, ...], padding is 0
  // One view for each sequence, along the dimension that holds the total.
  std::vector<at::Tensor> split(const at::Tensor& packed, int64_t dimension) const;
  int64_t longest() const;
  at::Tensor positions() const;  // int64 [1, total]: counted anew in each sequence
  at::Tensor numbers() const;    // int64 [1, total]: which sequence a step is of

  // Sequences next to each other for what must see them apart, [1, total, ...] -> [sequences, longest, ...]: after its
  // end a sequence has its first step again, which `spread_mask`, bool [sequences, longest], is false for.
  at::Tensor spread(const at::Tensor& packed) const;
  at::Tensor spread_mask() const;
  at::Tensor join(const at::Tensor& spread) const;  // and back
  // Whether they take little more than the packed steps.
  bool spreads_well() const;
  // Where each sequence begins, and the end of the last: int32 [sequences + 1].
  at::Tensor begins() const;
  bool is_on_cpu() const { return device_.is_cpu(); }

 private:
  Segments(int64_t batch, int64_t time, std::vector<int64_t> lengths, at::Tensor places, c10::Device device);

  // What only some ways to attend need, made for the first that does.
  struct Tables;
  const Tables& spread_tables() const;

  int64_t batch_, time_;
  std::vector<int64_t> lengths_;  // of each row's sequence, at least 1
  int64_t total_, longest_;
  at::Tensor places_;  // int64 [total]: where each step is among batch * time; undefined: all are there
  c10::Device device_;
  std::shared_ptr<Tables> tables_;
};

// attend and gated_attend (functions.h) for each sequence by itself: queries, keys and values [1, heads, total, dim],
// gate [1, heads, total], relative [heads, 2 * longest - 1] -> [1, total, heads * dim]. On CUDA it is one attention for
// all of them: with flash attention of unlike lengths where it takes the arguments, else spread out for it alone.
at::Tensor attend_each(const Segments& segments, const at::Tensor& query, const at::Tensor& key,
                       const at::Tensor& value, double dropout);
at::Tensor gated_attend_each(const Segments& segments, const at::Tensor& query, const at::Tensor& key,
                             const at::Tensor& value, const at::Tensor& gate, const at::Tensor& relative,
                             double dropout);

// Causal attention, [batch, heads, time, dim] all: each query sees the keys up to its own, with a window the last
// `window` of them (0: all). Without a mask for all pairs: the longest that is made is [window / 4, 1.25 window]. `cap`
// as in scaled_attention.
at::Tensor attend_causal(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, int64_t window,
                         double dropout, double cap = 0);
// The same for each sequence by itself: [1, heads, total, dim] -> [1, heads, total, dim].
at::Tensor attend_causal_each(const Segments& segments, const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, int64_t window, double dropout, double cap = 0);

}  // namespace voxtorch::nn
