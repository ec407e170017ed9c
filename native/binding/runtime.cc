// The machine and the process: threads, devices, random numbers, memory, profiling, versions.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/record_function.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include <chrono>
#include <map>

#include "binding/environment.h"
#include "core/cpu_memory.h"
#include "core/kernels/packed_weights.h"

namespace voxtorch {
namespace {

// versions(): what the addon was built for and what it runs on.
napi_value versions(napi_env env, napi_callback_info) {
  napi_value result;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "built", text(env, TORCH_VERSION));
  napi_set_named_property(env, result, "cpu", text(env, at::get_cpu_capability()));
  napi_set_named_property(env, result, "config", text(env, at::show_config()));
#ifdef VOXTORCH_CUDA
  napi_set_named_property(env, result, "variant", text(env, "cuda"));
#else
  napi_set_named_property(env, result, "variant", text(env, "cpu"));
#endif
  return result;
}

// Whether the loaded libtorch was built with CUDA, device or not: then it has CUDA kernels.
napi_value has_cuda(napi_env env, napi_callback_info) {
  const auto op = c10::Dispatcher::singleton().findSchema({"aten::empty", "memory_format"});
  return number(env, op && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA) ? 1 : 0);
}

napi_value cuda_device_count(napi_env env, napi_callback_info) {
  double count = 0;
  if (at::hasCUDA()) {
    try {
      count = static_cast<double>(at::detail::getCUDAHooks().deviceCount());
    } catch (...) {
      count = 0;
    }
  }
  return number(env, count);
}

napi_value synchronize_cuda(napi_env env, napi_callback_info info) {
  const double index = number_argument(env, info);
  Environment& self = *Environment::of(env);
  self.guarded("cuda.synchronize", [&] {
    TORCH_CHECK(at::hasCUDA(), "the loaded libtorch has no CUDA");
    c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
  });
  return nullptr;
}

napi_value set_num_threads(napi_env env, napi_callback_info info) {
  const double threads = number_argument(env, info);
  Environment& self = *Environment::of(env);
  self.guarded("setNumThreads", [&] {
    if (!(threads >= 1) || threads > 1024)
      throw BindingError(ErrorKind::kValue, "the number of threads must be between 1 and 1024");
    Executor::instance().set_num_threads(static_cast<int>(threads));
  });
  return nullptr;
}

napi_value get_num_threads(napi_env env, napi_callback_info) { return number(env, Executor::instance().num_threads()); }

napi_value manual_seed(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("manualSeed", [&] { at::manual_seed(static_cast<uint64_t>(read_int(self.arguments()))); });
  return nullptr;
}

const at::Generator& generator_of(Environment& self, const Reader& cell) {
  const c10::IValue* value = cell.tag() == Tag::kObject ? self.slab.find(cell.value()) : nullptr;
  if (value == nullptr || !value->isGenerator()) {
    throw BindingError(ErrorKind::kDisposed, "this generator was disposed or belongs to another thread");
  }
  static thread_local at::Generator generator;
  generator = value->toGenerator();
  return generator;
}

// makeGenerator with cells: device, seed.
napi_value make_generator(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("Generator", [&] {
    Reader cells = self.arguments();
    const auto device = device_of(cells.text());
    cells.skip();
    const auto seed = static_cast<uint64_t>(read_int(cells));
    if (!device) throw BindingError(ErrorKind::kArguments, "unknown device");
    at::Generator generator;
    if (device->is_cpu()) {
      generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    } else {
      TORCH_CHECK(device->is_cuda() && at::hasCUDA(), "the loaded libtorch has no CUDA");
      generator = at::globalContext()
                      .getAcceleratorHooksInterface(device->type())
                      .getNewGenerator(device->has_index() ? device->index() : 0);
      generator.set_current_seed(seed);
    }
    Writer writer = self.results();
    write_value(writer, c10::IValue(generator), self.slab, 0);
  });
  return nullptr;
}

// generatorSeed with cells: generator, seed or null. Writes the seed.
napi_value generator_seed(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("Generator", [&] {
    Reader cells = self.arguments();
    at::Generator generator = generator_of(self, cells);
    cells.skip();
    std::lock_guard<std::mutex> lock(generator.mutex());
    if (cells.tag() != Tag::kNull) generator.set_current_seed(static_cast<uint64_t>(read_int(cells)));
    Writer writer = self.results();
    writer.int64(static_cast<int64_t>(generator.current_seed()));
  });
  return nullptr;
}

// The default generator of the device that a cell names, of the CPU where it is null.
at::Generator default_generator(const Reader& cell) {
  if (cell.tag() == Tag::kNull) return at::globalContext().defaultGenerator(at::kCPU);
  const auto device = device_of(cell.text());
  if (!device) throw BindingError(ErrorKind::kArguments, "unknown device");
  TORCH_CHECK(device->is_cpu() || (device->is_cuda() && at::hasCUDA()), "the loaded libtorch has no CUDA");
  return at::globalContext().defaultGenerator(*device);
}

