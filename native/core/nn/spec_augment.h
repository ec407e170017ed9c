// SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779): which spans of an axis to blank out while training.
#pragma once

#include <ATen/core/Tensor.h>

namespace voxtorch::nn {

struct SpanMasking {
  double probability = 0;  // of each position to begin a span, before spans overlap
  int64_t length = 10;     // of a span
  int64_t min_spans = 0;   // in each row
};

// Draws a bool mask [rows, size] on `device`, as wav2vec 2.0's authors draw theirs: spans begin at different places but
// may overlap, and one draw for the whole batch decides how a fraction of a span is rounded. Spans stay within the
// first lengths[row] positions ([rows], undefined: all); where a row is shorter than a span, none is made. Drawn from
// the default generator of the CPU, and with lengths on another device from that one's, so that the host does not wait
// for the lengths.
at::Tensor draw_spans(int64_t rows, int64_t size, const SpanMasking& masking, const at::Tensor& lengths,
                      c10::Device device);

}  // namespace voxtorch::nn
