// tensorops._C: the bound functions of every family, and the facts of this build.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "build_facts.h"
#include "autocast/policies.h"
#include "autograd/versions.h"
#include "cpu/allocator.h"
#include "cpu/capability.h"
#include "functionalize/inplace.h"
#include "python/families.h"

namespace py = pybind11;

namespace tensorops::python {
py::object entry_named(const std::string& name);
py::dict bound_functions();
py::dict signatures();
}  // namespace tensorops::python

PYBIND11_MODULE(_C, module) {
  using namespace tensorops;
  module.doc() = "The compiled half of tensorops.";
  module.def("build_facts", [] {
    return std::map<std::string, std::string>{
        {"torch", TENSOROPS_TORCH_VERSION_BUILT},   {"compiler", TENSOROPS_COMPILER},
        {"flags", TENSOROPS_COMPILE_FLAGS},         {"cuda", TENSOROPS_CUDA_VERSION},
        {"cuda_architectures", TENSOROPS_CUDA_ARCHITECTURES}, {"commit", TENSOROPS_GIT_COMMIT}};
  });
  module.def("cpu_capability", &cpu::capability_name);
  module.def("has_avx512_bf16", &cpu::has_avx512_bf16);
  module.def("empty_cache", &cpu::empty_cache, "Returns the CPU memory kept for reuse to the operating system.");
  module.def("memory_stats", [] {
    const cpu::MemoryStats s = cpu::memory_stats();
    return std::map<std::string, int64_t>{{"allocated_bytes", s.allocated}, {"peak_allocated_bytes", s.peak_allocated},
                                          {"cached_bytes", s.cached},       {"cache_limit_bytes", s.limit},
                                          {"hits", s.hits},                 {"misses", s.misses}};
  });
  module.def("_entry", &python::entry_named, "The __self__ of a bound function; pickle needs it.");
  module.def("bound_functions", &python::bound_functions, "Name of each bound function and the torch function it mirrors.");
  module.def("signatures", &python::signatures, "The overloads of each bound function, in the notation of torch's argument parser.");
  autocast::register_policies();
  functionalize::register_inplace();
  autograd::register_versions();
  python::bind_elementwise(module.ptr());
  python::bind_matmul(module.ptr());
  python::bind_convolution(module.ptr());
  python::bind_pooling(module.ptr());
  python::bind_reduction(module.ptr());
  python::bind_loss(module.ptr());
}
