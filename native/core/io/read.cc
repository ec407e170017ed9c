// Files to tensors: straight into the tensor's memory, or as a view of a mapping. Nothing passes through JavaScript.
#include "core/io/file.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace voxtorch::io {
namespace {

using at::ScalarType;
using at::Tensor;

constexpr int64_t kLargestTensor = int64_t(1) << 47;  // what an address can hold
constexpr int64_t kPiece = int64_t(4) << 20;          // what one thread reads at a time
constexpr int64_t kStaging = int64_t(32) << 20;       // what waits in CPU memory on its way to a device
constexpr uintptr_t kHugePage = uintptr_t(2) << 20;

// Where a tensor lies in a file, and what it is. Rows follow each other without gaps.
struct Place {
  int64_t offset;
  ScalarType dtype;
  std::vector<int64_t> size;
  int64_t bytes;
};

ScalarType dtype_of(int64_t code) {
  const auto type = static_cast<ScalarType>(code);
  switch (type) {
    case ScalarType::Byte:
    case ScalarType::Char:
    case ScalarType::Short:
    case ScalarType::Int:
    case ScalarType::Long:
    case ScalarType::UInt16:
    case ScalarType::UInt32:
    case ScalarType::UInt64:
    case ScalarType::Bool:
    case ScalarType::Half:
    case ScalarType::BFloat16:
    case ScalarType::Float:
    case ScalarType::Double:
    case ScalarType::Float8_e4m3fn:
    case ScalarType::Float8_e5m2:
    case ScalarType::ComplexHalf:
    case ScalarType::ComplexFloat:
    case ScalarType::ComplexDouble:
      return type;
    default:
      TORCH_CHECK_VALUE(false, code, " is not the number of a dtype that a file can hold");
  }
}

Place place_of(int64_t offset, ScalarType dtype, std::vector<int64_t> size) {
  const auto item = static_cast<int64_t>(c10::elementSize(dtype));
  int64_t span = item;  // of the same shape with every 0 a 1: what libtorch computes strides with
  bool empty = false;
  for (const int64_t length : size) {
    TORCH_CHECK_VALUE(length >= 0 && length <= kLargestTensor / std::max(span, int64_t(1)), "a tensor of sizes ",
                      at::IntArrayRef(size), " is impossible");
    span *= std::max(length, int64_t(1));
    empty |= length == 0;
  }
  return {offset, dtype, std::move(size), empty ? 0 : span};
}

// libtorch trusts a bool to be 0 or 1, and counts wrongly where it is not; in files of C and numpy any other byte is
// true.
void normalise_bools(Tensor& tensor) {
  if (tensor.scalar_type() != ScalarType::Bool) return;
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  const int64_t count = tensor.numel();
  for (int64_t i = 0; i < count; ++i) {
    if (bytes[i] > 1) bytes[i] = 1;
  }
}

// Fresh memory costs more than reading into it when it comes by small pages.
void ask_for_huge_pages(void* data, int64_t bytes) {
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

std::vector<Tensor> copy_to_cpu(const File& file, const std::vector<Place>& places) {
  struct Piece {
    char* to;
    int64_t offset;
    int64_t bytes;
  };
  std::vector<Tensor> tensors;
  std::vector<Piece> pieces;
  for (const Place& place : places) {
    Tensor tensor = at::empty(place.size, at::TensorOptions().dtype(place.dtype).device(at::kCPU));
    auto* data = static_cast<char*>(tensor.mutable_data_ptr());
    ask_for_huge_pages(data, place.bytes);
    for (int64_t done = 0; done < place.bytes; done += kPiece) {
      pieces.push_back({data + done, place.offset + done, std::min(kPiece, place.bytes - done)});
    }
    tensors.push_back(std::move(tensor));
  }
  const auto read = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      file.read(pieces[static_cast<size_t>(i)].to, pieces[static_cast<size_t>(i)].offset,
                pieces[static_cast<size_t>(i)].bytes);
    }
  };
  const auto count = static_cast<int64_t>(pieces.size());
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.bytes;
  // A few small reads are over before another thread has woken.
  if (bytes < kPiece)
    read(0, count);
  else
    at::parallel_for(0, count, 1, read);
  for (Tensor& tensor : tensors) normalise_bools(tensor);
  return tensors;
}

Tensor copy_to_device(const File& file, const Place& place, at::Device device, Tensor& staging) {
  Tensor tensor = at::empty(place.size, at::TensorOptions().dtype(place.dtype).device(device));
  if (place.bytes == 0 || tensor.is_meta()) return tensor;
  const Tensor bytes = tensor.view({-1}).view(at::kByte);
  if (!staging.defined()) staging = at::empty({kStaging}, at::TensorOptions().dtype(at::kByte));
  for (int64_t done = 0; done < place.bytes; done += kStaging) {
    const int64_t count = std::min(kStaging, place.bytes - done);
    Tensor piece = staging.narrow(0, 0, count);
    file.read(piece.mutable_data_ptr(), place.offset + done, count);
    if (place.dtype == ScalarType::Bool) piece.clamp_max_(1);
    bytes.narrow(0, done, count).copy_(piece);
  }
  return tensor;
}

