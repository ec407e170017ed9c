// What libtorch asks of CUDA besides its kernels: devices, streams, events and random numbers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <cstdlib>
#include <vector>

#include "device.h"
#include "random.h"

namespace pretended {
namespace {

thread_local c10::DeviceIndex device_now = 0;

// libtorch has so many pooled streams a device; stream 0 is the legacy one.
constexpr int64_t kPooledStreams = 32;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kCuda; }
  c10::Device getDevice() const override { return {kCuda, device_now}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < device_count(), "CUDA error: invalid device ordinal");
    device_now = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override { device_now = device.index(); }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(device_count()); }

  static c10::Stream stream(c10::Device device, c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, resolve(device), id);
  }
  c10::Stream getStream(c10::Device device) const override { return stream(device, current_stream(resolve(device).index())); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    static std::atomic<int64_t> taken{0};
    count_context(resolve(device).index());  // CUDA makes the device's context for its first stream
    return stream(device, 1 + taken++ % kPooledStreams);
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStreamFromGlobalPool(device, false); }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = getStream(next.device());
    set_current_stream(next.device_index(), next.id());
    return before;
  }

  // All but copies through pinned memory is done when it is asked for. A wait is one all the same.
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex, const c10::EventFlag) const override {
    delete static_cast<Moment*>(*event);
    *event = new Moment(now_on(stream.device_index(), stream.id()));
  }
  void block(void* event, const c10::Stream&) const override { passed(event); }
  bool queryEvent(void* event) const override {
    passed(event);
    return true;
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override { delete static_cast<Moment*>(event); }
  bool queryStream(const c10::Stream& stream) const override {
    reach(now_on(stream.device_index(), stream.id()));
    return true;
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    count_wait("synchronizeStream");
    reach(now_on(stream.device_index(), stream.id()));
  }
  void synchronizeEvent(void* event) const override {
    count_wait("synchronizeEvent");
    passed(event);
  }
  void synchronizeDevice(const c10::DeviceIndex index) const override {
    count_wait("synchronizeDevice");
    reach_all(index);
  }
  static void passed(void* event) {
    if (event != nullptr) reach(*static_cast<Moment*>(event));
  }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

int device_count() {
  static const int count = [] {
    const char* const given = std::getenv("PRETENDED_CUDA_DEVICES");
    const int number = given != nullptr ? std::atoi(given) : 2;
    return number < 0 ? 0 : number > kMaxDevices ? kMaxDevices : number;
  }();
  return count;
}

c10::DeviceIndex current_device() { return device_now; }
void set_current_device(c10::DeviceIndex index) { device_now = index; }
c10::Device resolve(c10::Device device) { return device.has_index() ? device : c10::Device(kCuda, device_now); }

const at::Generator& default_generator(c10::DeviceIndex index) {
  static const auto* const generators = [] {
    auto* made = new std::vector<at::Generator>;
    for (int i = 0; i < device_count(); ++i) made->push_back(make_random(static_cast<c10::DeviceIndex>(i)));
    return made;
  }();
  return generators->at(static_cast<size_t>(index < 0 ? device_now : index));
}

}  // namespace pretended

namespace at {
namespace {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs = {}) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return pretended::device_count() > 0; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return false; }
  bool hasPrimaryContext(c10::DeviceIndex index) const override { return pretended::has_context(index); }
  // As on a machine whose driver is too old, with PRETENDED_CUDA_DRIVER=old.
  std::string showConfig() const override {
    const char* const driver = std::getenv("PRETENDED_CUDA_DRIVER");
    TORCH_CHECK(driver == nullptr, "CUDA error: CUDA driver version is insufficient for CUDA runtime version");
    return "  - a pretended CUDA device\n";
  }
  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(pretended::device_count()); }
  int getNumGPUs() const override { return pretended::device_count(); }
  c10::DeviceIndex current_device() const override { return pretended::current_device(); }
  c10::DeviceIndex getCurrentDevice() const override { return pretended::current_device(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { pretended::set_current_device(index); }
  void deviceSynchronize(c10::DeviceIndex index) const override {
    pretended::count_wait("deviceSynchronize");
    pretended::reach_all(index);
  }
  const Generator& getDefaultGenerator(c10::DeviceIndex index) const override { return pretended::default_generator(index); }
  Generator getNewGenerator(c10::DeviceIndex index) const override {
    return pretended::make_random(index < 0 ? pretended::current_device() : index);
  }
  c10::Device getDeviceFromPtr(void*) const override { return {pretended::kCuda, 0}; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pretended::pinned_allocator(); }
  bool isPinnedPtr(const void* address) const override { return pretended::is_pinned(address); }
  c10::Allocator* getCUDADeviceAllocator() const override { return pretended::allocator(); }
};

}  // namespace
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace at::native {
namespace {
// Attention in plain operators, as where no fused kernel takes the arguments.
int64_t choose_attention(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool, std::optional<double>,
                         bool) {
  return 0;
}
}  // namespace
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
}  // namespace at::native
