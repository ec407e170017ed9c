// Vorbis I (https://xiph.org/vorbis/doc/Vorbis_I_spec.html), without floors of type 0. Channels keep the order of the
// stream, as with libsndfile: three channels are left, center, right.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "core/audio/codec_lanes.h"
#include "core/audio/vorbis_setup.h"

namespace voxtorch::audio {
namespace {

constexpr int kRanges[] = {256, 128, 86, 64};

// Gains from -139.45 dB to 0 in 256 steps.
const float* decibels() {
  static const auto table = [] {
    std::array<float, 256> made;
    for (int i = 0; i < 256; ++i)
      made[static_cast<size_t>(i)] = static_cast<float>(std::pow(10.0, (i - 255) * 140 / 256.0 / 20));
    return made;
  }();
  return table.data();
}

// Discrete cosine transform of type IV, by a complex Fourier transform of half the size.
class CosineTransform {
 public:
  explicit CosineTransform(size_t size)
      : size_(size), twists_(size), roots_(size), reversed_(size / 2), scratch_(size) {
    const size_t half = size / 2;
    for (size_t i = 0; i < half; ++i) {
      const double angle = -std::numbers::pi * static_cast<double>(8 * i + 1) / static_cast<double>(8 * size);
      twists_[i] = std::cos(angle);
      twists_[half + i] = std::sin(angle);
      const unsigned bits = bits_of(half) - 1;
      size_t reversed = 0;
      for (unsigned bit = 0; bit < bits; ++bit) reversed |= ((i >> bit) & 1) << (bits - 1 - bit);
      reversed_[i] = static_cast<int32_t>(reversed);
    }
    double* roots = roots_.data();
    for (size_t width = 1; width < half; roots += 2 * width, width *= 2) {
      for (size_t i = 0; i < width; ++i) {
        const double angle =
            -2 * std::numbers::pi * static_cast<double>(i * (half / 2 / width)) / static_cast<double>(half);
        roots[i] = std::cos(angle);
        roots[width + i] = std::sin(angle);
      }
    }
  }

  void run(double* values) {
    const CosinePlan plan = {static_cast<int>(size_), twists_.data(), roots_.data(), reversed_.data(), scratch_.data()};
    VOXTORCH_BEST_OF_TWO_BUILDS(codec_lanes).cosine_transform(plan, values);
  }

 private:
  size_t size_;
  std::vector<double> twists_;
  std::vector<double> roots_;
  std::vector<int32_t> reversed_;
  std::vector<double> scratch_;
};

// The integer heights of a line at successive places, rounded toward its start.
class Line {
 public:
  Line(int x0, int y0, int x1, int y1)
      : height_(y0), run_(x1 - x0), step_((y1 - y0) / run_), rest_(std::abs(y1 - y0) % run_), sign_(y1 < y0 ? -1 : 1) {}

  int height() const { return height_; }
  // Without branches, because they cannot be predicted.
  void advance() {
    error_ += rest_;
    const int carry = error_ >= run_ ? 1 : 0;
    error_ -= run_ & -carry;
    height_ += step_ + (sign_ & -carry);
  }

