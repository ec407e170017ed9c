// What JavaScript needs of tensors beyond operators: making them from bytes, reading them back, indexing, facts,
// lifetime.
#include <ATen/Context.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "binding/environment.h"
#include "core/runtime/functorch.h"
#include "core/runtime/names.h"
#include "core/runtime/streams.h"

namespace voxtorch {
namespace {

// Bytes of an element, by napi_typedarray_type.
constexpr size_t kItemSizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};

// While it lives, operators see the elements themselves, even inside a function transform.
struct OutsideTransforms {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::DispatchKeySet(
      {c10::DispatchKey::FuncTorchDynamicLayerFrontMode, c10::DispatchKey::FuncTorchDynamicLayerBackMode})};
};

// fromBytes(view) with cells: shape, dtype, device. Copies the view's bytes.
Napi::Value from_bytes(Environment& self, const Napi::CallbackInfo& info) {
  self.guarded("tensor", [&] {
    Reader cells = self.arguments();
    const std::vector<int64_t> shape = read_ints(next(cells));
    const auto type = scalar_type_of(next(cells).text());
    const auto device = device_of(next(cells).text());
    if (!type || !device) fail(ErrorKind::kArguments, "unknown dtype or device");
    // Raw, because the view may be one on a SharedArrayBuffer, and one call tells all.
    napi_typedarray_type kind = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    const napi_status status = napi_get_typedarray_info(info.Env(), info[0], &kind, &length, &data, nullptr, nullptr);
    if (status != napi_invalid_arg) check(status, "napi_get_typedarray_info");
    if (status != napi_ok || size_t(kind) >= std::size(kItemSizes)) {
      fail(ErrorKind::kArguments, "expected a typed array");
    }
    const size_t bytes = length * kItemSizes[kind];
    uint64_t wanted = c10::elementSize(*type);
    for (int64_t size : shape) {
      if (size < 0 || (size > 0 && wanted > (uint64_t(1) << 62) / uint64_t(size))) {
        fail(ErrorKind::kValue, "a shape has a negative or an impossibly large size");
      }
      wanted *= uint64_t(size);
    }
    if (wanted != bytes) {
      fail(ErrorKind::kValue,
           "the data has " + std::to_string(bytes) + " bytes, the shape and dtype need " + std::to_string(wanted));
    }
    // Built outside inference mode's rules: data that a user made may be trained on.
    // Through pinned memory, or the event loop would wait for all that the device still has to do. Not what is large:
    // pinned memory is kept.
    constexpr size_t kPinned = size_t{16} << 20;
    if (device->is_cuda()) expect_cuda(*device);
    const bool pinned =
        device->is_cuda() && bytes > 0 && bytes <= kPinned && at::detail::getCUDAHooks().deviceCount() > 0;
    const auto options = at::TensorOptions().dtype(*type).device(device->is_cuda() ? at::kCPU : device->type());
    const OutsideTransforms elements_themselves;
    at::Tensor tensor = at::empty(shape, options.pinned_memory(pinned));
    if (bytes > 0 && !tensor.is_meta()) std::memcpy(tensor.mutable_data_ptr(), data, bytes);
    if (device->is_cuda()) tensor = tensor.to(*device, /*non_blocking=*/pinned);
    self.write_result(c10::IValue(std::move(tensor)));
  });
  return info.Env().Undefined();
}

at::Tensor readable(const at::Tensor& source) {
  const OutsideTransforms elements_themselves;
  const at::Tensor tensor = without_wrappers(source);
  if (!tensor.defined())
    fail(ErrorKind::kNotImplemented,
         "expected a tensor with elements, got one of a vmap, which stands for all samples at once. "
         "Return it and read the result");
  if (tensor.is_meta()) fail(ErrorKind::kNotImplemented, "a tensor on the meta device has no values to read");
  if (tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_nested()) {
    fail(ErrorKind::kNotImplemented, "only dense tensors can be read; call toDense() first");
  }
  return tensor.detach().resolve_conj().resolve_neg().to(at::kCPU).contiguous();
}

