// Tensors as a program describes them, and over the caller's memory.
#pragma once

#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/executor/method_meta.h>

#include <vector>

#include "runtime.h"

namespace ftte {

using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::MethodMeta;

// Input or output number index of a method.
Error describe(const MethodMeta& method, bool input, size_t index, ftte_tensor* meta);

// Tensors over the caller's memory, after checking that it has the size that the program expects; an empty one for a
// planned output that the caller leaves where it is.
Error tensors_at(const MethodMeta& method, bool input, size_t count, const void* const* data, const uint64_t* bytes,
                 std::vector<ftte_tensor>& metas, std::vector<TensorPtr>& tensors);

}  // namespace ftte
