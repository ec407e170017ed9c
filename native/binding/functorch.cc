// Function transforms of lib/func: levels, the tensors of a level, and gradients on the calling thread.
#include "core/runtime/functorch.h"

#include "binding/environment.h"

namespace voxtorch {
namespace {

// enterTransform with cells: kind, batch size, randomness. Writes the level.
void enter(Environment& self, Reader& cells) {
  const std::string kind = next(cells).text();
  const int64_t batch_size = read_int(next(cells));
  const std::string randomness = next(cells).text();
  int64_t level;
  {
    ContextGuard guard(self.context());
    level = enter_transform(kind, batch_size, randomness);
  }
  self.results().cell(Tag::kNumber, double(level));
}

// leaveTransform with cells: level.
void leave(Environment& self, Reader& cells) { leave_transform(read_int(next(cells))); }

// wrapTensors with cells: tensors, level, requiresGrad. Writes the level's tensors.
void wrap(Environment& self, Reader& cells) {
  const std::vector<at::Tensor> tensors = read_tensors(next(cells), self.slab);
  const int64_t level = read_int(next(cells));
  const Reader requires_grad = next(cells);
  self.write_result(c10::IValue(wrap_for_level(tensors, level, requires_grad.value() != 0)));
}

// unwrapTensors with cells: tensors, level. Writes the tensors of the level outside.
void unwrap(Environment& self, Reader& cells) {
  const std::vector<at::Tensor> tensors = read_tensors(next(cells), self.slab);
  self.write_result(c10::IValue(unwrap_from_level(tensors, read_int(next(cells)))));
}

// batchTensor with cells: tensor, dimension, level.
void batch(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  const int64_t dim = read_int(next(cells));
  self.write_result(c10::IValue(batch_for_level(tensor, dim, read_int(next(cells)))));
}

// unbatchTensor with cells: tensor, level, batch size, dimension of the result.
void unbatch(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  const int64_t level = read_int(next(cells));
  const int64_t batch_size = read_int(next(cells));
  const int64_t out_dim = read_int(next(cells));
  ContextGuard guard(self.context());
  self.write_result(c10::IValue(unbatch_from_level(tensor, level, batch_size, out_dim)));
}

// gradientsHere with cells: outputs, inputs, gradients of the outputs (or none). Writes the inputs' gradients.
void gradients(Environment& self, Reader& cells) {
  const std::vector<at::Tensor> outputs = read_tensors(next(cells), self.slab);
  const std::vector<at::Tensor> inputs = read_tensors(next(cells), self.slab);
  const std::vector<at::Tensor> grad_outputs = read_tensors(next(cells), self.slab);
  if (!grad_outputs.empty() && grad_outputs.size() != outputs.size())
    fail(ErrorKind::kArguments, "expected one gradient per output");
  const double begin = self.buffer[Environment::kBegin];
  const uint32_t scope = self.scope();
  const Context context = self.context();
  const auto at = static_cast<size_t>(self.buffer[Environment::kEnd]);
  // Hooks of gradients are JavaScript, and this is its thread.
  const Channel::CallsHere calls_here(*self.channel,
                                      [&](uint32_t callback, int kind, const std::vector<c10::IValue>& arguments) {
                                        Context current = context;
                                        current.grad = c10::GradMode::is_enabled();
                                        return self.invoke_here(callback, kind, current, arguments, at);
                                      });
  std::vector<at::Tensor> results;
  {
    ContextGuard guard(context);
    results = gradients_here(outputs, inputs, grad_outputs);
  }
  self.buffer[Environment::kBegin] = begin;
  self.buffer[Environment::kStatus] = 0;
  self.write_result(c10::IValue(std::move(results)), scope);
}

}  // namespace

void export_functorch(Napi::Object exports) {
  export_cells<enter>(exports, "enterTransform", "func");
  export_cells<leave>(exports, "leaveTransform", "func");
  export_cells<wrap>(exports, "wrapTensors", "func");
  export_cells<unwrap>(exports, "unwrapTensors", "func");
  export_cells<batch>(exports, "batchTensor", "vmap");
  export_cells<unbatch>(exports, "unbatchTensor", "vmap");
  export_cells<gradients>(exports, "gradientsHere", "grad");
}

}  // namespace voxtorch
