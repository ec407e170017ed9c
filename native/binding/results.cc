#include "binding/results.h"

#include <ATen/core/Generator.h>

#include <cmath>
#include <cstring>

namespace voxtorch {

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

}  // namespace voxtorch
