// The machine and the process as operators: versions, threads, devices, random numbers, memory.
#include "core/runtime/runtime.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Version.h>
#include <ATen/core/Generator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>

#include "core/kernels/packed_weights.h"
#include "core/runtime/cpu_memory.h"
#include "core/runtime/executor.h"

namespace voxtorch {

void release_caches() {
  kernels::release_packed_weights();
  memory::release_cpu_cache();
  if (at::hasCUDA()) at::accelerator::emptyCache();
}

namespace {

#ifdef VOXTORCH_CUDA
constexpr const char* kVariant = "cuda";
#else
constexpr const char* kVariant = "cpu";
#endif

// What the library was built for and what it runs on.
std::tuple<std::string, std::string, std::string, std::string> versions() {
  std::string config;
  try {
    config = at::show_config();
  } catch (const std::exception& error) {
    // It asks the driver, which may be too old for this libtorch, or not there.
    config = std::string("unknown: ") + error.what();
  }
  return {TORCH_VERSION, at::get_cpu_capability(), config, kVariant};
}

// Every operator schema in the loaded libtorch, as text; the generator's input.
std::vector<std::string> operator_schemas() {
  std::vector<std::string> found;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (auto handle = dispatcher.findSchema(name)) found.push_back(c10::toString(handle->schema()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Whether the loaded libtorch was built with CUDA, device or not: then it has CUDA kernels.
bool has_cuda() {
  const auto op = c10::Dispatcher::singleton().findSchema({"aten::empty", "memory_format"});
  return op && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

int64_t cuda_device_count() {
  try {
    return at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  } catch (...) {
    return 0;
  }
}

void check_device(c10::Device device) {
  TORCH_CHECK(device.is_cpu() || (device.is_cuda() && at::hasCUDA()), "the loaded libtorch has no CUDA");
}

void cuda_synchronize(int64_t index) {
  check_device({c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)});
  c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
}

void set_num_threads(int64_t threads) {
  TORCH_CHECK_VALUE(threads >= 1 && threads <= 1024, "the number of threads must be between 1 and 1024");
  Executor::instance().set_num_threads(static_cast<int>(threads));
}

at::Generator make_generator(c10::Device device, int64_t seed) {
  check_device(device);
  if (device.is_cpu()) return at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  at::Generator generator = at::globalContext()
                                .getAcceleratorHooksInterface(device.type())
                                .getNewGenerator(device.has_index() ? device.index() : 0);
  generator.set_current_seed(static_cast<uint64_t>(seed));
  return generator;
}

int64_t generator_seed(at::Generator generator) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return static_cast<int64_t>(generator.current_seed());
}

void generator_set_seed(at::Generator generator, int64_t seed) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(seed));
}

at::Tensor generator_state(at::Generator generator) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void generator_set_state(at::Generator generator, const at::Tensor& state) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

at::Generator default_generator(c10::Device device) {
  check_device(device);
  return at::globalContext().defaultGenerator(device);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("versions() -> (str built, str cpu, str config, str variant)", versions);
  m.def("operator_schemas() -> str[]", operator_schemas);
  m.def("has_cuda() -> bool", has_cuda);
  m.def("cuda_device_count() -> int", cuda_device_count);
  m.def("cuda_synchronize(int device) -> ()", cuda_synchronize);
  m.def("set_num_threads(int threads) -> ()", set_num_threads);
  m.def("get_num_threads() -> int", []() -> int64_t { return Executor::instance().num_threads(); });
  m.def("set_default_dtype(ScalarType dtype) -> ()",
        [](at::ScalarType dtype) { c10::set_default_dtype(c10::scalarTypeToTypeMeta(dtype)); });
  m.def("default_dtype() -> int", []() { return static_cast<int64_t>(c10::get_default_dtype_as_scalartype()); });
  m.def("set_deterministic_algorithms(bool on, bool warn_only) -> ()",
        [](bool on, bool warn_only) { at::globalContext().setDeterministicAlgorithms(on, warn_only); });
  m.def("deterministic_algorithms() -> bool", []() { return at::globalContext().deterministicAlgorithms(); });
  m.def("manual_seed(int seed) -> ()", [](int64_t seed) { at::manual_seed(static_cast<uint64_t>(seed)); });
  // What a C++ function takes or returns as at::Generator may be null for the dispatcher; these refuse it.
  m.def("make_generator(Device device, int seed) -> Generator?", make_generator);
  m.def("generator_seed(Generator? generator) -> int", generator_seed);
  m.def("generator_set_seed(Generator? generator, int seed) -> ()", generator_set_seed);
  m.def("generator_state(Generator? generator) -> Tensor", generator_state);
  m.def("generator_set_state(Generator? generator, Tensor state) -> ()", generator_set_state);
  m.def("default_generator_state(Device device) -> Tensor",
        [](c10::Device device) { return generator_state(default_generator(device)); });
  m.def("default_generator_set_state(Device device, Tensor state) -> ()",
        [](c10::Device device, const at::Tensor& state) { generator_set_state(default_generator(device), state); });
  m.def("memory_use() -> (int cached_bytes, int queued_jobs)", []() -> std::tuple<int64_t, int64_t> {
    return {static_cast<int64_t>(memory::cached_cpu_bytes()), static_cast<int64_t>(Executor::instance().queued())};
  });
  m.def("empty_cache() -> ()", release_caches);
}

}  // namespace voxtorch
