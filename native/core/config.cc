#include "core/config.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <cstdlib>

namespace voxtorch {

// RFC 8259, for texts that JSON.stringify wrote.
class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Config::Value document() {
    Config::Value value = read(0);
    skip_space();
    if (at_ != text_.size()) fail("more text after the value");
    return value;
  }

 private:
  using Value = Config::Value;
  static constexpr int kDeepest = 64;

  [[noreturn]] void fail(const char* problem) const {
    TORCH_CHECK(false, "the configuration is not valid JSON: ", problem, " at character ", at_);
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  char peek() {
    skip_space();
    if (at_ >= text_.size()) fail("it ends early");
    return text_[at_];
  }

  bool take(char expected) {
    if (peek() != expected) return false;
    ++at_;
    return true;
  }

  bool take_word(const char* word) {
    const size_t length = std::string_view(word).size();
    if (text_.compare(at_, length, word) != 0) return false;
    at_ += length;
    return true;
  }

  Value read(int depth) {
    if (depth > kDeepest) fail("it is nested too deeply");
    Value value;
    const char first = peek();
    if (first == '{') {
      ++at_;
      value.type = Value::Type::kObject;
      if (take('}')) return value;
      do {
        if (peek() != '"') fail("a key must be a string");
        std::string key = read_text();
        if (!take(':')) fail("a ':' is missing");
        value.members[std::move(key)] = read(depth + 1);
      } while (take(','));
      if (!take('}')) fail("a '}' is missing");
    } else if (first == '[') {
      ++at_;
      value.type = Value::Type::kList;
      if (take(']')) return value;
      do {
        value.list.push_back(read(depth + 1));
      } while (take(','));
      if (!take(']')) fail("a ']' is missing");
    } else if (first == '"') {
      value.type = Value::Type::kText;
      value.text = read_text();
    } else if (take_word("true")) {
      value.type = Value::Type::kBoolean;
      value.number = 1;
    } else if (take_word("false")) {
      value.type = Value::Type::kBoolean;
    } else if (!take_word("null")) {
      char* end = nullptr;
      value.type = Value::Type::kNumber;
      value.number = std::strtod(text_.c_str() + at_, &end);
      if (end == text_.c_str() + at_) fail("expected a value");
      at_ = end - text_.c_str();
    }
    return value;
  }

  std::string read_text() {
    std::string result;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] != '\\') {
        result += text_[at_];
        continue;
      }
      if (++at_ >= text_.size()) break;
      switch (text_[at_]) {
        case 'n':
          result += '\n';
          break;
        case 't':
          result += '\t';
          break;
        case 'r':
          result += '\r';
          break;
        case 'b':
          result += '\b';
          break;
        case 'f':
          result += '\f';
          break;
        case 'u':
          // Only control characters come escaped from JSON.stringify, and no key or word of a configuration has one.
          if (at_ + 4 >= text_.size()) fail("it ends early");
          result += static_cast<char>(std::strtol(text_.substr(at_ + 1, 4).c_str(), nullptr, 16));
          at_ += 4;
          break;
        default:
          result += text_[at_];
      }
    }
    if (at_ >= text_.size()) fail("a string does not end");
    ++at_;
    return result;
  }

  const std::string& text_;
  size_t at_ = 0;
};

Config Config::parse(const std::string& json) {
  Config config;
  config.root_ = JsonReader(json).document();
  TORCH_CHECK(config.root_.type == Value::Type::kObject, "a configuration must be a JSON object");
  return config;
}

const Config::Value* Config::find(const std::string& key, Value::Type type, const char* expected) const {
  const auto found = root_.members.find(key);
  if (found == root_.members.end() || found->second.type == Value::Type::kNull) return nullptr;
  TORCH_CHECK(found->second.type == type, "'", key, "' of the configuration must be ", expected);
  return &found->second;
}

bool Config::has(const std::string& key) const {
  const auto found = root_.members.find(key);
  return found != root_.members.end() && found->second.type != Value::Type::kNull;
}

int64_t Config::integer(const std::string& key) const {
  TORCH_CHECK(has(key), "the configuration needs '", key, "'");
  return integer(key, 0);
}

namespace {
int64_t whole(const std::string& key, double number) {
  TORCH_CHECK(std::trunc(number) == number && std::abs(number) < 9007199254740992.0, "'", key,
              "' of the configuration must be an integer, got ", number);
  return static_cast<int64_t>(number);
}

bool ends_in(const std::string& key, std::string_view end) {
  return key.size() >= end.size() && key.compare(key.size() - end.size(), end.size(), end) == 0;
}

// Files are untrusted. Memory is requested before a network is built, which bounds sizes; these values would cost time
// without memory.
int64_t most_of(const std::string& key) {
  if (ends_in(key, "layers")) return 10000;
  if (key == "num_conv_pos_embeddings" || key == "conv_pos") return 65536;
  return INT64_MAX;
}

constexpr size_t kMostConvolutions = 1000;
}  // namespace

int64_t Config::integer(const std::string& key, int64_t fallback) const {
  const Value* value = find(key, Value::Type::kNumber, "a number");
  const int64_t number = value == nullptr ? fallback : whole(key, value->number);
  TORCH_CHECK(number <= most_of(key), "'", key, "' of the configuration must be at most ", most_of(key), ", got ",
              number);
  return number;
}

double Config::number(const std::string& key, double fallback) const {
  const Value* value = find(key, Value::Type::kNumber, "a number");
  return value == nullptr ? fallback : value->number;
}

double Config::probability(const std::string& key, double fallback) const {
  const double value = number(key, fallback);
  TORCH_CHECK(value >= 0 && value <= 1, key, " must be a probability from 0 to 1, got ", value);
  return value;
}

bool Config::boolean(const std::string& key, bool fallback) const {
  const Value* value = find(key, Value::Type::kBoolean, "true or false");
  return value == nullptr ? fallback : value->number != 0;
}

std::string Config::text(const std::string& key, const std::string& fallback) const {
  const Value* value = find(key, Value::Type::kText, "a string");
  return value == nullptr ? fallback : value->text;
}

std::vector<int64_t> Config::integers(const std::string& key, const std::vector<int64_t>& fallback) const {
  const Value* value = find(key, Value::Type::kList, "a list of integers");
  if (value == nullptr) return fallback;
  TORCH_CHECK(key.rfind("conv_", 0) != 0 || value->list.size() <= kMostConvolutions, "'", key,
              "' of the configuration must list at most ", kMostConvolutions, " sizes, got ", value->list.size());
  std::vector<int64_t> result;
  for (const Value& item : value->list) {
    TORCH_CHECK(item.type == Value::Type::kNumber, "'", key, "' of the configuration must be a list of integers");
    result.push_back(whole(key, item.number));
  }
  return result;
}

Config Config::object(const std::string& key) const {
  Config config;
  config.root_.type = Value::Type::kObject;
  if (const Value* value = find(key, Value::Type::kObject, "an object")) config.root_ = *value;
  return config;
}

}  // namespace voxtorch
