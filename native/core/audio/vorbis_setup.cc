#include "core/audio/vorbis_setup.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace voxtorch::audio {
namespace {

// Most numbers in all codebooks together; files of usual encoders have a few thousand.
constexpr int64_t kMostEntries = int64_t{1} << 20;
constexpr int64_t kMostNumbers = int64_t{1} << 22;
constexpr size_t kMostPoints = 65;

struct Budget {
  int64_t entries = kMostEntries;
  int64_t numbers = kMostNumbers;
};

[[noreturn]] void fail_missing(const std::string& what) {
  throw DecodeError("the Vorbis setup refers to a missing " + what);
}

template <typename Item>
const Item* find(const std::vector<Item>& items, size_t index, const char* what) {
  if (index >= items.size()) fail_missing(what);
  return &items[index];
}

// A 32-bit float of sign, 10 bits of exponent and 21 of mantissa.
double unpack_float(uint32_t bits) {
  const double mantissa = bits & 0x1fffff;
  const int exponent = static_cast<int>((bits >> 21) & 0x3ff);
  return std::ldexp(bits >> 31 == 1 ? -mantissa : mantissa, exponent - 788);
}

// Whether base^power is above `limit`.
bool exceeds(uint64_t base, size_t power, uint64_t limit) {
  uint64_t product = 1;
  for (size_t i = 0; i < power && base > 1; ++i) {
    product *= base;
    if (product > limit) return true;
  }
  return (base == 0 ? 0 : product) > limit;
}

// The largest integer whose power is at most `value`.
size_t integer_root(size_t value, size_t power) {
  auto root = static_cast<size_t>(std::pow(static_cast<double>(value), 1.0 / static_cast<double>(power))) + 1;
  while (exceeds(root, power, value)) --root;
  return root;
}

std::vector<float> read_vectors(PacketBits& bits, unsigned lookup, size_t dimensions, size_t entries) {
  const double least = unpack_float(bits.read(32));
  const double step = unpack_float(bits.read(32));
  const unsigned width = bits.read(4) + 1;
  const bool is_running = bits.read(1) == 1;
  const size_t count = lookup == 1 ? integer_root(entries, dimensions) : entries * dimensions;
  std::vector<uint16_t> steps(count);
  for (size_t i = 0; i < count && !bits.over; ++i) steps[i] = static_cast<uint16_t>(bits.read(width));
  std::vector<float> vectors(entries * dimensions);
  for (size_t entry = 0; entry < entries; ++entry) {
    double last = 0;
    size_t digits = entry;  // in base `count`, from the lowest
    for (size_t i = 0; i < dimensions; ++i) {
      const size_t place = lookup == 1 ? digits % count : entry * dimensions + i;
      const double value = steps[place] * step + least + last;
      if (is_running) last = value;
      vectors[entry * dimensions + i] = static_cast<float>(value);
      if (lookup == 1) digits /= count;
    }
  }
  return vectors;
}

Codebook read_codebook(PacketBits& bits, Budget& budget) {
  if (bits.read(24) != 0x564342) throw DecodeError("expected a Vorbis codebook, got another signature");
  const size_t dimensions = bits.read(16);
  const size_t entries = bits.read(24);
  budget.entries -= static_cast<int64_t>(entries);
  if (dimensions == 0 || bits_of(dimensions) + bits_of(entries) > 24 || budget.entries < 0)
    throw DecodeError("unsupported Vorbis codebook of " + std::to_string(entries) + " entries with " +
                      std::to_string(dimensions) + " dimensions");
  std::vector<uint8_t> lengths(entries);
  if (bits.read(1) == 1) {
    unsigned length = bits.read(5) + 1;
    for (size_t entry = 0; entry < entries; ++length) {
      const size_t count = bits.read(bits_of(entries - entry));
      if (length > 32 || count > entries - entry || bits.over)
        throw DecodeError("a Vorbis codebook has invalid codeword lengths");
      std::fill_n(lengths.begin() + static_cast<ptrdiff_t>(entry), count, static_cast<uint8_t>(length));
      entry += count;
    }
  } else {
    const bool is_sparse = bits.read(1) == 1;
    for (size_t entry = 0; entry < entries && !bits.over; ++entry)
      if (!is_sparse || bits.read(1) == 1) lengths[entry] = static_cast<uint8_t>(bits.read(5) + 1);
  }
  const unsigned lookup = bits.read(4);
  if (lookup > 0) budget.numbers -= static_cast<int64_t>(entries * dimensions);
  if (budget.numbers < 0) throw DecodeError("the Vorbis codebooks have more numbers than any encoder writes");
  if (lookup > 2) throw DecodeError("Vorbis codebook: expected lookup type 0, 1 or 2, got " + std::to_string(lookup));
  std::vector<float> vectors;
  if (lookup > 0) vectors = read_vectors(bits, lookup, dimensions, entries);
  Codebook book(dimensions, lengths);
  book.vectors = std::move(vectors);
  book.has_vectors = lookup > 0;
  return book;
}

Floor read_floor(PacketBits& bits, const std::vector<Codebook>& books) {
  const unsigned type = bits.read(16);
  if (type == 0) throw DecodeError("unsupported: Vorbis floor of type 0, which no encoder has written since 2001");
  if (type != 1) throw DecodeError("Vorbis floor: expected type 1, got " + std::to_string(type));
  Floor floor;
  floor.partitions.resize(bits.read(5));
  size_t classes = 0;
  for (size_t& partition : floor.partitions) {
    partition = bits.read(4);
    classes = std::max(classes, partition + 1);
  }
  for (size_t i = 0; i < classes; ++i) {
    Floor::Class one = {};
    one.dimensions = bits.read(3) + 1;
    one.subclass_bits = bits.read(2);
    if (one.subclass_bits > 0) {
      one.master = bits.read(8);
    }
    bool is_missing = one.subclass_bits > 0 && one.master >= books.size();
    for (size_t j = 0; j < size_t{1} << one.subclass_bits; ++j) {
      one.books[j] = static_cast<int>(bits.read(8)) - 1;
      is_missing = is_missing || one.books[j] >= static_cast<int>(books.size());
    }
    if (is_missing) fail_missing("codebook");
    floor.classes.push_back(one);
  }
  floor.multiplier = static_cast<int>(bits.read(2)) + 1;
  const unsigned range_bits = bits.read(4);
  std::vector<int>& xs = floor.xs;
  xs = {0, 1 << range_bits};
  for (const size_t partition : floor.partitions)
    for (size_t i = 0; i < floor.classes[partition].dimensions; ++i)
      xs.push_back(static_cast<int>(bits.read(range_bits)));
  floor.order.resize(xs.size());
  std::iota(floor.order.begin(), floor.order.end(), size_t{0});
  std::sort(floor.order.begin(), floor.order.end(), [&](size_t a, size_t b) { return xs[a] < xs[b]; });
  const auto is_same = [&](size_t a, size_t b) { return xs[a] == xs[b]; };
  if (xs.size() > kMostPoints ||
      std::adjacent_find(floor.order.begin(), floor.order.end(), is_same) != floor.order.end())
    throw DecodeError("Vorbis floor: expected at most 65 different positions");
  const auto nearest = [&](size_t i, int side) {
    size_t best = side == 1 ? 1 : 0;
    for (size_t j = 0; j < i; ++j)
      if ((xs[j] - xs[i]) * side > 0 && (xs[j] - xs[best]) * side < 0) best = j;
    return best;
  };
  for (size_t i = 0; i < xs.size(); ++i) {
    floor.low.push_back(nearest(i, -1));
    floor.high.push_back(nearest(i, 1));
  }
  return floor;
}

Residue read_residue(PacketBits& bits, const std::vector<Codebook>& codebooks) {
  Residue residue;
  residue.type = bits.read(16);
  if (residue.type > 2)
    throw DecodeError("Vorbis residue: expected type 0, 1 or 2, got " + std::to_string(residue.type));
  residue.begin = bits.read(24);
  residue.end = bits.read(24);
  residue.partition_size = bits.read(24) + 1;
  const size_t classes = bits.read(6) + 1;
  residue.class_book = find(codebooks, bits.read(8), "codebook");
  std::vector<unsigned> cascades(classes);
  for (unsigned& cascade : cascades) {
    cascade = bits.read(3);
    if (bits.read(1) == 1) cascade |= bits.read(5) << 3;
  }
  for (const unsigned cascade : cascades) {
    std::array<const Codebook*, 8> books = {};
    for (size_t pass = 0; pass < books.size(); ++pass) {
      if (((cascade >> pass) & 1) == 0) continue;
      books[pass] = find(codebooks, bits.read(8), "codebook of vectors");
      if (!books[pass]->has_vectors) fail_missing("codebook of vectors");
    }
    residue.books.push_back(books);
  }
  return residue;
}

Mapping read_mapping(PacketBits& bits, size_t channels, const Setup& setup) {
  if (bits.read(16) != 0) fail_missing("mapping");
  const size_t count = bits.read(1) == 1 ? bits.read(4) + 1 : 1;
  const unsigned width = bits_of(channels - 1);
  Mapping mapping;
  const size_t couplings = bits.read(1) == 1 ? bits.read(8) + 1 : 0;
  for (size_t i = 0; i < couplings; ++i) {
    const size_t magnitude = bits.read(width);
    const size_t angle = bits.read(width);
    if (magnitude == angle || magnitude >= channels || angle >= channels) fail_missing("coupled channel");
    mapping.couplings.push_back({magnitude, angle});
  }
  if (bits.read(2) != 0) fail_missing("mapping");
  for (size_t i = 0; i < channels; ++i) mapping.submaps.push_back(count > 1 ? bits.read(4) : 0);
  for (size_t i = 0; i < count; ++i) {
    bits.read(8);
    const size_t floor = bits.read(8);
    const size_t residue = bits.read(8);
    mapping.floors.push_back(find(setup.floors, floor, "floor or residue"));
    mapping.residues.push_back(find(setup.residues, residue, "floor or residue"));
  }
  for (const size_t submap : mapping.submaps)
    if (submap >= count) fail_missing("submap");
  return mapping;
}

// As many items as a number of `width` bits says, plus one.
template <typename Item, typename Read>
void read_several(PacketBits& bits, unsigned width, std::vector<Item>& items, Read read) {
  const size_t count = bits.read(width) + 1;
  // The items refer to those that were read before, so they must not move.
  items.reserve(count);
  while (items.size() < count) {
    if (bits.over) throw DecodeError("the Vorbis setup header is truncated");
    items.push_back(read());
  }
}

}  // namespace

