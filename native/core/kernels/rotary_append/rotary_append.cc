#include "core/kernels/rotary_append/rotary_append.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include <utility>

#include "core/kernels/arguments.h"

namespace voxtorch::kernels {

using at::Tensor;

void check_rotary_append(const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Tensor& keys,
                         const Tensor& values, const Tensor& position, int64_t heads) {
  const char* op = "rotary_append_";
  const at::ScalarType type = qkv.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, op,
              ": qkv must be float32, float64, bfloat16 or float16, got ", dtype_name(qkv));
  TORCH_CHECK(keys.dim() == 4 && keys.sizes() == values.sizes(), op,
              ": keys and values must have one shape [rows, kv_heads, capacity, head_dim], got ", keys.sizes(), " and ",
              values.sizes());
  const int64_t rows = keys.size(0), kv_heads = keys.size(1), dim = keys.size(3);
  TORCH_CHECK(kv_heads > 0 && keys.size(2) > 0 && dim > 0 && dim % 2 == 0, op,
              ": the cache must have heads, places and an even head_dim, got ", keys.sizes());
  TORCH_CHECK(heads > 0 && heads % kv_heads == 0, op, ": heads must be a multiple of the ", kv_heads,
              " heads of the cache, got ", heads);
  TORCH_CHECK(
      qkv.dim() == 2 && qkv.size(0) == rows && qkv.size(1) % dim == 0 && qkv.size(1) / dim - 2 * kv_heads == heads, op,
      ": qkv must have shape [", rows, ", (", heads, " + 2 * ", kv_heads, ") * ", dim, "], got ", qkv.sizes());
  for (const auto& [name, tensor] : {std::pair("cos", &cos), std::pair("sin", &sin)}) {
    const int64_t half = tensor->dim() > 0 ? tensor->size(-1) : 0, count = tensor->numel();
    TORCH_CHECK(half > 0 && half <= dim / 2 &&
                    (tensor->dim() == 1 ? rows == 1 || count == half
                                        : tensor->size(0) * half == count && (count == half || count == rows * half)),
                op, ": ", name, " must have shape [", rows, " or 1, 1, 1, ", dim / 2,
                "], or less than that in the last dimension, got ", tensor->sizes());
  }
  TORCH_CHECK(cos.sizes() == sin.sizes(), op, ": cos and sin must have one shape, got ", cos.sizes(), " and ",
              sin.sizes());
  TORCH_CHECK(position.scalar_type() == at::kLong && position.numel() == 1, op,
              ": position must be one int64 number, got ", dtype_name(position), " ", position.sizes());
  for (const auto& [name, tensor] : {std::pair("cos", &cos), std::pair("sin", &sin), std::pair("keys", &keys),
                                     std::pair("values", &values), std::pair("position", &position)}) {
    TORCH_CHECK(tensor->device() == qkv.device(), op, ": qkv is on ", qkv.device(), " and ", name, " on ",
                tensor->device(), "; both must be on the same device");
    TORCH_CHECK(tensor == &position || tensor->scalar_type() == type, op, ": qkv is ", dtype_name(qkv), " and ", name,
                " ", dtype_name(*tensor), "; they must have the same dtype");
  }
}

namespace {

// Of nn::Rotation, to the bit.
Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const int64_t half = cos.size(-1), rest = x.size(-1) - 2 * half;
  const Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  if (rest == 0) return at::cat({first * cos - second * sin, second * cos + first * sin}, -1);
  return at::cat({first * cos - second * sin, second * cos + first * sin, x.narrow(-1, 2 * half, rest)}, -1);
}

Tensor rotary_append_cpu(const Tensor& qkv, const Tensor& cos, const Tensor& sin, Tensor& keys, Tensor& values,
                         const Tensor& position, int64_t heads) {
  check_rotary_append(qkv, cos, sin, keys, values, position, heads);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const at::NoGradGuard no_grad;
  const int64_t place = position.item<int64_t>(), kv_heads = keys.size(1), dim = keys.size(3);
  TORCH_CHECK(place >= 0 && place < keys.size(2), "rotary_append_: the cache has ", keys.size(2),
              " places, none for position ", place);
  const Tensor split = qkv.unflatten(1, {-1, dim});
  const int64_t half = cos.size(-1);
  const Tensor c = cos.reshape({-1, 1, half}), s = sin.reshape({-1, 1, half});
  keys.select(2, place).copy_(rotated(split.narrow(1, heads, kv_heads), c, s));
  values.select(2, place).copy_(split.narrow(1, heads + kv_heads, kv_heads));
  return rotated(split.narrow(1, 0, heads), c, s);
}

}  // namespace

Tensor rotary_append_(const Tensor& qkv, const Tensor& cos, const Tensor& sin, Tensor& keys, Tensor& values,
                      const Tensor& position, int64_t heads) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("voxtorch::rotary_append_", "").typed<decltype(rotary_append_)>();
  return op.call(qkv, cos, sin, keys, values, position, heads);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "rotary_append_(Tensor qkv, Tensor cos, Tensor sin, Tensor(a!) keys, Tensor(b!) values, Tensor position, int "
      "heads) -> Tensor query");
}

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) { m.impl("rotary_append_", rotary_append_cpu); }

}  // namespace voxtorch::kernels