 private:
  int height_;
  int run_;
  int step_;
  int rest_;
  int sign_;
  int error_ = 0;
};

// A floor's heights, -1 for points that are on the interpolated line.
using Curve = std::vector<int>;

// Reads the curve of a channel; false for silence.
bool read_curve(PacketBits& bits, const Floor& floor, const Setup& setup, Curve& heights) {
  if (bits.read(1) == 0) return false;
  const int range = kRanges[floor.multiplier - 1];
  const unsigned range_bits = bits_of(static_cast<size_t>(range - 1));
  heights.clear();
  heights.push_back(static_cast<int>(bits.read(range_bits)));
  heights.push_back(static_cast<int>(bits.read(range_bits)));
  for (const size_t partition : floor.partitions) {
    const Floor::Class& one = floor.classes[partition];
    int32_t classes = one.subclass_bits > 0 ? setup.books[one.master].read(bits) : 0;
    for (size_t i = 0; i < one.dimensions; ++i) {
      const int book = one.books[static_cast<size_t>(classes) & ((size_t{1} << one.subclass_bits) - 1)];
      classes >>= one.subclass_bits;
      heights.push_back(book >= 0 ? setup.books[static_cast<size_t>(book)].read(bits) : 0);
    }
  }
  if (bits.over) return false;
  bool used[65] = {true, true};
  for (size_t i = 2; i < heights.size(); ++i) {
    const size_t low = floor.low[i];
    const size_t high = floor.high[i];
    const int64_t rise = static_cast<int64_t>(heights[high]) - heights[low];
    const int64_t off = std::abs(rise) * (floor.xs[i] - floor.xs[low]) / (floor.xs[high] - floor.xs[low]);
    const int expected = static_cast<int>(rise < 0 ? heights[low] - off : heights[low] + off);
    const int value = heights[i];
    if (value == 0) {
      heights[i] = expected;
      continue;
    }
    used[low] = used[high] = used[i] = true;
    const int above = range - expected;
    // Small differences alternate in sign; those that exceed the range on one side are on the other.
    if (value < 2 * std::min(above, expected))
      heights[i] = value % 2 == 1 ? expected - (value + 1) / 2 : expected + value / 2;
    else
      heights[i] = above > expected ? value : range - 1 - value;
  }
  for (size_t i = 0; i < heights.size(); ++i)
    if (!used[i]) heights[i] = -1;
  return true;
}

void multiply_by_curve(double* spectrum, int half, const Floor& floor, const Curve& heights) {
  const float* const gains = decibels();
  const auto gain = [&](int height) { return static_cast<double>(gains[std::clamp(height, 0, 255)]); };
  int x0 = 0;
  int y0 = heights[floor.order[0]] * floor.multiplier;
  for (size_t i = 1; i < floor.order.size(); ++i) {
    const size_t place = floor.order[i];
    if (heights[place] < 0) continue;
    const int x1 = floor.xs[place];
    const int y1 = heights[place] * floor.multiplier;
    Line line(x0, y0, x1, y1);
    for (int x = x0; x < std::min(x1, half); ++x, line.advance()) spectrum[x] *= gain(line.height());
    x0 = x1;
    y0 = y1;
  }
  for (int x = x0; x < half; ++x) spectrum[x] *= gain(y0);
}

// Adds the entries of a codebook to a partition. kDimensions is the codebook's, or 0 for any.
template <size_t kDimensions>
bool add_vectors(PacketBits& shared, const Codebook& book, double* to, size_t rows) {
  PacketBits bits = shared;  // a copy, which stays in registers
  const size_t dimensions = kDimensions > 0 ? kDimensions : book.dimensions;
  const float* const vectors = book.vectors.data();
  for (size_t row = 0; row < rows; ++row, to += dimensions) {
    const int32_t entry = book.read(bits);
    if (entry < 0) {
      shared.over = true;
      return false;
    }
    const float* const numbers = vectors + static_cast<size_t>(entry) * dimensions;
    for (size_t i = 0; i < dimensions; ++i) to[i] += numbers[i];
  }
  shared = bits;
  return true;
}

// The same for residues of type 0, which spread the numbers of an entry over the partition.
bool add_spread_vectors(PacketBits& bits, const Codebook& book, double* to, size_t rows) {
  for (size_t row = 0; row < rows; ++row) {
    const int32_t entry = book.read(bits);
    if (entry < 0) return false;
    const float* const numbers = book.vectors.data() + static_cast<size_t>(entry) * book.dimensions;
    for (size_t i = 0; i < book.dimensions; ++i) to[row + i * rows] += numbers[i];
  }
  return true;
}

bool add_partition(PacketBits& bits, const Codebook& book, unsigned type, double* to, size_t size) {
  const size_t rows = size / book.dimensions;
  if (type == 0) return add_spread_vectors(bits, book, to, rows);
  switch (book.dimensions) {
    case 1:
      return add_vectors<1>(bits, book, to, rows);
    case 2:
      return add_vectors<2>(bits, book, to, rows);
    case 4:
      return add_vectors<4>(bits, book, to, rows);
    case 8:
      return add_vectors<8>(bits, book, to, rows);
    default:
      return add_vectors<0>(bits, book, to, rows);
  }
}

class VorbisDecoder : public PacketDecoder {
 public:
  VorbisDecoder(const uint8_t* first, size_t count) {
    PacketBits bits(first, count);
    bits.pass(56);
    const uint32_t version = bits.read(32);
    channels_ = bits.read(8);
    sample_rate_ = bits.read(32);
    bits.pass(96);
    sizes_[0] = size_t{1} << bits.read(4);
    sizes_[1] = size_t{1} << bits.read(4);
    const uint32_t framing = bits.read(1);
    if (version != 0 || bits.over || framing != 1)
      throw DecodeError("expected a Vorbis identification header of version 0");
    const auto [shorter, longer] = sizes_;
    if (channels_ == 0 || sample_rate_ == 0 || shorter < 64 || longer > 8192 || shorter > longer)
      throw DecodeError("unsupported Vorbis header: " + std::to_string(channels_) + " channels at " +
                        std::to_string(sample_rate_) + " Hz in blocks of " + std::to_string(shorter) + " and " +
                        std::to_string(longer) + " samples");
    for (const size_t size : sizes_) {
      transforms_.emplace_back(size / 2);
      std::vector<float>& window = windows_.emplace_back(size / 2);
      for (size_t i = 0; i < window.size(); ++i) {
        const double sine = std::sin((static_cast<double>(i) + 0.5) / static_cast<double>(size) * std::numbers::pi);
        window[i] = static_cast<float>(std::sin(std::numbers::pi / 2 * (sine * sine)));
      }
    }
    overlaps_.resize(channels_);
    curves_.resize(channels_);
    has_curve_.resize(channels_);
    is_wanted_.resize(channels_);
  }

