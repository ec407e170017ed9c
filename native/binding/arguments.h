// From JavaScript to libtorch: what an operator's schema asks of an argument, and the cell that is to become it.
#pragma once

#include <ATen/core/ivalue.h>

#include "binding/handles.h"
#include "binding/values.h"

namespace voxtorch {

enum class Kind : uint8_t {
  kTensor,
  kInt,
  kFloat,
  kBool,
  kScalar,
  kScalarType,
  kLayout,
  kMemoryFormat,
  kDevice,
  kString,
  kGenerator,
  kModule,
  kUnsupported,
};

struct ArgumentSpec {
  std::string name;
  Kind kind = Kind::kUnsupported;  // of the elements, where it is a list
  bool list = false;
  bool optional_elements = false;  // Tensor?[]
  bool optional = false;
  bool keyword_only = false;
  bool has_default = false;
  bool writes = false;
  int list_size = 0;  // int[N]: one number stands for all N
  c10::IValue default_value;

  bool is(Kind one) const { return kind == one && !list; }
  bool is_list_of(Kind one) const { return kind == one && list; }
};

// The type of a network in a schema.
constexpr const char* kModuleType = "__torch__.torch.classes.voxtorch.Module";

// Whether a cell can become this argument. `relaxed` lets a number stand for a tensor.
bool matches(const ArgumentSpec& spec, const Reader& cell, const Slab& slab, bool relaxed);
// The argument's value; throws (kDisposed, kArguments) where `matches` could not tell.
c10::IValue convert(const ArgumentSpec& spec, const Reader& cell, const Slab& slab);

at::Tensor read_tensor(const Reader& cell, const Slab& slab);
std::vector<at::Tensor> read_tensors(const Reader& cell, const Slab& slab);
c10::IValue read_module(const Reader& cell, const Slab& slab);
// Whether a cell is an integer that a double holds exactly, or a bigint.
bool is_integral(const Reader& cell);
int64_t read_int(const Reader& cell);
std::vector<int64_t> read_ints(const Reader& cell);
c10::Scalar read_scalar(const Reader& cell);
// What a cell holds, in words, for error messages: 'Tensor', 'number', 'list of 3'.
std::string describe(const Reader& cell, const Slab& slab);

}  // namespace voxtorch
