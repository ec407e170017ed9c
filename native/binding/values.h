// The argument buffer: how values cross between JavaScript and native code.
//
// JavaScript writes tagged cells (two doubles: tag, value) into a Float64Array that both sides see, so that calling an
// operator costs one N-API call without arguments. Native code trusts nothing in it: every cell is checked against the
// schema. lib/native/buffer.ts is the other half.
#pragma once

#include <string>
#include <vector>

#include "core/runtime/errors.h"

namespace voxtorch {

// Numbers shared with lib/native/buffer.ts.
enum class Tag : int {
  kNull = 0,
  kNumber = 1,
  kBool = 2,
  kBigInt = 3,  // the value's 64 bits are an int64
  kTensor = 4,
  kList = 5,     // value: length; that many values follow
  kString = 6,   // value: id of an interned string
  kInline = 7,   // value: length; that many UTF-16 units follow, one per double, padded to a whole cell
  kComplex = 8,  // value: real part; the next cell's value: imaginary part
  kObject = 9,   // a generator; as an argument also a module
  kUndefined = 10,
  kKeyword = 11,  // value: id of the interned name; the value follows
  kSame = 12,     // result: the handle of an argument, returned unchanged
  kSlice = 13,    // three values follow
  kEllipsis = 14,
  kDouble = 15,  // a number that must stay a float
  kModule = 16,  // result: a module
};

constexpr int kHeaderDoubles = 16;

// Reads cells. Never runs past `end`.
struct Reader {
  const double* at;
  const double* end;
  const std::vector<std::string>* strings;

  bool done() const { return at >= end; }
  Tag tag() const { return static_cast<Tag>(static_cast<int>(at[0])); }
  double value() const { return at[1]; }
  // Moves over one whole value; throws when it is cut off.
  void skip();
  std::string text() const;
  // The string of this number.
  const std::string& interned(double id) const;
  Reader inside() const { return Reader{at + 2, end, strings}; }
};

// The next of several arguments.
inline Reader next(Reader& cells) {
  if (cells.done()) fail(ErrorKind::kArguments, "an argument is missing");
  const Reader here = cells;
  cells.skip();
  return here;
}

constexpr double kMaxSafe = 9007199254740991.0;  // up to it a double holds every integer

}  // namespace voxtorch