// toBytes with cells: tensor. An ArrayBuffer with a copy of its values in row-major order.
Napi::Value to_bytes(Environment& self, const Napi::CallbackInfo& info) {
  Napi::Value result = info.Env().Undefined();
  self.guarded("toArray", [&] {
    Reader cells = self.arguments();
    const at::Tensor source = read_tensor(next(cells), self.slab);
    check_free(source, Use::kRead);
    use_shared_streams();  // what wrote the tensor ran on one of them; this may be the thread's first call
    const at::Tensor tensor = readable(source);
    const size_t bytes = tensor.nbytes();
    void* data = nullptr;
    napi_value buffer;
    if (napi_create_arraybuffer(info.Env(), bytes, &data, &buffer) != napi_ok) {
      fail(ErrorKind::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes");
    }
    if (bytes > 0) std::memcpy(data, tensor.const_data_ptr(), bytes);
    result = Napi::Value(info.Env(), buffer);
  });
  return result;
}

class ReadJob : public QueuedJob {
 public:
  explicit ReadJob(at::Tensor source) : source(std::move(source)) { name = "data"; }
  at::Tensor source;

 protected:
  bool repeatable() const override { return true; }
  // A fresh copy, never an alias: JavaScript must not see later changes.
  c10::IValue work() override {
    at::Tensor tensor = readable(source);
    if (tensor.storage().is_alias_of(source.storage())) tensor = tensor.clone();
    source.reset();
    return tensor;
  }
};

// readQueued(handle): a job whose result is a contiguous CPU copy.
void read_queued(Environment& self, Reader& cells) {
  auto job = std::make_shared<ReadJob>(read_tensor(next(cells), self.slab));
  job->claim(job->source, Use::kRead);
  self.submit(std::move(job));
}

// facts with cells: tensor. Leaves numbers in the buffer: dtype, device type and index, requires grad, is leaf, is
// contiguous, dimensions, sizes..., strides...
void facts(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  const size_t dims = static_cast<size_t>(tensor.dim());
  double* out = self.buffer + static_cast<size_t>(self.header(Environment::kBegin));
  if (static_cast<size_t>(self.header(Environment::kBegin)) + 8 + 2 * dims > self.capacity) {
    fail(ErrorKind::kOther, "the tensor has more dimensions than the call buffer holds");
  }
  out[0] = double(static_cast<int>(tensor.scalar_type()));
  out[1] = double(static_cast<int>(tensor.device().type()));
  out[2] = double(tensor.device().index());
  out[3] = tensor.requires_grad() ? 1 : 0;
  out[4] = tensor.is_leaf() ? 1 : 0;
  out[5] = tensor.layout() == at::kStrided && !tensor.is_nested() && tensor.is_contiguous() ? 1 : 0;
  out[6] = double(dims);
  const auto sizes = tensor.sizes();
  for (size_t i = 0; i < dims; ++i) out[7 + i] = double(sizes[i]);
  if (tensor.layout() == at::kStrided && !tensor.is_nested()) {
    const auto strides = tensor.strides();
    for (size_t i = 0; i < dims; ++i) out[7 + dims + i] = double(strides[i]);
  }
}

std::vector<at::indexing::TensorIndex> read_indices(Reader& cells, const Slab& slab) {
  std::vector<at::indexing::TensorIndex> indices;
  const auto bound = [&](Reader& inner) -> std::optional<c10::SymInt> {
    const Reader cell = next(inner);
    if (cell.tag() == Tag::kNull || cell.tag() == Tag::kUndefined) return std::nullopt;
    return c10::SymInt(read_int(cell));
  };
  while (!cells.done()) {
    const Reader cell = next(cells);
    switch (cell.tag()) {
      case Tag::kNull:
        indices.emplace_back(at::indexing::None);
        break;
      case Tag::kEllipsis:
        indices.emplace_back(at::indexing::Ellipsis);
        break;
      case Tag::kBool:
        indices.emplace_back(cell.value() != 0);
        break;
      case Tag::kTensor: {
        const at::Tensor index = read_tensor(cell, slab);
        check_free(index, Use::kRead);
        indices.emplace_back(index);
        break;
      }
      case Tag::kSlice: {
        Reader inner = cell.inside();
        auto start = bound(inner);
        auto stop = bound(inner);
        auto step = bound(inner);
        indices.emplace_back(at::indexing::Slice(start, stop, step));
        break;
      }
      default:
        indices.emplace_back(read_int(cell));
    }
  }
  return indices;
}

// getItem with cells: tensor, indices...
void get_item(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  check_free(tensor, Use::kRead);
  const auto indices = read_indices(cells, self.slab);
  ContextGuard guard(self.context());
  self.write_result(c10::IValue(tensor.index(indices)));
}

// setItem with cells: tensor, value (tensor or number), indices...
void set_item(Environment& self, Reader& cells) {
  at::Tensor tensor = read_tensor(next(cells), self.slab);
  check_free(tensor, Use::kWrite);
  const Reader value = next(cells);
  const auto indices = read_indices(cells, self.slab);
  ContextGuard guard(self.context());
  if (value.tag() == Tag::kTensor) {
    const at::Tensor source = read_tensor(value, self.slab);
    check_free(source, Use::kRead);
    tensor.index_put_(indices, source);
  } else {
    tensor.index_put_(indices, read_scalar(value));
  }
}

// setData with cells: tensor, source. The tensor keeps its identity and takes the source's memory.
void set_data(Environment& self, Reader& cells) {
  at::Tensor tensor = read_tensor(next(cells), self.slab);
  const at::Tensor source = read_tensor(next(cells), self.slab);
  check_free(tensor, Use::kWrite);
  tensor.set_data(source);
}

Napi::Value release(Environment& self, const Napi::CallbackInfo& info) {
  const bool freed = self.slab.release(number(info, 0));
  self.report_memory();
  return Napi::Boolean::New(info.Env(), freed);
}

Napi::Value is_live(Environment& self, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), self.slab.find(number(info, 0)) != nullptr);
}

