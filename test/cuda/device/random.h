// The random numbers of a pretended device are the CPU's, of a generator that says it belongs to the device.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include "device.h"

namespace pretended {

struct Random final : at::CPUGeneratorImpl {
  explicit Random(c10::DeviceIndex index) : at::CPUGeneratorImpl(c10::default_rng_seed_val), index_(index) { pretend(true); }

  // The CPU's kernels refuse a generator that is not the CPU's, so it is one while they run.
  void pretend(bool on) {
    device_ = on ? c10::Device(kCuda, index_) : c10::Device(c10::kCPU);
    key_set_ = c10::DispatchKeySet(on ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU);
  }

 private:
  c10::DeviceIndex index_;
};

inline at::Generator make_random(c10::DeviceIndex index) { return at::make_generator<Random>(index); }

}  // namespace pretended
