#include "core/runtime/names.h"

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

std::optional<c10::Layout> layout_of(const std::string& name) {
  if (name == "strided") return c10::kStrided;
  if (name == "sparse_coo") return c10::kSparse;
  return std::nullopt;
}

std::optional<c10::MemoryFormat> memory_format_of(const std::string& name) {
  if (name == "contiguous") return c10::MemoryFormat::Contiguous;
  if (name == "preserve") return c10::MemoryFormat::Preserve;
  if (name == "channels_last") return c10::MemoryFormat::ChannelsLast;
  if (name == "channels_last_3d") return c10::MemoryFormat::ChannelsLast3d;
  return std::nullopt;
}

}  // namespace voxtorch
