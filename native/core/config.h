// A network's configuration: the JSON object of a published config.json, read by key. A key with the wrong type of
// value, or a needed one that is missing, throws a sentence that names it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace voxtorch {

class Config {
 public:
  // Throws where the text is not one JSON object.
  static Config parse(const std::string& json);

  bool has(const std::string& key) const;  // and is not null
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t fallback) const;
  double number(const std::string& key, double fallback) const;
  double probability(const std::string& key, double fallback) const;  // throws where it is not from 0 to 1
  bool boolean(const std::string& key, bool fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  std::vector<int64_t> integers(const std::string& key, const std::vector<int64_t>& fallback) const;
  // An empty configuration when the key is missing.
  Config object(const std::string& key) const;

 private:
  friend class JsonReader;
  struct Value {
    enum class Type { kNull, kBoolean, kNumber, kText, kList, kObject } type = Type::kNull;
    double number = 0;  // also 0 or 1 of a boolean
    std::string text;
    std::vector<Value> list;
    std::map<std::string, Value> members;
  };
  const Value* find(const std::string& key, Value::Type type, const char* expected) const;
  Value root_;
};

}  // namespace voxtorch