  void decode(const Packet& packet, DecodedAudio& into) override {
    if (packet.count == 0) return;
    if ((packet.bytes[0] & 1) == 1) {
      read_header(packet);
      return;
    }
    if (setup_ == nullptr) throw DecodeError("expected the Vorbis setup header before the samples");
    PacketBits bits(packet.bytes, packet.count);
    read_block(bits, packet, into);
  }

 private:
  void read_header(const Packet& packet) {
    if (setup_ != nullptr || headers_ > 3) return;
    ++headers_;
    if (packet.bytes[0] == 5) setup_ = read_setup(packet.bytes, packet.count, channels_);
  }

  // Returns how many of `count` samples to drop at the beginning and at the end, by the granule positions.
  std::array<size_t, 2> place(size_t count, const Packet& packet) {
    decoded_ += static_cast<double>(count);
    if (position_.has_value()) *position_ += static_cast<double>(count);
    if (std::isnan(packet.granule)) return {0, 0};
    const double here = position_.value_or(decoded_);
    const double extra = std::min(std::max(0.0, here - packet.granule), static_cast<double>(count));
    const bool is_first = !position_.has_value();
    position_ = packet.granule;
    if (packet.last) return {0, static_cast<size_t>(extra)};
    return {is_first ? static_cast<size_t>(extra) : 0, 0};
  }

  void read_block(PacketBits& bits, const Packet& packet, DecodedAudio& into) {
    bits.read(1);
    const size_t number = bits.read(bits_of(setup_->modes.size() - 1));
    if (number >= setup_->modes.size()) throw DecodeError("a Vorbis block has an unknown mode; the file is damaged");
    const Mode& mode = setup_->modes[number];
    const size_t size = sizes_[mode.is_long ? 1 : 0];
    size_t left = size;
    size_t right = size;
    if (mode.is_long) {
      left = sizes_[bits.read(1)];
      right = sizes_[bits.read(1)];
    }
    if (bits.over) throw DecodeError("a Vorbis block is empty; the file is damaged");
    read_spectra(bits, *mode.mapping, size / 2);
    // The samples between the centers of the previous and this block.
    const size_t count = before_ == 0 ? 0 : before_ / 4 + size / 4;
    const auto [front, back] = place(count, packet);
    const size_t kept = count - front - back;
    const size_t at = kept > 0 ? into.extend(sample_rate_, channels_, kept) : 0;
    for (size_t channel = 0; channel < channels_; ++channel) {
      double* const spectrum = has_curve_[channel] ? spectra_.data() + channel * size / 2 : nullptr;
      if (spectrum != nullptr) transforms_[mode.is_long ? 1 : 0].run(spectrum);
      overlap(channel, spectrum, size, left, right, count);
      if (kept > 0) std::copy_n(output_.begin() + static_cast<ptrdiff_t>(front), kept, into.channel(channel) + at);
    }
    before_ = size;
  }