// moveHandle(handle, scope)
Napi::Value move_handle(Environment& self, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), self.slab.move(number(info, 0), static_cast<uint32_t>(number(info, 1, 0))));
}

Napi::Value scope_of(Environment& self, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), self.slab.scope_of(number(info, 0)));
}

Napi::Value open_scope(Environment& self, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), self.slab.open_scope());
}

Napi::Value close_scope(Environment& self, const Napi::CallbackInfo& info) {
  const double scope = number(info, 0);
  const uint32_t freed = scope >= 1 ? self.slab.close_scope(static_cast<uint32_t>(scope)) : 0;
  self.report_memory();
  return Napi::Number::New(info.Env(), freed);
}

// memory(): what this thread's slab holds.
Napi::Value memory(Environment& self, const Napi::CallbackInfo& info) {
  const Napi::Object result = Napi::Object::New(info.Env());
  result.Set("liveTensors", self.slab.live());
  result.Set("liveBytes", static_cast<double>(self.slab.external_bytes()));
  result.Set("liveScopes", self.slab.live_scopes());
  return result;
}

}  // namespace

void export_tensors(Napi::Object exports) {
  export_function<from_bytes>(exports, "fromBytes");
  export_function<to_bytes>(exports, "toBytes");
  export_cells<read_queued>(exports, "readQueued", "data");
  export_cells<facts>(exports, "facts", "tensor");
  export_cells<get_item>(exports, "getItem", "at");
  export_cells<set_item>(exports, "setItem", "setAt");
  export_cells<set_data>(exports, "setData", "setData");
  export_function<release>(exports, "release");
  export_function<is_live>(exports, "isLive");
  export_function<move_handle>(exports, "moveHandle");
  export_function<scope_of>(exports, "scopeOf");
  export_function<open_scope>(exports, "openScope");
  export_function<close_scope>(exports, "closeScope");
  export_function<memory>(exports, "memory");
}

}  // namespace voxtorch
