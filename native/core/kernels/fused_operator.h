// What autograd and autocast need of an operator whose forward and backward are operators of their own, registered for
// each device:
//
//   forward(arguments) -> output, or (output, what the backward reads too)
//   backward(grad_output, kept outputs of the forward, arguments) -> the gradients of the first arguments
//
// A definition names them:
//
//   using Signature = Tensor(arguments);
//   using Output = ...;          // of the forward
//   using Kept = Types<...>;     // const Tensor& for each of the forward's last outputs that the backward reads
//   using Gradients = ...;       // a tuple of tensors
//   static constexpr const char *kName, *kForward, *kBackward;
//   // The backward in plain operators, which autograd can differentiate again.
//   static Gradients composed_backward(const Tensor& grad_output, kept..., arguments);
//   // With autocast: so many of the first arguments are cast to its dtype, other tensors unless they are float32.
//   static constexpr size_t kCast = ...;
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/kernels/arguments.h"

namespace voxtorch::kernels {

// Return the operator of a name. Its callers keep it in a static variable.
template <typename Signature>
c10::TypedOperatorHandle<Signature> operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Turns autocast off while it lives, and casts tensors to the dtype in which autocast computes products.
class AutocastTo {
 public:
  explicit AutocastTo(const at::Tensor& like)
      : device_(like.device().type()), type_(at::autocast::get_autocast_dtype(device_)) {}
  at::Tensor operator()(const at::Tensor& tensor) const { return at::autocast::cached_cast(type_, tensor, device_); }

 private:
  const c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
  const c10::DeviceType device_;
  const at::ScalarType type_;
};

template <typename...>
struct Types {};

template <typename Definition, typename Signature = typename Definition::Signature,
          typename Kept = typename Definition::Kept>
struct FusedOperator;

template <typename Definition, typename... Arguments, typename... Kept>
struct FusedOperator<Definition, at::Tensor(Arguments...), Types<Kept...>> {
  using Tensor = at::Tensor;
  using Output = typename Definition::Output;
  using Gradients = typename Definition::Gradients;

  static Output forward(Arguments... arguments) {
    static const auto op = operator_of<Output(Arguments...)>(Definition::kForward);
    return op.call(arguments...);
  }

  static Gradients backward(const Tensor& grad_output, Kept... kept, Arguments... arguments) {
    static const auto op = operator_of<Gradients(const Tensor&, Kept..., Arguments...)>(Definition::kBackward);
    return op.call(grad_output, kept..., arguments...);
  }

  // Below autograd, on every device.
  static Tensor plain(Arguments... arguments) { return outputs(forward(arguments...)).front(); }

  static Tensor with_autograd(Arguments... arguments) {
    if (any_requires_grad(arguments...)) return Recorded::apply(arguments...);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return plain(arguments...);
  }

  static Gradients backward_with_autograd(const Tensor& grad_output, Kept... kept, Arguments... arguments) {
    if (any_requires_grad(grad_output, arguments...)) {
      return Definition::composed_backward(grad_output, kept..., arguments...);
    }
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return backward(grad_output, kept..., arguments...);
  }

  static Tensor with_autocast(Arguments... arguments) {
    static const auto op = operator_of<Tensor(Arguments...)>(Definition::kName);
    const AutocastTo cast(std::get<0>(std::tie(arguments...)));
    return cast_and_call(op, cast, std::index_sequence_for<Arguments...>(), arguments...);
  }

 private:
  template <typename Argument>
  static constexpr bool is_tensor = std::is_same_v<std::decay_t<Argument>, Tensor>;
  template <typename Argument>
  static constexpr bool is_optional_tensor = std::is_same_v<std::decay_t<Argument>, std::optional<Tensor>>;

  // Optional tensors are masks and lengths, which have no gradient.
  template <typename... Values>
  static bool any_requires_grad(const Values&... values) {
    if (!c10::GradMode::is_enabled()) return false;
    const auto needs = [](const auto& value) {
      if constexpr (is_tensor<decltype(value)>) return value.defined() && value.requires_grad();
      return false;
    };
    return (needs(values) || ...);
  }

  static std::vector<Tensor> outputs(const Output& output) {
    if constexpr (is_tensor<Output>) {
      return {output};
    } else {
      return std::apply([](const auto&... each) { return std::vector<Tensor>{each...}; }, output);
    }
  }

