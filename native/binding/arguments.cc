#include "binding/arguments.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/Generator.h>

#include <cmath>
#include <cstring>

#include "core/runtime/names.h"
#include "core/runtime/streams.h"

namespace voxtorch {
namespace {

constexpr int64_t kLargestSize = int64_t(1) << 47;  // what an address can hold

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
namespace {

bool matches_one(Kind kind, const Reader& cell, const Slab& slab) {
  switch (kind) {
    case Kind::kTensor:
      return cell.tag() == Tag::kTensor;
    case Kind::kInt:
      return is_integral(cell);
    case Kind::kFloat:
      return is_number(cell);
    case Kind::kBool:
      return cell.tag() == Tag::kBool;
    case Kind::kScalar:
      return is_scalar(cell);
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
    case Kind::kGenerator:
      return is_generator(cell, slab);
    case Kind::kModule:
      return is_module(cell, slab);
    case Kind::kUnsupported:
      return false;
  }
  return false;
}

}  // namespace

bool matches(const ArgumentSpec& spec, const Reader& cell, const Slab& slab, bool relaxed) {
  const Tag tag = cell.tag();
  if (tag == Tag::kUndefined) return spec.has_default || spec.optional;
  if (tag == Tag::kNull) return spec.optional;
  const bool one = matches_one(spec.kind, cell, slab);
  if (!spec.list) return one || (relaxed && spec.kind == Kind::kTensor && is_scalar(cell));
  if (one && spec.list_size > 0 && (spec.kind == Kind::kInt || spec.kind == Kind::kFloat)) return true;
  return all_elements(cell, [&](const Reader& element) {
    return matches_one(spec.kind, element, slab) || (spec.optional_elements && element.tag() == Tag::kNull);
  });
}

c10::IValue read_module(const Reader& cell, const Slab& slab) {
  if (!is_module(cell, slab)) fail(ErrorKind::kArguments, "expected a native network");
  const c10::IValue* value = slab.find(cell.value());
  if (value == nullptr) fail(ErrorKind::kDisposed, "this network was disposed or belongs to another thread");
  return *value;
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
  if (!is_integral(cell)) fail(ErrorKind::kArguments, "expected an integer");
  return cell.tag() == Tag::kBigInt ? bigint_of(cell) : static_cast<int64_t>(cell.value());
}

std::vector<int64_t> read_ints(const Reader& cell) {
  if (cell.tag() != Tag::kList) fail(ErrorKind::kArguments, "expected a list of integers");
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

namespace {

template <typename Type, typename Read>
c10::List<Type> list_of(const Reader& cell, Read read) {
  c10::List<Type> list;
  each_element(cell, [&](const Reader& element) { list.push_back(read(element)); });
  return list;
}

std::vector<int64_t> sizes_of(const ArgumentSpec& spec, const Reader& cell) {
  auto values =
      cell.tag() == Tag::kList ? read_ints(cell) : std::vector<int64_t>(size_t(spec.list_size), read_int(cell));
  for (const int64_t value : values) {
    // Sizes, strides, paddings: libtorch adds and multiplies them without looking.
    if (value > kLargestSize || value < -kLargestSize) {
      fail(ErrorKind::kValue, "'" + spec.name + "' holds " + std::to_string(value) + ", a size that no tensor has");
    }
  }
  return values;
}

c10::IValue convert_list(const ArgumentSpec& spec, const Reader& cell, const Slab& slab) {
  switch (spec.kind) {
    case Kind::kTensor:
      if (!spec.optional_elements) return c10::IValue(read_tensors(cell, slab));
      return list_of<std::optional<at::Tensor>>(cell, [&](const Reader& element) {
        return element.tag() == Tag::kNull ? std::nullopt : std::optional<at::Tensor>(read_tensor(element, slab));
      });
    case Kind::kInt:
      return c10::IValue(sizes_of(spec, cell));
    case Kind::kFloat:
      if (cell.tag() != Tag::kList) return c10::IValue(std::vector<double>(size_t(spec.list_size), number_of(cell)));
      return list_of<double>(cell, number_of);
    case Kind::kBool:
      return list_of<bool>(cell, [](const Reader& element) { return element.value() != 0; });
    case Kind::kString:
      return list_of<std::string>(cell, [](const Reader& element) { return element.text(); });
    default: {
      c10::impl::GenericList list(c10::NumberType::get());
      each_element(cell, [&](const Reader& element) { list.push_back(c10::IValue(read_scalar(element))); });
      return list;
    }
  }
}

}  // namespace

c10::IValue convert(const ArgumentSpec& spec, const Reader& cell, const Slab& slab) {
  const Tag tag = cell.tag();
  if (tag == Tag::kUndefined) return spec.has_default ? spec.default_value : c10::IValue();
  if (tag == Tag::kNull) return c10::IValue();
  if (spec.list) return convert_list(spec, cell, slab);
  switch (spec.kind) {
    case Kind::kTensor: {
      if (tag == Tag::kTensor) return read_tensor(cell, slab);
      at::Tensor number = at::scalar_to_tensor(read_scalar(cell));
      number.unsafeGetTensorImpl()->set_wrapped_number(true);
      return number;
    }
    case Kind::kInt:
      return read_int(cell);
    case Kind::kFloat:
      return number_of(cell);
    case Kind::kBool:
      return cell.value() != 0;
    case Kind::kScalar:
      return c10::IValue(read_scalar(cell));
    case Kind::kScalarType:
      return c10::IValue(*scalar_type_of(cell.text()));
    case Kind::kLayout:
      return c10::IValue(*layout_of(cell.text()));
    case Kind::kMemoryFormat:
      return c10::IValue(*memory_format_of(cell.text()));
    case Kind::kDevice: {
      const c10::Device device = *device_of(cell.text());
      if (device.is_cuda()) expect_cuda(device);
      return c10::IValue(device);
    }
    case Kind::kString:
      return c10::IValue(cell.text());
    case Kind::kGenerator: {
      const c10::IValue* value = slab.find(cell.value());
      if (value == nullptr) fail(ErrorKind::kDisposed, "this generator was disposed or belongs to another thread");
      return *value;
    }
    case Kind::kModule:
      return read_module(cell, slab);
    case Kind::kUnsupported:
      break;
  }
  fail(ErrorKind::kArguments, "argument '" + spec.name + "' has a type that cannot be given from JavaScript");
}

std::string describe(const Reader& cell, const Slab& slab) {
  switch (cell.tag()) {
    case Tag::kNull:
      return "null";
    case Tag::kUndefined:
      return "undefined";
    case Tag::kNumber:
    case Tag::kDouble:
      return is_integral(cell) ? "integer" : "number";
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

}  // namespace voxtorch
