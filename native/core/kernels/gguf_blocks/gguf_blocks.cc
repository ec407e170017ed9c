#include "core/kernels/gguf_blocks/gguf_blocks.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/gguf_blocks/formats.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using c10::Half;

// Blocks that one thread takes at a time: below, waking another costs more.
constexpr int64_t kGrain = 2048;

DecodeGguf chosen() { return VOXTORCH_BEST_BUILD(decode_gguf); }

// Those of float16 by way of float32, a few blocks at a time.
void decode_halves(int64_t type, const GgufFormat& format, const uint8_t* from, int64_t blocks, Half* to) {
  float weights[256];
  for (int64_t i = 0; i < blocks; ++i) {
    decode_gguf(type, from + i * format.bytes, 1, weights, false);
    for (int64_t k = 0; k < format.weights; ++k) to[i * format.weights + k] = static_cast<Half>(weights[k]);
  }
}

}  // namespace

GgufFormat gguf_format(int64_t type) {
  GgufFormat found{};
  with_gguf_format(type, [&](auto format) { found = {decltype(format)::kWeights, decltype(format)::kBytes}; });
  return found;
}

void decode_gguf(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16) {
  chosen()(type, from, blocks, to, is_bfloat16);
}

Tensor gguf_dequantize(const Tensor& blocks, int64_t type, at::IntArrayRef size, at::ScalarType dtype) {
  // Weights that are read inside inferenceMode may be trained outside of it.
  const c10::InferenceMode no_inference(false);
  TORCH_CHECK_TYPE(blocks.scalar_type() == at::kByte, "blocks must be uint8, not ", blocks.scalar_type());
  TORCH_CHECK_VALUE(blocks.is_cpu() && blocks.is_contiguous(), "blocks must be contiguous and on the CPU");
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
                   "dtype must be float32, bfloat16 or float16, not ", dtype);
  const GgufFormat format = gguf_format(type);
  TORCH_CHECK_VALUE(format.weights > 0, "blocks of type ", type, " cannot be read");
  int64_t count = 1;
  for (const int64_t length : size) {
    TORCH_CHECK_VALUE(length >= 0 && (length == 0 || count <= std::numeric_limits<int64_t>::max() / length),
                      "a tensor of sizes ", size, " is impossible");
    count *= length;
  }
  TORCH_CHECK_VALUE(!size.empty() && size.back() % format.weights == 0, "rows of ", size,
                    " are not a multiple of a block of ", format.weights);
  const int64_t number = count / format.weights;
  TORCH_CHECK_VALUE(blocks.numel() % format.bytes == 0 && blocks.numel() / format.bytes == number, "sizes ", size,
                    " take ", number, " blocks of ", format.bytes, " bytes, got ", blocks.numel(), " bytes");
  Tensor result = at::empty(size, at::TensorOptions().dtype(dtype));
  const uint8_t* from = blocks.const_data_ptr<uint8_t>();
  auto* const to = static_cast<char*>(result.mutable_data_ptr());
  const auto width = static_cast<int64_t>(result.element_size());
  at::parallel_for(0, number, kGrain * 32 / format.weights, [&](int64_t begin, int64_t end) {
    const uint8_t* const first = from + begin * format.bytes;
    char* const place = to + begin * format.weights * width;
    if (dtype == at::kHalf)
      decode_halves(type, format, first, end - begin, reinterpret_cast<Half*>(place));
    else
      decode_gguf(type, first, end - begin, place, dtype == at::kBFloat16);
  });
  return result;
}

namespace {

void put_half(uint8_t* to, float value) {
  const uint16_t bits = Half(value).x;
  std::memcpy(to, &bits, sizeof bits);
}

void encode_eight(const float* from, uint8_t* block) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::fabs(from[i]));
  const float d = most / 127;
  const float inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(from[i] * inverse)));
}

void encode_four(const float* from, uint8_t* block) {
  // The weight that is farthest from 0 becomes -8 exactly, whatever its sign.
  float most = 0, farthest = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(from[i]) > most) {
      most = std::fabs(from[i]);
      farthest = from[i];
    }
  }
  const float d = farthest / -8;
  const float inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  const auto code = [&](float value) {
    return static_cast<uint8_t>(std::clamp(static_cast<int>(value * inverse + 8.5F), 0, 15));
  };
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<uint8_t>(code(from[i]) | code(from[i + 16]) << 4);
}

}  // namespace

Tensor gguf_quantize(const Tensor& values, int64_t type) {
  TORCH_CHECK_VALUE(type == Q8_0 || type == Q4_0, "blocks of type ", type, " cannot be written");
  TORCH_CHECK_VALUE(values.dim() > 0 && values.size(-1) % 32 == 0, "rows of ", values.sizes(),
                    " are not a multiple of a block of 32");
  const Tensor whole = values.detach().to(at::kCPU, at::kFloat).contiguous();
  const int64_t bytes = type == Q8_0 ? EightBits::kBytes : FourBits::kBytes;
  const int64_t blocks = whole.numel() / 32;
  Tensor result = at::empty({blocks * bytes}, at::TensorOptions().dtype(at::kByte));
  const float* from = whole.const_data_ptr<float>();
  auto* to = result.mutable_data_ptr<uint8_t>();
  // What float16 can hold as a scale.
  const float most = type == Q8_0 ? 65504.F * 127 : 65504.F * 8;
  at::parallel_for(0, blocks, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int k = 0; k < 32; ++k) {
        TORCH_CHECK_VALUE(std::fabs(from[i * 32 + k]) <= most, "the weight ", from[i * 32 + k],
                          " has no place in blocks");
      }
      if (type == Q8_0)
        encode_eight(from + i * 32, to + i * bytes);
      else
        encode_four(from + i * 32, to + i * bytes);
    }
  });
  return result;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // `type` is the number that files have; the blocks of all rows follow each other without gaps.
  m.def("gguf_dequantize(Tensor blocks, int type, int[] size, *, ScalarType dtype=float) -> Tensor", gguf_dequantize);
  m.def("gguf_quantize(Tensor values, int type) -> Tensor", gguf_quantize);
}

}  // namespace voxtorch::kernels
