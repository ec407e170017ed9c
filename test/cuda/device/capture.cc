// CUDA graphs. Between capture_begin and capture_end every operator that this thread calls is noted down; nothing of it has
// been done afterwards, and what it made holds NaN. A replay calls the same operators on the same memory. What a real
// device would refuse meanwhile, a wait of the host, is refused in its words; so is a replay over memory that is gone.
#include <ATen/core/GraphImplInterface.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <set>
#include <vector>

#include "device.h"

namespace pretended {
namespace {

using at::Tensor;

// Every operator passes this key first while the thread includes it.
constexpr c10::DispatchKey kNotes = c10::DispatchKey::TESTING_ONLY_GenericMode;

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// A tensor of an operator's arguments. Those that were there before the capture are not kept alive by it.
struct Noted {
  Tensor own;
  std::optional<c10::weak_intrusive_ptr<c10::StorageImpl>> storage;
  const void* address = nullptr;
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0;
  c10::DispatchKeySet keys;
  caffe2::TypeMeta dtype;

  Tensor tensor() const {
    if (own.defined() || address == nullptr) return own;
    const auto alive = storage->lock();
    TORCH_CHECK(alive && alive->data() == address, "CUDA error: an illegal memory access was encountered");
    auto view = c10::make_intrusive<at::TensorImpl>(at::TensorImpl::VIEW, c10::Storage(alive), keys, dtype);
    view->set_sizes_and_strides(sizes, strides);
    view->set_storage_offset(offset);
    return Tensor(std::move(view));
  }
};

// An argument: its tensors, and how they stand in it.
struct Value {
  enum class Kind { kOther, kTensor, kTensors, kOptionalTensors } kind = Kind::kOther;
  c10::IValue other;
  std::vector<Noted> tensors;
  std::vector<bool> present;
};

struct Step {
  c10::OperatorHandle op;
  std::vector<Value> arguments;
  std::vector<Tensor> results;  // undefined where one lies in an argument's memory
};

struct Before {
  c10::Storage storage;
  std::vector<char> bytes;
};

struct Recording {
  std::vector<Step> steps;
  std::vector<Before> before;
  std::set<const c10::StorageImpl*> made;
  std::vector<Tensor> kept;
  bool failed = false;
};

std::atomic<bool> refused{false};
thread_local Recording* recording = nullptr;
thread_local bool replaying = false;

size_t bytes_of(const c10::Storage& storage) { return storage.data() == nullptr ? 0 : storage.nbytes(); }

std::vector<Tensor> tensors_of(const c10::IValue& value) {
  if (value.isTensor()) return {value.toTensor()};
  if (value.isTensorList()) return value.toTensorVector();
  std::vector<Tensor> result;
  if (value.isOptionalTensorList()) {
    for (const auto& one : value.toOptionalTensorVector()) result.push_back(one.value_or(Tensor()));
  }
  return result;
}

Noted noted(const Tensor& tensor) {
  Noted result;
  if (!tensor.defined()) return result;
  if (!tensor.is_cuda() || recording->made.count(tensor.storage().unsafeGetStorageImpl()) > 0 || bytes_of(tensor.storage()) == 0) {
    result.own = tensor;
    return result;
  }
  result.storage = tensor.storage().getWeakStorageImpl();
  result.address = tensor.storage().data();
  result.sizes = tensor.sizes().vec();
  result.strides = tensor.strides().vec();
  result.offset = tensor.storage_offset();
  result.keys = tensor.key_set();
  result.dtype = tensor.dtype();
  return result;
}

Value noted(const c10::IValue& value) {
  Value result;
  if (value.isTensor()) result.kind = Value::Kind::kTensor;
  if (value.isTensorList()) result.kind = Value::Kind::kTensors;
  if (value.isOptionalTensorList()) result.kind = Value::Kind::kOptionalTensors;
  if (result.kind == Value::Kind::kOther) {
    result.other = value;
    return result;
  }
  for (const Tensor& tensor : tensors_of(value)) {
    result.present.push_back(tensor.defined());
    result.tensors.push_back(noted(tensor));
  }
  return result;
}

c10::IValue again(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kOther:
      return value.other;
    case Value::Kind::kTensor:
      return value.tensors[0].tensor();
    case Value::Kind::kTensors: {
      c10::List<Tensor> list;
      for (const Noted& one : value.tensors) list.push_back(one.tensor());
      return list;
    }
    case Value::Kind::kOptionalTensors: {
      c10::List<std::optional<Tensor>> list;
      for (size_t i = 0; i < value.tensors.size(); ++i) {
        list.push_back(value.present[i] ? std::optional<Tensor>(value.tensors[i].tensor()) : std::nullopt);
      }
      return list;
    }
  }
  return {};
}

void note(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard inside(kNotes);
  if (recording == nullptr) return op.callBoxed(stack);
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  Step step{op, {}, {}};
  std::set<const c10::StorageImpl*> given;
  for (size_t i = 0; i < count; ++i) {
    const c10::IValue& value = (*stack)[first + i];
    step.arguments.push_back(noted(value));
    for (const Tensor& tensor : tensors_of(value)) {
      if (!tensor.defined() || !tensor.is_cuda()) continue;
      given.insert(tensor.storage().unsafeGetStorageImpl());
      const size_t bytes = bytes_of(tensor.storage());
      if (!is_written(schema.arguments()[i]) || bytes == 0) continue;
      const char* const data = mirror(tensor.storage().data());
      recording->before.push_back({tensor.storage(), std::vector<char>(data, data + bytes)});
    }
  }
  op.callBoxed(stack);
  const size_t results = schema.returns().size(), start = stack->size() - results;
  for (size_t i = 0; i < results; ++i) {
    for (const Tensor& tensor : tensors_of((*stack)[start + i])) {
      const bool made = tensor.defined() && tensor.is_cuda() && given.count(tensor.storage().unsafeGetStorageImpl()) == 0;
      step.results.push_back(made ? tensor : Tensor());
      if (!made) continue;
      recording->made.insert(tensor.storage().unsafeGetStorageImpl());
      recording->kept.push_back(tensor);
    }
  }
  recording->steps.push_back(std::move(step));
}

class Graph final : public at::GraphImplInterface {
 public:
  explicit Graph(at::GraphImplArgs) {}
  ~Graph() override {
    if (recording == &recording_) stop();
  }

