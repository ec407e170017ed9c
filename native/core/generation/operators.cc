// Generation sessions as operators.
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include "core/generation/session.h"

namespace voxtorch::generation {

using at::Tensor;

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;
using OptionalTensor = std::optional<Tensor>;
using OptionalIds = std::optional<Ids>;
using StepResult = std::tuple<Ids, Ids, std::vector<double>, bool>;

// One list for all rows, and how many of each.
std::optional<Allowed> allowed_of(const OptionalIds& tokens, const OptionalIds& counts) {
  if (!tokens || !counts) return std::nullopt;
  Allowed result;
  size_t at = 0;
  for (const int64_t count : *counts) {
    TORCH_CHECK_VALUE(count >= 0 && static_cast<size_t>(count) <= tokens->size() - at, "allowed_counts does not fit");
    const auto first = tokens->begin() + static_cast<int64_t>(at);
    result.emplace_back(first, first + count);
    at += static_cast<size_t>(count);
  }
  return result;
}

StepResult told(Added added) {
  return {std::move(added.ids), std::move(added.ends), std::move(added.logprobs), added.done};
}

StepResult begin(const ModulePtr& self, const ModulePtr& network, const OptionalTensor& ids, const OptionalTensor& mask,
                 const OptionalTensor& embeddings, const std::optional<ModulePtr>& cache, const OptionalTensor& context,
                 const OptionalTensor& encoder_states, const OptionalTensor& encoder_mask,
                 const std::optional<ModulePtr>& encoder_cache, std::optional<at::Generator> generator,
                 const OptionalTensor& uniforms, const OptionalIds& limits, const OptionalIds& allowed_tokens,
                 const OptionalIds& allowed_counts, std::optional<int64_t> prompt_place,
                 const OptionalTensor& negative_ids, const OptionalTensor& negative_mask,
                 const std::optional<ModulePtr>& assistant, const OptionalTensor& assistant_states) {
  const at::AutoGradMode unrecorded(false);
  const auto given = [](const OptionalTensor& tensor) { return tensor.value_or(Tensor()); };
  Start start;
  start.prompt = {given(ids), given(embeddings), given(mask), given(encoder_states), given(encoder_mask)};
  start.prompt.place = prompt_place.value_or(-1);
  start.context = given(context);
  if (cache) {
    voxtorch::network<nn::KvCache>(*cache, "generation_begin");
    start.cache = c10::static_intrusive_pointer_cast<nn::KvCache>(*cache);
  }
  if (encoder_cache) {
    voxtorch::network<nn::KvCache>(*encoder_cache, "generation_begin");
    start.prompt.encoder_cache = c10::static_intrusive_pointer_cast<nn::KvCache>(*encoder_cache);
  }
  start.generator = std::move(generator);
  start.uniforms = given(uniforms);
  start.negative_ids = given(negative_ids);
  start.negative_mask = given(negative_mask);
  if (assistant) start.assistant = *assistant;
  start.assistant_states = given(assistant_states);
  start.limits = limits.value_or(Ids());
  const auto allowed = allowed_of(allowed_tokens, allowed_counts);
  return told(
      voxtorch::network<Session>(self, "generation_begin").begin(network, start, allowed ? &*allowed : nullptr));
}

StepResult step(const ModulePtr& self, const ModulePtr&, const OptionalIds& allowed_tokens,
                const OptionalIds& allowed_counts, const std::optional<ModulePtr>&) {
  const at::AutoGradMode unrecorded(false);
  const auto allowed = allowed_of(allowed_tokens, allowed_counts);
  return told(voxtorch::network<Session>(self, "generation_step").step(allowed ? &*allowed : nullptr));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("generation_session(str config, float[] biases) -> __torch__.torch.classes.voxtorch.Module",
        [](const std::string& config, const std::vector<double>& biases) -> ModulePtr {
          return c10::make_intrusive<Session>(Config::parse(config), biases);
        });
  // A step takes the networks as well, so that nobody changes their weights meanwhile.
  m.def(
      "generation_begin(__torch__.torch.classes.voxtorch.Module self, __torch__.torch.classes.voxtorch.Module network, "
      "Tensor? input_ids=None, Tensor? attention_mask=None, *, Tensor? inputs_embeds=None, "
      "__torch__.torch.classes.voxtorch.Module? cache=None, Tensor? context_ids=None, Tensor? "
      "encoder_hidden_states=None, Tensor? encoder_attention_mask=None, __torch__.torch.classes.voxtorch.Module? "
      "encoder_cache=None, Generator? generator=None, Tensor? uniforms=None, int[]? limits=None, int[]? "
      "allowed_tokens=None, int[]? allowed_counts=None, int? prompt_place=None, Tensor? negative_prompt_ids=None, "
      "Tensor? negative_prompt_attention_mask=None, __torch__.torch.classes.voxtorch.Module? assistant=None, Tensor? "
      "assistant_encoder_hidden_states=None) -> (int[] tokens, "
      "int[] ends, float[] logprobs, bool done)",
      begin);
  m.def(
      "generation_step(__torch__.torch.classes.voxtorch.Module self, __torch__.torch.classes.voxtorch.Module network, "
      "*, int[]? allowed_tokens=None, int[]? allowed_counts=None, __torch__.torch.classes.voxtorch.Module? "
      "assistant=None) -> (int[] tokens, int[] ends, float[] logprobs, bool "
      "done)",
      step);
  m.def("generation_cancel(__torch__.torch.classes.voxtorch.Module self) -> ()",
        [](const ModulePtr& self) { network<Session>(self, "generation_cancel").cancel(); });
  // What each row has written, one after the other, and how many tokens that is.
  m.def("generation_written(__torch__.torch.classes.voxtorch.Module self) -> (int[] tokens, int[] counts)",
        [](const ModulePtr& self) -> std::tuple<Ids, Ids> {
          Ids tokens, counts;
          for (const Ids& ids : network<Session>(self, "generation_written").written()) {
            tokens.insert(tokens.end(), ids.begin(), ids.end());
            counts.push_back(static_cast<int64_t>(ids.size()));
          }
          return {std::move(tokens), std::move(counts)};
        });
  m.def(
      "generation_result(__torch__.torch.classes.voxtorch.Module self) -> (Tensor sequences, int[] lengths, int[] "
      "ends, "
      "Tensor sequences_scores, Tensor logprobs, Tensor scores, Tensor logits, Tensor attention_mask, Tensor "
      "prompt_logits, int drafted, int accepted)",
      [](const ModulePtr& self)
          -> std::tuple<Tensor, Ids, Ids, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int64_t, int64_t> {
        Session::Result r = network<Session>(self, "generation_result").result();
        return {r.sequences, std::move(r.lengths), std::move(r.ends), r.sequences_scores, r.logprobs, r.scores,
                r.logits,    r.attention_mask,     r.prompt_logits,   r.drafted,          r.accepted};
      });
}

}  // namespace voxtorch::generation
