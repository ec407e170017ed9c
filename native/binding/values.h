// The argument buffer: how values cross between JavaScript and native code.
//
// JavaScript writes tagged cells (two doubles: tag, value) into a Float64Array that both sides see, so that calling an
// operator costs one N-API call without arguments. Native code trusts nothing in it: every cell is checked against the
// schema. lib/native/call.ts is the other half.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

#include "binding/handles.h"

namespace voxtorch {

// Numbers shared with lib/native/call.ts.
enum class Tag : int {
  kNull = 0,
  kNumber = 1,
  kBool = 2,
  kBigInt = 3,  // the value's 64 bits are an int64
  kTensor = 4,
  kList = 5,     // value: length; that many values follow
  kString = 6,   // value: id of an interned string
  kInline = 7,   // value: length; that many UTF-16 units follow, one per double, padded to a whole cell
  kComplex = 8,  // value: real part; the next cell's value: imaginary part
  kObject = 9,   // a generator; as an argument also a module
  kUndefined = 10,
  kKeyword = 11,  // value: id of the interned name; the value follows
  kSame = 12,     // result: the handle of an argument, returned unchanged
  kSlice = 13,    // three values follow
  kEllipsis = 14,
  kDouble = 15,  // a number that must stay a float
  kModule = 16,  // result: a module
};

constexpr int kHeaderDoubles = 16;

// Reads cells. Never runs past `end`.
struct Reader {
  const double* at;
  const double* end;
  const std::vector<std::string>* strings;

  bool done() const { return at >= end; }
  Tag tag() const { return static_cast<Tag>(static_cast<int>(at[0])); }
  double value() const { return at[1]; }
  // Moves over one whole value; throws when it is cut off.
  void skip();
  std::string text() const;
  Reader inside() const { return Reader{at + 2, end, strings}; }
};

// Writes cells; asks for room through `reserve`.
class Writer {
 public:
  Writer(double* buffer, size_t begin, size_t capacity) : buffer_(buffer), at_(begin), capacity_(capacity) {}
  void cell(Tag tag, double value);
  void int64(int64_t value);
  size_t position() const { return at_; }

 private:
  double* buffer_;
  size_t at_;
  size_t capacity_;
};

enum class Kind : uint8_t {
  kTensor,
  kTensorList,
  kOptionalTensorList,
  kInt,
  kIntList,
  kFloat,
  kFloatList,
  kBool,
  kBoolList,
  kScalar,
  kScalarList,
  kScalarType,
  kLayout,
  kMemoryFormat,
  kDevice,
  kString,
  kStringList,
  kGenerator,
  kModule,
  kUnsupported,
};

struct ArgumentSpec {
  std::string name;
  Kind kind = Kind::kUnsupported;
  bool optional = false;
  bool keyword_only = false;
  bool has_default = false;
  bool writes = false;
  int list_size = 0;  // int[N]: one number stands for all N
  c10::IValue default_value;
};

ArgumentSpec make_argument_spec(const c10::Argument& argument);

// Whether a cell can become this argument. `relaxed` lets a number stand for a tensor.
bool matches(const ArgumentSpec& spec, const Reader& cell, const Slab& slab, bool relaxed);
// The argument's value; throws BindingError (kDisposed, kArguments) where `matches` could not tell.
c10::IValue convert(const ArgumentSpec& spec, const Reader& cell, const Slab& slab);
// Writes a result; tensors get handles in `scope`. Taken by value, because only a tensor that nobody else holds counts
// as new memory.
void write_value(Writer& writer, c10::IValue value, Slab& slab, uint32_t scope);
// How many cells it takes.
size_t cells_needed(const c10::IValue& value);

at::Tensor read_tensor(const Reader& cell, const Slab& slab);
std::vector<at::Tensor> read_tensors(const Reader& cell, const Slab& slab);
// Whether a cell is a whole number that a double holds exactly, or a bigint.
bool is_integral(const Reader& cell);
int64_t read_int(const Reader& cell);
std::vector<int64_t> read_ints(const Reader& cell);
c10::Scalar read_scalar(const Reader& cell);
// What a cell holds, in words, for error messages: 'Tensor', 'number', 'list of 3'.
std::string describe(const Reader& cell, const Slab& slab);

std::optional<c10::ScalarType> scalar_type_of(const std::string& name);
const char* scalar_type_name(c10::ScalarType type);
std::optional<c10::Device> device_of(const std::string& name);

}  // namespace voxtorch
