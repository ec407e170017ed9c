#include "core/nn/kv_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <algorithm>

#include "core/runtime/transfers.h"

namespace voxtorch::nn {

using at::Tensor;

namespace {

// Its tensors outlive the mode that a pass runs in.
struct Unrecorded {
  const c10::InferenceMode normal{false};
  const at::NoGradGuard no_grad;
};

constexpr const char* kForeign = "the cache holds another network's tokens, or those of another dtype or device";
constexpr int64_t kFirstCapacity = 64;
// Beyond the tokens that there are: a text may end long before its limit.
constexpr int64_t kMostAhead = 1024;

std::atomic<int64_t> all_bytes{0};

// `old`, with its first `length` tokens, in memory for `capacity`; like `sample` where there is none yet.
Tensor enlarged(const Tensor& old, const Tensor& sample, int64_t length, int64_t capacity) {
  Tensor grown = at::empty({sample.size(0), sample.size(1), capacity, sample.size(3)}, sample.options());
  if (length > 0) grown.narrow(2, 0, length).copy_(old.narrow(2, 0, length));
  return grown;
}

}  // namespace

KvCache::KvCache(const ModuleOptions& options, const Config&) : Module("KvCache", options) {}

KvCache::~KvCache() { all_bytes -= counted_; }

int64_t KvCache::live_bytes() { return all_bytes; }

void KvCache::count() {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) {
    if (layer.keys.defined()) bytes += static_cast<int64_t>(layer.keys.nbytes() + layer.values.nbytes());
  }
  all_bytes += bytes - counted_;
  counted_ = bytes;
}

void KvCache::set_layers(std::vector<Layer> layers) {
  layers_ = std::move(layers);
  count();
}

c10::intrusive_ptr<KvCache> KvCache::copy() const {
  const Unrecorded unrecorded;
  auto made = c10::make_intrusive<KvCache>(options, Config());
  std::vector<Layer> layers;
  for (const Layer& layer : layers_) {
    layers.push_back({layer.keys.narrow(2, 0, length()).clone(at::MemoryFormat::Contiguous),
                      layer.values.narrow(2, 0, length()).clone(at::MemoryFormat::Contiguous)});
  }
  made->set_layers(std::move(layers));
  made->length_.store(length(), std::memory_order_relaxed);
  made->angles_ = angles_;
  return made;
}

c10::intrusive_ptr<KvCache> KvCache::empty_like() const {
  auto made = c10::make_intrusive<KvCache>(options, Config());
  made->reserved_ = reserved_;
  return made;
}

void KvCache::become(KvCache& other) {
  const int64_t tokens = other.length();
  std::vector<Layer> layers = std::move(other.layers_);
  other.set_layers({});
  other.length_.store(0, std::memory_order_relaxed);
  set_layers(std::move(layers));
  length_.store(tokens, std::memory_order_relaxed);
  angles_ = other.angles_;
}

void KvCache::begin_with(const KvCache& other, int64_t tokens) {
  TORCH_CHECK(length() == 0 && tokens > 0 && tokens <= other.length(), "a cache of ", length(),
              " tokens cannot begin with ", tokens, " of ", other.length());
  const Unrecorded unrecorded;
  const int64_t capacity = std::max(tokens, std::min(reserved_, tokens + kMostAhead));
  std::vector<Layer> layers;
  for (const Layer& layer : other.layers_) {
    layers.push_back(
        {enlarged(layer.keys, layer.keys, tokens, capacity), enlarged(layer.values, layer.values, tokens, capacity)});
  }
  set_layers(std::move(layers));
  length_.store(tokens, std::memory_order_relaxed);
  angles_ = other.angles_;
}

void KvCache::compact() {
  reserved_ = 0;
  if (length() == 0) return set_layers({});
  const Unrecorded unrecorded;
  std::vector<Layer> layers;
  for (Layer& layer : layers_) {
    if (layer.keys.size(2) > length()) {
      layer = {enlarged(layer.keys, layer.keys, length(), length()),
               enlarged(layer.values, layer.values, length(), length())};
    }
    layers.push_back(layer);
  }
  set_layers(std::move(layers));
}

int64_t KvCache::batch() const { return layers_.empty() || length() == 0 ? 0 : layers_.front().keys.size(0); }

void KvCache::check(int64_t batch, int64_t layers) const {
  if (length() == 0) return;
  TORCH_CHECK(static_cast<int64_t>(layers_.size()) == layers, kForeign);
  TORCH_CHECK(this->batch() == batch, "the cache has ", this->batch(), " rows, but the input has ", batch);
}

std::pair<Tensor, Tensor> KvCache::append(size_t layer, const Tensor& keys, const Tensor& values) {
  const Unrecorded unrecorded;
  const int64_t past = length(), total = past + keys.size(2);
  if (past == 0 && layer == 0) set_layers({});
  if (layers_.size() <= layer) layers_.resize(layer + 1);
  Layer& mine = layers_[layer];
  if (past > 0) {
    const auto fits = [&](int64_t dim) { return mine.keys.size(dim) == keys.size(dim); };
    TORCH_CHECK(mine.keys.defined() && fits(0) && fits(1) && fits(3) && mine.keys.dtype() == keys.dtype() &&
                    mine.keys.device() == keys.device(),
                kForeign);
  }
  make_room(mine, total, keys, values);
  mine.keys.narrow(2, past, keys.size(2)).copy_(keys);
  mine.values.narrow(2, past, keys.size(2)).copy_(values);
  return {mine.keys.narrow(2, 0, total), mine.values.narrow(2, 0, total)};
}