  template <typename Op, size_t... I>
  static Tensor cast_and_call(const Op& op, const AutocastTo& cast, std::index_sequence<I...>, Arguments... arguments) {
    const auto prepared = [&](size_t index, const auto& value) {
      if constexpr (is_tensor<decltype(value)>) {
        return index < Definition::kCast || value.scalar_type() != at::kFloat ? cast(value) : value;
      } else {
        return value;
      }
    };
    return op.call(prepared(I, arguments)...);
  }

  struct Recorded : torch::autograd::Function<Recorded> {
    using Context = torch::autograd::AutogradContext;
    using Variables = torch::autograd::variable_list;

    static Tensor forward(Context* ctx, Arguments... arguments) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      const std::vector<Tensor> all = outputs(FusedOperator::forward(arguments...));
      Variables tensors(all.end() - sizeof...(Kept), all.end());
      std::vector<c10::IValue> values;
      const auto save = [&](const auto& argument) {
        if constexpr (is_tensor<decltype(argument)>) {
          tensors.push_back(argument);
        } else if constexpr (is_optional_tensor<decltype(argument)>) {
          tensors.push_back(argument.value_or(Tensor()));
        } else {
          values.emplace_back(argument);
        }
      };
      (save(arguments), ...);
      ctx->save_for_backward(std::move(tensors));
      if (!values.empty()) ctx->saved_data["values"] = c10::ivalue::Tuple::create(std::move(values));
      ctx->set_materialize_grads(false);
      return all.front();
    }

    static Variables backward(Context* ctx, const Variables& grads) {
      Variables result(sizeof...(Arguments));
      if (!grads[0].defined()) return result;
      const Variables tensors = ctx->get_saved_variables();
      std::vector<c10::IValue> values;
      if (ctx->saved_data.count("values") != 0) values = ctx->saved_data["values"].toTupleRef().elements().vec();
      size_t tensor = 0, value = 0;
      const auto next = [&]<typename T>(std::type_identity<T>) -> T {
        if constexpr (is_tensor<T>) {
          return tensors[tensor++];
        } else if constexpr (is_optional_tensor<T>) {
          const Tensor& saved = tensors[tensor++];
          return saved.defined() ? T(saved) : std::nullopt;
        } else {
          return values[value++].to<T>();
        }
      };
      // Braces: in this order.
      const std::tuple<Tensor, std::decay_t<Kept>..., std::decay_t<Arguments>...> arguments{
          grads[0], next(std::type_identity<std::decay_t<Kept>>())...,
          next(std::type_identity<std::decay_t<Arguments>>())...};
      const Gradients gradients = std::apply(FusedOperator::backward, arguments);
      const std::vector<Tensor> list =
          std::apply([](const auto&... each) { return std::vector<Tensor>{each...}; }, gradients);
      std::copy(list.begin(), list.end(), result.begin());
      return result;
    }
  };
};

// Register implementations of an operator for the dispatch keys that all devices share.
#define VOXTORCH_AUTOGRAD(name, forward, backward) \
  TORCH_LIBRARY_IMPL(voxtorch, Autograd, m) {      \
    m.impl(name, forward);                         \
    m.impl(name "_backward", backward);            \
  }
#define VOXTORCH_META(forward_name, forward, backward_name, backward) \
  TORCH_LIBRARY_IMPL(voxtorch, Meta, m) {                             \
    m.impl(forward_name, forward);                                    \
    m.impl(backward_name, backward);                                  \
  }
#define VOXTORCH_AUTOCAST(name, function)                                  \
  TORCH_LIBRARY_IMPL(voxtorch, AutocastCPU, m) { m.impl(name, function); } \
  TORCH_LIBRARY_IMPL(voxtorch, AutocastCUDA, m) { m.impl(name, function); }
// All of them for a FusedOperator whose forward is NAME_forward; forward_meta and backward_meta are in scope.
#define VOXTORCH_FUSED_OPERATOR(name, Operator)                                                 \
  TORCH_LIBRARY_IMPL(voxtorch, CompositeExplicitAutograd, m) { m.impl(name, Operator::plain); } \
  VOXTORCH_META(name "_forward", forward_meta, name "_backward", backward_meta)                 \
  VOXTORCH_AUTOGRAD(name, Operator::with_autograd, Operator::backward_with_autograd)            \
  VOXTORCH_AUTOCAST(name, Operator::with_autocast)

}  // namespace voxtorch::kernels
