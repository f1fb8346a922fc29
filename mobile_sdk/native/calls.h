// What every call of the ABI goes through: no exception leaves it, and what ExecuTorch says becomes the call's error.
#pragma once

#include <executorch/runtime/core/error.h>

#include <functional>
#include <string>

namespace ftte {

using executorch::runtime::Error;

// Runs body; its error, or that of the exception that it ended with, is the ABI's code.
uint32_t guarded(const std::function<Error()>& body);

// Adds a sentence of ours to the current call's text, and returns error.
Error refuse(Error error, const std::string& text);

// The text of the last call of this thread.
const char* last_error();

// Threads that guarded calls use; 1 means that they do without the pool: nobody else's use of it is disturbed, and none
// is made.
uint32_t thread_count();
Error set_thread_count(uint32_t count);

}  // namespace ftte
