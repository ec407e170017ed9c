// WavLM (Chen et al. 2021, https://arxiv.org/abs/2110.13900) with the names of transformers' WavLMModel: wav2vec 2.0
// whose attention has a gated bias of relative positions.
#pragma once

#include "core/models/speech_encoder.h"

namespace voxtorch::models {

class WavLM : public SpeechEncoder {
 public:
  WavLM(const ModuleOptions& options, const Config& config);

 protected:
  // The buckets of its attention are those of `config`; all else is from `speech`.
  WavLM(const ModuleOptions& options, const Config& config, const SpeechConfig& speech);
};

}  // namespace voxtorch::models
