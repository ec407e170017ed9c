// Tables that the host computes and a device needs again and again: uploaded once.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace voxtorch {

// A key that tells apart whatever these values tell apart.
template <typename... Values>
std::string table_key(const Values&... values) {
  std::ostringstream key;
  key << std::hexfloat;
  ((key << values << ' '), ...);
  return key.str();
}

// What `make` gives, a tensor of the CPU, with this dtype on this device. It is made once for each key, sent once to
// each device, and then kept, 64 MB in all; the least recently used go first. The key says all that the values depend
// on. It is read-only and has no gradient.
at::Tensor kept_table(const std::string& key, c10::ScalarType dtype, c10::Device device,
                      const std::function<at::Tensor()>& make);

}  // namespace voxtorch
