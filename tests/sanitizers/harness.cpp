// Runs each program that is named, in a process of its own, and prints how it ended:
//
//     ran | refused | fault | SIGNAL-number | slow   PATH
//
// What a sanitizer says of PATH is in PATH.log. Buffers are exactly as large as the program says, so that reading or
// writing beyond them is seen.
#include "runtime.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int kFault = 99;
constexpr unsigned kSeconds = 60;
constexpr uint64_t kMostBytes = uint64_t{1} << 30;
const char* const kMethods[] = {"train_step", "evaluate", "predict"};

// Inputs or outputs of a method, with the memory that the program asks for; false where it asks for what cannot be.
bool buffers(ftte_program* program, const char* method, bool input, uint64_t count, std::vector<void*>& data,
             std::vector<uint64_t>& bytes) {
  for (uint64_t i = 0; i < count; ++i) {
    ftte_tensor meta;
    if ((input ? ftte_input_meta : ftte_output_meta)(program, method, i, &meta) != 0 || meta.bytes > kMostBytes) {
      return false;
    }
    const bool stays = !input && meta.planned != 0;
    data.push_back(stays ? nullptr : std::calloc(1, meta.bytes));
    bytes.push_back(meta.bytes);
  }
  return true;
}

bool run_method(ftte_program* program, const char* method) {
  ftte_method meta;
  if (ftte_method_meta(program, method, &meta) != 0 || meta.inputs > 10000 || meta.outputs > 10000) {
    return false;
  }
  std::vector<void*> inputs, outputs;
  std::vector<uint64_t> input_bytes, output_bytes;
  bool good = buffers(program, method, true, meta.inputs, inputs, input_bytes) &&
              buffers(program, method, false, meta.outputs, outputs, output_bytes) &&
              ftte_load(program, method) == 0 &&
              ftte_execute(program, method, inputs.size(), inputs.data(), input_bytes.data(), outputs.size(),
                           outputs.data(), output_bytes.data()) == 0;
  for (uint64_t i = 0; good && i < meta.outputs; ++i) {
    void* where = nullptr;
    good = ftte_output(program, method, i, &where) == 0;
    volatile uint8_t sum = 0;
    for (uint64_t byte = 0; good && where != nullptr && byte < output_bytes[i]; ++byte) {
      sum = sum + static_cast<uint8_t*>(where)[byte];
    }
  }
  for (void* each : inputs) {
    std::free(each);
  }
  for (void* each : outputs) {
    std::free(each);
  }
  return good;
}

bool run_program(const char* path) {
  ftte_program* program = nullptr;
  if (ftte_open(path, &program) != 0) {
    return false;
  }
  bool all = true;
  for (const char* method : kMethods) {
    all = run_method(program, method) && all;
    ftte_unload(program, method);
  }
  ftte_close(program);
  ftte_free(program);
  return all;
}

std::string end_of(const char* path) {
  const pid_t child = fork();
  if (child == 0) {
    const int log = open((std::string(path) + ".log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(log, 2);
    alarm(kSeconds);
    _exit(run_program(path) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) {
    return WTERMSIG(status) == SIGALRM ? "slow" : "SIGNAL-" + std::to_string(WTERMSIG(status));
  }
  switch (WEXITSTATUS(status)) {
    case 0:
      return "ran";
    case 1:
      return "refused";
    case kFault:
      return "fault";
    default:
      return "EXIT-" + std::to_string(WEXITSTATUS(status));
  }
}

}  // namespace

int main(int count, char** paths) {
  for (int i = 1; i < count; ++i) {
    std::printf("%s %s\n", end_of(paths[i]).c_str(), paths[i]);
    std::fflush(stdout);
  }
  return 0;
}
