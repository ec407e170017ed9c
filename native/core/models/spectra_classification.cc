// SPECTRA with a head for classes, or for a quantity.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/l1_loss.h>
#include <torch/library.h>

#include "core/models/spectra.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

// Linear, gelu, linear on the first fused state; the names are those of a torch.nn.Sequential.
class SpectraClassificationHead : public Block {
 public:
  SpectraClassificationHead(const ModuleOptions& options, int64_t dim, int64_t labels)
      : Block("Sequential", options),
        dense(*child<SpectraDense>("0", dim, dim)),
        out(*child<SpectraDense>("2", dim, labels)) {}
  Tensor forward(const Tensor& x) const { return watched(x, out.forward(dense.forward(x, gelu))); }

 private:
  const nn::Activation gelu = nn::activation("gelu");
  nn::Linear &dense, &out;
};

class SpectraForSequenceClassification : public Spectra {
 public:
  SpectraForSequenceClassification(const ModuleOptions& options, const Config& given)
      : Spectra("SpectraForSequenceClassification", options, given),
        labels(given.integer("num_labels", 2)),
        head(*child<SpectraClassificationHead>("head", text_config.dim, labels)) {
    TORCH_CHECK(labels > 0, "num_labels must be positive, got ", labels);
  }

  // One label: a quantity, whose loss is L1. More: classes, whose loss is cross-entropy.
  // `classes` are the labels on the CPU, of the classes.
  Tensor loss(const Tensor& logits, const Tensor& given, const Tensor& classes) const {
    TORCH_CHECK(given.dim() == 1 && given.size(0) == logits.size(0), "labels must have the shape [", logits.size(0),
                "] of the texts, got ", given.sizes());
    const Tensor predicted = exact(logits);
    const Tensor wanted = upload(given, predicted.device());
    if (labels == 1) return at::l1_loss(predicted.squeeze(1), wanted.to(predicted.scalar_type()));
    TORCH_CHECK(c10::isIntegralType(given.scalar_type(), false), "labels of classes must have an integer dtype, got ",
                given.scalar_type());
    for (const int64_t label : on_host(classes)) {
      TORCH_CHECK(label >= 0 && label < labels, "labels has the index ", label, ", but there are ", labels, " classes");
    }
    return at::cross_entropy_loss(predicted, wanted.to(at::kLong));
  }

  const int64_t labels;
  SpectraClassificationHead& head;
};

using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using ModulePtr = c10::intrusive_ptr<Module>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensors> classify(const ModulePtr& self, const Tensor& ids,
                                                             const Tensor& mask, const OptionalTensor& types,
                                                             const Tensor& values, const Tensor& lengths,
                                                             int64_t audios_per_text, const OptionalTensor& labels,
                                                             bool attentions) {
  const auto& model = network<SpectraForSequenceClassification>(self, "spectra_classification_forward");
  // Those of classes are looked at; quantities may stay where they are.
  Tensor classes = labels && c10::isIntegralType(labels->scalar_type(), false) ? *labels : Tensor();
  std::vector<Tensor*> more;
  if (model.labels > 1 && classes.defined()) more.push_back(&classes);
  const SpectraInputs inputs = model.on_hand({ids, mask, types.value_or(Tensor()), values, lengths, {}}, more);
  SpectraOutput output = model.forward(inputs, audios_per_text, std::nullopt, attentions);
  const Tensor logits = model.head.forward(output.fused.states.select(1, 0));
  return {logits, labels ? model.loss(logits, *labels, classes) : Tensor(), output.fused.states, output.fused.mask,
          std::move(output.fused.attentions)};
}

const RegisteredModule registered_spectra_classification("spectra_classification",
                                                         make_module<SpectraForSequenceClassification>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "spectra_classification_forward(__torch__.torch.classes.voxtorch.Module self, *, Tensor input_ids, Tensor "
      "attention_mask, Tensor? token_type_ids=None, Tensor input_values, Tensor audio_lengths, int "
      "audios_per_text=1, Tensor? labels=None, bool output_attentions=False) -> (Tensor logits, Tensor loss, Tensor "
      "last_hidden_state, Tensor attention_mask, Tensor[] attentions)",
      classify);
}

}  // namespace voxtorch::models
