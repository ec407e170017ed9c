// Hooks: JavaScript that sees gradients, and outputs of the blocks of native networks.
#include "binding/environment.h"
#include "core/block.h"

namespace voxtorch {
namespace {

// registerHook with cells: tensor, callback. Writes the hook's position.
napi_value register_hook(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("registerHook", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    const uint32_t callback = static_cast<uint32_t>(read_int(next(cells)));
    auto owner = std::make_shared<CallbackOwner>(self.channel, callback);
    const unsigned position = tensor.register_hook([owner](const at::Tensor& grad) -> at::Tensor {
      auto results = owner->channel->invoke(owner->callback, kGradientHook, {grad});
      return results.empty() || !results[0].isTensor() ? at::Tensor() : results[0].toTensor();
    });
    Writer writer = self.results();
    writer.cell(Tag::kNumber, position);
  });
  return nullptr;
}

napi_value remove_hook(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("registerHook", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    tensor.remove_hook(static_cast<unsigned>(read_int(next(cells))));
  });
  return nullptr;
}

// setForwardHook with cells: module, callback or null.
napi_value set_forward_hook(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("registerForwardHook", [&] {
    Reader cells = self.arguments();
    const c10::intrusive_ptr<Module> module = read_module(next(cells), self.slab).toCustomClass<Module>();
    Block* const block = dynamic_cast<Block*>(module.get());
    if (block == nullptr) fail(ErrorKind::kValue, "a " + module->kind + " has no output of its own");
    const Reader callback = next(cells);
    if (callback.tag() == Tag::kNull) return block->set_hook(nullptr);
    auto owner = std::make_shared<CallbackOwner>(self.channel, static_cast<uint32_t>(read_int(callback)));
    block->set_hook(std::make_shared<Block::Hook>([owner](const at::Tensor& input, const at::Tensor& output) {
      auto results = owner->channel->invoke(owner->callback, kForwardHook, {input, output});
      return results.empty() || !results[0].isTensor() ? output : results[0].toTensor();
    }));
  });
  return nullptr;
}

}  // namespace

void export_hooks(napi_env env, napi_value exports) {
  export_function(env, exports, "registerHook", register_hook);
  export_function(env, exports, "removeHook", remove_hook);
  export_function(env, exports, "setForwardHook", set_forward_hook);
}

}  // namespace voxtorch
