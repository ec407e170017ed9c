// Attention of one token of each row over a cache whose length the device knows: one launch on CUDA, split over the
// keys (flash-decoding), whatever the length, so that a captured graph can be replayed as the cache grows.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// As the operator of this name: query [rows, heads, head_dim], keys and values [rows, kv_heads, capacity, head_dim] of
// any strides, the token's own at place `position`, int64 [1] -> [rows, heads * head_dim]. Sees the places up to
// `position`, the last `window` of them where that is above 0, and of those where mask, bool [rows, position + 1
// columns or more], is true; itself always. What other places hold reaches nothing. `scale` multiplies the scores, by
// default 1 / sqrt(head_dim).
//
// `tickets`, int32 of decode_tickets(...) zeros, tells CUDA's blocks which of them is the last, which then sets them to
// zero again: the same tensor serves launch after launch of one stream, layers and replays of a graph alike, but not
// two streams at once. Without it each call makes one, a launch more.
at::Tensor decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values,
                            const at::Tensor& position, const std::optional<at::Tensor>& mask, int64_t window,
                            std::optional<double> scale, const std::optional<at::Tensor>& tickets);

int64_t decode_tickets(int64_t rows, int64_t heads, int64_t kv_heads);

void check_decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values,
                            const at::Tensor& position, const std::optional<at::Tensor>& mask, int64_t window,
                            std::optional<double> scale, const std::optional<at::Tensor>& tickets);
// Made of ATen's operators, on any device, without waiting for it.
at::Tensor decode_attention_in_parts(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values,
                                     const at::Tensor& position, const std::optional<at::Tensor>& mask, int64_t window,
                                     std::optional<double> scale);

}  // namespace voxtorch::kernels
