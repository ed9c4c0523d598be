"""Builds the CUDA room for the CPU: its kernels run under tools/emulate_cuda.h, its ops take the place of the CPU's.

    python setup.py build && python tools/emulate_cuda.py build/emulate
    TENSOROPS_TEST_EMULATED_CUDA=1 PYTHONPATH=build/emulate python -m pytest tests/test_reduction.py

tools/check_emulated_cuda.sh does both. All other rooms are linked as that first build has left them. A GPU shows more
(speed, real races, the compiler); this shows wrong indices, shapes, barriers and formulas where there is none. With
--sanitize the kernels run under AddressSanitizer (LD_PRELOAD libasan.so).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parent.parent
# PTX, which has to be replaced as a whole.
REPLACED = {"mma.h": ROOT / "tools/emulate_mma.h"}
DYNAMIC_SHARED = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?unsigned char (\w+)\[\];")
LAUNCH_H = """#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>
#include <limits>
#include "cuda/kernels/fault.h"
#include "ops/scalar_type.h"
namespace tensorops::cuda {
struct Guard { explicit Guard(c10::Device) {} };
inline cudaStream_t stream() { return nullptr; }
inline void check_launch() {}
inline int* fault_word() { static int word = 0; return &word; }
inline void report_fault(const char* who, const char* hint) {
  const int fault = *fault_word();
  *fault_word() = 0;
  TORCH_CHECK(fault != kFaultProbability, who, "an input or target that is not between 0 and 1", hint);
  TORCH_CHECK_INDEX(false, who, "a label or index that is out of bounds", hint);
}
inline void raise_fault() {}
inline void check_launch_with_indices() {
  if (*fault_word() != 0) report_fault("met ", "");
}
inline at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType t, c10::Device) {
  return at::Tensor(at::detail::empty_strided_cpu(sizes, strides, t));
}
inline at::Tensor empty(c10::IntArrayRef sizes, c10::ScalarType t, c10::Device,
                        c10::MemoryFormat format = c10::MemoryFormat::Contiguous) {
  return at::Tensor(at::detail::empty_cpu(sizes, t, false, format));
}
"""


def emulated_launches(text: str) -> str:
    """Rewrites `kernel<<<grid, block, shared, stream>>>(arguments);` as a call of emulate::launch."""
    while (at := text.find("<<<")) >= 0:
        start = max(text.rfind(c, 0, at) for c in ";{}") + 1
        close = text.index(">>>", at)
        end = text.index(";", close)
        grid, block, shared = split_arguments(text[at + 3 : close])[:3]
        kernel, call = text[start:at].strip(), text[close + 3 : end]
        lines = [line for line in kernel.splitlines() if not line.lstrip().startswith("//")]
        kernel = "\n".join(lines)
        text = f"{text[:start]}\n  emulate::launch({grid}, {block}, {shared}, [&] {{ {kernel}{call}; }}){text[end:]}"
    return DYNAMIC_SHARED.sub(
        r"auto* const \1 = reinterpret_cast<unsigned char*>(emulate::dynamic_shared.data());", text
    )


def split_arguments(text: str) -> list[str]:
    """Splits at the commas outside all brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def prepare(folder: Path) -> None:
    """Copies csrc/ with the CUDA room rewritten; the rest is linked."""
    source = folder / "csrc"
    source.mkdir(parents=True, exist_ok=True)
    for entry in (ROOT / "csrc").iterdir():
        if entry.name != "cuda" and not (source / entry.name).exists():
            (source / entry.name).symlink_to(entry)
    for path in (source / "cuda").rglob("*.*"):
        if not (ROOT / "csrc" / path.relative_to(source)).exists():
            path.unlink()
    for path in (ROOT / "csrc/cuda").rglob("*"):
        if path.suffix not in (".h", ".cpp", ".cu"):
            continue
        text = emulated_launches(REPLACED.get(path.name, path).read_text())
        if path.name == "launch.h":
            text = LAUNCH_H + text[text.index("// Every defined tensor must be on") :]
        text = re.sub(r"IMPL\(tensorops, CUDA,", "IMPL(tensorops, CPU,", text).replace(".is_cuda()", ".is_cpu()")
        text = text.replace("__noinline__", "__attribute__((noinline))")
        target = source / path.relative_to(ROOT / "csrc")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    package = folder / "tensorops"
    if not package.is_symlink():
        shutil.copytree(ROOT / "python/tensorops", package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so"))


def finished_objects() -> tuple[list[Path], list[Path]]:
    """What the package's own build has left: the objects of the CPU's room, and those of all others but CUDA's."""
    built = sorted(ROOT.glob(f"build/temp.*-{sys.implementation.cache_tag}/csrc"))
    if not built:
        raise SystemExit("emulate_cuda: build the package first (python setup.py build)")
    cpu, others = [], []
    for path in sorted(built[0].rglob("*.o")):
        room = path.relative_to(built[0]).parts[0]
        if room != "cuda":
            (cpu if room == "cpu" else others).append(path)
    return cpu, others


def ninja_file(folder: Path, cuda_home: Path, sanitize: bool) -> str:
    """The build of tensorops._C."""
    system = [
        *cpp_extension.include_paths(),
        pybind11.get_include(),
        sysconfig.get_paths()["include"],
        cuda_home / "include",
    ]
    flags = ["-std=c++20 -O1 -g1 -fPIC -fopenmp -fvisibility=hidden -w -march=x86-64-v3 -DTORCH_EXTENSION_NAME=_C"]
    flags += [f"-I{folder / 'csrc'}"] + [f"-isystem {p}" for p in system]
    sanitizers = "-fsanitize=address,undefined" if sanitize else ""
    if sanitize:
        flags.append(f"{sanitizers} -fno-sanitize-recover=undefined -fno-sanitize=vptr,float-divide-by-zero")
    library = Path(torch.__file__).parent / "lib"
    link = f"-shared -L{library} -Wl,-rpath,{library} -lc10 -ltorch -ltorch_cpu -ltorch_python"
    text = f"flags = {' '.join(flags)}\n"
    text += "rule cxx\n  command = g++ $flags $extra -MMD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n"
    # An archive: of the CPU's room the linker takes what other rooms call (the allocator, the instruction set), not its ops.
    text += "rule archive\n  command = rm -f $out && ar rc $out $in\n"
    text += f"rule link\n  command = g++ {sanitizers} $in {link} -o $out\n"
    cpu, others = finished_objects()
    objects = [str(path) for path in others]
    for path in sorted((folder / "csrc/cuda").rglob("*.c*")):
        objects.append(f"obj/{path.stem}{path.suffix}.o")
        if path.suffix == ".cu":
            # Products are most of what the tests compute.
            level = "-O3" if path.stem in ("gemm", "convolution") else ""
            text += f"build {objects[-1]}: cxx {path}\n  extra = {level} -x c++ -include {ROOT}/tools/emulate_cuda.h\n"
        else:
            text += f"build {objects[-1]}: cxx {path}\n"
    module = f"tensorops/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    text += f"build obj/cpu.a: archive {' '.join(map(str, cpu))}\n"
    return text + f"build {module}: link {' '.join(objects)} obj/cpu.a\n"


def main() -> None:
    """Prepares the sources and runs ninja."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuda-home", type=Path, default=Path(cpp_extension.CUDA_HOME or "/usr/local/cuda"))
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    (folder / "build.ninja").write_text(ninja_file(folder, options.cuda_home, options.sanitize))
    subprocess.run(["ninja", "-C", str(folder), "-j", str(options.jobs)], check=True)


if __name__ == "__main__":
    main()
