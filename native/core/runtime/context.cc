#include "core/runtime/context.h"

#include <ATen/autocast_mode.h>

#include "core/runtime/streams.h"

namespace voxtorch {
namespace {

struct AutocastState {
  uint8_t cpu = 0;
  uint8_t cuda = 0;
};
thread_local AutocastState current_autocast;

void set_autocast(c10::DeviceType device, uint8_t code) {
  at::autocast::set_autocast_enabled(device, code != 0);
  if (code != 0) at::autocast::set_autocast_dtype(device, static_cast<c10::ScalarType>(code - 1));
}

}  // namespace

Context Context::decode(double flags, double device) {
  const uint32_t bits = static_cast<uint32_t>(flags);
  Context context;
  context.grad = (bits & 1) != 0;
  context.inference = (bits & 2) != 0;
  context.autocast_cpu = static_cast<uint8_t>(bits >> 8);
  context.autocast_cuda = static_cast<uint8_t>(bits >> 16);
  if (device >= 1) {
    const int code = static_cast<int>(device) - 1;
    const int index = code & 255;
    context.device = c10::Device(static_cast<c10::DeviceType>(code >> 8), index == 255 ? -1 : index);
    if (context.device->is_cuda()) expect_cuda(*context.device);
  }
  return context;
}

double Context::flags() const {
  return double((grad ? 1u : 0u) | (inference ? 2u : 0u) | (uint32_t(autocast_cpu) << 8) |
                (uint32_t(autocast_cuda) << 16));
}

ContextGuard::ContextGuard(const Context& context) {
  use_shared_streams();
  if (context.inference) inference_.emplace(true);
  grad_before_ = c10::GradMode::is_enabled();
  grad_now_ = context.grad && !context.inference;
  if (grad_before_ != grad_now_) c10::GradMode::set_enabled(grad_now_);
  if (context.autocast_cpu != current_autocast.cpu) set_autocast(c10::DeviceType::CPU, context.autocast_cpu);
  if (context.autocast_cuda != current_autocast.cuda) set_autocast(c10::DeviceType::CUDA, context.autocast_cuda);
  current_autocast = {context.autocast_cpu, context.autocast_cuda};
}

void clear_autocast_cache() { at::autocast::clear_cache(); }

}  // namespace voxtorch
