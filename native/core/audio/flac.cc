// FLAC (RFC 9639). A sample is the file's integer divided by 2^(bits - 1), without loss. The checksum of each frame and
// the number of samples in the header are verified.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>
#include <type_traits>

#include "core/audio/audio_decoder.h"
#include "core/audio/bit_reader.h"
#include "core/audio/checksum.h"

namespace voxtorch::audio {
namespace {

constexpr int kRates[] = {0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000};
constexpr unsigned kDepths[] = {0, 8, 12, 0, 16, 20, 24, 32};
constexpr unsigned kLeftSide = 8;
constexpr unsigned kSideRight = 9;
constexpr unsigned kMidSide = 10;

constexpr Checksum<uint8_t, 0x07> kHeaderChecksum;
constexpr Checksum<uint16_t, 0x8005> kFrameChecksum;

struct StreamInfo {
  int sample_rate;
  size_t channels;
  unsigned bits;
  uint64_t frames;  // of the whole file; 0 if the encoder did not know
};

struct FrameHeader {
  size_t size;
  int sample_rate;
  size_t channels;
  unsigned assignment;
  unsigned bits;
};

// Samples of a subframe: the differences of two channels with 32 bits have 33, which float64 holds. Integers wrap
// around, so that a damaged frame, which its checksum then refuses, is computed without undefined behavior.
struct Plane {
  bool is_wide = false;
  std::vector<int32_t> narrow;
  std::vector<double> wide;
};

int32_t wrap(uint64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }

// As a conversion to an integer of 32 bits in JavaScript.
int32_t wrap(double value) {
  if (std::abs(value) < 9e18) return wrap(static_cast<uint64_t>(static_cast<int64_t>(value)));
  if (!std::isfinite(value)) return 0;
  return wrap(static_cast<uint64_t>(static_cast<int64_t>(std::fmod(value, 4294967296.0))));
}

void store(int32_t& to, int64_t value) { to = wrap(static_cast<uint64_t>(value)); }
void store(double& to, int64_t value) { to = static_cast<double>(value); }

class FrameDamage {
 public:
  explicit FrameDamage(uint64_t offset) : offset_(offset) {}
  [[noreturn]] void operator()(const std::string& what) const {
    throw DecodeError("the frame at byte " + std::to_string(offset_) + " " + what + "; the file is damaged");
  }