  // Writes `count` samples to output_. The inverse transform is unfolded here: its first half is [u(half..), -u
  // reversed], the second half continues in reverse.
  void overlap(size_t channel, const double* u, size_t size, size_t left, size_t right, size_t count) {
    const size_t half = size / 2;
    const size_t quarter = size / 4;
    std::vector<float>& held = overlaps_[channel];
    if (output_.size() < count) output_.resize(count);
    float* const out = output_.data();
    const size_t common = std::min(held.size(), count);
    std::copy_n(held.begin(), common, out);
    std::fill(out + common, out + count, 0.0f);
    if (u != nullptr && count > 0) {
      // The slope is centered between both blocks.
      const size_t slope = left / 2;
      const size_t begin = quarter - slope / 2;
      const size_t from = count < half ? std::max(begin, half - count) : begin;
      const float* const window = windows_[left == sizes_[1] ? 1 : 0].data();
      float* const to = out + count;
      const auto add = [&](size_t i, double value) {
        float& sample = *(to - (half - i));
        sample = static_cast<float>(sample + value);
      };
      const size_t flat = begin + slope;  // where the slope ends
      for (size_t i = from; i < quarter; ++i) add(i, u[i + quarter] * window[i - begin]);
      for (size_t i = std::max(from, quarter); i < flat; ++i) add(i, -u[size - quarter - 1 - i] * window[i - begin]);
      for (size_t i = std::max(from, flat); i < half; ++i) add(i, -u[size - quarter - 1 - i]);
    }
    const size_t slope = right / 2;
    const size_t begin = quarter - slope / 2;
    const float* const window = windows_[right == sizes_[1] ? 1 : 0].data();
    held.assign(begin + slope, 0.0f);
    if (u == nullptr) return;
    const size_t end = held.size();
    for (size_t i = 0; i < begin; ++i) held[i] = static_cast<float>(-u[quarter - 1 - i]);
    for (size_t i = begin; i < quarter; ++i) held[i] = static_cast<float>(-u[quarter - 1 - i] * window[end - 1 - i]);
    for (size_t i = quarter; i < end; ++i) held[i] = static_cast<float>(-u[i - quarter] * window[end - 1 - i]);
  }

  // Decodes the spectra of a block, [channels, half]. Channels without a curve are silent.
  void read_spectra(PacketBits& bits, const Mapping& mapping, size_t half) {
    for (size_t channel = 0; channel < channels_; ++channel) {
      const Floor& floor = *mapping.floors[mapping.submaps[channel]];
      has_curve_[channel] = read_curve(bits, floor, *setup_, curves_[channel]);
      is_wanted_[channel] = has_curve_[channel];
    }
    for (const auto& [magnitude, angle] : mapping.couplings)
      if (is_wanted_[magnitude] || is_wanted_[angle]) is_wanted_[magnitude] = is_wanted_[angle] = 1;
    spectra_.assign(channels_ * half, 0);
    for (size_t submap = 0; submap < mapping.residues.size(); ++submap) {
      members_.clear();
      for (size_t channel = 0; channel < channels_; ++channel)
        if (mapping.submaps[channel] == submap) members_.push_back(channel);
      read_residue(bits, *mapping.residues[submap], half);
    }
    for (size_t i = mapping.couplings.size(); i > 0; --i) {
      const auto& [magnitude, angle] = mapping.couplings[i - 1];
      uncouple(spectra_.data() + magnitude * half, spectra_.data() + angle * half, half);
    }
    for (size_t channel = 0; channel < channels_; ++channel)
      if (has_curve_[channel])
        multiply_by_curve(spectra_.data() + channel * half, static_cast<int>(half),
                          *mapping.floors[mapping.submaps[channel]], curves_[channel]);
  }

