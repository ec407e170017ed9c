#include "binding/values.h"

#include <cmath>

namespace voxtorch {
namespace {

struct TypeName {
  c10::ScalarType type;
  const char* name;
};
constexpr TypeName kTypeNames[] = {
    {c10::kFloat, "float32"},
    {c10::kDouble, "float64"},
    {c10::kHalf, "float16"},
    {c10::kBFloat16, "bfloat16"},
    {c10::kLong, "int64"},
    {c10::kInt, "int32"},
    {c10::kShort, "int16"},
    {c10::kChar, "int8"},
    {c10::kByte, "uint8"},
    {c10::kBool, "bool"},
    {c10::kComplexFloat, "complex64"},
    {c10::kComplexDouble, "complex128"},
    {c10::kComplexHalf, "complex32"},
    {c10::kUInt16, "uint16"},
    {c10::kUInt32, "uint32"},
    {c10::kUInt64, "uint64"},
    {c10::kFloat8_e4m3fn, "float8_e4m3fn"},
    {c10::kFloat8_e5m2, "float8_e5m2"},
};

}  // namespace

void Reader::skip() {
  const auto advance = [&](double doubles) {
    if (!(doubles >= 2) || doubles > double(end - at)) fail(ErrorKind::kArguments, "an argument is cut off");
    at += static_cast<ptrdiff_t>(doubles);
  };
  switch (tag()) {
    case Tag::kList: {
      const double count = value();
      if (!(count >= 0)) fail(ErrorKind::kArguments, "a list has a negative length");
      advance(2);
      for (double i = 0; i < count; ++i) {
        if (done()) fail(ErrorKind::kArguments, "an argument list is cut off");
        skip();
      }
      return;
    }
    case Tag::kInline: {
      const double units = std::ceil(value() / 2) * 2;
      advance(2 + units);
      return;
    }
    case Tag::kComplex:
      advance(4);
      return;
    case Tag::kSlice:
      advance(2);
      for (int i = 0; i < 3; ++i) {
        if (done()) fail(ErrorKind::kArguments, "a slice is cut off");
        skip();
      }
      return;
    case Tag::kKeyword:
      advance(2);
      if (done()) fail(ErrorKind::kArguments, "a keyword has no value");
      skip();
      return;
    default:
      advance(2);
  }
}

std::string Reader::text() const {
  if (tag() == Tag::kString) {
    const double id = value();
    if (!(id >= 0) || id >= double(strings->size())) fail(ErrorKind::kArguments, "unknown string");
    return (*strings)[static_cast<size_t>(id)];
  }
  // UTF-16 to UTF-8.
  std::string text;
  const size_t units = static_cast<size_t>(value());
  if (double(units) > double(end - at) - 2) fail(ErrorKind::kArguments, "a string is cut off");
  for (size_t i = 0; i < units; ++i) {
    uint32_t code = static_cast<uint32_t>(at[2 + i]);
    if (code >= 0xD800 && code < 0xDC00 && i + 1 < units) {
      const uint32_t low = static_cast<uint32_t>(at[2 + i + 1]);
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        ++i;
      }
    }
    if (code < 0x80) {
      text += char(code);
    } else if (code < 0x800) {
      text += char(0xC0 | code >> 6);
      text += char(0x80 | (code & 63));
    } else if (code < 0x10000) {
      text += char(0xE0 | code >> 12);
      text += char(0x80 | (code >> 6 & 63));
      text += char(0x80 | (code & 63));
    } else {
      text += char(0xF0 | code >> 18);
      text += char(0x80 | (code >> 12 & 63));
      text += char(0x80 | (code >> 6 & 63));
      text += char(0x80 | (code & 63));
    }
  }
  return text;
}
std::optional<c10::ScalarType> scalar_type_of(const std::string& name) {
  for (const TypeName& entry : kTypeNames) {
    if (name == entry.name) return entry.type;
  }
  return std::nullopt;
}

const char* scalar_type_name(c10::ScalarType type) {
  for (const TypeName& entry : kTypeNames) {
    if (type == entry.type) return entry.name;
  }
  return c10::toString(type);
}

std::optional<c10::Device> device_of(const std::string& name) {
  std::string type = name;
  int index = -1;
  const size_t colon = name.find(':');
  if (colon != std::string::npos) {
    type = name.substr(0, colon);
    const std::string digits = name.substr(colon + 1);
    if (digits.empty() || digits.size() > 2 || digits.find_first_not_of("0123456789") != std::string::npos)
      return std::nullopt;
    index = std::stoi(digits);
  }
  if (type == "cpu") return c10::Device(c10::DeviceType::CPU, static_cast<c10::DeviceIndex>(index));
  if (type == "cuda") return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
  if (type == "meta") return c10::Device(c10::DeviceType::Meta, static_cast<c10::DeviceIndex>(index));
  return std::nullopt;
}

}  // namespace voxtorch
