// Scale factors, the spectrum and joint stereo of MP3.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/audio/mp3_frame.h"

namespace voxtorch::audio {
namespace {

constexpr int kLargest = 15 + (1 << 13) - 1;  // value of a spectrum
constexpr uint8_t kNoPlace = 255;             // above any scale factor
// Groups of bands whose scale factors the second granule may reuse.
constexpr int kSharedGroups[] = {0, 6, 11, 16, 21};

// The widths of four groups of bands, which MPEG-2 packs into one code.
struct Widths {
  int table;
  std::array<unsigned, 4> bits;
};

Widths unpack_widths(unsigned code, bool is_intensity) {
  if (is_intensity) {
    code >>= 1;
    if (code < 180) return {3, {code / 36, code % 36 / 6, code % 6, 0}};
    if (code < 244) return {4, {(code - 180) >> 4, ((code - 180) >> 2) & 3, (code - 180) & 3, 0}};
    return {5, {(code - 244) / 3, (code - 244) % 3, 0, 0}};
  }
  if (code < 400) return {0, {(code >> 4) / 5, (code >> 4) % 5, (code >> 2) & 3, code & 3}};
  if (code < 500) return {1, {((code - 400) >> 2) / 5, ((code - 400) >> 2) % 5, (code - 400) & 3, 0}};
  return {2, {(code - 500) / 3, (code - 500) % 3, 0, 0}};
}

void read_low_scale_factors(BitReader& bits, const Granule& granule, bool is_intensity, ScaleFactors& scale) {
  const Widths widths = unpack_widths(granule.scale_code, is_intensity);
  const uint8_t* const counts = kScaleCounts[widths.table][granule.block_type != 2 ? 0 : granule.is_mixed ? 2 : 1];
  size_t at = 0;
  for (size_t group = 0; group < 4; ++group) {
    const unsigned width = widths.bits[group];
    for (int i = 0; i < counts[group]; ++i, ++at) {
      scale.values[at] = static_cast<uint8_t>(bits.read(width));
      // A factor of no bits is the place 0.
      scale.illegal[at] = width > 0 ? static_cast<uint8_t>((1u << width) - 1) : kNoPlace;
    }
  }
  scale.preemphasis = widths.table == 2 && !is_intensity;
}

// Where the second and the third region begin.
std::array<int, 2> region_ends(const Granule& granule, const Mp3Header& header, const Bands& bands) {
  if (granule.regions[0] >= 0)
    return {bands.long_ends[std::min(22, granule.regions[0])], bands.long_ends[std::min(22, granule.regions[1])]};
  const bool is_short = granule.block_type == 2;
  if (header.is_quarter) return {bands.long_ends[is_short && !granule.is_mixed ? 6 : 8], kLines};
  return {header.is_full || is_short ? 36 : 54, kLines};
}

// A number with its sign, which one that is 0 lacks; without branches, because signs cannot be predicted.
int32_t take_signed(BitReader& bits, int32_t value) {
  const unsigned has_sign = value != 0 ? 1 : 0;
  const auto mask = -static_cast<int32_t>(bits.peek_here(1) & has_sign);
  bits.pass_here(has_sign);
  return (value ^ mask) - mask;
}

// Integers of the spectrum in the order of the file: the index after the last that may not be 0.
int read_numbers(BitReader& bits, uint64_t end, const Granule& granule, const Mp3Header& header, const Bands& bands,
                 int32_t* coded) {
  const int last = std::min(kLines, static_cast<int>(2 * granule.pairs));
  const std::array<int, 2> ends = region_ends(granule, header, bands);
  int at = 0;
  for (int region = 0; region < granule.table_count; ++region) {
    const int until = region < 2 ? std::min(ends[static_cast<size_t>(region)], last) : last;
    if (at >= until) continue;
    const PairCode* const code = pair_code(granule.tables[region]);
    if (code == nullptr) {
      std::fill(coded + at, coded + until, 0);
      at = until;
      continue;
    }
    const unsigned extra = extra_bits(granule.tables[region]);
    while (at < until) {
      // A short codeword of numbers without further bits, and their signs.
      if (bits.prepare()) [[likely]] {
        const uint32_t quick = code->quick(bits.peek_here(PairCode::kQuick));
        const uint32_t first = (quick >> 4) & 15;
        const uint32_t second = quick & 15;
        if (quick != 0 && (extra == 0 || (first < 15 && second < 15))) [[likely]] {
          bits.pass_here(quick >> 8);
          coded[at] = take_signed(bits, static_cast<int32_t>(first));
          coded[at + 1] = take_signed(bits, static_cast<int32_t>(second));
          at += 2;
          if (bits.position() > end) return at;
          continue;
        }
      }
      const uint32_t pair = code->read(bits);
      for (const uint32_t number : {pair >> 4, pair & 15}) {
        auto value = static_cast<int32_t>(number);
        if (value == 15 && extra > 0) value += static_cast<int32_t>(bits.read(extra));
        if (value > 0 && bits.read(1) == 1) value = -value;
        coded[at++] = value;
      }
      if (bits.position() > end) return at;
    }
  }
  while (at < kLines && bits.position() < end) {
    const uint32_t quad = granule.plain_quads ? 15 - bits.read(4) : quad_code().read(bits);
    for (uint32_t bit = 8; bit > 0; bit >>= 1) {
      coded[at] = (quad & bit) == 0 ? 0 : bits.read(1) == 1 ? -1 : 1;
      ++at;
    }
    // The last code may extend into the following data.
    if (bits.position() > end) at -= 4;
  }
  return std::min(at, kLines);
}

// sign(value) |value|^(4/3), from -kLargest to kLargest; returns the address of that of 0.
const double* powers() {
  static const auto table = [] {
    std::array<double, 2 * kLargest + 1> made = {};
    for (size_t i = 1; i <= kLargest; ++i) {
      made[kLargest + i] = std::pow(static_cast<double>(i), 4.0 / 3);
      made[kLargest - i] = -made[kLargest + i];
    }
    return made;
  }();
  return table.data() + kLargest;
}

// 2^(quarters / 4)
double power_of_two(int quarters) {
  static const std::array<double, 4> fractions = {1, std::exp2(0.25), std::exp2(0.5), std::exp2(0.75)};
  return std::ldexp(fractions[static_cast<size_t>(quarters & 3)], quarters >> 2);
}

struct StereoGains {
  double left;
  double right;
};

// The gains of left and right at an intensity position; nothing where it means none.
std::optional<StereoGains> stereo_gains(const ScaleFactors& scale, int factor, const Granule& granule,
                                        const Mp3Header& header) {
  const int position = scale.values[factor];
  if (position == scale.illegal[factor]) return std::nullopt;
  if (header.is_full) {
    if (position == 6) return StereoGains{1, 0};
    const double ratio = std::tan(position * std::numbers::pi / 12);
    return StereoGains{ratio / (1 + ratio), 1 / (1 + ratio)};
  }
  const double step = (granule.scale_code & 1) == 1 ? std::numbers::sqrt2 / 2 : std::exp2(-0.25);
  if (position % 2 == 1) return StereoGains{std::pow(step, (position + 1) / 2), 1};
  return StereoGains{1, std::pow(step, position / 2)};
}

void from_middle_side(float& left, float& right) {
  constexpr double kScale = std::numbers::sqrt2 / 2;
  const double middle = left;
  const double side = right;
  left = static_cast<float>((middle + side) * kScale);
  right = static_cast<float>((middle - side) * kScale);
}

using Lines = std::array<std::optional<StereoGains>, kLines>;

// The gains of each line in the bands above the last of the right channel that is not zero.
void place_lines(const float* spectrum, const ScaleFactors& scale, const Granule& granule, const Mp3Header& header,
                 Lines& lines) {
  const Bands& bands = bands_of(header.sample_rate);
  const int longs = granule.long_bands(header.is_full);
  bool is_silent = true;
  if (granule.block_type == 2) {
    const int first = longs > 0 ? 3 : 0;
    for (int window = 0; window < 3; ++window) {
      bool is_quiet = true;
      for (int band = 12; band >= first; --band) {
        const int factor = longs + 3 * (std::min(band, 11) - first) + window;
        for (int i = bands.short_ends[band]; i < bands.short_ends[band + 1]; ++i)
          if (spectrum[3 * i + window] != 0) is_quiet = false;
        if (!is_quiet) break;
        const std::optional<StereoGains> place = stereo_gains(scale, factor, granule, header);
        for (int i = bands.short_ends[band]; i < bands.short_ends[band + 1]; ++i)
          lines[static_cast<size_t>(3 * i + window)] = place;
      }
      is_silent = is_silent && is_quiet;
    }
  }
  for (int band = longs - 1; band >= 0 && is_silent; --band) {
    for (int i = bands.long_ends[band]; i < bands.long_ends[band + 1]; ++i)
      if (spectrum[i] != 0) is_silent = false;
    if (is_silent)
      std::fill(lines.begin() + bands.long_ends[band], lines.begin() + bands.long_ends[band + 1],
                stereo_gains(scale, std::min(band, 20), granule, header));
  }
}

}  // namespace

ScaleFactors read_scale_factors(BitReader& bits, const Granule& granule, const Mp3Header& header, int channel,
                                const bool* shared, const ScaleFactors* before) {
  ScaleFactors scale = {};
  std::fill(std::begin(scale.illegal), std::end(scale.illegal), uint8_t{7});
  if (!header.is_full) {
    read_low_scale_factors(bits, granule, header.intensity && channel == 1, scale);
    return scale;
  }
  const unsigned lower = kScaleBits[0][granule.scale_code];
  const unsigned upper = kScaleBits[1][granule.scale_code];
  if (granule.block_type == 2) {
    const int count = granule.is_mixed ? 17 : 18;
    for (int i = 0; i < count + 18; ++i) scale.values[i] = static_cast<uint8_t>(bits.read(i < count ? lower : upper));
  } else {
    for (int group = 0; group < 4; ++group) {
      for (int i = kSharedGroups[group]; i < kSharedGroups[group + 1]; ++i) {
        if (before != nullptr && shared[group])
          scale.values[i] = before->values[i];
        else
          scale.values[i] = static_cast<uint8_t>(bits.read(group < 2 ? lower : upper));
      }
    }
  }
  scale.preemphasis = granule.preemphasis;
  return scale;
}

void read_spectrum(BitReader& bits, uint64_t end, const Granule& granule, const ScaleFactors& scale,
                   const Mp3Header& header, float* spectrum) {
  const Bands& bands = bands_of(header.sample_rate);
  // A pair may begin at the last line but one, and a quadruple extend beyond the last.
  int32_t coded[kLines + 4];
  const int count = read_numbers(bits, end, granule, header, bands, coded);
  const double* const power = powers();
  const auto value_of = [&](int i, double gain) { return static_cast<float>(power[coded[i]] * gain); };
  const int longs = granule.long_bands(header.is_full);
  const int base = granule.gain - 210;
  const int step = granule.step == 1 ? 4 : 2;  // in quarters
  for (int band = 0; band < longs && bands.long_ends[band] < count; ++band) {
    const int raised = scale.values[band] + (scale.preemphasis ? kPreemphasis[band] : 0);
    const double gain = power_of_two(base - step * raised);
    const int until = std::min(count, bands.long_ends[band + 1]);
    for (int i = bands.long_ends[band]; i < until; ++i) spectrum[i] = value_of(i, gain);
  }
  if (granule.block_type != 2) return;
  // The file stores short blocks window by window in each band; they are interleaved here.
  const int first = longs > 0 ? 3 : 0;
  int factor = longs;
  int from = 3 * bands.short_ends[first];
  for (int band = first; band < 13; ++band) {
    const int begin = bands.short_ends[band];
    const int width = bands.short_ends[band + 1] - begin;
    for (int window = 0; window < 3; ++window, ++factor) {
      const double gain = power_of_two(base - 8 * granule.window_gains[window] - step * scale.values[factor]);
      for (int i = 0; i < width && from + i < count; ++i) spectrum[3 * (begin + i) + window] = value_of(from + i, gain);
      from += width;
    }
  }
}

void separate_stereo(float* left, float* right, const ScaleFactors* scale, const Granule& granule,
                     const Mp3Header& header) {
  if (header.intensity && scale != nullptr) {
    Lines lines;
    place_lines(right, *scale, granule, header, lines);
    for (size_t i = 0; i < kLines; ++i) {
      if (lines[i].has_value()) {
        const double audio = left[i];
        left[i] = static_cast<float>(audio * lines[i]->left);
        right[i] = static_cast<float>(audio * lines[i]->right);
      } else if (header.middle_side) {
        from_middle_side(left[i], right[i]);
      }
    }
  } else if (header.middle_side) {
    for (size_t i = 0; i < kLines; ++i) from_middle_side(left[i], right[i]);
  }
}

void reduce_aliasing(float* spectrum, const Granule& granule) {
  struct Butterfly {
    double same;
    double other;
  };
  static const auto butterflies = [] {
    std::array<Butterfly, 8> made;
    constexpr double kCoefficients[] = {-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037};
    for (size_t i = 0; i < made.size(); ++i) {
      const double c = kCoefficients[i];
      made[i] = {1 / std::sqrt(1 + c * c), c / std::sqrt(1 + c * c)};
    }
    return made;
  }();
  const int bands = granule.block_type == 2 ? (granule.is_mixed ? 1 : 0) : 31;
  for (int band = 1; band <= bands; ++band) {
    float* const border = spectrum + 18 * band;
    for (int i = 0; i < 8; ++i) {
      const double up = border[i];
      const double down = border[-1 - i];
      const auto [same, other] = butterflies[static_cast<size_t>(i)];
      border[i] = static_cast<float>(up * same + down * other);
      border[-1 - i] = static_cast<float>(down * same - up * other);
    }
  }
}

}  // namespace voxtorch::audio
