#include "views.h"

#include <ATen/ops/as_strided.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "tensors.h"

namespace alrp {
namespace {

// A dense view as a map without memory, whose logits have flat indices from `begin` on.
Map map_of(const at::Tensor& dense, int64_t begin) {
  Map map{nullptr, nullptr, begin, begin + dense.numel(), 0, {}};
  for (int64_t d = 0; d < dense.dim(); ++d) {
    const int64_t size = dense.size(d), stride = dense.stride(d);
    if (size == 1) continue;
    Dim* const last = map.dims ? &map.dim[map.dims - 1] : nullptr;
    if (last && last->stride == size * stride) {
      *last = {last->size * size, stride};
      continue;
    }
    TORCH_CHECK_VALUE(map.dims < kMapDims, "logits must have at most ", kMapDims,
                      " dimensions in another order than memory, got strides ", dense.strides());
    map.dim[map.dims++] = {size, stride};
  }
  if (map.dims == 0) map.dim[map.dims++] = {1, 1};  // a single logit
  return map;
}

}  // namespace

Views::Views(at::TensorList logits) {
  TORCH_CHECK_VALUE(!logits.empty(), "logits must hold at least one tensor");
  for (const at::Tensor& view : logits) {
    TORCH_CHECK_TYPE(view.scalar_type() == logits[0].scalar_type(), "logits must have one dtype, got ",
                     logits[0].scalar_type(), " and ", view.scalar_type());
    tensors_.push_back(view.is_non_overlapping_and_dense() ? view : view.clone());
    numel_ += view.numel();
  }
}

std::vector<at::Tensor> Views::allocate_gradients(const DeviceScope& device) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& view : tensors_) {
    const at::Tensor memory = device.allocate("grad of logits", {view.numel()}, view.scalar_type());
    gradients_.push_back(static_cast<char*>(memory.mutable_data_ptr()));
    gradients.push_back(memory.as_strided(view.sizes(), view.strides()));
  }
  return gradients;
}

std::vector<Logits> Views::slices(const DeviceScope& device, const std::vector<int64_t>& sizes,
                                  int64_t classes) {
  TORCH_CHECK_VALUE(std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size >= 0; }) &&
                        std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) == numel_,
                    "sizes must add up to the ", numel_, " logits, got ", at::IntArrayRef(sizes));
  const Dtype dtype = dtype_of(first().scalar_type());
  const auto count = static_cast<int64_t>(sizes.size()), each = static_cast<int64_t>(tensors_.size());
  const auto data_of = [&](int64_t k) {
    const at::Tensor& dense = tensors_[k];
    const at::Tensor memory = dense.is_contiguous() ? dense : dense.as_strided({dense.numel()}, {1});
    return static_cast<char*>(const_cast<void*>(device.read("logits", memory)));
  };
  const auto bytes = static_cast<int64_t>(first().element_size());
  std::vector<Logits> slices;
  if (each == 1 && first().is_contiguous()) {
    char *data = data_of(0), *gradient = gradients_.empty() ? nullptr : gradients_[0];
    for (const int64_t size : sizes) {
      slices.push_back({dtype, 1, data, gradient, nullptr, true});
      data += size * bytes;
      if (gradient) gradient += size * bytes;
    }
    return slices;
  }
  std::vector<Map> maps(count * each);  // slice by slice
  for (int64_t k = 0; k < each; ++k) {
    const at::Tensor& view = tensors_[k];
    char* const data = data_of(k);
    at::Tensor share = view;  // of one slice
    int64_t step = 0;         // from one to the next, in bytes
    if (count > 1) {
      TORCH_CHECK_VALUE(view.dim() && view.size(0) % count == 0, "logits must have ", count,
                        " slices, got shape ", view.sizes());
      share = view.narrow(0, 0, view.size(0) / count);
      TORCH_CHECK_VALUE(share.is_non_overlapping_and_dense(), "slices of logits must be dense, got strides ",
                        view.strides());
      step = share.size(0) * view.stride(0) * bytes;
    }
    for (int64_t s = 0; s < count; ++s) {
      Map& map = maps[s * each + k];
      map = map_of(share, k ? maps[s * each + k - 1].end : 0);
      TORCH_CHECK_VALUE(map.dim[map.dims - 1].size % classes == 0,
                        "logits must have the classes of a row last, ", classes, ", got shape ", view.sizes(),
                        " and strides ", view.strides());
      map.logits = data + s * step;
      if (!gradients_.empty()) map.gradient = gradients_[k] + s * step;
    }
  }
  const bool in_order = std::all_of(maps.begin(), maps.end(), [](const Map& map) { return map.dims == 1; });
  const auto total = static_cast<int64_t>(maps.size());
  Map* table;
  std::tie(table_, table) = allocated(device, "maps", [&](Arena& arena) { return arena.take<Map>(total); });
  device.backend().place_maps(maps.data(), total, table);
  for (int64_t s = 0; s < count; ++s) {
    const Logits own{dtype, static_cast<int32_t>(each), nullptr, nullptr, table + s * each, in_order};
    TORCH_CHECK_VALUE(maps[(s + 1) * each - 1].end == sizes[s],
                      "slices must be equal shares of the first dimension of each tensor, got sizes ",
                      at::IntArrayRef(sizes));
    slices.push_back(own);
  }
  return slices;
}

}  // namespace alrp
