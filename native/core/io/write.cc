// Tensors to a file: their bytes in row-major order, one after the other.
#include "core/io/file.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace voxtorch::io {
namespace {

using at::Tensor;

constexpr int64_t kDeviceCopy = int64_t(32) << 20;  // what leaves a device at a time

void write_tensor(NewFile& file, const Tensor& tensor) {
  if (tensor.numel() == 0) return;
  const Tensor whole = tensor.detach().resolve_conj().resolve_neg().contiguous();
  const auto bytes = static_cast<int64_t>(whole.nbytes());
  if (whole.is_cpu()) {
    file.write(whole.const_data_ptr(), bytes);
    return;
  }
  const Tensor flat = whole.view({-1}).view(at::kByte);
  for (int64_t done = 0; done < bytes; done += kDeviceCopy) {
    const Tensor piece = flat.narrow(0, done, std::min(kDeviceCopy, bytes - done)).to(at::kCPU);
    file.write(piece.const_data_ptr(), piece.numel());
  }
}

int64_t write_file(std::string path, const std::vector<Tensor>& parts) {
  const at::NoGradGuard no_grad;
  int64_t bytes = 0;
  for (const Tensor& part : parts) {
    TORCH_CHECK_NOT_IMPLEMENTED(part.layout() == at::kStrided && !part.is_quantized() && !part.is_nested(),
                                "only dense tensors can be written; call toDense() first");
    TORCH_CHECK_NOT_IMPLEMENTED(!part.is_meta(), "a tensor on the meta device has no values to write");
    bytes += static_cast<int64_t>(part.nbytes());
  }
  NewFile file(path);
  for (const Tensor& part : parts) write_tensor(file, part);
  file.commit();
  return bytes;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // The file has its name only once it is whole and synced.
  m.def("write_file(str path, Tensor[] parts) -> int", write_file);
}

}  // namespace voxtorch::io