Codebook::Codebook(size_t dimensions, const std::vector<uint8_t>& lengths)
    : dimensions(dimensions), tree_(2), quick_(size_t{1} << kQuick) {
  assign(lengths);
}

// Each entry has the lowest free codeword of its length.
void Codebook::assign(const std::vector<uint8_t>& lengths) {
  const auto is_used = [](uint8_t length) { return length > 0; };
  const auto used = std::count_if(lengths.begin(), lengths.end(), is_used);
  if (used == 0) return;
  const auto fail = [] { throw DecodeError("expected codeword lengths that form a tree, got a damaged codebook"); };
  if (used == 1) {
    // A single entry: both values of the bit select it.
    const auto found = std::find_if(lengths.begin(), lengths.end(), is_used);
    const auto entry = static_cast<int32_t>(found - lengths.begin());
    if (*found != 1) fail();
    tree_ = {~entry, ~entry};
    std::fill(quick_.begin(), quick_.end(), 1 << 24 | entry);
    return;
  }
  // The bits of the free branch of each length, or -1. There is never more than one.
  std::array<int64_t, 33> free;
  free.fill(-1);
  free[0] = 0;
  for (size_t entry = 0; entry < lengths.size(); ++entry) {
    const int length = lengths[entry];
    if (length == 0) continue;
    int from = length;
    while (from >= 0 && free[static_cast<size_t>(from)] < 0) --from;
    if (from < 0) fail();
    const int64_t word = free[static_cast<size_t>(from)] << (length - from);
    free[static_cast<size_t>(from)] = -1;
    for (int below = from + 1; below <= length; ++below)
      free[static_cast<size_t>(below)] = (word >> (length - below)) + 1;
    add(entry, static_cast<uint64_t>(word), static_cast<unsigned>(length));
  }
  if (std::any_of(free.begin(), free.end(), [](int64_t word) { return word >= 0; })) fail();
}