// Keys and values are like those that are there or will be.
void KvCache::make_room(Layer& layer, int64_t total, const Tensor& keys, const Tensor& values) {
  const int64_t capacity = layer.keys.defined() ? layer.keys.size(2) : 0;
  if (capacity >= total) return;
  const int64_t ahead = std::min(reserved_, total + kMostAhead);
  // A caller that reserved a length gets no more than that.
  const int64_t growth = reserved_ >= total ? std::min(capacity * 3 / 2, reserved_) : capacity * 3 / 2;
  const int64_t first = reserved_ >= total ? std::min(kFirstCapacity, reserved_) : kFirstCapacity;
  const int64_t wanted = std::max({total, ahead, first, growth});
  layer.keys = enlarged(layer.keys, keys, length(), wanted);
  layer.values = enlarged(layer.values, values, length(), wanted);
  count();
}

std::pair<Tensor, Tensor> KvCache::memory(size_t layer, int64_t time) {
  const Unrecorded unrecorded;
  TORCH_CHECK(length() > 0 && layer < layers_.size(), kForeign);
  Layer& mine = layers_[layer];
  make_room(mine, length() + time, mine.keys, mine.values);
  return {mine.keys, mine.values};
}

std::pair<Tensor, Tensor> KvCache::get(size_t layer) const {
  TORCH_CHECK(length() > 0 && layer < layers_.size(), kForeign);
  const Layer& mine = layers_[layer];
  return {mine.keys.narrow(2, 0, length()), mine.values.narrow(2, 0, length())};
}

void KvCache::crop(int64_t length) {
  TORCH_CHECK(length >= 0 && length <= this->length(), "length must be from 0 to ", this->length(),
              ", the tokens in the cache, got ", length);
  length_.store(length, std::memory_order_relaxed);
  if (length == 0) set_layers({});
}

void KvCache::reorder(const Tensor& rows) {
  TORCH_CHECK(rows.dim() == 1 && rows.size(0) > 0 && rows.scalar_type() == at::kLong,
              "rows must be int64 [batch], at least one, got ", rows.scalar_type(), " ", rows.sizes());
  if (length() == 0) return;
  const Unrecorded unrecorded;
  const Tensor wanted = rows.to(at::kCPU);
  TORCH_CHECK(wanted.min().item<int64_t>() >= 0 && wanted.max().item<int64_t>() < batch(), "rows must be from 0 to ",
              batch() - 1, ", those of the cache");
  const Tensor now = at::arange(batch(), at::TensorOptions().dtype(at::kLong));
  if (wanted.size(0) == batch()) return move_rows(wanted, (wanted != now).nonzero().squeeze(1));
  const Tensor places = upload(wanted, layers_.front().keys.device());
  std::vector<Layer> chosen;
  for (const Layer& layer : layers_) {
    const auto taken = [&](const Tensor& old) {
      const Tensor used = old.narrow(2, 0, length()).index_select(0, places);
      return enlarged(used, used, length(), old.size(2));
    };
    chosen.push_back({taken(layer.keys), taken(layer.values)});
  }
  set_layers(std::move(chosen));
}

// The same memory: only rows that change are copied.
void KvCache::move_rows(const Tensor& rows, const Tensor& changed) {
  if (changed.numel() == 0) return;
  const Tensor moves = upload(at::stack({changed, rows.index_select(0, changed)}), layers_.front().keys.device());
  const Tensor to = moves.select(0, 0), from = moves.select(0, 1);
  for (const Layer& layer : layers_) {
    for (const Tensor& all : {layer.keys, layer.values}) {
      Tensor used = all.narrow(2, 0, length());
      used.index_copy_(0, to, used.index_select(0, from));
    }
  }
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;

const RegisteredModule registered_kv_cache("kv_cache", make_module<KvCache>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("kv_cache_length(__torch__.torch.classes.voxtorch.Module self) -> int",
        [](const ModulePtr& self) { return network<KvCache>(self, "kv_cache_length").length(); });
  m.def("kv_cache_bytes() -> int", KvCache::live_bytes);
  m.def("kv_cache_crop(__torch__.torch.classes.voxtorch.Module self, int length) -> ()",
        [](const ModulePtr& self, int64_t length) { network<KvCache>(self, "kv_cache_crop").crop(length); });
  m.def("kv_cache_reorder(__torch__.torch.classes.voxtorch.Module self, Tensor rows) -> ()",
        [](const ModulePtr& self, const Tensor& rows) { network<KvCache>(self, "kv_cache_reorder").reorder(rows); });
}

}  // namespace voxtorch::nn
