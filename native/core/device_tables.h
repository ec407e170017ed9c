// Numbers that the host has and a device needs: sent there without waiting for the device, and, where they are always
// the same, sent once.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace voxtorch {

// A tensor of the CPU on `device`. To CUDA it goes through pinned memory, in order with what is launched before and
// after: the host waits for nothing. A tensor that is on a device already is ATen's to move.
at::Tensor sent(const at::Tensor& tensor, c10::Device device);
// int64, in the shape given.
at::Tensor sent(const std::vector<int64_t>& values, at::IntArrayRef shape, c10::Device device);

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
// on. Nobody may write into it, and it has no gradient.
at::Tensor kept_table(const std::string& key, c10::ScalarType dtype, c10::Device device,
                      const std::function<at::Tensor()>& make);

}  // namespace voxtorch
