// Frames of a video, normalized, then resized bilinearly without antialiasing, then cut to their middle, in one pass:
// only pixels that the result shows are computed, and no frame of floats is ever kept.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace voxtorch::vision {
namespace {

using at::Tensor;

struct Taps {
  int64_t first, second;
  float first_share, second_share;
};

// As libtorch's upsample_bilinear2d with align_corners=False, but for the rounding of places, which here are in
// float64.
std::vector<Taps> taps_of(int64_t in, int64_t out, int64_t begin, int64_t count) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  std::vector<Taps> taps;
  taps.reserve(static_cast<size_t>(count));
  for (int64_t i = begin; i < begin + count; ++i) {
    const double place = std::max(0., scale * (static_cast<double>(i) + 0.5) - 0.5);
    const int64_t first = std::min(static_cast<int64_t>(place), in - 1);
    const float share = std::min(1.f, static_cast<float>(place - static_cast<double>(first)));
    taps.push_back({first, std::min(first + 1, in - 1), 1 - share, share});
  }
  return taps;
}

using Levels = std::array<std::array<float, 256>, 3>;

void frame_planes(const uint8_t* frame, int64_t width, const Levels& levels, const std::vector<Taps>& rows,
                  const std::vector<Taps>& columns, const std::array<float*, 3>& planes) {
  for (const Taps& row : rows) {
    const uint8_t* upper = frame + row.first * width * 3;
    const uint8_t* lower = frame + row.second * width * 3;
    const size_t line = static_cast<size_t>(&row - rows.data()) * columns.size();
    for (size_t x = 0; x < columns.size(); ++x) {
      const Taps& column = columns[x];
      for (size_t c = 0; c < 3; ++c) {
        const auto at = [&](const uint8_t* from, int64_t place) {
          return levels[c][from[place * 3 + static_cast<int64_t>(c)]];
        };
        const float above =
            column.first_share * at(upper, column.first) + column.second_share * at(upper, column.second);
        const float below =
            column.first_share * at(lower, column.first) + column.second_share * at(lower, column.second);
        planes[c][line + x] = row.first_share * above + row.second_share * below;
      }
    }
  }
}

Tensor frames_to_planes(const Tensor& frames, int64_t height, int64_t width, int64_t top, int64_t left,
                        int64_t crop_height, int64_t crop_width, c10::ArrayRef<double> mean,
                        c10::ArrayRef<double> std) {
  const char* op = "frames_to_planes";
  constexpr int64_t kLargest = int64_t{1} << 40;  // nothing of that size is made
  TORCH_CHECK(frames.scalar_type() == at::kByte && frames.device().is_cpu(), op,
              ": frames are uint8 on the CPU, got dtype ", frames.scalar_type(), " on device ", frames.device());
  TORCH_CHECK(frames.dim() == 4 && frames.size(3) == 3 && frames.size(1) >= 1 && frames.size(2) >= 1, op,
              ": frames have the shape [count, height, width, 3], got ", frames.sizes());
  TORCH_CHECK(height >= 1 && height <= kLargest && width >= 1 && width <= kLargest, op,
              ": the new height and width must be sizes between 1 and ", kLargest, ", got ", height, " and ", width);
  TORCH_CHECK(top >= 0 && left >= 0 && crop_height >= 0 && crop_width >= 0 && crop_height <= height - top &&
                  crop_width <= width - left,
              op, ": what is cut out must lie inside the size ", height, " x ", width);
  TORCH_CHECK(mean.size() == 3 && std.size() == 3, op, ": mean and std must have size 3");
  const Tensor input = frames.contiguous();
  const int64_t count = input.size(0), from_height = input.size(1), from_width = input.size(2);
  const Tensor output = at::empty({3, count, crop_height, crop_width}, input.options().dtype(at::kFloat));
  Levels levels;
  for (size_t c = 0; c < 3; ++c) {
    for (size_t value = 0; value < 256; ++value) {
      const float share = static_cast<float>(value) / 255.f;
      levels[c][value] = (share - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
    }
  }
  const std::vector<Taps> rows = taps_of(from_height, height, top, crop_height);
  const std::vector<Taps> columns = taps_of(from_width, width, left, crop_width);
  const uint8_t* source = input.const_data_ptr<uint8_t>();
  float* target = output.mutable_data_ptr<float>();
  const int64_t plane = crop_height * crop_width;
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::array<float*, 3> planes = {target + i * plane, target + (count + i) * plane,
                                            target + (2 * count + i) * plane};
      frame_planes(source + i * from_height * from_width * 3, from_width, levels, rows, columns, planes);
    }
  });
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // frames uint8 [count, height, width, 3] to float32 [3, count, crop_height, crop_width].
  m.def(
      "frames_to_planes(Tensor frames, int height, int width, *, int top, int left, int crop_height, int crop_width, "
      "float[] mean, float[] std) -> Tensor",
      frames_to_planes);
}

}  // namespace voxtorch::vision
