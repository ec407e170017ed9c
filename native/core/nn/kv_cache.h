// The keys and values of a decoder's past tokens, so that each token is computed once. Memory for more tokens than
// there are is taken ahead, so that a step copies its own only.
//
// A forward pass writes after the past and calls advance() when it is whole: a pass that throws leaves the cache as it
// was. No gradient goes through it.
#pragma once

#include <atomic>
#include <utility>
#include <vector>

#include "core/module.h"

namespace voxtorch::nn {

constexpr int64_t kMixedAngles = -1;

class KvCache : public Module {
 public:
  KvCache(const ModuleOptions& options, const Config& config);
  ~KvCache() override;

  int64_t length() const { return length_.load(std::memory_order_relaxed); }  // tokens
  int64_t batch() const;                                                      // 0 while empty

  // Throws where a network of so many layers cannot go on with a batch of so many rows.
  void check(int64_t batch, int64_t layers) const;

  // Keys and values [batch, heads, time, dim] of new tokens of a layer -> those of all, [batch, heads, length() + time,
  // dim], which are views.
  std::pair<at::Tensor, at::Tensor> append(size_t layer, const at::Tensor& keys, const at::Tensor& values);
  // Those of all tokens so far.
  std::pair<at::Tensor, at::Tensor> get(size_t layer) const;
  void advance(int64_t time) { length_.fetch_add(time, std::memory_order_relaxed); }

  // All the memory of a layer, [batch, heads, tokens that there is room for, dim], with room for `time` more tokens
  // than length(): what a step writes to that finds its place itself. It stays where it is until there is no more room,
  // or rows are dropped.
  std::pair<at::Tensor, at::Tensor> memory(size_t layer, int64_t time);

  // Takes memory for so many tokens at the next append, as far as it is reasonable to take it ahead.
  void reserve(int64_t tokens) { reserved_ = tokens; }
  // Another with the same tokens.
  c10::intrusive_ptr<KvCache> copy() const;
  // Becomes, while empty, the first `tokens` of another's, with the reserved memory.
  void begin_with(const KvCache& other, int64_t tokens);
  // Gives back the memory that was taken for tokens to come.
  void compact();
  int64_t bytes() const { return counted_; }
  // Of all caches in the process.
  static int64_t live_bytes();

  // Which rotary angles all its keys have, see nn::Rotary::angles; kMixedAngles: not all the same.
  int64_t angles() const { return angles_; }
  void set_angles(int64_t angles) { angles_ = angles; }
  // An empty one for as many tokens, and the other way round: takes the tokens of one that was made so.
  c10::intrusive_ptr<KvCache> empty_like() const;
  void become(KvCache& other);

  // Forgets what comes after the first `length` tokens.
  void crop(int64_t length);
  // Row i becomes what row rows[i] was; there may be more or fewer rows than before.
  void reorder(const at::Tensor& rows);

 private:
  struct Layer {
    at::Tensor keys, values;  // [batch, heads, capacity, dim]
  };
  void move_rows(const at::Tensor& rows, const at::Tensor& changed);
  void make_room(Layer& layer, int64_t total, const at::Tensor& keys, const at::Tensor& values);
  void set_layers(std::vector<Layer> layers);
  void count();  // after memory was taken or given back

  std::vector<Layer> layers_;
  int64_t reserved_ = 0;
  int64_t angles_ = 0;
  int64_t counted_ = 0;  // bytes
  std::atomic<int64_t> length_{0};
};

}  // namespace voxtorch::nn
