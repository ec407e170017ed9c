// A CUDA device that is none, for the CPU's libtorch: what its parts know of each other.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <functional>
#include <string>

namespace pretended {

constexpr c10::DeviceType kCuda = c10::DeviceType::CUDA;
constexpr int kMaxDevices = 8;

// PRETENDED_CUDA_DEVICES, else two.
int device_count();
c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);
// The device itself, or the current one where none is named.
c10::Device resolve(c10::Device device);
const at::Generator& default_generator(c10::DeviceIndex index);

// memory.cc. Every byte of device memory has two addresses: one that tensors have, which nobody may touch, and one that
// only this library knows, through which the CPU's kernels compute.
c10::Allocator* allocator();
bool on_device(const void* address);
bool is_mirror(const void* address);
char* mirror(const void* address);
// Kernels compiled for the CPU are given device addresses: they are readable between begin and end, nested or not.
void begin_kernel();
void end_kernel();
size_t live_bytes();
size_t peak_bytes();

// pinned.cc
c10::Allocator* pinned_allocator();
bool is_pinned(const void* address);
// Has something done on the current stream, once that is waited for.
void later(std::function<void()> run);
// A place in what a stream has to do.
struct Moment {
  c10::DeviceIndex device;
  int64_t stream;
  int64_t number;
};
Moment now_on(c10::DeviceIndex device, int64_t stream);
void reach(const Moment& moment);
void reach_all(c10::DeviceIndex device);

// operators.cc: an operator of the device, by the CPU's kernel; and a tensor of the device as the CPU may see it, the same
// memory through its mirror. Others as they are.
void compute_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);
at::Tensor mirrored(const at::Tensor& tensor);

// capture.cc: whether this thread notes down a graph, or does again what is in one.
bool is_capturing();
bool is_replaying();
void refuse_while_capturing();

// counts.cc
enum class Direction { kToDevice, kToHost };
void count_launch(const std::string& name);
void count_wait(const std::string& reason);
void count_copy(Direction direction, size_t bytes, bool waited_for);
void count_capture();
void count_context(c10::DeviceIndex index);
bool has_context(c10::DeviceIndex index);
// The current stream of the current device: launches are counted by stream.
void set_current_stream(c10::DeviceIndex device, int64_t stream);
int64_t current_stream(c10::DeviceIndex device);

}  // namespace pretended