  // Adds the passes of a residue to the spectra of the members of its submap.
  void read_residue(PacketBits& bits, const Residue& residue, size_t half) {
    const auto is_wanted = [&](size_t channel) { return is_wanted_[channel] != 0; };
    if (std::none_of(members_.begin(), members_.end(), is_wanted)) return;
    vectors_.clear();
    if (residue.type < 2 || members_.size() == 1) {
      for (const size_t channel : members_)
        if (is_wanted(channel)) vectors_.push_back(spectra_.data() + channel * half);
      read_passes(bits, residue, half);
      return;
    }
    // Type 2 interleaves the channels into one vector.
    const size_t width = members_.size();
    interleaved_.assign(width * half, 0);
    vectors_.push_back(interleaved_.data());
    read_passes(bits, residue, width * half);
    for (size_t j = 0; j < width; ++j) {
      double* const spectrum = spectra_.data() + members_[j] * half;
      for (size_t i = 0; i < half; ++i) spectrum[i] = interleaved_[i * width + j];
    }
  }

  // Adds to vectors_, each of `length` numbers.
  void read_passes(PacketBits& bits, const Residue& residue, size_t length) {
    const size_t begin = std::min(residue.begin, length);
    const size_t end = std::min(residue.end, length);
    const size_t partitions = end > begin ? (end - begin) / residue.partition_size : 0;
    const size_t group = residue.class_book->dimensions;
    const size_t classes = residue.books.size();
    const size_t stride = partitions + group;
    classes_.assign(vectors_.size() * stride, 0);
    for (size_t pass = 0; pass < 8; ++pass) {
      const auto has_pass = [&](const auto& books) { return books[pass] != nullptr; };
      if (pass > 0 && std::none_of(residue.books.begin(), residue.books.end(), has_pass)) continue;
      for (size_t first = 0; first < partitions; first += group) {
        if (pass == 0) {
          for (size_t j = 0; j < vectors_.size(); ++j) {
            int32_t packed = residue.class_book->read(bits);
            if (packed < 0) return;
            for (size_t i = group; i > 0; --i) {
              classes_[j * stride + first + i - 1] = static_cast<uint8_t>(static_cast<size_t>(packed) % classes);
              packed = static_cast<int32_t>(static_cast<size_t>(packed) / classes);
            }
          }
        }
        for (size_t partition = first; partition < std::min(first + group, partitions); ++partition) {
          for (size_t j = 0; j < vectors_.size(); ++j) {
            const Codebook* const book = residue.books[classes_[j * stride + partition]][pass];
            if (book == nullptr) continue;
            double* const to = vectors_[j] + begin + partition * residue.partition_size;
            if (!add_partition(bits, *book, residue.type, to, residue.partition_size)) return;
          }
        }
      }
    }
  }

  // Restores two channels from square polar coupling.
  static void uncouple(double* magnitudes, double* angles, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const double m = magnitudes[i];
      const double a = angles[i];
      const double moved = (m > 0) == (a > 0) ? m - a : m + a;
      magnitudes[i] = a > 0 ? m : moved;
      angles[i] = a > 0 ? moved : m;
    }
  }

  size_t channels_ = 0;
  int64_t sample_rate_ = 0;
  std::array<size_t, 2> sizes_ = {};  // of short and long blocks
  std::vector<CosineTransform> transforms_;
  std::vector<std::vector<float>> windows_;
  std::unique_ptr<Setup> setup_;
  int headers_ = 1;
  // Windowed second half of the previous block of each channel, and the size of that block.
  std::vector<std::vector<float>> overlaps_;
  size_t before_ = 0;
  double decoded_ = 0;
  std::optional<double> position_;  // granule position, once a page has stated it

  // Of the current block.
  std::vector<double> spectra_;
  std::vector<Curve> curves_;
  std::vector<uint8_t> has_curve_;
  std::vector<uint8_t> is_wanted_;
  std::vector<size_t> members_;
  std::vector<double*> vectors_;
  std::vector<double> interleaved_;
  std::vector<uint8_t> classes_;
  std::vector<float> output_;
};

}  // namespace

std::unique_ptr<PacketDecoder> vorbis_decoder(const uint8_t* first, size_t count) {
  return std::make_unique<VorbisDecoder>(first, count);
}

}  // namespace voxtorch::audio
