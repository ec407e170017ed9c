// Block-wise quantization: a block shares one float32 scale, the largest magnitude in it.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <vector>

namespace voxtorch::kernels {

// The 256 values of the dynamic 8-bit type (Dettmers 2016, https://arxiv.org/abs/1511.04561), as bitsandbytes has them,
// and the nearest of them to a number.
class DynamicCodes {
 public:
  static const DynamicCodes& of(bool is_signed);

  float value(uint8_t code) const { return values_[code]; }
  const std::array<float, 256>& values() const { return values_; }
  // The values as a tensor [256] on a device, uploaded once.
  at::Tensor on(c10::Device device) const;
  uint8_t zero() const { return nearest(0); }

  // Of a number from -1 to 1. Exact: of a number halfway the lower.
  uint8_t nearest(float number) const {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    const int64_t slot = static_cast<int64_t>((bits & 0x7fffffffu) >> kShift) - kFirst;
    const int64_t bounded = slot < 0 ? 0 : slot >= kSlots ? kSlots - 1 : slot;
    int code = starts_[bits >> 31][bounded];
    while (middles_[code] < number) ++code;
    return static_cast<uint8_t>(code);
  }

 private:
  explicit DynamicCodes(bool is_signed);

  // A table by the exponent and seven bits of the fraction tells where to begin; hardly a slot holds more than one
  // border.
  static constexpr int kShift = 16;
  static constexpr int64_t kFirst = (127 - 25) << 7;
  static constexpr int64_t kSlots = 26 << 7;

  std::array<float, 256> values_;
  std::array<float, 256> middles_;  // between a value and the next; infinite after the last
  std::array<std::array<uint8_t, kSlots>, 2> starts_;
};

// Any shape -> codes uint8 of the same shape, absmax [ceil(numel / block)].
std::tuple<at::Tensor, at::Tensor> quantize_blockwise(const at::Tensor& input, bool is_signed, int64_t block);
at::Tensor dequantize_blockwise(const at::Tensor& codes, const at::Tensor& absmax, bool is_signed, int64_t block,
                                at::ScalarType type);

// NF4 (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314), laid out as bitsandbytes does: codes uint8
// [ceil(numel / 2), 1], the earlier element in the upper half of a byte; absmax [ceil(numel / block)].
std::tuple<at::Tensor, at::Tensor> quantize_nf4(const at::Tensor& input, int64_t block);
at::Tensor dequantize_nf4(const at::Tensor& codes, const at::Tensor& absmax, at::IntArrayRef shape, int64_t block,
                          at::ScalarType type);

const std::array<float, 16>& nf4_values();

// QLoRA's double quantization, as bitsandbytes' compress_statistics: the scales [blocks] of NF4, float32, lose their
// mean (offset [1]) and go through quantize_blockwise, in blocks of kScaleBlock: codes uint8 [blocks], absmax
// [ceil(blocks / kScaleBlock)].
constexpr int64_t kScaleBlock = 256;
std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_scales(const at::Tensor& scales);
at::Tensor dequantize_scales(const at::Tensor& codes, const at::Tensor& absmax, const at::Tensor& offset);

// Rows [out, in] -> codes int8 [out, in], absmax [out]: value = code * absmax / 127.
std::tuple<at::Tensor, at::Tensor> quantize_int8(const at::Tensor& weight);
at::Tensor dequantize_int8(const at::Tensor& codes, const at::Tensor& absmax, at::ScalarType type);

}  // namespace voxtorch::kernels
