// An open program: ExecuTorch's module, and the memory that its methods are planned in.
#pragma once

#include <executorch/extension/module/module.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

struct ftte_program {
  explicit ftte_program(const char* path);

  // Methods share their arenas, each as large as the greediest needs: they never run at the same time. The
  // arenas are ours rather than the module's so that results can be handed out where they lie.
  struct Arena {
    std::unique_ptr<uint8_t, decltype(&std::free)> data{nullptr, &std::free};
    size_t size = 0;
  };
  struct Planned {
    std::vector<executorch::runtime::Span<uint8_t>> spans;
    std::unique_ptr<executorch::runtime::HierarchicalAllocator> allocator;
  };

  executorch::runtime::Error load(const std::string& method);
  bool in_arena(const void* data, size_t size) const;

 private:
  executorch::runtime::Error arena_sizes(const std::string& method, std::vector<size_t>& sizes);
  executorch::runtime::Error allocate();

 public:
  bool broken = false;  // ExecuTorch gave up in the middle of a call: nothing but closing is safe any more
  std::vector<Arena> arenas;
  std::unordered_map<std::string, Planned> planned;
  std::unique_ptr<executorch::extension::Module> module;  // last: its methods must go before what they are planned in
};
