// wav2vec 2.0 (Baevski et al. 2020, https://arxiv.org/abs/2006.11477) and its multilingual descendants XLSR-53
// (https://arxiv.org/abs/2006.13979) and XLS-R (https://arxiv.org/abs/2111.09296), with the names of transformers'
// Wav2Vec2Model.
#pragma once

#include "core/models/speech_encoder.h"

namespace voxtorch::models {

class Wav2Vec2 : public SpeechEncoder {
 public:
  Wav2Vec2(const ModuleOptions& options, const Config& config);
};

}  // namespace voxtorch::models
