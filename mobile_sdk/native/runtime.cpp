// Implements runtime.h over executorch::extension::Module.
#include "runtime.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/platform/platform.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

// The wheel ships the library of the thread pool without this header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

// libstdc++'s shared_ptr asks glibc 2.32 and later whether there is just one thread; answering "no" here
// keeps the library usable with the older glibc that ExecuTorch itself supports.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

namespace {

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::extension::threadpool::get_threadpool;
using executorch::extension::threadpool::NoThreadPoolGuard;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

// What ExecuTorch logged as an error during the current call of this thread; shown with the code.
thread_local std::string last_error;
thread_local bool in_call = false;

std::mutex open_mutex;
size_t open_programs = 0;  // guarded by open_mutex

// 1 means that our calls do without the pool: nobody else's use of it is disturbed, and none is made.
std::atomic<uint32_t> thread_count{1};

void say(const std::string& text) {
  if (!last_error.empty()) {
    last_error += "; ";
  }
  last_error += text;
}

// Users see exceptions, not log lines: errors of our own calls become the exception's text, chatter is
// dropped. What precedes an abort, or comes from elsewhere in the process, still goes to stderr.
void emit_log(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line,
              const char* message, size_t length) {
  if (level != kError && level != kFatal) {
    return;
  }
  if (level == kError && in_call) {
    try {
      say(std::string(message, length));
    } catch (const std::bad_alloc&) {
      // The code alone must do.
    }
    return;
  }
  std::fprintf(stderr, "ExecuTorch: %.*s (%s:%zu)\n", static_cast<int>(length), message, file, line);
}

const bool log_registered =
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(emit_log, __FILE__));

Error refuse(Error error, const std::string& text) {
  say(text);
  return error;
}

// Every call goes through here, so no exception can cross the ABI.
template <typename Body>
uint32_t guarded(Body body) {
  last_error.clear();
  in_call = true;
  const bool had_no_pool = NoThreadPoolGuard::is_enabled();
  NoThreadPoolGuard::set_enabled(thread_count == 1);
  Error error = Error::Internal;
  try {
    error = body();
  } catch (const std::bad_alloc&) {
    error = Error::MemoryAllocationFailed;
  } catch (const std::exception& exception) {
    last_error.assign(exception.what());
  } catch (...) {
    last_error.assign("an exception of unknown type");
  }
  NoThreadPoolGuard::set_enabled(had_no_pool);
  in_call = false;
  return static_cast<uint32_t>(error);
}

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

TensorPtr tensor_at(const ftte_tensor& meta, const void* data) {
  return executorch::extension::from_blob(
      const_cast<void*>(data), std::vector<executorch::aten::SizesType>(meta.sizes, meta.sizes + meta.rank),
      static_cast<executorch::aten::ScalarType>(meta.dtype));
}

// Tensors over the caller's memory, after checking that it has the size that the program expects.
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

}  // namespace

struct ftte_program {
  explicit ftte_program(const char* path) : module(std::make_unique<Module>(path, Module::LoadMode::Mmap)) {}

  // Methods share their arenas, each as large as the greediest needs: they never run at the same time. The
  // arenas are ours rather than the module's so that results can be handed out where they lie.
  struct Arena {
    std::unique_ptr<uint8_t, decltype(&std::free)> data{nullptr, &std::free};
    size_t size = 0;
  };
  struct Planned {
    std::vector<Span<uint8_t>> spans;
    std::unique_ptr<HierarchicalAllocator> allocator;
  };

