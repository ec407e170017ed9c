// What a network offers so that a generation session can drive it: it reads a prompt, then one token of each row at a
// time. A stepper owns the memory of its past (key-value cache, cross-attention keys) and frees it when it dies.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "core/nn/kv_cache.h"

namespace voxtorch::generation {

struct Prompt {
  at::Tensor ids;             // int64 [batch, time]; may be undefined where there are
  at::Tensor embeddings;      // [batch, time, dim], which are read instead
  at::Tensor mask;            // [batch, past + time], 1 for real tokens; undefined: all are
  at::Tensor encoder_states;  // [batch, frames, dim], for networks with cross-attention
  at::Tensor encoder_mask;    // [batch, frames]
  int64_t more = 0;           // tokens that will follow at most: what to take memory for
  int64_t place = -1;         // a token of which the logits are wanted too; -1: none
  // Keys and values of the encoder's states, to be left as they are; an empty one is filled. Null: the stepper's own.
  c10::intrusive_ptr<nn::KvCache> encoder_cache = {};
};

struct PromptLogits {
  at::Tensor next;      // [batch, vocabulary], of what follows the last token of each row
  at::Tensor at_place;  // the same of what follows the token at Prompt::place; undefined without one
};

class CausalStepper {
 public:
  virtual ~CausalStepper() = default;
  virtual PromptLogits prefill(const Prompt& prompt) = 0;
  // ids int64 [batch], one for each row -> logits [batch, vocabulary] of what follows, which the next step may
  // overwrite. One that throws leaves the past as it was.
  virtual at::Tensor step(const at::Tensor& ids) = 0;
  // The most likely token after each row, int64 [batch] on the CPU, where that is quicker to be had than all logits:
  // one that throws leaves the past as it was, too. Undefined: it is not, and nothing was read.
  virtual at::Tensor likeliest(const at::Tensor& ids) { return {}; }
  // The same as step() before anybody knows whether those ids are wanted: the past is as it was until they are taken. A
  // device computes it while the host still reads what `ids` are. Undefined: there is nothing to be gained by it.
  virtual at::Tensor ahead(const at::Tensor& ids) = 0;
  virtual void take_ahead() = 0;
  // Several tokens of each row, ids int64 [batch, time] on the CPU -> logits [batch, time, vocabulary].
  virtual at::Tensor extend(const at::Tensor& ids) = 0;
  // Of `most` tokens after the next one, those that extend() may read with it and give the logits of single steps.
  virtual int64_t readable_ahead(int64_t most) const { return most; }
  // Forgets the last tokens of each row.
  virtual void rewind(int64_t tokens) = 0;
  // Row i becomes what row rows[i] was, int64 on the CPU; there may be more or fewer rows than before.
  virtual void reorder(const at::Tensor& rows) = 0;
};

// What one text adds to a pass that reads for several at once.
struct Piece {
  at::Tensor ids;         // int64 [time] on the CPU; undefined where there are
  at::Tensor embeddings;  // [time, dim]
  nn::KvCache* cache;     // its past, of one row, to which the pass adds the piece
  bool wanted;            // whether the logits after its last token are needed
  int64_t text_length;    // tokens of the text that it is a part of: for a part of a prompt all of the prompt
  bool is_prompt;         // else a token that was generated
  int64_t time() const { return embeddings.defined() ? embeddings.size(0) : ids.size(0); }
};

// Reads for several texts of unlike length, each with a past of its own.
class TogetherReader {
 public:
  virtual ~TogetherReader() = default;
  // In one pass -> logits [wanted pieces, vocabulary], which the next pass may overwrite. A pass that throws leaves
  // every past as it was.
  virtual at::Tensor read(const std::vector<Piece>& pieces) = 0;
};

// A Module that can generate is this as well.
class Generative {
 public:
  virtual ~Generative() = default;
  virtual int64_t vocabulary_size() const = 0;
  // `cache`: what was read before, which the stepper adds to; null: it begins with nothing and owns its memory. The
  // network outlives the stepper.
  virtual std::unique_ptr<CausalStepper> stepper(c10::intrusive_ptr<nn::KvCache> cache) const = 0;
  // The network outlives it. It may keep the memory of the caches that it read last.
  virtual std::unique_ptr<TogetherReader> together() const {
    TORCH_CHECK_VALUE(false, "this network does not read for several texts in one pass; language models do");
  }
  // Whether a text of `length` tokens begins with the keys that a cache has of the same tokens.
  virtual bool begins_with(const nn::KvCache& cache, int64_t length) const { return true; }
  // Bytes that a token takes in a cache; 0: the network does not read for several texts in one pass.
  virtual int64_t token_bytes() const { return 0; }
};

}  // namespace voxtorch::generation