 private:
  uint64_t offset_;
};

StreamInfo stream_info(const uint8_t* bytes, size_t count) {
  if (count < 34) throw DecodeError("STREAMINFO: expected at least 34 bytes, got " + std::to_string(count));
  BitReader bits(bytes, count, 10);
  StreamInfo info;
  info.sample_rate = static_cast<int>(bits.read(20));
  info.channels = bits.read(3) + 1;
  info.bits = bits.read(5) + 1;
  info.frames = static_cast<uint64_t>(bits.read(4)) << 32;
  info.frames |= bits.read(32);
  if (info.sample_rate == 0) throw DecodeError("STREAMINFO: expected a sample rate above 0 Hz, got 0");
  return info;
}

FrameHeader frame_header(BitReader& bits, const uint8_t* bytes, const StreamInfo& info, const FrameDamage& damaged) {
  if (bits.read(15) != 0x7ffc) damaged("does not begin as one");
  bits.read(1);
  const unsigned size_code = bits.read(4);
  const unsigned rate_code = bits.read(4);
  const unsigned assignment = bits.read(4);
  const unsigned depth_code = bits.read(3);
  if (bits.read(1) != 0 || size_code == 0 || rate_code == 15 || assignment > kMidSide || depth_code == 3)
    damaged("has a header that nothing is said by");
  // The frame number, coded like UTF-8.
  const int more = std::countl_one(static_cast<uint8_t>(bits.read(8)));
  if (more == 1 || more > 7) damaged("has no number");
  bits.set_position(bits.position() + 8 * static_cast<uint64_t>(std::max(0, more - 1)));
  FrameHeader header;
  if (size_code == 1)
    header.size = 192;
  else if (size_code < 6)
    header.size = size_t{576} << (size_code - 2);
  else if (size_code < 8)
    header.size = bits.read(size_code == 6 ? 8 : 16) + 1;
  else
    header.size = size_t{256} << (size_code - 8);
  if (rate_code == 0)
    header.sample_rate = info.sample_rate;
  else if (rate_code == 12)
    header.sample_rate = static_cast<int>(bits.read(8)) * 1000;
  else if (rate_code > 12)
    header.sample_rate = static_cast<int>(bits.read(16)) * (rate_code == 14 ? 10 : 1);
  else
    header.sample_rate = kRates[rate_code];
  const size_t end = bits.position() / 8;
  const uint32_t checksum = bits.read(8);
  if (checksum != kHeaderChecksum.add(0, bytes, end)) damaged("has a header with another checksum than it says");
  header.channels = assignment < kLeftSide ? assignment + 1 : 2;
  if (header.channels != info.channels)
    damaged("has " + std::to_string(header.channels) + " channels, expected " + std::to_string(info.channels) +
            " as in the header");
  header.assignment = assignment;
  header.bits = depth_code == 0 ? info.bits : kDepths[depth_code];
  return header;
}

template <typename Sample>
void read_warm_up(BitReader& bits, std::span<Sample> samples, size_t order, unsigned width,
                  const FrameDamage& damaged) {
  if (order > samples.size()) damaged("is shorter than its predictor");
  for (size_t i = 0; i < order; ++i) store(samples[i], bits.read_signed(width));
}

// Residuals are in partitions with one Rice parameter each.
template <typename Sample>
void read_residuals(BitReader& shared, std::span<Sample> samples, size_t order, const FrameDamage& damaged) {
  BitReader bits = shared;  // a copy, which stays in registers
  const unsigned method = bits.read(2);
  if (method > 1) damaged("has residuals of an unknown kind");
  const unsigned parameter_bits = method == 0 ? 4 : 5;
  const unsigned partitions = bits.read(4);
  const size_t length = samples.size() >> partitions;
  if (length << partitions != samples.size() || length < order) damaged("has partitions that do not divide it");
  size_t i = order;
  for (size_t begin = 0; begin < samples.size(); begin += length) {
    const unsigned parameter = bits.read(parameter_bits);
    const size_t end = begin + length;
    if (parameter == (1u << parameter_bits) - 1) {
      const unsigned width = bits.read(5);
      for (; i < end; ++i) store(samples[i], bits.read_signed(width));
      continue;
    }
    for (; i < end; ++i) {
      const uint64_t folded = bits.read_rice(parameter);
      store(samples[i], static_cast<int64_t>((folded >> 1) ^ (0 - (folded & 1))));
    }
  }
  shared = bits;
}

template <typename Sample>
void restore_fixed(std::span<Sample> samples, size_t order) {
  // The type in which sums are exact or wrap around.
  using Sum = std::conditional_t<std::is_same_v<Sample, double>, double, uint32_t>;
  const size_t size = samples.size();
  Sample* const s = samples.data();
  const auto at = [s](size_t i) { return static_cast<Sum>(s[i]); };
  const auto put = [s](size_t i, Sum value) { s[i] = static_cast<Sample>(value); };
  if (order == 1) {
    for (size_t i = 1; i < size; ++i) put(i, at(i) + at(i - 1));
  } else if (order == 2) {
    for (size_t i = 2; i < size; ++i) put(i, at(i) + 2 * at(i - 1) - at(i - 2));
  } else if (order == 3) {
    for (size_t i = 3; i < size; ++i) put(i, at(i) + 3 * (at(i - 1) - at(i - 2)) + at(i - 3));
  } else if (order == 4) {
    for (size_t i = 4; i < size; ++i) put(i, at(i) + 4 * (at(i - 1) + at(i - 3)) - 6 * at(i - 2) - at(i - 4));
  }
}

struct Predictor {
  size_t order;
  int64_t weights[32];
  unsigned shift;
  bool is_narrow;  // sums fit in 32 bits
};

// Where kOrder is not 0 it is the predictor's order, known to the compiler, which unrolls the sum.
template <size_t kOrder, typename Sum>
void predict(std::span<int32_t> samples, const Predictor& predictor) {
  using Signed = std::make_signed_t<Sum>;
  const size_t order = kOrder > 0 ? kOrder : predictor.order;
  Sum weights[kOrder > 0 ? kOrder : 32];
  for (size_t j = 0; j < order; ++j) weights[j] = static_cast<Sum>(predictor.weights[j]);
  int32_t* const s = samples.data();
  const size_t size = samples.size();
  for (size_t i = order; i < size; ++i) {
    Sum sum = 0;
    for (size_t j = order; j > 0; --j) sum += weights[j - 1] * static_cast<Sum>(static_cast<Signed>(s[i - j]));
    s[i] = wrap(static_cast<uint64_t>(s[i]) + static_cast<uint64_t>(static_cast<Signed>(sum) >> predictor.shift));
  }
}

template <size_t kOrder>
void predict_of_order(std::span<int32_t> samples, const Predictor& predictor) {
  if (predictor.is_narrow)
    predict<kOrder, uint32_t>(samples, predictor);
  else
    predict<kOrder, uint64_t>(samples, predictor);
}

void restore_linear(std::span<int32_t> samples, const Predictor& predictor) {
  switch (predictor.order) {
    case 8:
      return predict_of_order<8>(samples, predictor);
    case 12:
      return predict_of_order<12>(samples, predictor);
    default:
      return predict_of_order<0>(samples, predictor);
  }
}

void restore_linear(std::span<double> samples, const Predictor& predictor) {
  const double step = std::ldexp(1.0, static_cast<int>(predictor.shift));
  for (size_t i = predictor.order; i < samples.size(); ++i) {
    if (predictor.is_narrow) {
      uint32_t sum = 0;
      for (size_t j = 0; j < predictor.order; ++j)
        sum += static_cast<uint32_t>(predictor.weights[j]) * static_cast<uint32_t>(wrap(samples[i - 1 - j]));
      samples[i] += static_cast<double>(static_cast<int32_t>(sum) >> predictor.shift);
    } else {
      double sum = 0;
      for (size_t j = 0; j < predictor.order; ++j)
        sum += static_cast<double>(predictor.weights[j]) * samples[i - 1 - j];
      samples[i] += std::floor(sum / step);
    }
  }
}

template <typename Sample>
void read_subframe(BitReader& bits, std::span<Sample> samples, unsigned depth, const FrameDamage& damaged) {
  if (bits.read(1) != 0) damaged("has a channel that does not begin as one");
  const unsigned type = bits.read(6);
  const uint64_t wasted = bits.read(1) == 1 ? bits.read_zeros() + 1 : 0;
  if (wasted >= depth) damaged("has more bits left out than there are");
  const unsigned width = depth - static_cast<unsigned>(wasted);
  if (type == 0) {
    Sample value;
    store(value, bits.read_signed(width));
    std::fill(samples.begin(), samples.end(), value);
  } else if (type == 1) {
    for (Sample& sample : samples) store(sample, bits.read_signed(width));
  } else if (type >= 8 && type <= 12) {
    const size_t order = type & 7;
    read_warm_up(bits, samples, order, width, damaged);
    read_residuals(bits, samples, order, damaged);
    restore_fixed(samples, order);
  } else if (type >= 32) {
    Predictor predictor;
    predictor.order = (type & 31) + 1;
    read_warm_up(bits, samples, predictor.order, width, damaged);
    const unsigned precision = bits.read(4) + 1;
    const int64_t shift = bits.read_signed(5);
    if (precision == 16 || shift < 0) damaged("has a predictor that nothing is said by");
    predictor.shift = static_cast<unsigned>(shift);
    for (size_t j = 0; j < predictor.order; ++j) predictor.weights[j] = bits.read_signed(precision);
    predictor.is_narrow = width + precision + static_cast<unsigned>(std::bit_width(predictor.order - 1)) <= 32;
    read_residuals(bits, samples, predictor.order, damaged);
    restore_linear(samples, predictor);
  } else {
    damaged("has a channel of the unknown type " + std::to_string(type));
  }
  if (wasted == 0) return;
  for (Sample& sample : samples) {
    if constexpr (std::is_same_v<Sample, double>)
      sample *= std::ldexp(1.0, static_cast<int>(wasted));
    else
      sample = wrap(static_cast<uint64_t>(sample) << wasted);
  }
}

// Left and right from one channel and the difference, or from mid and side, in float64 where one of them has 33 bits.
template <typename First, typename Second>
void unmix(std::vector<First>& firsts, std::vector<Second>& seconds, size_t size, unsigned assignment) {
  constexpr bool kIsWide = std::is_same_v<First, double> || std::is_same_v<Second, double>;
  using Sum = std::conditional_t<kIsWide, double, int64_t>;
  const auto put = [](auto& to, Sum value) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(to)>, double>)
      to = static_cast<double>(value);
    else if constexpr (kIsWide)
      to = wrap(value);
    else
      to = wrap(static_cast<uint64_t>(value));
  };
  for (size_t i = 0; i < size; ++i) {
    const auto a = static_cast<Sum>(firsts[i]);
    const auto b = static_cast<Sum>(seconds[i]);
    if (assignment == kLeftSide) {
      put(seconds[i], a - b);
    } else if (assignment == kSideRight) {
      put(firsts[i], a + b);
    } else {
      Sum half;
      if constexpr (kIsWide)
        half = std::floor(b / 2);
      else
        half = b >> 1;
      const Sum right = a - half;
      put(firsts[i], right + b);
      put(seconds[i], right);
    }
  }
}

