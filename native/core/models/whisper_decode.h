// One token of each row through Whisper's decoder on the CPU, over plain pointers: no operator, no temporary, six
// phases a layer in one parallel region.
#pragma once

#include <memory>
#include <vector>

#include "core/kernels/query_attention/args.h"
#include "core/models/whisper_layers.h"

namespace voxtorch::models {

class WhisperDecodeJob;

class WhisperDecode {
 public:
  explicit WhisperDecode(const Whisper& network);
  ~WhisperDecode();

  // ids int64 [rows] -> logits float32 [rows, vocabulary] of what follows; the cache has one token more then. `clips`:
  // the row of `heard` that each is about. Undefined, with nothing done, where something asks for a whole
  // pass: a hook, an adapter, gradients, autocast, weights in 4 bits, many rows, another device or dtype.
  at::Tensor logits(const at::Tensor& ids, const std::vector<int64_t>& clips, nn::KvCache& cache, nn::KvCache& heard);

 private:
  const Whisper& network_;
  std::shared_ptr<WhisperDecodeJob> job_;
};

}  // namespace voxtorch::models