  void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
    TORCH_CHECK(current_stream(current_device()) != 0,
                "CUDA graphs must be captured on a non-default stream. (However, after capture, it's ok to replay them on the default stream.)");
    TORCH_CHECK(!refused, "CUDA error: operation not supported");
    TORCH_CHECK(recording == nullptr, "CUDA error: operation not permitted when stream is capturing");
    recording_ = {};
    recording = &recording_;
    c10::impl::tls_set_dispatch_key_included(kNotes, true);
    count_capture();
  }

  void capture_end() override {
    TORCH_CHECK(recording == &recording_, "CUDA error: invalid argument");
    stop();
    auto& before = recording_.before;
    for (auto one = before.rbegin(); one != before.rend(); ++one) {
      std::memcpy(mirror(one->storage.data()), one->bytes.data(), one->bytes.size());
    }
    before.clear();
    for (const Tensor& tensor : recording_.kept) {
      if (const size_t bytes = bytes_of(tensor.storage()); bytes > 0) std::memset(mirror(tensor.storage().data()), 0xff, bytes);
    }
    TORCH_CHECK(!recording_.failed, "CUDA error: operation failed due to a previous error during capture");
    captured_ = true;
  }

  void instantiate() override {}

  void replay() override {
    TORCH_CHECK(captured_, "Called CUDAGraph::replay without a preceding successful capture.");
    TORCH_CHECK(recording == nullptr, "CUDA error: operation not permitted when stream is capturing");
    count_launch("graph");
    struct Replaying {
      Replaying() { replaying = true; }
      ~Replaying() { replaying = false; }
    } now;
    for (const Step& step : recording_.steps) {
      torch::jit::Stack stack;
      for (const Value& value : step.arguments) stack.push_back(again(value));
      step.op.callBoxed(&stack);
      size_t at = 0;
      for (const c10::IValue& value : stack) {
        for (const Tensor& result : tensors_of(value)) {
          const Tensor& wanted = step.results.at(at++);
          if (!wanted.defined() || wanted.numel() == 0) continue;
          TORCH_CHECK(result.sizes() == wanted.sizes() && result.scalar_type() == wanted.scalar_type(), step.op.schema().name(),
                      " gives another shape in a replay than when it was captured");
          mirrored(wanted).copy_(mirrored(result));
        }
      }
    }
  }

  void reset() override {
    recording_ = {};
    captured_ = false;
  }
  at::MempoolId_t pool() const override { return {0, 0}; }
  void enable_debug_mode() override {}
  void debug_dump(const std::string&) override {}

 private:
  static void stop() {
    c10::impl::tls_set_dispatch_key_included(kNotes, false);
    recording = nullptr;
  }

  Recording recording_;
  bool captured_ = false;
};

}  // namespace

bool is_replaying() { return replaying; }
bool is_capturing() { return recording != nullptr; }
void refuse_while_capturing() {
  if (recording == nullptr) return;
  recording->failed = true;
  TORCH_CHECK(false, "CUDA error: operation not permitted when stream is capturing");
}

}  // namespace pretended

namespace at {
C10_REGISTER_CLASS(GraphImplRegistry, CUDA, pretended::Graph)
}  // namespace at

TORCH_LIBRARY_FRAGMENT(pretended_cuda, m) {
  // From here on no graph is captured, or again some are.
  m.def("refuse_graphs(bool refused) -> ()", [](bool refused) { pretended::refused = refused; });
}

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&pretended::note>()); }