class FlacDecoder : public StreamDecoder {
 protected:
  bool decode_frame(DecodedAudio& into) override {
    if (!is_last_block_ && !read_blocks()) return stop();
    // Bytes after the last frame are tags of other formats.
    const bool all = info_.frames > 0 && decoded_ >= info_.frames;
    if (all || waiting_.size() == 0) return stop();
    if (!waiting_.ended && waiting_.size() <= wanted_) return false;
    try {
      decoded_ += read_frame(into);
      wanted_ = 0;
      return true;
    } catch (const OutOfBits&) {
      if (waiting_.ended) return stop();
      // Doubled each time, so that a long frame is not retried for every few bytes.
      wanted_ = 2 * waiting_.size();
      return false;
    }
  }

 private:
  // False; at the end of the input, checks that the file is complete.
  bool stop() const {
    if (!waiting_.ended) return false;
    if (!has_info_) throw DecodeError("the file ends within its header");
    if (info_.frames > 0 && decoded_ < info_.frames)
      throw DecodeError("expected " + std::to_string(info_.frames) + " frames, as the header declares, got " +
                        std::to_string(decoded_) + "; the file is truncated or damaged");
    if (info_.frames == 0 && waiting_.size() > 0) throw OutOfBits();
    return false;
  }

  // Reads the metadata before the first frame; only STREAMINFO is used.
  bool read_blocks() {
    if (!has_begun_) {
      if (waiting_.size() < 4) return false;
      if (std::memcmp(waiting_.data(), "fLaC", 4) != 0) throw DecodeError("expected 'fLaC' at the beginning");
      waiting_.drop(4);
      has_begun_ = true;
    }
    while (!is_last_block_) {
      if (waiting_.size() < 4) return false;
      const uint8_t* const bytes = waiting_.data();
      const size_t length = static_cast<size_t>(bytes[1]) << 16 | static_cast<size_t>(bytes[2]) << 8 | bytes[3];
      const bool is_last = (bytes[0] & 128) != 0;
      if ((bytes[0] & 127) == 0) {
        if (waiting_.size() < 4 + length) return false;
        info_ = stream_info(bytes + 4, length);
        has_info_ = true;
      }
      is_last_block_ = is_last;
      waiting_.drop(4 + length);
    }
    if (!has_info_) throw DecodeError("expected a STREAMINFO block before the first frame");
    return true;
  }