  Error load(const std::string& method) {
    if (module->is_method_loaded(method)) {
      return Error::Ok;
    }
    std::vector<size_t> sizes;
    Error error = arena_sizes(method, sizes);
    if (error == Error::Ok && arenas.empty()) {
      error = allocate();
    }
    if (error != Error::Ok) {
      return error;
    }
    Planned& plan = planned[method];
    plan.spans.clear();
    for (size_t i = 0; i < sizes.size(); ++i) {
      plan.spans.emplace_back(arenas[i].data.get(), sizes[i]);
    }
    plan.allocator = std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(plan.spans.data(), plan.spans.size()));
    return module->load_method(method, plan.allocator.get());
  }

  bool in_arena(const void* data, size_t size) const {
    const auto* begin = static_cast<const uint8_t*>(data);
    for (const Arena& arena : arenas) {
      if (begin >= arena.data.get() && begin + size <= arena.data.get() + arena.size) {
        return true;
      }
    }
    return false;
  }

  Error arena_sizes(const std::string& method, std::vector<size_t>& sizes) {
    const auto meta = module->method_meta(method);
    if (!meta.ok()) {
      return meta.error();
    }
    for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
      const auto size = meta->memory_planned_buffer_size(i);
      if (!size.ok()) {
        return size.error();
      }
      sizes.push_back(static_cast<size_t>(*size));
    }
    return Error::Ok;
  }

  Error allocate() {
    const auto names = module->method_names();
    if (!names.ok()) {
      return names.error();
    }
    std::vector<Arena> fresh;
    for (const std::string& name : *names) {
      std::vector<size_t> sizes;
      const Error error = arena_sizes(name, sizes);
      if (error != Error::Ok) {
        return error;
      }
      fresh.resize(std::max(fresh.size(), sizes.size()));
      for (size_t i = 0; i < sizes.size(); ++i) {
        fresh[i].size = std::max(fresh[i].size, sizes[i]);
      }
    }
    for (Arena& arena : fresh) {
      // calloc leaves pages that no method touches to the system.
      arena.data.reset(static_cast<uint8_t*>(std::calloc(std::max<size_t>(arena.size, 1), 1)));
      if (arena.data == nullptr) {
        return refuse(Error::MemoryAllocationFailed, std::to_string(arena.size) + " bytes for the arena");
      }
    }
    arenas = std::move(fresh);
    return Error::Ok;
  }

  std::vector<Arena> arenas;
  std::unordered_map<std::string, Planned> planned;
  std::unique_ptr<Module> module;  // last: its methods must go before what they are planned in
};

