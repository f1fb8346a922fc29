#include "tensors.h"

#include <string>

#include "calls.h"

namespace ftte {
namespace {

using executorch::runtime::Result;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

Error describe(const TensorInfo& info, ftte_tensor* meta) {
  const auto sizes = info.sizes();
  if (sizes.size() > FTTE_MAX_RANK) {
    return refuse(Error::NotSupported, "rank " + std::to_string(sizes.size()));
  }
  const auto order = info.dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) {
      return refuse(Error::NotSupported, "only contiguous tensors are supported");
    }
  }
  *meta = {};
  meta->dtype = static_cast<int32_t>(info.scalar_type());
  meta->rank = static_cast<int32_t>(sizes.size());
  meta->planned = info.is_memory_planned();
  for (size_t i = 0; i < sizes.size(); ++i) {
    meta->sizes[i] = sizes[i];
  }
  meta->bytes = info.nbytes();
  return Error::Ok;
}

TensorPtr tensor_at(const ftte_tensor& meta, const void* data) {
  return executorch::extension::from_blob(
      const_cast<void*>(data), std::vector<executorch::aten::SizesType>(meta.sizes, meta.sizes + meta.rank),
      static_cast<executorch::aten::ScalarType>(meta.dtype));
}

}  // namespace

Error describe(const MethodMeta& method, bool input, size_t index, ftte_tensor* meta) {
  const Result<Tag> tag = input ? method.input_tag(index) : method.output_tag(index);
  if (!tag.ok()) {
    return tag.error();
  }
  if (*tag != Tag::Tensor) {
    return refuse(Error::InvalidType, "not a tensor");
  }
  const Result<TensorInfo> info = input ? method.input_tensor_meta(index) : method.output_tensor_meta(index);
  return info.ok() ? describe(*info, meta) : info.error();
}

Error tensors_at(const MethodMeta& method, bool input, size_t count, const void* const* data, const uint64_t* bytes,
                 std::vector<ftte_tensor>& metas, std::vector<TensorPtr>& tensors) {
  const char* kind = input ? "input" : "output";
  const size_t expected = input ? method.num_inputs() : method.num_outputs();
  if (count != expected) {
    return refuse(Error::InvalidArgument, "expected " + std::to_string(expected) + " " + kind + "s, got " +
                                              std::to_string(count));
  }
  metas.resize(count);
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const Error error = describe(method, input, i, &metas[i]);
    if (error != Error::Ok) {
      return error;
    }
    if (data[i] == nullptr && !input && metas[i].planned != 0) {
      tensors.emplace_back();
      continue;
    }
    if (data[i] == nullptr || bytes[i] != metas[i].bytes) {
      return refuse(Error::InvalidArgument, std::string(kind) + " " + std::to_string(i) + " must have " +
                                                std::to_string(metas[i].bytes) + " bytes, not " +
                                                (data[i] == nullptr ? "none" : std::to_string(bytes[i])));
    }
    tensors.push_back(tensor_at(metas[i], data[i]));
  }
  return Error::Ok;
}

}  // namespace ftte
