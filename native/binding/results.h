// From libtorch to JavaScript: the cells that a result becomes.
#pragma once

#include <ATen/core/ivalue.h>

#include "binding/handles.h"
#include "binding/values.h"

namespace voxtorch {

// Writes cells; throws where the buffer ends.
class Writer {
 public:
  Writer(double* buffer, size_t begin, size_t capacity) : buffer_(buffer), at_(begin), capacity_(capacity) {}
  void cell(Tag tag, double value);
  void int64(int64_t value);

 private:
  double* buffer_;
  size_t at_;
  size_t capacity_;
};

// Writes a result; tensors get handles in `scope`. Taken by value, because only a tensor without other owners counts as
// new memory.
void write_value(Writer& writer, c10::IValue value, Slab& slab, uint32_t scope);
// How many cells it takes.
size_t cells_needed(const c10::IValue& value);

}  // namespace voxtorch