  size_t read_frame(DecodedAudio& into) {
    const uint8_t* const bytes = waiting_.data();
    const size_t count = waiting_.size();
    const FrameDamage damaged(waiting_.offset());
    BitReader bits(bytes, count);
    const FrameHeader header = frame_header(bits, bytes, info_, damaged);
    // An upper bound on the size of a frame: no encoder writes more than the uncompressed samples take.
    const size_t most = 2 * (64 + (header.size * header.channels * (header.bits + 1) + 7) / 8);
    try {
      for (size_t i = 0; i < header.channels; ++i) {
        const bool is_side = header.assignment == kSideRight ? i == 0 : header.assignment >= kLeftSide && i == 1;
        read_plane(bits, planes_[i], header.size, header.bits + (is_side ? 1 : 0), damaged);
      }
      bits.align();
      const size_t end = bits.position() / 8;
      const uint32_t checksum = bits.read(16);
      if (checksum != kFrameChecksum.add(0, bytes, end)) damaged("has a wrong checksum");
      waiting_.drop(end + 2);
    } catch (const OutOfBits&) {
      if (count > most) damaged("is longer than its samples");
      throw;
    }
    if (header.assignment >= kLeftSide) unmix_planes(header);
    const size_t begin = into.extend(header.sample_rate, header.channels, header.size);
    const double scale = std::ldexp(1.0, 1 - static_cast<int>(header.bits));
    for (size_t i = 0; i < header.channels; ++i) {
      float* const samples = into.channel(i) + begin;
      const Plane& plane = planes_[i];
      if (plane.is_wide)
        for (size_t k = 0; k < header.size; ++k) samples[k] = static_cast<float>(plane.wide[k] * scale);
      else
        // The scale is a power of two, so that rounding before it is the same.
        for (size_t k = 0; k < header.size; ++k)
          samples[k] = static_cast<float>(plane.narrow[k]) * static_cast<float>(scale);
    }
    return header.size;
  }

