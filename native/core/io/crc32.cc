// The checksum that zip archives carry (CRC-32 of ISO 3309, reflected polynomial 0xEDB88320), eight bytes at a time.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <array>
#include <cstring>
#include <vector>

namespace voxtorch::io {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b]: what byte b does to the sum when k more bytes follow it.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) != 0 ? 0xEDB88320u : 0);
    tables[0][byte] = sum;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

uint32_t add_bytes(uint32_t sum, const unsigned char* at, size_t bytes) {
  for (; bytes >= 8; at += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= sum;
    sum = 0;
    for (size_t k = 0; k < 8; ++k) sum ^= kTables[7 - k][(word >> (8 * k)) & 255];
  }
  for (; bytes > 0; ++at, --bytes) sum = (sum >> 8) ^ kTables[0][(sum ^ *at) & 255];
  return sum;
}

int64_t crc32(const std::vector<at::Tensor>& parts) {
  const at::NoGradGuard no_grad;
  uint32_t sum = 0xFFFFFFFFu;
  for (const at::Tensor& part : parts) {
    if (part.numel() == 0) continue;
    const at::Tensor whole = part.detach().resolve_conj().resolve_neg().to(at::kCPU).contiguous();
    sum = add_bytes(sum, static_cast<const unsigned char*>(whole.const_data_ptr()), whole.nbytes());
  }
  return sum ^ 0xFFFFFFFFu;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Of the bytes of all parts, as write_file would write them.
  m.def("crc32(Tensor[] parts) -> int", crc32);
}

}  // namespace voxtorch::io
