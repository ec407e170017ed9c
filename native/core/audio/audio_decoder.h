// Decoders of compressed audio: FLAC, MP3 and Vorbis. Nothing of ATen. Their input is hostile: every read is checked
// against the bytes that are there, and memory is bounded by the formats' own limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace voxtorch::audio {

// A file that is damaged or not supported. The message does not name the file.
class DecodeError : public std::runtime_error {
 public:
  explicit DecodeError(const std::string& message);
  ~DecodeError() override;
};

// The bytes end within a frame.
class OutOfBits : public DecodeError {
 public:
  OutOfBits();
  ~OutOfBits() override;
};

// Samples of successive frames, all channels of the same length.
class DecodedAudio {
 public:
  void clear();
  // Make room for `count` more samples in each channel, and return the position of the first.
  size_t extend(int64_t sample_rate, size_t channels, size_t count);
  // Remove the last `count` samples of each channel.
  void shorten(size_t count) { frames_ -= count; }
  // Throws if the sample rate has changed.
  void check() const;

  int64_t sample_rate() const { return sample_rate_; }
  size_t channels() const { return channels_; }
  size_t frames() const { return frames_; }
  size_t bytes() const { return sizeof(float) * channels_ * frames_; }
  float* channel(size_t i) { return planes_[i].data(); }

 private:
  int64_t sample_rate_ = 0;
  int64_t other_rate_ = -1;  // the first that differs
  size_t channels_ = 0;
  size_t frames_ = 0;
  std::vector<std::vector<float>> planes_;  // kept for the next frames
};

// Bytes that were fed and not read yet.
class Waiting {
 public:
  const uint8_t* data() const { return bytes_.data() + begin_; }
  size_t size() const { return bytes_.size() - begin_; }
  // Position of data() in the file.
  uint64_t offset() const { return offset_; }

  void feed(const uint8_t* bytes, size_t count);
  // Skips bytes, also those that have not arrived yet.
  void drop(size_t count);

  bool ended = false;

 private:
  std::vector<uint8_t> bytes_;
  size_t begin_ = 0;
  size_t skip_ = 0;
  uint64_t offset_ = 0;
};

// Decoder of one file that arrives in parts. An error ends the file.
class StreamDecoder {
 public:
  virtual ~StreamDecoder();
  void feed(const uint8_t* bytes, size_t count) { waiting_.feed(bytes, count); }
  void end() { waiting_.ended = true; }
  // Decode frames until they have `bytes` bytes of samples, or until further input is needed. Valid until the next
  // call.
  DecodedAudio& next(size_t bytes);

 protected:
  // Append the samples of the next frame; false if further bytes are needed, and at the end.
  virtual bool decode_frame(DecodedAudio& into) = 0;
  Waiting waiting_;

 private:
  DecodedAudio decoded_;
};

std::unique_ptr<StreamDecoder> flac_decoder();
std::unique_ptr<StreamDecoder> mp3_decoder();

// Whether a frame of layer III begins at the first byte, and another or the end of the bytes follows it.
bool begins_mp3(const uint8_t* bytes, size_t count, bool is_end);

// Packet of an Ogg stream.
struct Packet {
  const uint8_t* bytes;
  size_t count;
  double granule;  // of the page whose last packet this is, else NaN
  bool last;       // of the stream
};

// Decoder of the packets of a stream.
class PacketDecoder {
 public:
  virtual ~PacketDecoder();
  // Append the samples of a packet.
  virtual void decode(const Packet& packet, DecodedAudio& into) = 0;
};

// The first packet is the identification header.
std::unique_ptr<PacketDecoder> vorbis_decoder(const uint8_t* first, size_t count);

// The checksum of an Ogg page (RFC 3533), with zeros in place of its checksum field.
uint32_t ogg_checksum(const uint8_t* page, size_t count);

}  // namespace voxtorch::audio
