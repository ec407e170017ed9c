// Every operator on the pretended device: its tensors' memory is shown to the CPU's kernel through its mirror, results move
// to the device, and what a real device would refuse (two devices, the CPU's generator) is refused in ATen's words.
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "device.h"
#include "random.h"

namespace pretended {
namespace {

using at::Tensor;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

at::TensorOptions on_cpu(const Tensor& like) { return at::TensorOptions().dtype(like.scalar_type()).device(at::kCPU); }

}  // namespace

Tensor mirrored(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  const void* const data = tensor.numel() > 0 ? tensor.const_data_ptr() : nullptr;
  if (data == nullptr) return at::empty_strided(tensor.sizes(), tensor.strides(), on_cpu(tensor));
  TORCH_CHECK(on_device(data), "a CUDA tensor whose memory is not the pretended device's");
  return at::from_blob(mirror(data), tensor.sizes(), tensor.strides(), [tensor](void*) {}, on_cpu(tensor));
}

namespace {

Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<c10::Device> device,
             std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(resolve(device.value_or(kCuda)));
  return at::detail::empty_generic(size, allocator(), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                     std::optional<c10::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(resolve(device.value_or(kCuda)));
  return at::detail::empty_strided_generic(size, stride, allocator(), kKeys, c10::dtype_or_default(dtype));
}

const Tensor& resize_(const Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* const impl = self.unsafeGetTensorImpl();
  auto* const storage = impl->unsafe_storage().unsafeGetStorageImpl();
  const size_t elements = static_cast<size_t>(impl->storage_offset() + c10::multiply_integers(size));
  if (const size_t bytes = elements * self.element_size(); bytes > storage->nbytes()) {
    const c10::DeviceGuard guard(self.device());
    c10::DataPtr larger = allocator()->allocate(bytes);
    if (storage->nbytes() > 0) std::memcpy(mirror(larger.get()), mirror(storage->data()), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(larger));
    storage->set_nbytes(bytes);
  }
  impl->set_sizes_contiguous(size);
  return self;
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  const c10::DeviceGuard guard(self.is_cuda() ? self.device() : source.device());
  count_launch("aten::copy_");
  if (self.is_cuda() == source.is_cuda() || self.numel() == 0) {
    mirrored(self).copy_(mirrored(source));
    return self;
  }
  // Between a device and memory that is not pinned no copy is asynchronous, whatever it was asked to be.
  const bool up = self.is_cuda();
  const Tensor& host = up ? source : self;
  const bool waits = !non_blocking || !is_pinned(host.const_data_ptr());
  count_copy(up ? Direction::kToDevice : Direction::kToHost, source.nbytes(), waits);
  if (waits) {
    count_wait(up ? "copy to the device" : "copy to the host");
    mirrored(self).copy_(mirrored(source));
  } else if (up) {
    later([to = mirrored(self), from = source] { Tensor(to).copy_(from); });
  } else {
    // What the device's memory holds now, whatever is written there next.
    later([to = self, from = mirrored(source).clone()] { Tensor(to).copy_(from); });
  }
  return self;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool non_blocking) {
  Tensor target = to;
  return copy_(target, self, non_blocking);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  const c10::DeviceGuard guard(self.device());
  reach(now_on(current_device(), current_stream(current_device())));
  count_wait("item");
  count_copy(Direction::kToHost, self.element_size(), true);
  return at::_local_scalar_dense(mirrored(self));
}

// Those that ATen lets indices or sources of the CPU into.
bool takes_cpu_tensors(const std::string& name) {
  static const std::set<std::string> names = {"aten::index",        "aten::index_put",     "aten::index_put_", "aten::_index_put_impl_",
                                              "aten::_unsafe_index", "aten::_foreach_copy_"};
  return names.count(name) > 0;
}

// Those whose result has a size that only the device knows.
bool asks_the_device(const std::string& name) {
  static const std::set<std::string> names = {"aten::nonzero",  "aten::masked_select",      "aten::equal",
                                              "aten::_unique2", "aten::unique_consecutive", "aten::repeat_interleave",
                                              "aten::bincount", "aten::_ctc_loss"};
  return names.count(name) > 0;
}

bool is_generator(const c10::Argument& argument) { return argument.type()->str().rfind("Generator", 0) == 0; }
bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// One operator's call: its arguments on the device, and what the CPU is given in their place.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : op_(op), schema_(op.schema()), name_(schema_.name()), stack_(*stack), first_(stack->size() - schema_.arguments().size()),
        theirs_(schema_.arguments().size()), ours_(schema_.arguments().size()) {}

