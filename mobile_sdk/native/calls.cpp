#include "calls.h"

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/platform/platform.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>

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

// GCC 11's headers and later call this one of libstdc++ for containers that would be too large; ours keeps the library
// usable with the older libstdc++ that systems with that glibc have.
#if defined(__GLIBCXX__) && _GLIBCXX_RELEASE >= 11
namespace std {
__attribute__((visibility("hidden"), noreturn)) void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
#endif

namespace ftte {
namespace {

using executorch::extension::threadpool::get_threadpool;
using executorch::extension::threadpool::NoThreadPoolGuard;

// What ExecuTorch logged as an error during the current call of this thread; shown with the code.
thread_local std::string said;
thread_local bool in_call = false;

std::atomic<uint32_t> threads{1};

void say(const std::string& text) {
  if (!said.empty()) {
    said += "; ";
  }
  said += text;
}

// Users see exceptions, not log lines: errors of our own calls become the exception's text, chatter is dropped. What
// comes from elsewhere in the process still goes to stderr.
void emit_log(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line,
              const char* message, size_t length) {
  if (level != kError && level != kFatal) {
    return;
  }
  if (in_call) {
    try {
      say(std::string(message, length));
    } catch (const std::bad_alloc&) {
      // The code alone must do.
    }
    return;
  }
  std::fprintf(stderr, "ExecuTorch: %.*s (%s:%zu)\n", static_cast<int>(length), message, file, line);
}

// ExecuTorch gives up on a program that contradicts itself by ending the process. An app outlives it instead: the
// exception ends the call. What the runtime was doing is lost, so nothing may be done with the program but closing it.
void give_up() {
  if (in_call) {
    throw std::runtime_error("the program is broken");
  }
  std::abort();
}

const bool registered = executorch::runtime::register_pal(executorch::runtime::PalImpl::create(
    nullptr, give_up, nullptr, nullptr, emit_log, nullptr, nullptr, __FILE__));

}  // namespace

uint32_t guarded(const std::function<Error()>& body) {
  said.clear();
  in_call = true;
  const bool had_no_pool = NoThreadPoolGuard::is_enabled();
  NoThreadPoolGuard::set_enabled(threads == 1);
  Error error = Error::Internal;
  try {
    error = body();
  } catch (const std::bad_alloc&) {
    error = Error::MemoryAllocationFailed;
  } catch (const std::exception& exception) {
    say(exception.what());
  } catch (...) {
    say("an exception of unknown type");
  }
  NoThreadPoolGuard::set_enabled(had_no_pool);
  in_call = false;
  return static_cast<uint32_t>(error);
}

Error refuse(Error error, const std::string& text) {
  say(text);
  return error;
}

const char* last_error() { return said.c_str(); }

uint32_t thread_count() { return threads; }

Error set_thread_count(uint32_t count) {
  if (count > 1) {
    auto* pool = get_threadpool();
    if (pool == nullptr) {
      return refuse(Error::Internal, "there is no thread pool");
    }
    if (pool->get_thread_count() != count && !pool->_unsafe_reset_threadpool(count)) {
      return refuse(Error::Internal, "the thread pool cannot be resized");
    }
  }
  threads = count;
  return Error::Ok;
}

}  // namespace ftte
