// The C ABI between mobile_sdk and ExecuTorch. Plain C, so that ctypes needs no Python headers and one
// wheel serves every CPython.
//
// Functions return 0 or a code of executorch::runtime::Error; ftte_error_name names it and ftte_last_error
// has what ExecuTorch said about it on this thread. No exception leaves a function. Calls on one program
// must not overlap; calls on different programs may.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FTTE_ABI 4
#define FTTE_MAX_RANK 16
#define FTTE_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ftte_program ftte_program;

typedef struct {
  uint64_t inputs;
  uint64_t outputs;
  uint64_t planned_bytes;  // arenas that ExecuTorch planned for the method
} ftte_method;

typedef struct {
  int32_t dtype;    // c10::ScalarType: 0 uint8, 3 int32, 4 int64, 6 float32, 11 bool, ...
  int32_t rank;     // at most FTTE_MAX_RANK
  int32_t planned;  // 1: lives in the arena; 0: lives where the caller says, so nothing is copied
  int32_t sizes[FTTE_MAX_RANK];
  uint64_t bytes;
} ftte_tensor;

FTTE_API uint32_t ftte_abi(void);
FTTE_API const char* ftte_runtime_version(void);
FTTE_API const char* ftte_error_name(uint32_t code);
FTTE_API const char* ftte_last_error(void);

// Threads that every program of the process shares; 1 at first. Loaded delegates hold on to ExecuTorch's pool,
// so changing the number while a program is open is InvalidState. More than 1 resizes the pool, which programs
// that others loaded in this process past this ABI would not survive; 1 leaves it alone.
FTTE_API uint32_t ftte_set_threads(uint32_t count);
FTTE_API uint32_t ftte_threads(void);

// Maps the file at path; methods are loaded by ftte_load or their first execution. Closing frees everything
// but the arena, where results may still be in use; after it only ftte_free may be called.
FTTE_API uint32_t ftte_open(const char* path, ftte_program** program);
FTTE_API void ftte_close(ftte_program* program);
FTTE_API void ftte_free(ftte_program* program);

// Metadata is read from the file; it loads nothing.
FTTE_API uint32_t ftte_method_meta(ftte_program* program, const char* method, ftte_method* meta);
FTTE_API uint32_t ftte_input_meta(ftte_program* program, const char* method, size_t index, ftte_tensor* meta);
FTTE_API uint32_t ftte_output_meta(ftte_program* program, const char* method, size_t index, ftte_tensor* meta);

FTTE_API uint32_t ftte_load(ftte_program* program, const char* method);
FTTE_API uint32_t ftte_unload(ftte_program* program, const char* method);

// Inputs are contiguous, read in place and never written; outputs receive exactly the bytes of their
// metadata. All belong to the caller and must live until the call returns. A planned output may be NULL: it
// stays where ftte_output says.
FTTE_API uint32_t ftte_execute(ftte_program* program, const char* method, size_t input_count,
                               const void* const* inputs, const uint64_t* input_bytes, size_t output_count,
                               void* const* outputs, const uint64_t* output_bytes);

// Where a planned output lies in the arena: until the program is freed; overwritten by the next execution of any
// method. NULL for an output that lies elsewhere, such as a constant of the file.
FTTE_API uint32_t ftte_output(ftte_program* program, const char* method, size_t index, void** data);

#ifdef __cplusplus
}
#endif
