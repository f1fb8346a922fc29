#include "program.h"

#include <algorithm>

#include "calls.h"

using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::Span;
using ftte::refuse;

// Tests build the other mode, in which apps may load programs: everything read into memory.
#ifndef FTTE_LOAD_MODE
#define FTTE_LOAD_MODE Mmap
#endif

ftte_program::ftte_program(const char* path)
    : module(std::make_unique<Module>(path, Module::LoadMode::FTTE_LOAD_MODE)) {}

Error ftte_program::load(const std::string& method) {
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

bool ftte_program::in_arena(const void* data, size_t size) const {
  // As numbers: a program says any size, and a pointer that is moved beyond its array is no pointer.
  const auto where = reinterpret_cast<uintptr_t>(data);
  for (const Arena& arena : arenas) {
    const auto begin = reinterpret_cast<uintptr_t>(arena.data.get());
    if (where >= begin && where - begin <= arena.size && size <= arena.size - (where - begin)) {
      return true;
    }
  }
  return false;
}

Error ftte_program::arena_sizes(const std::string& method, std::vector<size_t>& sizes) {
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

Error ftte_program::allocate() {
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