extern "C" {

uint32_t ftte_abi(void) { return FTTE_ABI; }

const char* ftte_runtime_version(void) { return FTTE_EXECUTORCH_VERSION; }

const char* ftte_error_name(uint32_t code) {
  const char* name = executorch::runtime::to_string(static_cast<Error>(code));
  const char* colons = std::strrchr(name, ':');  // "Error::InvalidArgument"
  return colons == nullptr ? name : colons + 1;
}

const char* ftte_last_error(void) { return last_error.c_str(); }

uint32_t ftte_set_threads(uint32_t count) {
  return guarded([&] {
    const std::lock_guard<std::mutex> lock(open_mutex);
    if (count == thread_count) {
      return Error::Ok;
    }
    if (count == 0) {
      return refuse(Error::InvalidArgument, "there must be at least one thread");
    }
    if (open_programs > 0) {
      return refuse(Error::InvalidState,
                    "the open programs of this process use " + std::to_string(thread_count) + " threads");
    }
    if (count > 1) {
      auto* pool = get_threadpool();
      if (pool == nullptr) {
        return refuse(Error::Internal, "there is no thread pool");
      }
      if (pool->get_thread_count() != count && !pool->_unsafe_reset_threadpool(count)) {
        return refuse(Error::Internal, "the thread pool cannot be resized");
      }
    }
    thread_count = count;
    return Error::Ok;
  });
}

uint32_t ftte_threads(void) { return thread_count; }

uint32_t ftte_open(const char* path, ftte_program** program) {
  return guarded([&] {
    auto opened = std::make_unique<ftte_program>(path);
    const Error error = opened->module->load(executorch::runtime::Program::Verification::InternalConsistency);
    if (error != Error::Ok) {
      return error;
    }
    const std::lock_guard<std::mutex> lock(open_mutex);
    ++open_programs;
    *program = opened.release();
    return Error::Ok;
  });
}

void ftte_close(ftte_program* program) {
  guarded([&] {
    if (program->module != nullptr) {
      program->module.reset();
      const std::lock_guard<std::mutex> lock(open_mutex);
      --open_programs;
    }
    return Error::Ok;
  });
}

void ftte_free(ftte_program* program) {
  ftte_close(program);
  delete program;
}

uint32_t ftte_method_meta(ftte_program* program, const char* method, ftte_method* meta) {
  return guarded([&] {
    const auto found = program->module->method_meta(method);
    if (!found.ok()) {
      return found.error();
    }
    *meta = {found->num_inputs(), found->num_outputs(), 0};
    for (size_t i = 0; i < found->num_memory_planned_buffers(); ++i) {
      const auto size = found->memory_planned_buffer_size(i);
      if (!size.ok()) {
        return size.error();
      }
      meta->planned_bytes += static_cast<uint64_t>(*size);
    }
    return Error::Ok;
  });
}

uint32_t ftte_input_meta(ftte_program* program, const char* method, size_t index, ftte_tensor* meta) {
  return guarded([&] {
    const auto found = program->module->method_meta(method);
    return found.ok() ? describe(*found, true, index, meta) : found.error();
  });
}

uint32_t ftte_output_meta(ftte_program* program, const char* method, size_t index, ftte_tensor* meta) {
  return guarded([&] {
    const auto found = program->module->method_meta(method);
    return found.ok() ? describe(*found, false, index, meta) : found.error();
  });
}

uint32_t ftte_load(ftte_program* program, const char* method) {
  return guarded([&] { return program->load(method); });
}

uint32_t ftte_unload(ftte_program* program, const char* method) {
  return guarded([&] {
    program->module->unload_method(method);
    program->planned.erase(method);
    return Error::Ok;
  });
}

uint32_t ftte_execute(ftte_program* program, const char* method, size_t input_count, const void* const* inputs,
                      const uint64_t* input_bytes, size_t output_count, void* const* outputs,
                      const uint64_t* output_bytes) {
  return guarded([&]() -> Error {
    const auto found = program->module->method_meta(method);
    if (!found.ok()) {
      return found.error();
    }
    std::vector<ftte_tensor> input_metas, output_metas;
    std::vector<TensorPtr> input_tensors, output_tensors;
    Error error = tensors_at(*found, true, input_count, inputs, input_bytes, input_metas, input_tensors);
    if (error != Error::Ok) {
      return error;
    }
    error = tensors_at(*found, false, output_count, outputs, output_bytes, output_metas, output_tensors);
    if (error != Error::Ok) {
      return error;
    }
    error = program->load(method);
    if (error != Error::Ok) {
      return error;
    }
    for (size_t i = 0; i < output_count; ++i) {
      if (output_metas[i].planned == 0) {
        error = program->module->set_output(method, output_tensors[i], i);
        if (error != Error::Ok) {
          return error;
        }
      }
    }
    const std::vector<EValue> values(input_tensors.begin(), input_tensors.end());
    const auto results = program->module->execute(method, values);
    if (!results.ok()) {
      return results.error();
    }
    for (size_t i = 0; i < output_count; ++i) {
      const auto& result = (*results)[i].toTensor();
      if (outputs[i] == nullptr) {
        continue;
      }
      if (result.nbytes() != output_bytes[i]) {
        return refuse(Error::Internal, "output " + std::to_string(i) + " came out with " +
                                           std::to_string(result.nbytes()) + " bytes");
      }
      if (result.const_data_ptr() != outputs[i]) {
        std::memcpy(outputs[i], result.const_data_ptr(), result.nbytes());
      }
    }
    return Error::Ok;
  });
}

uint32_t ftte_output(ftte_program* program, const char* method, size_t index, void** data) {
  return guarded([&]() -> Error {
    *data = nullptr;
    Error error = program->load(method);
    if (error != Error::Ok) {
      return error;
    }
    const auto output = program->module->get_output(method, index);
    if (!output.ok()) {
      return output.error();
    }
    if (!output->isTensor()) {
      return refuse(Error::InvalidType, "not a tensor");
    }
    const auto& tensor = output->toTensor();
    if (program->in_arena(tensor.const_data_ptr(), tensor.nbytes())) {
      *data = tensor.mutable_data_ptr();
    }
    return Error::Ok;
  });
}

}  // extern "C"
