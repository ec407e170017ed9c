#include "binding/values.h"

#include <cmath>

namespace voxtorch {
namespace {

void append_utf8(std::string& text, uint32_t code) {
  const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text += char(kLead[more] | code >> (6 * more));
  for (int shift = 6 * (more - 1); shift >= 0; shift -= 6) text += char(0x80 | (code >> shift & 63));
}

}  // namespace

void Reader::skip() {
  double doubles = 2, inside = 0;
  switch (tag()) {
    case Tag::kInline:
      doubles = 2 + std::ceil(value() / 2) * 2;
      break;
    case Tag::kComplex:
      doubles = 4;
      break;
    case Tag::kList:
      inside = value();
      if (!(inside >= 0)) fail(ErrorKind::kArguments, "a list has a negative length");
      break;
    case Tag::kSlice:
      inside = 3;
      break;
    case Tag::kKeyword:
      inside = 1;
      break;
    default:
      break;
  }
  if (!(doubles >= 2) || doubles > double(end - at)) fail(ErrorKind::kArguments, "an argument is cut off");
  at += static_cast<ptrdiff_t>(doubles);
  for (double i = 0; i < inside; ++i) {
    if (done()) fail(ErrorKind::kArguments, "a list, a slice or a keyword is cut off");
    skip();
  }
}

std::string Reader::text() const {
  if (tag() == Tag::kString) return interned(value());
  const size_t units = static_cast<size_t>(value());
  if (double(units) > double(end - at) - 2) fail(ErrorKind::kArguments, "a string is cut off");
  std::string text;
  for (size_t i = 0; i < units; ++i) {
    uint32_t code = static_cast<uint32_t>(at[2 + i]);
    if (code >= 0xD800 && code < 0xDC00 && i + 1 < units) {
      const uint32_t low = static_cast<uint32_t>(at[2 + i + 1]);
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        ++i;
      }
    }
    append_utf8(text, code);
  }
  return text;
}

const std::string& Reader::interned(double id) const {
  if (!(id >= 0) || id >= double(strings->size())) fail(ErrorKind::kArguments, "unknown string");
  return (*strings)[static_cast<size_t>(id)];
}

}  // namespace voxtorch
