#include "core/kernels/decode_attention/decode_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/kernels/arguments.h"
#include "core/kernels/decode_attention/args.h"

namespace voxtorch::kernels {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

namespace {

constexpr const char* kOp = "decode_attention";

bool given(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

}  // namespace

int64_t decode_tickets(int64_t rows, int64_t heads, int64_t kv_heads) {
  return rows * kv_heads * decode_passes(heads, kv_heads);
}

void check_decode_attention(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& position,
                            const OptionalTensor& mask, int64_t window, std::optional<double> scale,
                            const OptionalTensor& tickets) {
  const at::ScalarType type = query.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, kOp,
              ": the query must be float32, float64, bfloat16 or float16, got ", dtype_name(query));
  TORCH_CHECK(
      keys.dim() == 4 && keys.sizes() == values.sizes() && keys.size(1) > 0 && keys.size(2) > 0 && keys.size(3) > 0,
      kOp, ": keys and values must have one shape [rows, kv_heads, capacity, head_dim], got ", keys.sizes(), " and ",
      values.sizes());
  const int64_t rows = keys.size(0), kv_heads = keys.size(1), dim = keys.size(3);
  TORCH_CHECK(query.dim() == 3 && query.size(0) == rows && query.size(2) == dim && query.size(1) > 0 &&
                  query.size(1) % kv_heads == 0,
              kOp, ": the query must have shape [", rows, ", a multiple of ", kv_heads, ", ", dim, "], got ",
              query.sizes());
  TORCH_CHECK(position.scalar_type() == at::kLong && position.numel() == 1, kOp,
              ": position must be one int64 number, got ", dtype_name(position), " ", position.sizes());
  TORCH_CHECK(window >= 0, kOp, ": window must be above 0, or 0 for none, got ", window);
  TORCH_CHECK(!scale || std::isfinite(*scale), kOp, ": scale must be a finite number, got ", *scale);
  for (const auto& [name, tensor] : {std::pair("keys", &keys), std::pair("values", &values)}) {
    TORCH_CHECK(tensor->scalar_type() == type, kOp, ": the query is ", dtype_name(query), " and ", name, " ",
                dtype_name(*tensor), "; they must have the same dtype");
  }
  const Tensor none, &sees = given(mask) ? *mask : none, &zeros = given(tickets) ? *tickets : none;
  for (const auto& [name, tensor] :
       {std::pair("keys", &keys), std::pair("values", &values), std::pair("position", &position),
        std::pair("mask", &sees), std::pair("tickets", &zeros)}) {
    TORCH_CHECK(!tensor->defined() || tensor->device() == query.device(), kOp, ": the query is on ", query.device(),
                " and ", name, " on ", tensor->device(), "; both must be on the same device");
  }
  TORCH_CHECK(!sees.defined() || (sees.scalar_type() == at::kBool && sees.dim() == 2 && sees.size(0) == rows), kOp,
              ": mask must be bool of shape [", rows, ", position + 1 or more], got ", dtype_name(sees), " ",
              sees.sizes());
  const int64_t needed = decode_tickets(rows, query.size(1), kv_heads);
  TORCH_CHECK(!zeros.defined() || (zeros.scalar_type() == at::kInt && zeros.is_contiguous() && zeros.numel() >= needed),
              kOp, ": tickets must be contiguous int32 of ", needed, " zeros, got ", dtype_name(zeros), " ",
              zeros.sizes());
}

Tensor decode_attention_in_parts(const Tensor& query, const Tensor& all_keys, const Tensor& all_values,
                                 const Tensor& position, const OptionalTensor& mask, int64_t window,
                                 std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const at::NoGradGuard no_grad;
  const int64_t rows = query.size(0), heads = query.size(1), dim = query.size(2), kv_heads = all_keys.size(1);
  int64_t first = 0, end = all_keys.size(2);
  if (position.is_cpu()) {
    // There the number is known, and masked keys are left out.
    const int64_t own = position.item<int64_t>();
    TORCH_CHECK(own >= 0 && own < end, kOp, ": the cache has ", end, " places, none for position ", own);
    TORCH_CHECK(!given(mask) || mask->size(1) > own, kOp, ": mask must have a column for each of the ", own + 1,
                " places up to position, got ", given(mask) ? mask->size(1) : 0);
    end = own + 1;
    first = window > 0 ? std::max<int64_t>(0, end - window) : 0;
  }
  const int64_t seen = end - first;
  Tensor keys = all_keys.narrow(2, first, seen), values = all_values.narrow(2, first, seen);
  OptionalTensor sees;  // [rows, 1, 1, seen]
  if (!position.is_cpu() || given(mask)) {
    const Tensor place = at::arange(first, end, position.options());
    const Tensor own = position.reshape({1}).clamp(0, all_keys.size(2) - 1);
    Tensor within = place <= own;
    if (window > 0) within = within & (place > own - window);
    if (given(mask)) {
      const Tensor known = mask->size(1) < end ? at::constant_pad_nd(*mask, {0, end - mask->size(1)}, 0) : *mask;
      within = (within & known.narrow(1, first, seen)) | (place == own);
    }
    sees = within.reshape({-1, 1, 1, seen}).expand({rows, 1, 1, seen});
    // A weight of 0 does not take NaN away.
    const Tensor lost = sees->transpose(2, 3).logical_not();
    keys = keys.masked_fill(lost, 0);
    values = values.masked_fill(lost, 0);
  }
  // The queries of a group are adjacent in time: no key is copied.
  const Tensor grouped = query.reshape({rows, kv_heads, heads / kv_heads, dim});
  const Tensor output = at::scaled_dot_product_attention(grouped, keys, values, sees, 0, false, scale);
  return output.reshape({rows, heads * dim});
}

namespace {

Tensor decode_attention_cpu(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& position,
                            const OptionalTensor& mask, int64_t window, std::optional<double> scale,
                            const OptionalTensor& tickets) {
  check_decode_attention(query, keys, values, position, mask, window, scale, tickets);
  return decode_attention_in_parts(query, keys, values, position, mask, window, scale);
}

}  // namespace

Tensor decode_attention(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& position,
                        const OptionalTensor& mask, int64_t window, std::optional<double> scale,
                        const OptionalTensor& tickets) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::decode_attention", "")
                             .typed<decltype(decode_attention)>();
  return op.call(query, keys, values, position, mask, window, scale, tickets);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "decode_attention(Tensor query, Tensor keys, Tensor values, Tensor position, Tensor? mask=None, int window=0, "
      "float? scale=None, *, Tensor(a!)? tickets=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) { m.impl("decode_attention", decode_attention_cpu); }

}  // namespace voxtorch::kernels
