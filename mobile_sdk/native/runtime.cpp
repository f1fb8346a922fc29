// Implements runtime.h over executorch::extension::Module.
#include "runtime.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "calls.h"
#include "program.h"
#include "tensors.h"

using executorch::runtime::Error;
using executorch::runtime::EValue;
using ftte::describe;
using ftte::guarded;
using ftte::refuse;
using ftte::TensorPtr;
using ftte::tensors_at;

namespace {

std::mutex open_mutex;
size_t open_programs = 0;  // guarded by open_mutex

// A call on a program; one that an exception ended leaves it broken.
template <typename Body>
uint32_t guarded_on(ftte_program* program, Body body) {
  return guarded([&] {
    if (program->broken) {
      return refuse(Error::InvalidState, "the program broke off in an earlier call");
    }
    program->broken = true;
    const Error error = body();
    program->broken = false;
    return error;
  });
}

}  // namespace

extern "C" {

uint32_t ftte_abi(void) { return FTTE_ABI; }

const char* ftte_runtime_version(void) { return FTTE_EXECUTORCH_VERSION; }

const char* ftte_error_name(uint32_t code) {
  const char* name = executorch::runtime::to_string(static_cast<Error>(code));
  const char* colons = std::strrchr(name, ':');  // "Error::InvalidArgument"
  return colons == nullptr ? name : colons + 1;
}

const char* ftte_last_error(void) { return ftte::last_error(); }

uint32_t ftte_set_threads(uint32_t count) {
  return guarded([&] {
    const std::lock_guard<std::mutex> lock(open_mutex);
    if (count == ftte::thread_count()) {
      return Error::Ok;
    }
    if (count == 0) {
      return refuse(Error::InvalidArgument, "there must be at least one thread");
    }
    if (open_programs > 0) {
      return refuse(Error::InvalidState,
                    "the open programs of this process use " + std::to_string(ftte::thread_count()) + " threads");
    }
    return ftte::set_thread_count(count);
  });
}

uint32_t ftte_threads(void) { return ftte::thread_count(); }

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
  return guarded_on(program, [&] {
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
  return guarded_on(program, [&] {
    const auto found = program->module->method_meta(method);
    return found.ok() ? describe(*found, true, index, meta) : found.error();
  });
}

uint32_t ftte_output_meta(ftte_program* program, const char* method, size_t index, ftte_tensor* meta) {
  return guarded_on(program, [&] {
    const auto found = program->module->method_meta(method);
    return found.ok() ? describe(*found, false, index, meta) : found.error();
  });
}

uint32_t ftte_load(ftte_program* program, const char* method) {
  return guarded_on(program, [&] { return program->load(method); });
}

uint32_t ftte_unload(ftte_program* program, const char* method) {
  return guarded_on(program, [&] {
    program->module->unload_method(method);
    program->planned.erase(method);
    return Error::Ok;
  });
}

uint32_t ftte_execute(ftte_program* program, const char* method, size_t input_count, const void* const* inputs,
                      const uint64_t* input_bytes, size_t output_count, void* const* outputs,
                      const uint64_t* output_bytes) {
  return guarded_on(program, [&]() -> Error {
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
  return guarded_on(program, [&]() -> Error {
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
