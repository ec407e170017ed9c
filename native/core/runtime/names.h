// The names that users give dtypes, devices, layouts and memory formats.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

namespace voxtorch {

std::optional<c10::ScalarType> scalar_type_of(const std::string& name);
const char* scalar_type_name(c10::ScalarType type);
std::optional<c10::Device> device_of(const std::string& name);
std::optional<c10::Layout> layout_of(const std::string& name);
std::optional<c10::MemoryFormat> memory_format_of(const std::string& name);

}  // namespace voxtorch