  static void read_plane(BitReader& bits, Plane& plane, size_t size, unsigned depth, const FrameDamage& damaged) {
    plane.is_wide = depth > 32;
    if (plane.is_wide) {
      if (plane.wide.size() < size) plane.wide.resize(size);
      read_subframe(bits, std::span(plane.wide).first(size), depth, damaged);
    } else {
      if (plane.narrow.size() < size) plane.narrow.resize(size);
      read_subframe(bits, std::span(plane.narrow).first(size), depth, damaged);
    }
  }

  void unmix_planes(const FrameHeader& header) {
    Plane& first = planes_[0];
    Plane& second = planes_[1];
    // At most one of them holds the difference.
    if (first.is_wide)
      unmix(first.wide, second.narrow, header.size, header.assignment);
    else if (second.is_wide)
      unmix(first.narrow, second.wide, header.size, header.assignment);
    else
      unmix(first.narrow, second.narrow, header.size, header.assignment);
  }

  bool has_begun_ = false;
  bool is_last_block_ = false;
  bool has_info_ = false;
  StreamInfo info_ = {};
  size_t wanted_ = 0;  // bytes that must be waiting before the frame is tried again
  uint64_t decoded_ = 0;
  Plane planes_[8];
};

}  // namespace

std::unique_ptr<StreamDecoder> flac_decoder() { return std::make_unique<FlacDecoder>(); }

}  // namespace voxtorch::audio
