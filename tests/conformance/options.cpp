// Sets the options of XNNPACK's delegate that ExecuTorch's builds differ in; they hold for what is loaded afterwards.
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/backend/options.h>

extern "C" unsigned set_options(bool weight_cache, int workspace_sharing) {
  executorch::runtime::BackendOptions<2> options;
  options.set_option("weight_cache_enabled", weight_cache);
  options.set_option("workspace_sharing_mode", workspace_sharing);
  return static_cast<unsigned>(executorch::runtime::set_option("XnnpackBackend", options.view()));
}
