// An output layer whose weight is that of the embeddings (Press and Wolf 2016, https://arxiv.org/abs/1608.05859).
#pragma once

#include <mutex>

#include "core/nn/linear.h"

namespace voxtorch::nn {

// What a network inherits that may have one. For adapters of that layer, or of the embeddings, it can be untied: it
// then is a layer with a weight of its own, whose first values are the embeddings'. JavaScript unties while passes
// wait, so a pass asks once.
class TiedHead {
 public:
  // Where it would stand in the published network, and where the embeddings are.
  struct Names {
    const char* head;
    const char* embeddings;
  };
  virtual ~TiedHead() = default;
  virtual Names names() const = 0;
  virtual const at::Tensor& tied_weight() const = 0;  // [vocabulary, dim]; undefined: nothing is tied here

  c10::intrusive_ptr<Linear> own_head() const;  // null while tied
  c10::intrusive_ptr<Linear> untie();
  void tie(const Linear& head);  // unless it has been untied anew

 private:
  mutable std::mutex mutex_;
  c10::intrusive_ptr<Linear> own_;
};

// The last `count` states of [batch, time, dim], which are all that a head need multiply; 0: all.
at::Tensor last_states(const at::Tensor& hidden, int64_t count);

}  // namespace voxtorch::nn
