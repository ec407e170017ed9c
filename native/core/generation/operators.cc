// Generation sessions as operators.
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include "core/generation/batch.h"

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

c10::intrusive_ptr<nn::KvCache> cache_of(const std::optional<ModulePtr>& given, const char* op) {
  if (!given) return {};
  voxtorch::network<nn::KvCache>(*given, op);
  return c10::static_intrusive_pointer_cast<nn::KvCache>(*given);
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
  start.cache = cache_of(cache, "generation_begin");
  start.prompt.encoder_cache = cache_of(encoder_cache, "generation_begin");
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

void join(const ModulePtr& self, int64_t member, const ModulePtr& session, const ModulePtr& network,
          const OptionalTensor& ids, const OptionalTensor& mask, const OptionalTensor& embeddings,
          const std::optional<ModulePtr>& cache, const OptionalTensor& context, std::optional<at::Generator> generator,
          const OptionalTensor& uniforms, const OptionalIds& limits, const OptionalTensor& prefix_keys) {
  const at::AutoGradMode unrecorded(false);
  Start start;
  start.prefix_keys = prefix_keys.value_or(Tensor());
  start.prompt.ids = ids.value_or(Tensor());
  start.prompt.mask = mask.value_or(Tensor());
  start.prompt.embeddings = embeddings.value_or(Tensor());
  start.cache = cache_of(cache, "generation_batch_join");
  start.context = context.value_or(Tensor());
  start.generator = std::move(generator);
  start.uniforms = uniforms.value_or(Tensor());
  start.limits = limits.value_or(Ids());
  voxtorch::network<Session>(session, "generation_batch_join");
  voxtorch::network<Batch>(self, "generation_batch_join")
      .join(member, c10::static_intrusive_pointer_cast<Session>(session), network, start);
}

std::tuple<Ids, Ids, Ids, std::vector<double>, Ids, Ids> batch_step(const ModulePtr& self, const ModulePtr& network,
                                                                    const Ids& paused,
                                                                    const OptionalIds& allowed_members,
                                                                    const OptionalIds& allowed_tokens,
                                                                    const OptionalIds& allowed_counts) {
  const at::AutoGradMode unrecorded(false);
  std::map<int64_t, Allowed> allowed;
  if (const auto sets = allowed_of(allowed_tokens, allowed_counts)) {
    TORCH_CHECK_VALUE(allowed_members && allowed_members->size() == sets->size(), "allowed_members does not fit");
    for (size_t i = 0; i < sets->size(); ++i) allowed[(*allowed_members)[i]] = {(*sets)[i]};
  }
  Batch::Told told = voxtorch::network<Batch>(self, "generation_batch_step").step(network, paused, allowed);
  return {std::move(told.members),  std::move(told.tokens), std::move(told.ends),
          std::move(told.logprobs), std::move(told.cached), std::move(told.failed)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("generation_batch(str config) -> __torch__.torch.classes.voxtorch.Module",
        [](const std::string& config) -> ModulePtr { return c10::make_intrusive<Batch>(Config::parse(config)); });
  m.def(
      "generation_batch_join(__torch__.torch.classes.voxtorch.Module self, int member, "
      "__torch__.torch.classes.voxtorch.Module session, __torch__.torch.classes.voxtorch.Module network, Tensor? "
      "input_ids=None, Tensor? attention_mask=None, *, Tensor? inputs_embeds=None, "
      "__torch__.torch.classes.voxtorch.Module? cache=None, Tensor? context_ids=None, Generator? generator=None, "
      "Tensor? uniforms=None, int[]? limits=None, Tensor? prefix_keys=None) -> ()",
      join);
  m.def("generation_batch_leave(__torch__.torch.classes.voxtorch.Module self, int member) -> ()",
        [](const ModulePtr& self, int64_t member) {
          const at::AutoGradMode unrecorded(false);
          network<Batch>(self, "generation_batch_leave").leave(member);
        });
  // A token of each member that got one, and who failed: generation_batch_error throws with what.
  m.def(
      "generation_batch_step(__torch__.torch.classes.voxtorch.Module self, __torch__.torch.classes.voxtorch.Module "
      "network, int[] paused, *, int[]? allowed_members=None, int[]? allowed_tokens=None, int[]? allowed_counts=None) "
      "-> (int[] members, int[] tokens, int[] ends, float[] logprobs, int[] cached, int[] failed)",
      batch_step);
  m.def("generation_batch_error(__torch__.torch.classes.voxtorch.Module self, int member) -> ()",
        [](const ModulePtr& self, int64_t member) { network<Batch>(self, "generation_batch_error").rethrow(member); });
  m.def(
      "generation_batch_facts(__torch__.torch.classes.voxtorch.Module self) -> (int texts, int bytes, int asked, int "
      "reused)",
      [](const ModulePtr& self) -> std::tuple<int64_t, int64_t, int64_t, int64_t> {
        const PrefixCache::Facts facts = network<Batch>(self, "generation_batch_facts").facts();
        return {facts.texts, facts.bytes, facts.asked, facts.reused};
      });
  // Bytes that a token takes in the network's cache; 0 where it does not read for several texts in one pass.
  m.def("generation_token_bytes(__torch__.torch.classes.voxtorch.Module network) -> int",
        [](const ModulePtr& module) -> int64_t {
          const auto* found = dynamic_cast<const Generative*>(module.get());
          return found == nullptr ? 0 : found->token_bytes();
        });
  m.def("generation_session(str config, float[] biases) -> __torch__.torch.classes.voxtorch.Module",
        [](const std::string& config, const std::vector<double>& biases) -> ModulePtr {
          return c10::make_intrusive<Session>(Config::parse(config), biases);
        });
  // A step locks the networks as well, so that their weights cannot change meanwhile.
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
