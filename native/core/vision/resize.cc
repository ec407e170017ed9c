// Images of 8 bits at another size, to the byte what Pillow makes of them (https://python-pillow.org, Image.resize).
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/vision/resize_lanes.h"

namespace voxtorch::vision {
namespace {

using at::Tensor;

struct Filter {
  std::string_view name;
  double support;  // inputs on each side, at a scale of 1
  double (*at)(double x);
};

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double bilinear(double x) { return std::max(0., 1 - std::fabs(x)); }

double hamming(double x) {
  x = std::fabs(x);
  if (x == 0) return 1;
  if (x >= 1) return 0;
  x *= M_PI;
  return std::sin(x) / x * (0.54 + 0.46 * std::cos(x));
}

// Keys, "Cubic convolution interpolation for digital image processing" (1981), whose a is -1/2.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double sinc(double x) { return x == 0 ? 1 : std::sin(x * M_PI) / (x * M_PI); }

double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

constexpr Filter kFilters[] = {
    {"bilinear", 1, bilinear}, {"bicubic", 2, bicubic}, {"lanczos", 3, lanczos},
    {"box", 0.5, box},         {"hamming", 1, hamming},
};

// The weights of all outputs along an axis, owned.
struct Weights {
  std::vector<int32_t> first, count, weight;
  std::vector<int16_t> high, low;
  int64_t taps = 0;

  ResizeAxis axis() const { return {first.data(), count.data(), taps, weight.data(), high.data(), low.data()}; }
};

Weights weights_of(const Filter& filter, int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.);
  const double support = filter.support * stretch;
  Weights result;
  const int64_t most = std::min(in, static_cast<int64_t>(std::ceil(support)) * 2 + 1);
  result.taps = (most + kWeightStep - 1) / kWeightStep * kWeightStep;
  result.first.resize(static_cast<size_t>(out));
  result.count.resize(static_cast<size_t>(out));
  const size_t total = static_cast<size_t>(out * result.taps);
  result.weight.resize(total);
  result.high.resize(total);
  result.low.resize(total);
  std::vector<double> row(static_cast<size_t>(result.taps));
  for (int64_t x = 0; x < out; ++x) {
    const double centre = (static_cast<double>(x) + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const int64_t end = std::min(in, static_cast<int64_t>(centre + support + 0.5));
    const size_t count = static_cast<size_t>(end - begin);
    const double inverse = 1 / stretch;
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      row[i] = filter.at((static_cast<double>(begin + static_cast<int64_t>(i)) - centre + 0.5) * inverse);
      sum += row[i];
    }
    result.first[static_cast<size_t>(x)] = static_cast<int32_t>(begin);
    result.count[static_cast<size_t>(x)] = static_cast<int32_t>(count);
    const size_t at = static_cast<size_t>(x * result.taps);
    for (size_t i = 0; i < count; ++i) {
      const double share = (sum != 0 ? row[i] / sum : row[i]) * (1 << kFraction);
      const int32_t weight = static_cast<int32_t>(share < 0 ? share - 0.5 : share + 0.5);
      result.weight[at + i] = weight;
      result.high[at + i] = static_cast<int16_t>(weight >> kLow);
      result.low[at + i] = static_cast<int16_t>(weight & ((1 << kLow) - 1));
    }
  }
  return result;
}

const ResizeLanes& resize_lanes() { return VOXTORCH_BEST_OF_TWO_BUILDS(resize_lanes); }

struct Size {
  int64_t height, width;
};

// Multiplications that are worth a thread of their own.
constexpr int64_t kWork = 200'000;

int64_t grain(int64_t work_per_row) { return std::max<int64_t>(1, kWork / std::max<int64_t>(1, work_per_row)); }

// A pass that would change no size is left out.
class Resizer {
 public:
  Resizer(const Filter& filter, Size from, Size to, int64_t channels, bool down_first)
      : from_(from), to_(to), channels_(channels), down_first_(down_first) {
    if (from.width != to.width) across_ = weights_of(filter, from.width, to.width);
    if (from.height != to.height) down_ = weights_of(filter, from.height, to.height);
  }

  void run(const uint8_t* input, uint8_t* output) {
    if (across_.taps == 0 && down_.taps == 0) {
      std::memcpy(output, input, static_cast<size_t>(to_.height * to_.width * channels_));
    } else if (down_.taps == 0) {
      across(input, from_.height, output);
    } else if (across_.taps == 0) {
      down(input, 0, to_.width, output);
    } else if (down_first_) {
      between_.resize(static_cast<size_t>(to_.height * from_.width * channels_));
      down(input, 0, from_.width, between_.data());
      across(between_.data(), to_.height, output);
    } else {
      // Only the rows that are read down.
      const int64_t first = down_.first.front();
      const int64_t rows = down_.first.back() + down_.count.back() - first;
      between_.resize(static_cast<size_t>(rows * to_.width * channels_));
      across(input + first * from_.width * channels_, rows, between_.data());
      down(between_.data(), first, to_.width, output);
    }
  }