std::vector<Tensor> read_places(const File& file, const std::vector<Place>& places, std::optional<at::Device> device) {
  // Weights that are read inside inferenceMode may be trained outside of it.
  const c10::InferenceMode no_inference(false);
  for (const Place& place : places) file.check_range(place.offset, place.bytes);
  if (!device || device->is_cpu()) return copy_to_cpu(file, places);
  std::vector<Tensor> tensors;
  Tensor staging;
  for (const Place& place : places) tensors.push_back(copy_to_device(file, place, *device, staging));
  return tensors;
}

// Each tensor has a storage of its own on its part of the one mapping, which the last of them unmaps. Until then each
// gives back its own pages: a model that is converted from its file would else stand in memory twice.
std::vector<Tensor> map_places(const File& file, const std::vector<Place>& places) {
  const c10::InferenceMode no_inference(false);
  for (const Place& place : places) file.check_range(place.offset, place.bytes);
  const auto mapping = std::make_shared<Mapping>(file);
  std::vector<Tensor> tensors;
  for (const Place& place : places) {
    // Kernels load whole elements: at another address than a multiple of 16, those of complex128 end the process.
    const auto item = static_cast<int64_t>(c10::elementSize(place.dtype));
    if (place.bytes == 0 || place.offset % item != 0) {
      tensors.push_back(copy_to_cpu(file, {place})[0]);
      continue;
    }
    const auto drop = [mapping, offset = place.offset, bytes = place.bytes](void*) { mapping->drop(offset, bytes); };
    Tensor tensor =
        at::from_blob(mapping->data() + place.offset, place.size, drop, at::TensorOptions().dtype(place.dtype));
    normalise_bools(tensor);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// The lists run in step; `sizes` holds the sizes of all tensors one after the other, `dims` how many each has.
std::vector<Place> places_of(at::IntArrayRef offsets, at::IntArrayRef dtypes, at::IntArrayRef dims,
                             at::IntArrayRef sizes) {
  TORCH_CHECK_VALUE(offsets.size() == dtypes.size() && offsets.size() == dims.size(),
                    "offsets, dtypes and dims must be equally long");
  std::vector<Place> places;
  size_t at = 0;
  for (size_t i = 0; i < offsets.size(); ++i) {
    TORCH_CHECK_VALUE(dims[i] >= 0 && static_cast<size_t>(dims[i]) <= sizes.size() - at,
                      "sizes has fewer numbers than dims says");
    const auto dim = static_cast<size_t>(dims[i]);
    places.push_back(place_of(offsets[i], dtype_of(dtypes[i]), sizes.slice(at, dim).vec()));
    at += dim;
  }
  return places;
}

std::vector<Tensor> read_tensors(std::string path, at::IntArrayRef offsets, at::IntArrayRef dtypes,
                                 at::IntArrayRef dims, at::IntArrayRef sizes, std::optional<at::Device> device) {
  return read_places(File(path), places_of(offsets, dtypes, dims, sizes), device);
}

std::vector<Tensor> map_tensors(std::string path, at::IntArrayRef offsets, at::IntArrayRef dtypes, at::IntArrayRef dims,
                                at::IntArrayRef sizes) {
  return map_places(File(path), places_of(offsets, dtypes, dims, sizes));
}

Tensor read_file(std::string path, int64_t offset, at::IntArrayRef size, ScalarType dtype,
                 std::optional<at::Device> device) {
  return read_places(File(path), {place_of(offset, dtype_of(static_cast<int64_t>(dtype)), size.vec())}, device)[0];
}

Tensor map_file(std::string path, int64_t offset, int64_t bytes) {
  return map_places(File(path), {place_of(offset, ScalarType::Byte, {bytes})})[0];
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("read_file(str path, int offset, int[] size, *, ScalarType dtype, Device? device=None) -> Tensor", read_file);
  m.def("map_file(str path, int offset, int bytes) -> Tensor", map_file);
  m.def(
      "read_tensors(str path, int[] offsets, int[] dtypes, int[] dims, int[] sizes, *, Device? device=None) -> "
      "Tensor[]",
      read_tensors);
  m.def("map_tensors(str path, int[] offsets, int[] dtypes, int[] dims, int[] sizes) -> Tensor[]", map_tensors);
}

}  // namespace voxtorch::io
