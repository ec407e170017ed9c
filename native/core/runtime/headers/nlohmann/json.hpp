// libtorch's ATen/functorch/Interpreter.h includes nlohmann's JSON, which its wheel lacks, for writing the levels of
// transforms as text. These declarations are what that header names; nothing here is ever called.
#pragma once

#include <string>

namespace nlohmann {

class json {
 public:
  json() = default;
  template <typename T>
  explicit json(const T& value);
  static json parse(const std::string& text);
  std::string dump() const;
  template <typename T>
  T get() const;
};

}  // namespace nlohmann
