// few_rows_joined on CUDA: ATen's side of the launches.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <algorithm>

#include "core/kernels/block_quantization.h"
#include "core/kernels/few_rows/joined.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensors = c10::List<std::optional<Tensor>>;

constexpr int64_t kMostWidth = int64_t{1} << 28;        // of a row, which is counted in 32 bits
constexpr int64_t kMostRows = kMostJoinedRows * 65535;  // of a grid

JoinedType joined_type(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16) return JoinedType::kBFloat16;
  return tensor.scalar_type() == at::kHalf ? JoinedType::kFloat16 : JoinedType::kFloat32;
}

// Whether the kernels take these; all else is made of other functions.
bool is_fused(const Tensor& input, at::ArrayRef<Projection> projections) {
  if (input.scalar_type() == at::kDouble || input.size(-1) > kMostWidth) return false;
  if (input.numel() / input.size(-1) > kMostRows) return false;
  return std::all_of(projections.begin(), projections.end(),
                     [&](const Projection& p) { return weight_kind(p) == weight_kind(projections[0]); });
}

int logarithm(int64_t number) {
  int shift = 0;
  while (int64_t{1} << shift < number) ++shift;
  return int64_t{1} << shift == number ? shift : -1;
}

void check_launch(int error) { C10_CUDA_CHECK(static_cast<cudaError_t>(error)); }

// All that the launches read, until they are enqueued: the allocator knows that the stream comes first to it after
// that.
class Launches {
 public:
  Launches(const Tensor& input, at::ArrayRef<Projection> projections, JoinedActivation activation)
      : device_(input.device()), input_(input.contiguous()), projections_(projections), activation_(activation) {
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, input.device().index()));
  }

  Tensor run() {
    Joined args = common();
    args.count = static_cast<int>(projections_.size());
    args.function = activation_.function;
    args.gated = activation_.gated;
    for (size_t i = 0; i < projections_.size(); ++i) {
      args.projections[i] = layer(projections_[i]);
      args.width += args.gated && i > 0 ? 0 : projections_[i].out;
    }
    std::vector<int64_t> shape = input_.sizes().vec();
    shape.back() = args.width;
    const Tensor output = at::empty(shape, input_.options());
    if (args.rows == 0) return output;
    args.output = output.mutable_data_ptr();
    const Tensor narrow = add_adapters(args);
    const JoinedWeight kind = weight_kind(projections_[0]);
    const auto stream = c10::cuda::getCurrentCUDAStream().stream();
    check_launch(args.rows > kMostJoinedRows
                     ? launch_joined_tiles(joined_type(input_), kind, args, stream)
                     : launch_joined(joined_type(input_), kind, args, multiprocessors_, stream));
    return output;
  }

 private:
  Joined common() const {
    Joined args{};
    args.input = input_.const_data_ptr();
    args.in = input_.size(-1);
    args.rows = input_.numel() / args.in;
    std::copy(nf4_values().begin(), nf4_values().end(), args.values);
    return args;
  }

  const void* read(const Tensor& tensor) {
    if (!tensor.defined()) return nullptr;
    kept_.push_back(tensor.contiguous());
    return kept_.back().const_data_ptr();
  }

  JoinedProjection layer(const Projection& p) {
    JoinedProjection made{};
    made.weight = read(p.weight);
    made.scale = static_cast<const float*>(read(p.scale));
    made.bias = read(p.bias);
    made.lora_b = read(p.lora_b);
    made.out = p.out;
    made.block = p.block;
    made.shift = logarithm(p.block);
    made.rank = p.lora_a.defined() ? p.lora_a.size(0) : 0;
    made.factor = 1;
    return made;
  }

  // scaling * input Aᵀ of all adapters, [rows, sum of ranks] in float32, which `args` then adds: one launch.
  Tensor add_adapters(Joined& args) {
    Joined down = common();
    for (const Projection& p : projections_) {
      if (!p.lora_a.defined()) continue;
      JoinedProjection& made = down.projections[down.count++];
      made.weight = read(p.lora_a);
      made.out = p.lora_a.size(0);
      made.factor = static_cast<float>(p.lora_scaling);
      down.width += made.out;
    }
    if (down.count == 0) return {};
    const Tensor narrow = at::empty({down.rows, down.width}, input_.options().dtype(at::kFloat));
    down.output = narrow.mutable_data_ptr();
    down.wide = true;
    check_launch(launch_joined(joined_type(input_), JoinedWeight::kValues, down, multiprocessors_,
                               c10::cuda::getCurrentCUDAStream().stream()));
    int64_t column = 0;
    for (int i = 0; i < args.count; ++i) {
      if (args.projections[i].rank == 0) continue;
      args.projections[i].lora_in = narrow.const_data_ptr<float>() + column;
      args.projections[i].lora_pitch = down.width;
      column += args.projections[i].rank;
    }
    return narrow;
  }

  const c10::cuda::CUDAGuard device_;
  const Tensor input_;
  const at::ArrayRef<Projection> projections_;
  const JoinedActivation activation_;
  int multiprocessors_ = 0;
  std::vector<Tensor> kept_;
};

Tensor few_rows_joined_cuda(const Tensor& input, at::TensorList weights, const OptionalTensors& scales,
                            at::IntArrayRef outs, at::IntArrayRef blocks, const OptionalTensors& biases,
                            const OptionalTensors& lora_a, const OptionalTensors& lora_b,
                            at::ArrayRef<double> lora_scaling, std::string_view activation) {
  const auto projections = projections_of(weights, scales, outs, blocks, biases, lora_a, lora_b, lora_scaling);
  const JoinedActivation after = check_joined(input, projections, activation);
  if (!is_fused(input, projections)) return joined_in_parts(input, projections, after);
  return Launches(input, projections, after).run();
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) { m.impl("few_rows_joined", few_rows_joined_cuda); }

}  // namespace voxtorch::kernels
