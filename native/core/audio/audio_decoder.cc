// What the decoders of compressed audio share.
#include "core/audio/audio_decoder.h"

#include <algorithm>

#include "core/audio/checksum.h"

namespace voxtorch::audio {

DecodeError::DecodeError(const std::string& message) : std::runtime_error(message) {}
DecodeError::~DecodeError() = default;
OutOfBits::OutOfBits() : DecodeError("the file ends within a frame") {}
OutOfBits::~OutOfBits() = default;
StreamDecoder::~StreamDecoder() = default;
PacketDecoder::~PacketDecoder() = default;

void DecodedAudio::clear() {
  other_rate_ = -1;
  channels_ = 0;
  frames_ = 0;
}

size_t DecodedAudio::extend(int64_t sample_rate, size_t channels, size_t count) {
  if (channels_ == 0) {
    sample_rate_ = sample_rate;
    channels_ = channels;
    if (planes_.size() < channels) planes_.resize(channels);
  } else if (sample_rate != sample_rate_ && other_rate_ < 0) {
    other_rate_ = sample_rate;
  }
  const size_t begin = frames_;
  frames_ += count;
  for (size_t i = 0; i < channels_; ++i) {
    if (planes_[i].size() < frames_) planes_[i].resize(std::max(frames_, 2 * planes_[i].size()));
  }
  return begin;
}

void DecodedAudio::check() const {
  if (other_rate_ >= 0)
    throw DecodeError("expected one sample rate, got " + std::to_string(sample_rate_) + " and then " +
                      std::to_string(other_rate_) + " Hz");
}

void Waiting::feed(const uint8_t* bytes, size_t count) {
  const size_t skipped = std::min(skip_, count);
  skip_ -= skipped;
  offset_ += skipped;
  // Moving at most as many bytes as were read keeps the cost linear.
  if (begin_ >= size()) {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(begin_));
    begin_ = 0;
  }
  bytes_.insert(bytes_.end(), bytes + skipped, bytes + count);
}

void Waiting::drop(size_t count) {
  const size_t dropped = std::min(count, size());
  skip_ += count - dropped;
  begin_ += dropped;
  offset_ += dropped;
}

DecodedAudio& StreamDecoder::next(size_t bytes) {
  decoded_.clear();
  while (decoded_.bytes() < bytes && decode_frame(decoded_)) {
  }
  decoded_.check();
  return decoded_;
}

uint32_t ogg_checksum(const uint8_t* page, size_t count) {
  constexpr size_t kField = 22;
  constexpr uint8_t kZeros[4] = {};
  static constexpr Checksum<uint32_t, 0x04c11db7> kChecksum;
  const size_t head = std::min(count, kField);
  uint32_t sum = kChecksum.add(0, page, head);
  const size_t field = std::min<size_t>(count - head, 4);
  sum = kChecksum.add(sum, kZeros, field);
  return kChecksum.add(sum, page + head + field, count - head - field);
}

}  // namespace voxtorch::audio
