// What JavaScript needs of tensors beyond operators: making them from bytes, reading them back, indexing, facts,
// lifetime.
#include <ATen/Context.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "binding/environment.h"
#include "core/streams.h"

namespace voxtorch {
namespace {

// Runs a body over the call buffer's cells.
template <typename Body>
napi_value with_cells(napi_env env, const char* name, Body body) {
  Environment& self = *Environment::of(env);
  self.guarded(name, [&] {
    Reader cells = self.arguments();
    body(self, cells);
  });
  return nullptr;
}

void check_readable(const at::Tensor& tensor, Use use) {
  BusyTable& busy = BusyTable::instance();
  if (busy.any() && busy.conflicts(tensor, use)) {
    throw BindingError(ErrorKind::kBusy, "a queued job uses this tensor's memory; await its promise first");
  }
}

// fromBytes(view) with cells: shape, dtype, device. Copies the view's bytes.
napi_value from_bytes(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value view;
  napi_get_cb_info(env, info, &count, &view, nullptr, nullptr);
  return with_cells(env, "tensor", [&](Environment& self, Reader& cells) {
    const std::vector<int64_t> shape = read_ints(next(cells));
    const auto type = scalar_type_of(next(cells).text());
    const auto device = device_of(next(cells).text());
    if (!type || !device) throw BindingError(ErrorKind::kArguments, "unknown dtype or device");
    napi_typedarray_type kind;
    size_t length = 0, offset = 0;
    void* data = nullptr;
    napi_value buffer;
    bool is_array = false;
    napi_is_typedarray(env, view, &is_array);
    if (!is_array) throw BindingError(ErrorKind::kArguments, "expected a typed array");
    napi_get_typedarray_info(env, view, &kind, &length, &data, &buffer, &offset);
    size_t bytes = length;
    switch (kind) {
      case napi_int16_array:
      case napi_uint16_array:
        bytes *= 2;
        break;
      case napi_int32_array:
      case napi_uint32_array:
      case napi_float32_array:
        bytes *= 4;
        break;
      case napi_float64_array:
      case napi_bigint64_array:
      case napi_biguint64_array:
        bytes *= 8;
        break;
      default:
        break;
    }
    const uint64_t item = c10::elementSize(*type);
    uint64_t wanted = item;
    for (int64_t size : shape) {
      if (size < 0 || (size > 0 && wanted > (uint64_t(1) << 62) / uint64_t(size))) {
        throw BindingError(ErrorKind::kValue, "a shape has a negative or an impossibly large size");
      }
      wanted *= uint64_t(size);
    }
    if (wanted != bytes) {
      throw BindingError(ErrorKind::kValue, "the data has " + std::to_string(bytes) +
                                                " bytes, the shape and dtype need " + std::to_string(wanted));
    }
    // Built outside inference mode's rules: data that a user made may be trained on.
    at::Tensor tensor =
        at::empty(shape, at::TensorOptions().dtype(*type).device(device->is_cuda() ? at::kCPU : device->type()));
    if (bytes > 0 && !tensor.is_meta()) std::memcpy(tensor.mutable_data_ptr(), data, bytes);
    if (device->is_cuda()) {
      expect_cuda();
      tensor = tensor.to(*device);
    }
    self.write_result(c10::IValue(std::move(tensor)), self.scope());
  });
}

at::Tensor readable(const at::Tensor& tensor) {
  if (tensor.is_meta())
    throw BindingError(ErrorKind::kNotImplemented, "a tensor on the meta device has no values to read");
  if (tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_nested()) {
    throw BindingError(ErrorKind::kNotImplemented, "only dense tensors can be read; call toDense() first");
  }
  return tensor.detach().resolve_conj().resolve_neg().to(at::kCPU).contiguous();
}

// toBytes(handle): an ArrayBuffer with a copy of the tensor's values in row-major order.
napi_value to_bytes(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  with_cells(env, "toArray", [&](Environment& self, Reader& cells) {
    const at::Tensor source = read_tensor(next(cells), self.slab);
    check_readable(source, Use::kRead);
    const at::Tensor tensor = readable(source);
    const size_t bytes = tensor.nbytes();
    void* data = nullptr;
    if (napi_create_arraybuffer(env, bytes, &data, &result) != napi_ok) {
      throw BindingError(ErrorKind::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes");
    }
    if (bytes > 0) std::memcpy(data, tensor.const_data_ptr(), bytes);
  });
  return result;
}

class ReadJob : public QueuedJob {
 public:
  explicit ReadJob(at::Tensor source) : source(std::move(source)) { name = "data"; }
  at::Tensor source;

  bool repeatable() const override { return true; }

 protected:
  // A fresh copy, never an alias: JavaScript must not see later changes.
  c10::IValue work() override {
    at::Tensor tensor = readable(source);
    if (tensor.storage().is_alias_of(source.storage())) tensor = tensor.clone();
    source.reset();
    return tensor;
  }
};

// readQueued(handle): a job whose result is a contiguous CPU copy.
napi_value read_queued(napi_env env, napi_callback_info) {
  return with_cells(env, "data", [](Environment& self, Reader& cells) {
    auto job = std::make_shared<ReadJob>(read_tensor(next(cells), self.slab));
    job->claim(job->source, Use::kRead);
    self.submit(std::move(job));
  });
}

// facts with cells: tensor. Leaves numbers in the buffer: dtype, device type and index, requires grad, is leaf, is
// contiguous, dimensions, sizes..., strides...
napi_value facts(napi_env env, napi_callback_info) {
  return with_cells(env, "tensor", [](Environment& self, Reader& cells) {
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    const size_t dims = static_cast<size_t>(tensor.dim());
    double* out = self.buffer + static_cast<size_t>(self.header(Environment::kBegin));
    if (static_cast<size_t>(self.header(Environment::kBegin)) + 8 + 2 * dims > self.capacity) {
      throw BindingError(ErrorKind::kOther, "the tensor has more dimensions than the call buffer holds");
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
  });
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
        check_readable(index, Use::kRead);
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
napi_value get_item(napi_env env, napi_callback_info) {
  return with_cells(env, "at", [](Environment& self, Reader& cells) {
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    check_readable(tensor, Use::kRead);
    const auto indices = read_indices(cells, self.slab);
    ContextGuard guard(self.context());
    self.write_result(c10::IValue(tensor.index(indices)), self.scope());
  });
}

// setItem with cells: tensor, value (tensor or number), indices...
napi_value set_item(napi_env env, napi_callback_info) {
  return with_cells(env, "setAt", [](Environment& self, Reader& cells) {
    at::Tensor tensor = read_tensor(next(cells), self.slab);
    check_readable(tensor, Use::kWrite);
    const Reader value = next(cells);
    const auto indices = read_indices(cells, self.slab);
    ContextGuard guard(self.context());
    if (value.tag() == Tag::kTensor) {
      const at::Tensor source = read_tensor(value, self.slab);
      check_readable(source, Use::kRead);
      tensor.index_put_(indices, source);
    } else {
      tensor.index_put_(indices, read_scalar(value));
    }
  });
}

// setData with cells: tensor, source. The tensor keeps its identity and takes the source's memory.
napi_value set_data(napi_env env, napi_callback_info) {
  return with_cells(env, "setData", [](Environment& self, Reader& cells) {
    at::Tensor tensor = read_tensor(next(cells), self.slab);
    const at::Tensor source = read_tensor(next(cells), self.slab);
    check_readable(tensor, Use::kWrite);
    tensor.set_data(source);
  });
}

// alias with cells: tensor. A second handle on the same tensor object.
napi_value alias(napi_env env, napi_callback_info) {
  return with_cells(env, "alias", [](Environment& self, Reader& cells) {
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    self.write_result(c10::IValue(tensor), self.scope());
  });
}

double handle_argument(napi_env env, napi_callback_info info, double* second = nullptr) {
  size_t count = 2;
  napi_value arguments[2] = {nullptr, nullptr};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  double handle = -1;
  if (count > 0) napi_get_value_double(env, arguments[0], &handle);
  if (second != nullptr && count > 1) napi_get_value_double(env, arguments[1], second);
  return handle;
}

napi_value release(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  const double handle = handle_argument(env, info);
  const bool freed = self.slab.release(handle);
  self.report_memory();
  return number(env, freed ? 1 : 0);
}

napi_value is_live(napi_env env, napi_callback_info info) {
  return number(env, Environment::of(env)->slab.find(handle_argument(env, info)) != nullptr ? 1 : 0);
}

napi_value move_handle(napi_env env, napi_callback_info info) {
  double scope = 0;
  const double handle = handle_argument(env, info, &scope);
  return number(env, Environment::of(env)->slab.move(handle, static_cast<uint32_t>(scope)) ? 1 : 0);
}

napi_value scope_of(napi_env env, napi_callback_info info) {
  return number(env, Environment::of(env)->slab.scope_of(handle_argument(env, info)));
}

napi_value open_scope(napi_env env, napi_callback_info) { return number(env, Environment::of(env)->slab.open_scope()); }

napi_value close_scope(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  const double scope = handle_argument(env, info);
  const uint32_t freed = scope >= 1 ? self.slab.close_scope(static_cast<uint32_t>(scope)) : 0;
  self.report_memory();
  return number(env, freed);
}

}  // namespace

void export_tensors(napi_env env, napi_value exports) {
  export_function(env, exports, "fromBytes", from_bytes);
  export_function(env, exports, "toBytes", to_bytes);
  export_function(env, exports, "readQueued", read_queued);
  export_function(env, exports, "facts", facts);
  export_function(env, exports, "getItem", get_item);
  export_function(env, exports, "setItem", set_item);
  export_function(env, exports, "setData", set_data);
  export_function(env, exports, "alias", alias);
  export_function(env, exports, "release", release);
  export_function(env, exports, "isLive", is_live);
  export_function(env, exports, "moveHandle", move_handle);
  export_function(env, exports, "scopeOf", scope_of);
  export_function(env, exports, "openScope", open_scope);
  export_function(env, exports, "closeScope", close_scope);
}

}  // namespace voxtorch
