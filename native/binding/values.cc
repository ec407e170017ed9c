#include "binding/values.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/Generator.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>

#include <cmath>
#include <cstring>

#include "binding/errors.h"
#include "core/streams.h"

namespace voxtorch {
namespace {

constexpr double kMaxSafe = 9007199254740991.0;
constexpr int64_t kLargestSize = int64_t(1) << 47;  // what an address can hold

[[noreturn]] void fail(ErrorKind kind, const std::string& message) { throw BindingError(kind, message); }

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

bool is_number(const Reader& cell) {
  return cell.tag() == Tag::kNumber || cell.tag() == Tag::kBigInt || cell.tag() == Tag::kDouble;
}
bool is_scalar(const Reader& cell) {
  return is_number(cell) || cell.tag() == Tag::kBool || cell.tag() == Tag::kComplex;
}
bool is_text(const Reader& cell) { return cell.tag() == Tag::kString || cell.tag() == Tag::kInline; }

int64_t bigint_of(const Reader& cell) {
  int64_t value;
  std::memcpy(&value, cell.at + 1, sizeof value);
  return value;
}

double number_of(const Reader& cell) {
  return cell.tag() == Tag::kBigInt ? static_cast<double>(bigint_of(cell)) : cell.value();
}

// Whether every element of a list cell passes `test`.
template <typename Test>
bool all_elements(const Reader& cell, Test test) {
  if (cell.tag() != Tag::kList) return false;
  const double count = cell.value();
  if (!(count >= 0) || count > double(cell.end - cell.at)) return false;
  Reader element = cell.inside();
  for (double i = 0; i < count; ++i) {
    if (element.done() || !test(element)) return false;
    element.skip();
  }
  return true;
}

template <typename Visit>
void each_element(const Reader& cell, Visit visit) {
  const double count = cell.value();
  Reader element = cell.inside();
  for (double i = 0; i < count; ++i) {
    if (element.done()) fail(ErrorKind::kArguments, "an argument list is cut off");
    visit(element);
    element.skip();
  }
}

constexpr const char* kModuleType = "__torch__.torch.classes.voxtorch.Module";

bool is_module(const Reader& cell, const Slab& slab) {
  if (cell.tag() != Tag::kObject) return false;
  const c10::IValue* value = slab.find(cell.value());
  return value == nullptr || (value->isObject() && value->type()->str() == kModuleType);
}

bool is_generator(const Reader& cell, const Slab& slab) {
  if (cell.tag() != Tag::kObject) return false;
  const c10::IValue* value = slab.find(cell.value());
  return value == nullptr || value->isGenerator();
}

}  // namespace

bool is_integral(const Reader& cell) {
  if (cell.tag() == Tag::kBigInt) return true;
  const double value = cell.value();
  return cell.tag() == Tag::kNumber && std::abs(value) <= kMaxSafe && value == std::trunc(value);
}

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

void Writer::cell(Tag tag, double value) {
  if (at_ + 2 > capacity_) fail(ErrorKind::kArguments, "the result has more values than the call buffer holds");
  buffer_[at_] = static_cast<double>(static_cast<int>(tag));
  buffer_[at_ + 1] = value;
  at_ += 2;
}

void Writer::int64(int64_t value) {
  if (std::abs(static_cast<double>(value)) <= kMaxSafe) {
    cell(Tag::kNumber, static_cast<double>(value));
  } else {
    double bits;
    std::memcpy(&bits, &value, sizeof bits);
    cell(Tag::kBigInt, bits);
  }
}

ArgumentSpec make_argument_spec(const c10::Argument& argument) {
  using c10::TypeKind;
  ArgumentSpec spec;
  spec.name = argument.name();
  spec.keyword_only = argument.kwarg_only();
  spec.writes = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
  if (argument.N()) spec.list_size = *argument.N();
  if (argument.default_value()) {
    spec.has_default = true;
    spec.default_value = *argument.default_value();
  }
  // real_type tells ScalarType, Layout and SymInt from the int that they are stored as.
  c10::TypePtr type = argument.real_type();
  if (auto optional = type->cast<c10::OptionalType>()) {
    spec.optional = true;
    type = optional->getElementType();
  }
  const auto of = [](const c10::TypePtr& t) {
    switch (t->kind()) {
      case TypeKind::TensorType:
        return Kind::kTensor;
      case TypeKind::IntType:
      case TypeKind::SymIntType:
        return Kind::kInt;
      case TypeKind::FloatType:
      case TypeKind::SymFloatType:
        return Kind::kFloat;
      case TypeKind::BoolType:
      case TypeKind::SymBoolType:
        return Kind::kBool;
      case TypeKind::NumberType:
        return Kind::kScalar;
      case TypeKind::ScalarTypeType:
        return Kind::kScalarType;
      case TypeKind::LayoutType:
        return Kind::kLayout;
      case TypeKind::MemoryFormatType:
        return Kind::kMemoryFormat;
      case TypeKind::DeviceObjType:
        return Kind::kDevice;
      case TypeKind::StringType:
        return Kind::kString;
      case TypeKind::GeneratorType:
        return Kind::kGenerator;
      case TypeKind::ClassType:
        return t->str() == kModuleType ? Kind::kModule : Kind::kUnsupported;
      default:
        return Kind::kUnsupported;
    }
  };
  if (auto list = type->cast<c10::ListType>()) {
    c10::TypePtr element = list->getElementType();
    if (auto optional = element->cast<c10::OptionalType>()) {
      spec.kind = of(optional->getElementType()) == Kind::kTensor ? Kind::kOptionalTensorList : Kind::kUnsupported;
      return spec;
    }
    switch (of(element)) {
      case Kind::kTensor:
        spec.kind = Kind::kTensorList;
        break;
      case Kind::kInt:
        spec.kind = Kind::kIntList;
        break;
      case Kind::kFloat:
        spec.kind = Kind::kFloatList;
        break;
      case Kind::kBool:
        spec.kind = Kind::kBoolList;
        break;
      case Kind::kScalar:
        spec.kind = Kind::kScalarList;
        break;
      case Kind::kString:
        spec.kind = Kind::kStringList;
        break;
      default:
        spec.kind = Kind::kUnsupported;
    }
    return spec;
  }
  spec.kind = of(type);
  return spec;
}

bool matches(const ArgumentSpec& spec, const Reader& cell, const Slab& slab, bool relaxed) {
  const Tag tag = cell.tag();
  if (tag == Tag::kUndefined) return spec.has_default || spec.optional;
  if (tag == Tag::kNull) return spec.optional;
  switch (spec.kind) {
    case Kind::kTensor:
      return tag == Tag::kTensor || (relaxed && is_scalar(cell));
    case Kind::kTensorList:
      return all_elements(cell, [](const Reader& e) { return e.tag() == Tag::kTensor; });
    case Kind::kOptionalTensorList:
      return all_elements(cell, [](const Reader& e) { return e.tag() == Tag::kTensor || e.tag() == Tag::kNull; });
    case Kind::kInt:
      return is_integral(cell);
    case Kind::kIntList:
      return (spec.list_size > 0 && is_integral(cell)) || all_elements(cell, is_integral);
    case Kind::kFloat:
      return is_number(cell);
    case Kind::kFloatList:
      return (spec.list_size > 0 && is_number(cell)) || all_elements(cell, is_number);
    case Kind::kBool:
      return tag == Tag::kBool;
    case Kind::kBoolList:
      return all_elements(cell, [](const Reader& e) { return e.tag() == Tag::kBool; });
    case Kind::kScalar:
      return is_scalar(cell);
    case Kind::kScalarList:
      return all_elements(cell, is_scalar);
    case Kind::kScalarType:
      return is_text(cell) && scalar_type_of(cell.text()).has_value();
    case Kind::kLayout:
      return is_text(cell) && layout_of(cell.text()).has_value();
    case Kind::kMemoryFormat:
      return is_text(cell) && memory_format_of(cell.text()).has_value();
    case Kind::kDevice:
      return is_text(cell) && device_of(cell.text()).has_value();
    case Kind::kString:
      return is_text(cell);
    case Kind::kStringList:
      return all_elements(cell, is_text);
    case Kind::kGenerator:
      return is_generator(cell, slab);
    case Kind::kModule:
      return is_module(cell, slab);
    case Kind::kUnsupported:
      return false;
  }
  return false;
}

at::Tensor read_tensor(const Reader& cell, const Slab& slab) {
  if (cell.tag() != Tag::kTensor) fail(ErrorKind::kArguments, "expected a Tensor");
  const c10::IValue* value = slab.find(cell.value());
  if (value == nullptr || !value->isTensor()) {
    fail(ErrorKind::kDisposed,
         "this tensor was disposed (by dispose(), by the end of its scope, or it belongs to another thread)");
  }
  return value->toTensor();
}

std::vector<at::Tensor> read_tensors(const Reader& cell, const Slab& slab) {
  std::vector<at::Tensor> tensors;
  if (cell.tag() == Tag::kNull || cell.tag() == Tag::kUndefined) return tensors;
  if (cell.tag() != Tag::kList) fail(ErrorKind::kArguments, "expected a list of tensors");
  each_element(cell, [&](const Reader& element) {
    tensors.push_back(element.tag() == Tag::kNull ? at::Tensor() : read_tensor(element, slab));
  });
  return tensors;
}

int64_t read_int(const Reader& cell) {
  if (!is_integral(cell)) fail(ErrorKind::kArguments, "expected a whole number");
  return cell.tag() == Tag::kBigInt ? bigint_of(cell) : static_cast<int64_t>(cell.value());
}

std::vector<int64_t> read_ints(const Reader& cell) {
  if (cell.tag() != Tag::kList) fail(ErrorKind::kArguments, "expected a list of whole numbers");
  std::vector<int64_t> values;
  each_element(cell, [&](const Reader& element) { values.push_back(read_int(element)); });
  return values;
}

c10::Scalar read_scalar(const Reader& cell) {
  switch (cell.tag()) {
    case Tag::kBool:
      return c10::Scalar(cell.value() != 0);
    case Tag::kBigInt:
      return c10::Scalar(bigint_of(cell));
    case Tag::kDouble:
      return c10::Scalar(cell.value());
    case Tag::kComplex:
      if (cell.end - cell.at < 4) fail(ErrorKind::kArguments, "a complex number is cut off");
      return c10::Scalar(c10::complex<double>(cell.value(), cell.at[3]));
    case Tag::kNumber:
      return is_integral(cell) ? c10::Scalar(static_cast<int64_t>(cell.value())) : c10::Scalar(cell.value());
    default:
      fail(ErrorKind::kArguments, "expected a number");
  }
}

c10::IValue convert(const ArgumentSpec& spec, const Reader& cell, const Slab& slab) {
  const Tag tag = cell.tag();
  if (tag == Tag::kUndefined) return spec.has_default ? spec.default_value : c10::IValue();
  if (tag == Tag::kNull) return c10::IValue();
  switch (spec.kind) {
    case Kind::kTensor: {
      if (tag == Tag::kTensor) return read_tensor(cell, slab);
      at::Tensor number = at::scalar_to_tensor(read_scalar(cell));
      number.unsafeGetTensorImpl()->set_wrapped_number(true);
      return number;
    }
    case Kind::kTensorList:
      return c10::IValue(read_tensors(cell, slab));
    case Kind::kOptionalTensorList: {
      c10::List<std::optional<at::Tensor>> list;
      each_element(cell, [&](const Reader& element) {
        if (element.tag() == Tag::kNull)
          list.push_back(std::nullopt);
        else
          list.push_back(read_tensor(element, slab));
      });
      return list;
    }
    case Kind::kInt:
      return read_int(cell);
    case Kind::kIntList: {
      auto values = tag == Tag::kList ? read_ints(cell) : std::vector<int64_t>(spec.list_size, read_int(cell));
      for (const int64_t value : values) {
        // Sizes, strides, paddings: libtorch adds and multiplies them without looking.
        if (value > kLargestSize || value < -kLargestSize) {
          fail(ErrorKind::kValue, "'" + spec.name + "' holds " + std::to_string(value) + ", a size that no tensor has");
        }
      }
      return c10::IValue(std::move(values));
    }
    case Kind::kFloat:
      return number_of(cell);
    case Kind::kFloatList: {
      std::vector<double> values;
      if (tag != Tag::kList)
        values.assign(spec.list_size, number_of(cell));
      else
        each_element(cell, [&](const Reader& element) { values.push_back(number_of(element)); });
      return c10::IValue(values);
    }
    case Kind::kBool:
      return cell.value() != 0;
    case Kind::kBoolList: {
      c10::List<bool> list;
      each_element(cell, [&](const Reader& element) { list.push_back(element.value() != 0); });
      return list;
    }
    case Kind::kScalar:
      return c10::IValue(read_scalar(cell));
    case Kind::kScalarList: {
      c10::impl::GenericList list(c10::NumberType::get());
      each_element(cell, [&](const Reader& element) { list.push_back(c10::IValue(read_scalar(element))); });
      return list;
    }
    case Kind::kScalarType:
      return c10::IValue(*scalar_type_of(cell.text()));
    case Kind::kLayout:
      return c10::IValue(*layout_of(cell.text()));
    case Kind::kMemoryFormat:
      return c10::IValue(*memory_format_of(cell.text()));
    case Kind::kDevice: {
      const c10::Device device = *device_of(cell.text());
      if (device.is_cuda()) expect_cuda();
      return c10::IValue(device);
    }
    case Kind::kString:
      return c10::IValue(cell.text());
    case Kind::kStringList: {
      c10::List<std::string> list;
      each_element(cell, [&](const Reader& element) { list.push_back(element.text()); });
      return list;
    }
    case Kind::kGenerator: {
      const c10::IValue* value = slab.find(cell.value());
      if (value == nullptr) fail(ErrorKind::kDisposed, "this generator was disposed or belongs to another thread");
      return *value;
    }
    case Kind::kModule: {
      const c10::IValue* value = slab.find(cell.value());
      if (value == nullptr) fail(ErrorKind::kDisposed, "this network was disposed or belongs to another thread");
      return *value;
    }
    case Kind::kUnsupported:
      break;
  }
  fail(ErrorKind::kArguments, "argument '" + spec.name + "' has a type that cannot be given from JavaScript");
}

size_t cells_needed(const c10::IValue& value) {
  if (value.isString()) return 1 + (value.toStringRef().size() + 1) / 2;
  if (value.isComplexDouble()) return 2;
  if (!value.isList() && !value.isTuple()) return 1;
  size_t count = 1;
  for (const c10::IValue& element : value.isTuple() ? value.toTupleRef().elements().asArrayRef() : value.toListRef()) {
    count += cells_needed(element);
  }
  return count;
}

void write_value(Writer& writer, c10::IValue value, Slab& slab, uint32_t scope) {
  if (value.isTensor()) {
    if (!value.toTensor().defined()) return writer.cell(Tag::kNull, 0);
    return writer.cell(Tag::kTensor, slab.add(std::move(value), scope));
  }
  if (value.isNone()) return writer.cell(Tag::kNull, 0);
  if (value.isBool()) return writer.cell(Tag::kBool, value.toBool() ? 1 : 0);
  if (value.isInt()) return writer.int64(value.toInt());
  if (value.isDouble()) return writer.cell(Tag::kDouble, value.toDouble());
  if (value.isComplexDouble()) {
    const auto number = value.toComplexDouble();
    writer.cell(Tag::kComplex, number.real());
    return writer.cell(Tag::kNumber, number.imag());
  }
  if (value.isString()) {
    const std::string& text = value.toStringRef();
    writer.cell(Tag::kInline, double(text.size()));
    // Two units to a cell; results are ASCII (error texts and names).
    for (size_t i = 0; i < text.size(); i += 2) {
      writer.cell(static_cast<Tag>(static_cast<unsigned char>(text[i])),
                  i + 1 < text.size() ? double(static_cast<unsigned char>(text[i + 1])) : 0);
    }
    return;
  }
  if (value.isObject()) return writer.cell(Tag::kModule, slab.add(std::move(value), 0));
  if (value.isGenerator()) return writer.cell(Tag::kObject, slab.add(std::move(value), 0));
  if (value.isDevice()) return write_value(writer, c10::IValue(value.toDevice().str()), slab, scope);
  if (value.isList() || value.isTuple()) {
    const auto held = value.isTuple() ? value.toTupleRef().elements().asArrayRef() : value.toListRef();
    std::vector<c10::IValue> elements(held.begin(), held.end());
    value = c10::IValue();
    writer.cell(Tag::kList, double(elements.size()));
    for (c10::IValue& element : elements) write_value(writer, std::move(element), slab, scope);
    return;
  }
  fail(ErrorKind::kOther, "the operator returned a value of a kind that JavaScript cannot hold: " + value.tagKind());
}

std::string describe(const Reader& cell, const Slab& slab) {
  switch (cell.tag()) {
    case Tag::kNull:
      return "null";
    case Tag::kUndefined:
      return "undefined";
    case Tag::kNumber:
    case Tag::kDouble:
      return is_integral(cell) ? "whole number" : "number";
    case Tag::kBool:
      return "boolean";
    case Tag::kBigInt:
      return "bigint";
    case Tag::kTensor: {
      const c10::IValue* value = slab.find(cell.value());
      return value == nullptr ? "disposed Tensor" : "Tensor";
    }
    case Tag::kList:
      return "list of " + std::to_string(static_cast<int64_t>(cell.value()));
    case Tag::kString:
    case Tag::kInline:
      return "'" + cell.text() + "'";
    case Tag::kComplex:
      return "complex number";
    case Tag::kObject:
      return is_module(cell, slab) ? "native network" : "Generator";
    default:
      return "value";
  }
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
