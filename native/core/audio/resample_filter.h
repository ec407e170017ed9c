// The windowed sinc that resampling convolves with, one short filter for each phase of the output.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace voxtorch::audio {

struct ResampleSpec {
  int64_t from = 1;  // without a common factor
  int64_t to = 1;
  int64_t width = 6;      // zero crossings of the sinc on each side
  double rolloff = 0.99;  // where the sinc cuts off, as a fraction of the lower of the two Nyquist frequencies
  bool kaiser = false;    // else Hann
  double beta = 14.769656459379492;

  bool operator==(const ResampleSpec&) const = default;
};

// Output n is the product of the `taps` weights of phase n % to with the samples from n / to * from + first[n % to] on.
struct ResampleFilter {
  int64_t taps = 0;  // a multiple of kLanes; zeros fill the end
  std::vector<int64_t> first;
  std::vector<double> weights;  // [to, taps]
  std::vector<float> weights32;
};

// The last few filters are remembered: a stream asks for the same one for every block. Throws for ratios whose filter
// would be huge.
std::shared_ptr<const ResampleFilter> resample_filter(const ResampleSpec& spec);

}  // namespace voxtorch::audio