 private:
  void across(const uint8_t* input, int64_t rows, uint8_t* output) {
    const int64_t stride = from_.width * channels_;
    const int64_t copied = std::min(rows, kOverread / stride + 1);
    tail_.assign(static_cast<size_t>(copied * stride + kOverread), 0);
    std::memcpy(tail_.data(), input + (rows - copied) * stride, static_cast<size_t>(copied * stride));
    const ResizeAcross args = {across_.axis(), input,       tail_.data(), rows - copied, output,
                               rows,           from_.width, to_.width,    channels_};
    at::parallel_for(0, rows, grain(to_.width * channels_ * across_.taps),
                     [&](int64_t begin, int64_t end) { resize_lanes().across(args, begin, end); });
  }

  // input: rows of `width` pixels from number `origin` on.
  void down(const uint8_t* input, int64_t origin, int64_t width, uint8_t* output) {
    const ResizeDown args = {down_.axis(), input, origin, output, width * channels_};
    at::parallel_for(0, to_.height, grain(args.width * down_.taps),
                     [&](int64_t begin, int64_t end) { resize_lanes().down(args, begin, end); });
  }

  Size from_, to_;
  int64_t channels_;
  bool down_first_;
  Weights across_, down_;
  std::vector<uint8_t> between_, tail_;
};

// The nearest pixel: places are added up, as Pillow does, which in the last bit is not the product.
std::vector<int64_t> nearest_places(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  std::vector<int64_t> places(static_cast<size_t>(out));
  double at = scale * 0.5;
  for (int64_t& place : places) {
    place = std::min(static_cast<int64_t>(at), in - 1);
    at += scale;
  }
  return places;
}

void nearest(const uint8_t* input, Size from, uint8_t* output, Size to, int64_t channels,
             const std::vector<int64_t>& columns, const std::vector<int64_t>& rows) {
  at::parallel_for(0, to.height, grain(to.width * channels), [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const uint8_t* row = input + rows[static_cast<size_t>(y)] * from.width * channels;
      uint8_t* pixel = output + y * to.width * channels;
      for (int64_t place : columns) {
        for (int64_t c = 0; c < channels; ++c) *pixel++ = row[place * channels + c];
      }
    }
  });
}

// Which pass rounds first, where the height shrinks.
bool down_first(int64_t pillow, Size from, Size to) {
  if (pillow == 12) return from.height > 100 * from.width;
  return from.height - to.height > 2 * (from.width - to.width);
}

Tensor resize_image(const Tensor& image, int64_t height, int64_t width, std::string_view filter, int64_t pillow) {
  const char* op = "resize_image";
  constexpr int64_t kLargest = int64_t{1} << 20;
  TORCH_CHECK(image.scalar_type() == at::kByte, op, ": an image is uint8, got ", image.scalar_type());
  TORCH_CHECK(image.device().is_cpu(), op, ": images are resized on the CPU, this one is on device ", image.device());
  TORCH_CHECK(image.dim() >= 3, op, ": an image has the shape [..., height, width, channels], got ", image.sizes());
  const int64_t channels = image.size(-1);
  const Size from = {image.size(-3), image.size(-2)};
  TORCH_CHECK(channels == 1 || channels == 3, op, ": the last dimension must be 3 channels or 1, got shape ",
              image.sizes());
  TORCH_CHECK(height >= 1 && width >= 1 && height <= kLargest && width <= kLargest, op,
              ": the new height and width must be sizes between 1 and ", kLargest, ", got ", height, " and ", width);
  TORCH_CHECK(from.height >= 1 && from.width >= 1 && from.height <= kLargest && from.width <= kLargest, op,
              ": height and width must be sizes between 1 and ", kLargest, ", got shape ", image.sizes());
  const Tensor input = image.contiguous();
  std::vector<int64_t> shape = input.sizes().vec();
  shape[shape.size() - 3] = height;
  shape[shape.size() - 2] = width;
  const Tensor output = at::empty(shape, input.options());
  const Size to = {height, width};
  const int64_t in_bytes = from.height * from.width * channels;
  const int64_t out_bytes = height * width * channels;
  const int64_t pictures = input.numel() / in_bytes;
  const uint8_t* source = input.const_data_ptr<uint8_t>();
  uint8_t* target = output.mutable_data_ptr<uint8_t>();
  if (filter == "nearest") {
    const std::vector<int64_t> columns = nearest_places(from.width, width), rows = nearest_places(from.height, height);
    for (int64_t i = 0; i < pictures; ++i) {
      nearest(source + i * in_bytes, from, target + i * out_bytes, to, channels, columns, rows);
    }
    return output;
  }
  const Filter* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                     [&](const Filter& candidate) { return candidate.name == filter; });
  TORCH_CHECK(found != std::end(kFilters), op, ": there is no filter '", filter,
              "'; there are 'nearest', 'box', 'bilinear', 'hamming', 'bicubic' and 'lanczos'");
  TORCH_CHECK(pillow == 12 || pillow == 13, op, ": pillow must be 12 or 13, got ", pillow);
  Resizer resizer(*found, from, to, channels, from.height > to.height && down_first(pillow, from, to));
  for (int64_t i = 0; i < pictures; ++i) resizer.run(source + i * in_bytes, target + i * out_bytes);
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // image uint8 [..., height, width, channels], 3 channels or 1. pillow: the version whose order of passes is taken.
  m.def("resize_image(Tensor image, int height, int width, *, str filter='bicubic', int pillow=12) -> Tensor",
        resize_image);
}

}  // namespace voxtorch::vision
