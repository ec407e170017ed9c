// The most likely word after a row without reading all of a head. The head's weights stand once more in int8, a quarter
// of float32's bytes. What a product in int8 leaves out is bounded: an error of the weight meets the input, and the
// weight an error of the input, and no product of two rows is longer than both lengths (Cauchy and Schwarz). So each
// word's logit lies between two bounds, and only words whose upper one reaches the best lower one are multiplied as
// they are. What comes out is the word that all logits give, of equal ones the first.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/kernels/decode_step/args.h"

namespace voxtorch::kernels {

class HeadScreen {
 public:
  // Whether there is something to be gained: values without a bias, so many that they come from memory, on a processor
  // with kernels for int8.
  static bool takes(const FewRows& weight);

  // `weight`: values of float32, bfloat16 or float16 [out, in], which are read once, and copied.
  explicit HeadScreen(const FewRows& weight);

  // The product in int8, but for input, output and the number of rows.
  FewRows product() const;
  // Adds the words that may be the most likely after `input` float [in], which `prepared` is in integers; `products`
  // float [out]: what product() gives of it.
  void candidates(const float* input, const void* prepared, const float* products, std::vector<int64_t>& words) const;

 private:
  const int64_t in_, out_;
  at::Tensor codes_;             // int8 [out, in]
  at::Tensor scales_;            // float32 [out]: value = code * scale
  at::Tensor errors_, lengths_;  // float32 [out]: of what the codes leave out, and of the row
};

// Of these words, in ascending order, the one with the largest logit as at::argmax has it: the first of equal ones, and
// NaN above all.
int64_t likeliest(const float* logits, const std::vector<int64_t>& words);

}  // namespace voxtorch::kernels
