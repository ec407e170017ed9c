// What a decoding step does, phase by phase: raw pointers, and what they point to kept alive.
#pragma once

#include "core/kernels/decode_step/args.h"
#include "core/kernels/decode_step/decode_step.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/many_rows/many_rows.h"

namespace voxtorch::kernels {

// The widest build that the processor has; ATEN_CPU_CAPABILITY narrows it, as it does ATen's.
const StepRows& step_rows();

struct StepProduct {
  FewRows weight{};    // input and output are each worker's own
  int64_t column = 0;  // where its first output goes in a row of the phase's
  const float* lora_b = nullptr;
  int64_t rank = 0, lora_column = 0;  // of StepPlan::low
  float lora_scaling = 1;
};

struct StepPhase {
  enum class Input { stream, attended, inner };
  enum class Output { store, add, gated };

  const float* norm = nullptr;  // of the stream; null: none
  Input input = Input::stream;
  Output output = Output::store;
  std::vector<StepProduct> products;  // none: attention, or with `adds` what `norm` makes of StepPlan::branch
  float* to = nullptr;                // null: the logits
  int64_t width = 0;                  // of its rows

  struct Chunk {
    size_t product;
    int64_t begin, end;
  };
  std::vector<Chunk> chunks;  // of products

  bool adds = false;  // to the stream

  std::vector<char*> keys, values;  // of each row
  int64_t window = 0;
  const float *cos = nullptr, *sin = nullptr;
  const float *query_norm = nullptr, *key_norm = nullptr;  // null: none
};

struct StepPlan {
  std::vector<StepPhase> phases;
  int64_t rows, dim, heads, kv_heads, head_dim;
  std::vector<int64_t> capacities;      // of each row's cache
  int64_t capacity = 0;                 // the largest
  int64_t rotated;                      // dimensions of a head
  int64_t words_count = 0, vocabulary;  // rows of the embeddings and of the head
  bool screened = false;                // whether HeadScreen takes the head, which is the last phase
  StepType type;
  double eps;
  float embedding_scale, residual_scale, attention_scale, attention_cap;
  int64_t norm_heads = 0;  // query heads that one norm takes: 1 or all; 0: there is none
  JoinedFunction function;
  bool by_group;  // as in StepNetwork
  const void* words = nullptr;
  // Of all workers: the residual stream [rows, dim]; what is added to it after a norm, like it; query, key and value;
  // what chunks of attention have, [chunks of kStepPlaces, rows, heads, head_dim + 2]; gate * up; input Aᵀ of the
  // adapters.
  float *stream, *branch, *qkv, *pieces, *inner, *low;
  int64_t qkv_width, inner_width, low_width = 0;
  int64_t most_in = 0, most_chunk = 0, most_chunks = 0, most_prepared = 0;  // outputs of a chunk; the last in bytes
  std::vector<at::Storage> kept;

  int64_t group() const { return heads / kv_heads; }
  // Whether integers are multiplied by many_rows.h's kernels.
  bool many() const { return rows >= kFewestManyRows; }
  int64_t most_pieces() const { return capacity / kStepPlaces + 2; }
  // Zeros, for as long as the plan is there.
  float* memory(int64_t count);
};

// Null where a kernel does not take it.
std::unique_ptr<StepPlan> step_plan(const StepNetwork& network, int workers);

}  // namespace voxtorch::kernels