// generatorState with cells: generator (or the device of a default one, or null), state or null. Writes the state.
napi_value generator_state(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("Generator", [&] {
    Reader cells = self.arguments();
    at::Generator generator = cells.tag() == Tag::kObject ? generator_of(self, cells) : default_generator(cells);
    cells.skip();
    std::lock_guard<std::mutex> lock(generator.mutex());
    if (cells.tag() != Tag::kNull) {
      generator.set_state(read_tensor(cells, self.slab));
      return;
    }
    Writer writer = self.results();
    write_value(writer, generator.get_state(), self.slab, self.scope());
  });
  return nullptr;
}

napi_value memory_stats(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  napi_value result;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "liveTensors", number(env, self.slab.live()));
  napi_set_named_property(env, result, "liveBytes", number(env, double(self.slab.external_bytes())));
  napi_set_named_property(env, result, "cachedBytes", number(env, double(memory::cached_cpu_bytes())));
  napi_set_named_property(env, result, "liveScopes", number(env, self.slab.live_scopes()));
  napi_set_named_property(env, result, "queuedJobs", number(env, double(Executor::instance().queued())));
  return result;
}

napi_value empty_cache(napi_env env, napi_callback_info) {
  Environment::of(env)->guarded("emptyCache", [] { release_caches(); });
  return nullptr;
}

// Time per operator, over all threads, while profiling is on.
struct ProfileRow {
  uint64_t calls = 0;
  double total = 0;  // microseconds, children included
  double self = 0;
};
struct Profile {
  std::mutex mutex;
  std::map<std::string, ProfileRow> rows;
  at::CallbackHandle handle = 0;
  bool on = false;
};
Profile& profile() {
  static Profile* instance = new Profile();
  return *instance;
}

using Clock = std::chrono::steady_clock;
thread_local std::vector<double> child_time;

struct Span : at::ObserverContext {
  Clock::time_point start = Clock::now();
};

std::unique_ptr<at::ObserverContext> span_start(const at::RecordFunction&) {
  child_time.push_back(0);
  return std::make_unique<Span>();
}

void span_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (context == nullptr || child_time.empty()) return;
  const double took =
      std::chrono::duration<double, std::micro>(Clock::now() - static_cast<Span*>(context)->start).count();
  const double children = child_time.back();
  child_time.pop_back();
  if (!child_time.empty()) child_time.back() += took;
  Profile& all = profile();
  std::lock_guard<std::mutex> lock(all.mutex);
  ProfileRow& row = all.rows[function.name()];
  ++row.calls;
  row.total += took;
  row.self += took - children;
}

napi_value start_profile(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("profile", [&] {
    Profile& all = profile();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (all.on) throw BindingError(ErrorKind::kValue, "a profile is being taken already; profiles do not nest");
    all.rows.clear();
    all.handle = at::addGlobalCallback(at::RecordFunctionCallback(span_start, span_end)
                                           .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
    all.on = true;
  });
  return nullptr;
}

napi_value stop_profile(napi_env env, napi_callback_info) {
  Profile& all = profile();
  napi_value list;
  napi_create_array(env, &list);
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!all.on) return list;
  at::removeCallback(all.handle);
  all.on = false;
  uint32_t index = 0;
  for (const auto& [name, row] : all.rows) {
    napi_value entry;
    napi_create_object(env, &entry);
    napi_set_named_property(env, entry, "name", text(env, name));
    napi_set_named_property(env, entry, "calls", number(env, double(row.calls)));
    napi_set_named_property(env, entry, "totalMicroseconds", number(env, row.total));
    napi_set_named_property(env, entry, "selfMicroseconds", number(env, row.self));
    napi_set_element(env, list, index++, entry);
  }
  return list;
}

}  // namespace

void release_caches() {
  kernels::release_packed_weights();
  memory::release_cpu_cache();
  if (at::hasCUDA()) at::accelerator::emptyCache();
}

void export_runtime(napi_env env, napi_value exports) {
  export_function(env, exports, "versions", versions);
  export_function(env, exports, "hasCuda", has_cuda);
  export_function(env, exports, "cudaDeviceCount", cuda_device_count);
  export_function(env, exports, "synchronizeCuda", synchronize_cuda);
  export_function(env, exports, "setNumThreads", set_num_threads);
  export_function(env, exports, "getNumThreads", get_num_threads);
  export_function(env, exports, "manualSeed", manual_seed);
  export_function(env, exports, "makeGenerator", make_generator);
  export_function(env, exports, "generatorSeed", generator_seed);
  export_function(env, exports, "generatorState", generator_state);
  export_function(env, exports, "memory", memory_stats);
  export_function(env, exports, "emptyCache", empty_cache);
  export_function(env, exports, "startProfile", start_profile);
  export_function(env, exports, "stopProfile", stop_profile);
}

}  // namespace voxtorch