  void run() {
    for (size_t i = 0; i < ours_.size(); ++i) lower(i);
    TORCH_CHECK(!(cpu_too_ && device_ && !takes_cpu_tensors(name_)),
                "Expected all tensors to be on the same device, but found at least two devices, ", *device_, " and cpu! (when calling ", name_,
                " on a pretended device)");
    const c10::Device device = device_.value_or(c10::Device(kCuda, current_device()));
    const c10::DeviceGuard guard(device);
    for (int64_t i = launches(); i > 0; --i) count_launch(name_);
    if (indexed_by_mask_ || asks_the_device(name_)) count_wait(name_);
    compute(device);
    write_back();
    lift_results(device);
  }

 private:
  // Tells the CPU's kernel about the mirror of argument i.
  void lower(size_t i) {
    const c10::Argument& argument = schema_.arguments()[i];
    c10::IValue& value = stack_[first_ + i];
    if (value.isTensor()) {
      value = lowered(i, value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(lowered(i, tensor));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const auto& index : value.toOptionalTensorVector()) {
        indexed_by_mask_ = indexed_by_mask_ || (index && index->defined() && index->scalar_type() == at::kBool);
        list.push_back(index ? std::optional<Tensor>(lowered(i, *index)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      device_ = resolve(value.toDevice());
      value = c10::Device(at::kCPU);
    } else if (is_generator(argument)) {
      random_argument_ = i;
      if (value.isNone()) return;
      random_ = dynamic_cast<Random*>(value.toGenerator().unsafeGetGeneratorImpl());
      TORCH_CHECK(random_ != nullptr, "Expected a 'cuda' device type for generator but found 'cpu'");
    }
  }

  Tensor lowered(size_t i, const Tensor& tensor) {
    const c10::Argument& argument = schema_.arguments()[i];
    if (tensor.defined() && tensor.is_cuda()) {
      TORCH_CHECK(!device_ || *device_ == tensor.device(), "Expected all tensors to be on the same device, but found at least two devices, ",
                  *device_, " and ", tensor.device(), "! (when calling ", name_, " on a pretended device)");
      device_ = tensor.device();
    } else if (tensor.defined() && tensor.dim() > 0) {
      cpu_too_ = true;
    }
    // An out= argument may be resized, which mirrored memory cannot be.
    const bool out = argument.kwarg_only() && is_written(argument) && tensor.defined() && tensor.is_cuda();
    theirs_[i].push_back(tensor);
    ours_[i].push_back(out ? at::empty(tensor.sizes(), on_cpu(tensor)) : mirrored(tensor));
    return ours_[i].back();
  }

  // One but for lists, of which ATen gives a kernel as many tensors as its arguments have room for.
  int64_t launches() const {
    constexpr int64_t kTensors[] = {110, 64, 48, 36, 30};
    constexpr int64_t kBlocks = 320, kElements = 65536;
    if (name_.rfind("aten::_foreach_", 0) != 0 && name_.rfind("aten::_fused_", 0) != 0 && name_.rfind("aten::_amp_foreach", 0) != 0)
      return 1;
    size_t lists = schema_.returns().size();
    const std::vector<Tensor>* longest = nullptr;
    for (size_t i = 0; i < theirs_.size(); ++i) {
      if (theirs_[i].empty() || theirs_[i].size() != theirs_[0].size()) continue;
      if (schema_.arguments()[i].name() != "state_steps") ++lists;
      longest = &theirs_[0];
    }
    if (longest == nullptr) return 1;
    const int64_t most = kTensors[std::min<size_t>(lists, 5) - 1];
    int64_t count = 0, tensors = 0, blocks = 0;
    for (const Tensor& tensor : *longest) {
      ++tensors;
      blocks += (tensor.numel() + kElements - 1) / kElements;
      while (blocks >= kBlocks) {
        blocks -= kBlocks;
        tensors = 0;
        ++count;
      }
      if (tensors < most) continue;
      tensors = blocks = 0;
      ++count;
    }
    return count + (tensors > 0 ? 1 : 0);
  }

  void compute(c10::Device device) {
    // One generator at a time, since it says what it is not.
    static std::recursive_mutex drawing;
    std::unique_lock<std::recursive_mutex> lock(drawing, std::defer_lock);
    if (random_argument_) {
      lock.lock();
      if (random_ == nullptr) random_ = static_cast<Random*>(default_generator(device.index()).unsafeGetGeneratorImpl());
      stack_[first_ + *random_argument_] = at::Generator(c10::intrusive_ptr<c10::GeneratorImpl>::unsafe_reclaim_from_nonowning(random_));
    }
    struct Pretence {
      Random* random;
      explicit Pretence(Random* generator) : random(generator) {
        if (random != nullptr) random->pretend(false);
      }
      ~Pretence() {
        if (random != nullptr) random->pretend(true);
      }
    } pretence(random_);
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
  }

  // What the CPU's kernel resized, or wrote into memory of its own.
  void write_back() {
    for (size_t i = 0; i < ours_.size(); ++i) {
      if (!is_written(schema_.arguments()[i])) continue;
      for (size_t j = 0; j < ours_[i].size(); ++j) {
        const Tensor& wanted = theirs_[i][j];
        const Tensor& made = ours_[i][j];
        if (!wanted.defined() || !wanted.is_cuda()) continue;
        const bool elsewhere = made.numel() > 0 && !is_mirror(made.const_data_ptr());
        if (!elsewhere && wanted.sizes().equals(made.sizes())) continue;
        if (!wanted.sizes().equals(made.sizes())) resize_(wanted, made.sizes(), std::nullopt);
        mirrored(wanted).copy_(made);
      }
    }
  }

  void lift_results(c10::Device device) {
    const size_t count = schema_.returns().size();
    const size_t start = stack_.size() - count;
    for (size_t r = 0; r < count; ++r) {
      c10::IValue& value = stack_[start + r];
      if (is_written(schema_.returns()[r]) && value.isTensor()) {
        for (size_t i = 0; i < ours_.size(); ++i) {
          const auto* const alias = schema_.arguments()[i].alias_info();
          if (alias != nullptr && *alias == *schema_.returns()[r].alias_info()) value = theirs_[i].at(0);
        }
      } else if (value.isTensor()) {
        value = lifted(value.toTensor(), device);
      } else if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& tensor : value.toTensorVector()) list.push_back(lifted(tensor, device));
        value = list;
      }
    }
  }

  // A result as the device's: a view where it lies in an argument's memory, else a copy there.
  Tensor lifted(const Tensor& result, c10::Device device) const {
    if (!result.defined() || !result.is_cpu()) return result;
    const char* const data = static_cast<const char*>(result.const_data_ptr());
    if (data != nullptr && is_mirror(data)) {
      for (const auto& argument : theirs_) {
        for (const Tensor& tensor : argument) {
          if (!tensor.defined() || !tensor.is_cuda() || tensor.storage().nbytes() == 0) continue;
          const char* const begin = mirror(tensor.storage().data());
          if (data < begin || data >= begin + tensor.storage().nbytes()) continue;
          auto view = c10::make_intrusive<at::TensorImpl>(at::TensorImpl::VIEW, c10::Storage(tensor.storage()), tensor.key_set(),
                                                          result.dtype());
          view->set_sizes_and_strides(result.sizes(), result.strides());
          view->set_storage_offset((data - begin) / static_cast<int64_t>(result.element_size()));
          return Tensor(std::move(view));
        }
      }
    }
    const c10::DeviceGuard guard(device);
    const Tensor made = at::detail::empty_strided_generic(result.sizes(), result.strides(), allocator(), kKeys, result.scalar_type());
    if (made.numel() > 0) std::memcpy(mirror(made.const_data_ptr()), data, made.storage().nbytes());
    return made;
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  const std::string& name_;
  torch::jit::Stack& stack_;
  const size_t first_;
  std::vector<std::vector<Tensor>> theirs_;
  std::vector<std::vector<Tensor>> ours_;
  std::optional<c10::Device> device_;
  bool cpu_too_ = false;
  bool indexed_by_mask_ = false;
  std::optional<size_t> random_argument_;
  Random* random_ = nullptr;
};

}  // namespace

void compute_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Call(op, stack).run(); }

}  // namespace pretended

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", pretended::empty);
  m.impl("empty_strided", pretended::empty_strided);
  m.impl("resize_", pretended::resize_);
  m.impl("copy_", pretended::copy_);
  m.impl("_copy_from", pretended::copy_from);
  m.impl("_local_scalar_dense", pretended::local_scalar_dense);
  // Views launch nothing.
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", static_cast<at::Tensor (*)(const at::Tensor&, at::IntArrayRef)>(at::native::view));
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("record_stream", [](at::Tensor&, c10::Stream) {});
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&pretended::compute_on_cpu>()); }
