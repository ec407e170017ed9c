// The stepper of a decoder whose past is a key-value cache. Where rows are padded, their mask grows with the text and
// positions count the real tokens.
#pragma once

#include "core/generation/stepper.h"

namespace voxtorch::generation {

class CachedStepper : public CausalStepper {
 public:
  at::Tensor step(const at::Tensor& ids) final;
  at::Tensor likeliest(const at::Tensor& ids) final;
  at::Tensor ahead(const at::Tensor& ids) final;
  void take_ahead() final;
  at::Tensor extend(const at::Tensor& ids) final;
  void rewind(int64_t tokens) final;
  void reorder(const at::Tensor& rows) override;

 protected:
  // Ids and masks are moved to `device`.
  CachedStepper(at::Device device, c10::intrusive_ptr<nn::KvCache> cache);

  // What the network reads next.
  struct Tokens {
    at::Tensor ids;         // int64 [batch, time]; undefined where there are
    at::Tensor embeddings;  // [batch, time, dim]
    at::Tensor mask;        // bool [batch, past + time]; undefined: no padding
    at::Tensor positions;   // int64 [batch, time]; undefined: counted over the real tokens
    int64_t wanted = 0;     // of the last tokens, whose hidden states are asked for; 0: of all
  };
  // The prompt, with memory for all that will follow.
  Tokens read(const Prompt& prompt);
  virtual at::Tensor hidden_of(const Tokens& tokens) = 0;  // -> [batch, time, dim], or [batch, wanted, dim]
  // The logits [batch, vocabulary] after one token of each row, ids int64 [batch] on the device, where there is a
  // quicker way to them than a pass; undefined: there is none.
  virtual at::Tensor quick_logits(const at::Tensor& ids) { return {}; }
  // The same for the most likely token after each row, int64 [batch].
  virtual at::Tensor quick_likeliest(const at::Tensor& ids) { return {}; }
  virtual at::Tensor logits_of(const at::Tensor& hidden) const = 0;           // [..., dim] -> [..., vocabulary]
  PromptLogits answer(const Prompt& prompt, const at::Tensor& hidden) const;  // of what read() wants
  // The cache, or an empty one where there is none.
  static c10::intrusive_ptr<nn::KvCache> or_new(c10::intrusive_ptr<nn::KvCache> cache);

  const c10::intrusive_ptr<nn::KvCache> cache_;
  const at::Device device_;
  at::Tensor mask_;         // bool [batch, tokens and some that may come]; undefined: no padding
  at::Tensor shift_;        // int64 [batch, 1]: the position of a token less its column; with a mask only
  int64_t most_shift_ = 0;  // of the longest row

 private:
  // So that the mask has so many columns, where there is one.
  void grow_mask(int64_t columns);
  at::Tensor host_shift_;  // shift_ on the CPU: no step waits for the device to say how long the longest row is
  // Of one token of each row, [batch, vocabulary]; -1: the last.
  at::Tensor logits_at(const at::Tensor& hidden, int64_t place) const;
};

}  // namespace voxtorch::generation
