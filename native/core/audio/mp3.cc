// MPEG-1, 2 and 2.5 audio, layer III (ISO/IEC 11172-3 and 13818-3). Samples that the encoder added, according to LAME's
// tag, are removed. Bytes between frames are skipped; a damaged frame is silent, as in other decoders.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/audio/codec_lanes.h"
#include "core/audio/mp3_frame.h"

namespace voxtorch::audio {
namespace {

constexpr int kDecoderDelay = 529;             // of the decoder's two transforms, in samples
constexpr size_t kMostReservoir = 511;         // bytes of earlier frames that a frame may refer to
constexpr size_t kMostJunk = size_t{1} << 20;  // bytes before the first frame

// Weights of the windowed IMDCT, rounded to float32, and the tables of the filter bank.
struct Tables {
  double longs[4][kBandLines][36];  // by block type
  double shorts[6][12];
  FilterBank bank;
};

template <size_t kInputs, size_t kOutputs>
void fill_weights(double (&weights)[kInputs][kOutputs], double (*window)(int type, int i), int type) {
  for (size_t k = 0; k < kInputs; ++k) {
    for (size_t i = 0; i < kOutputs; ++i) {
      const double angle =
          std::numbers::pi / (2 * kOutputs) * static_cast<double>(2 * i + 1 + kInputs) * static_cast<double>(2 * k + 1);
      weights[k][i] = static_cast<float>(std::cos(angle) * window(type, static_cast<int>(i)));
    }
  }
}

double slope(int at, int length) { return std::sin(std::numbers::pi / length * (at + 0.5)); }

double long_window(int type, int i) {
  // Start and stop blocks have one short slope, and are mirror images.
  const int at = type == 3 ? 35 - i : i;
  if (type == 0 || at < 18) return slope(at, 36);
  if (at < 24) return 1;
  return at < 30 ? slope(at - 18, 12) : 0;
}

const Tables& tables() {
  static const auto made = [] {
    auto all = std::make_unique<Tables>();
    for (const int type : {0, 1, 3}) fill_weights(all->longs[type], long_window, type);
    fill_weights(
        all->shorts, [](int, int i) { return slope(i, 12); }, 2);
    FilterBank& bank = all->bank;
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 16; ++j) {
        const auto cosine = [&](int output) {
          return static_cast<float>(std::cos(std::numbers::pi / 64 * output * (2 * k + 1)));
        };
        bank.even_cosines[k][j] = cosine(2 * j);
        bank.odd_cosines[k][j] = cosine(2 * j + 1);
      }
    }
    for (int i = 0; i < 512; ++i) {
      const double value = kHalfWindow[i <= 256 ? i : 512 - i] / 65536.0;
      bank.window[i] = i > 256 && i % 64 != 0 ? -value : value;
    }
    return all;
  }();
  return *made;
}

// Samples from the spectra of a channel, granule by granule.
class Synthesis {
 public:
  // `output` receives 576 samples.
  void run(const float* spectrum, const Granule& granule, float* output) {
    const Tables& all = tables();
    const CodecLanes& lanes = VOXTORCH_BEST_OF_TWO_BUILDS(codec_lanes);
    int used = kLines;
    while (used > 0 && spectrum[used - 1] == 0) --used;
    float rows[kBandLines][kBands];
    for (int band = 0; band < kBands; ++band) {
      const float* const values = spectrum + kBandLines * band;
      float block[36] = {};
      const unsigned type = granule.is_mixed && band < 2 ? 0 : granule.block_type;
      // Zeros give zeros.
      if (kBandLines * band < used) {
        if (type != 2) {
          lanes.long_block(all.longs[type], values, block);
        } else {
          for (int window = 0; window < 3; ++window) {
            double part[12];
            lanes.short_block(all.shorts, values + window, part);
            float* const to = block + 6 + 6 * window;
            for (int i = 0; i < 12; ++i) to[i] = static_cast<float>(to[i] + part[i]);
          }
        }
      }
      float* const overlap = overlap_ + kBandLines * band;
      for (int i = 0; i < kBandLines; ++i) {
        const float sample = block[i] + overlap[i];
        // Frequency inversion of every second band.
        rows[i][band] = band % 2 == 1 && i % 2 == 1 ? -sample : sample;
        overlap[i] = block[i + kBandLines];
      }
    }
    lanes.filter(all.bank, history_, rows, output);
  }

 private:
  float overlap_[kLines] = {};  // of the previous block
  FilterHistory history_;
};

class Mp3Decoder : public StreamDecoder {
 protected:
  bool decode_frame(DecodedAudio& into) override {
    while (const std::optional<Mp3Header> header = find()) {
      const uint8_t* const frame = waiting_.data();
      const auto info = frames_ == 0 ? read_encoder_info(frame, *header) : std::nullopt;
      bool is_empty = true;
      if (info.has_value())
        trim(*info, *header);
      else
        is_empty = !append(frame, *header, into);
      waiting_.drop(header->bytes);
      ++frames_;
      if (!is_empty) return true;
    }
    return false;
  }

 private:
  enum class Found { kNothing, kLater, kFrame };

  // The next complete frame, at the first byte; nothing if there is none yet.
  std::optional<Mp3Header> find() {
    for (size_t at = 0;; ++at) {
      Mp3Header header;
      const bool is_end = at + kMp3HeaderBytes > waiting_.size();
      const Found found = is_end ? Found::kLater : header_at(at, header);
      if (found != Found::kNothing) {
        waiting_.drop(at);
        if (found == Found::kLater) return std::nullopt;
        junk_ = 0;
        if (!stream_.has_value()) stream_ = header;
        return header;
      }
      ++junk_;
      if (frames_ == 0 && junk_ > kMostJunk)
        throw DecodeError("expected an MPEG frame in the first " + std::to_string(kMostJunk) + " bytes, got none");
    }
  }