void Codebook::add(size_t entry, uint64_t word, unsigned length) {
  size_t node = 0;
  for (unsigned bit = length - 1; bit > 0; --bit) {
    const size_t branch = 2 * node + ((word >> bit) & 1);
    if (tree_[branch] == 0) {
      tree_[branch] = static_cast<int32_t>(tree_.size() / 2);
      tree_.resize(tree_.size() + 2);
    }
    node = static_cast<size_t>(tree_[branch]);
  }
  tree_[2 * node + (word & 1)] = ~static_cast<int32_t>(entry);
  if (length > kQuick) return;
  size_t reversed = 0;
  for (unsigned bit = 0; bit < length; ++bit) reversed |= ((word >> bit) & 1) << (length - 1 - bit);
  for (size_t rest = reversed; rest < quick_.size(); rest += size_t{1} << length)
    quick_[rest] = static_cast<int32_t>(length << 24 | entry);
}

int32_t Codebook::read_long(PacketBits& bits) const {
  int32_t node = 0;
  for (int length = 0; length < 32; ++length) {
    node = tree_[2 * static_cast<size_t>(node) + bits.read(1)];
    if (bits.over || node == 0) break;
    if (node < 0) return ~node;
  }
  bits.over = true;
  return -1;
}

std::unique_ptr<Setup> read_setup(const uint8_t* packet, size_t count, size_t channels) {
  PacketBits bits(packet, count);
  bits.pass(56);
  auto setup = std::make_unique<Setup>();
  Budget budget;
  read_several(bits, 8, setup->books, [&] { return read_codebook(bits, budget); });
  std::vector<uint32_t> transforms;
  read_several(bits, 6, transforms, [&] { return bits.read(16); });
  for (const uint32_t transform : transforms)
    if (transform != 0) fail_missing("transform");
  read_several(bits, 6, setup->floors, [&] { return read_floor(bits, setup->books); });
  read_several(bits, 6, setup->residues, [&] { return read_residue(bits, setup->books); });
  read_several(bits, 6, setup->mappings, [&] { return read_mapping(bits, channels, *setup); });
  read_several(bits, 6, setup->modes, [&] {
    const bool is_long = bits.read(1) == 1;
    if (bits.read(32) != 0) fail_missing("window or transform");
    return Mode{is_long, find(setup->mappings, bits.read(8), "mapping")};
  });
  if (bits.read(1) != 1 || bits.over) throw DecodeError("the Vorbis setup header is truncated");
  return setup;
}

}  // namespace voxtorch::audio