  // The header of a frame that fits the stream. The first frame, and one with other channels, must be followed by
  // another.
  Found header_at(size_t at, Mp3Header& header) const {
    const uint8_t* const bytes = waiting_.data();
    const size_t count = waiting_.size();
    const std::optional<Mp3Header> read = read_mp3_header(bytes, count, at);
    if (!read.has_value() || (stream_.has_value() && !stream_->same_stream(*read))) return Found::kNothing;
    header = *read;
    const size_t end = at + header.bytes;
    if (end > count) return waiting_.ended ? Found::kNothing : Found::kLater;
    if (stream_.has_value() && stream_->channels == header.channels) return Found::kFrame;
    if (end + kMp3HeaderBytes > count) {
      if (!waiting_.ended) return Found::kLater;
      return stream_.has_value() ? Found::kNothing : Found::kFrame;
    }
    const std::optional<Mp3Header> next = read_mp3_header(bytes, count, end);
    if (!next.has_value() || !header.same_stream(*next) || header.channels != next->channels) return Found::kNothing;
    if (stream_.has_value())
      throw DecodeError("expected a constant number of channels, got " + std::to_string(stream_->channels) +
                        " and then " + std::to_string(header.channels));
    return Found::kFrame;
  }

  void trim(const EncoderInfo& info, const Mp3Header& header) {
    if (!info.delay.has_value()) return;
    skip_ = *info.delay + kDecoderDelay;
    if (info.frames.has_value())
      end_ = static_cast<int64_t>(*info.frames) * header.samples() - std::max(0, info.padding - kDecoderDelay);
  }

  // Appends what the recording has of a frame; false if that is nothing.
  bool append(const uint8_t* frame, const Mp3Header& header, DecodedAudio& into) {
    const int64_t count = header.samples();
    const int64_t begin = std::min(count, std::max<int64_t>(0, skip_ - position_));
    const int64_t end = std::max(begin, std::min(count, end_ - position_));
    position_ += count;
    float samples[2][2 * kLines];
    read_frame(frame, header, samples);
    if (begin == end) return false;
    const size_t at =
        into.extend(header.sample_rate, static_cast<size_t>(header.channels), static_cast<size_t>(end - begin));
    for (int channel = 0; channel < header.channels; ++channel)
      std::copy(samples[channel] + begin, samples[channel] + end, into.channel(static_cast<size_t>(channel)) + at);
    return true;
  }

  void read_frame(const uint8_t* frame, const Mp3Header& header, float (&samples)[2][2 * kLines]) {
    const SideInformation side = read_side_information(frame, header);
    const size_t head = header.side + header.side_bytes;
    const bool is_known = side.back <= reservoir_.size();
    // The reservoir, then this frame: the data of the frame begins within the first.
    const size_t begin = reservoir_.size() - (is_known ? side.back : 0);
    reservoir_.insert(reservoir_.end(), frame + head, frame + header.bytes);
    const uint8_t* const data = reservoir_.data() + begin;
    const size_t count = reservoir_.size() - begin;
    ScaleFactors scales[2];
    bool has_scale[2] = {};
    uint64_t position = 0;
    for (int i = 0; i < header.granules(); ++i) {
      float spectra[2][kLines] = {};
      bool is_read[2] = {};
      for (int channel = 0; channel < header.channels; ++channel) {
        const Granule& granule = side.granules[i][channel];
        const uint64_t from = position;
        position += granule.bits;
        // A frame that refers to missing data, or beyond its end, is silent.
        if (!is_known || position > 8 * static_cast<uint64_t>(count)) continue;
        try {
          BitReader bits(data, count);
          bits.set_position(from);
          scales[channel] = read_scale_factors(bits, granule, header, channel, side.shared[channel],
                                               has_scale[channel] ? &scales[channel] : nullptr);
          has_scale[channel] = true;
          read_spectrum(bits, position, granule, scales[channel], header, spectra[channel]);
          is_read[channel] = true;
        } catch (const OutOfBits&) {
          std::fill_n(spectra[channel], kLines, 0.0f);
        }
      }
      if (header.channels == 2)
        separate_stereo(spectra[0], spectra[1], is_read[1] ? &scales[1] : nullptr, side.granules[i][1], header);
      for (int channel = 0; channel < header.channels; ++channel) {
        const Granule& granule = side.granules[i][channel];
        reduce_aliasing(spectra[channel], granule);
        syntheses_[channel].run(spectra[channel], granule, samples[channel] + kLines * i);
      }
    }
    if (reservoir_.size() > kMostReservoir)
      reservoir_.erase(reservoir_.begin(), reservoir_.end() - static_cast<ptrdiff_t>(kMostReservoir));
  }

  Synthesis syntheses_[2];
  std::optional<Mp3Header> stream_;
  size_t junk_ = 0;
  std::vector<uint8_t> reservoir_;  // the end of the data of previous frames
  uint64_t frames_ = 0;             // that were read, including silent ones
  // Samples to skip at the beginning, and the end of the recording.
  int64_t skip_ = 0;
  int64_t end_ = std::numeric_limits<int64_t>::max();
  int64_t position_ = 0;
};

}  // namespace

std::unique_ptr<StreamDecoder> mp3_decoder() { return std::make_unique<Mp3Decoder>(); }

bool begins_mp3(const uint8_t* bytes, size_t count, bool is_end) {
  const std::optional<Mp3Header> first = read_mp3_header(bytes, count, 0);
  if (!first.has_value()) return false;
  if (is_end && first->bytes == count) return true;
  const std::optional<Mp3Header> next = read_mp3_header(bytes, count, first->bytes);
  return next.has_value() && first->same_stream(*next);
}

}  // namespace voxtorch::audio
