"""Builds tensorops._C: torch's own extension classes, plus one pass per instruction set for the inner CPU kernels."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths

ROOT = Path(__file__).resolve().parent
X86 = platform.machine() in ("x86_64", "AMD64")

# csrc/cpu/kernels/*.cpp is compiled once per row of INSTRUCTION_SETS, csrc/cpu/kernels/NAME/*.cpp for row NAME of
# EXTENSIONS alone. capability.cpp checks for exactly these feature levels.
INSTRUCTION_SETS = {"baseline": ["-march=x86-64-v2"] if X86 else []}
EXTENSIONS: dict[str, list[str]] = {}
if X86:
    INSTRUCTION_SETS["avx2"] = ["-march=x86-64-v3"]
    INSTRUCTION_SETS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
    EXTENSIONS["avx512_bf16"] = [*INSTRUCTION_SETS["avx512"], "-mavx512bf16"]

# OpenMP's pragmas are compiled in, its runtime is not linked: the symbols must be those of torch's own runtime,
# or torch.set_num_threads would not reach us.
CXX = ["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fopenmp"]

# The inner kernels that take minutes, the longest first: started last, they are what all wait for.
LONGEST_KERNELS = ["pooling", "elementwise", "convolution", "gemm", "reduction"]

DEFAULT_CUDA_ARCHITECTURES = "8.0;9.0a"

# TENSOROPS_SANITIZE=address,undefined builds for tools/sanitize.sh; the flags come last, so that they win.
SANITIZERS = os.environ.get("TENSOROPS_SANITIZE", "")
SANITIZE = [f"-fsanitize={SANITIZERS}", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"] if SANITIZERS else []
# Checks of addresses are calls: as code in place they double the time to compile.
CALLS = ["--param=asan-instrumentation-with-call-threshold=0"]
SANITIZE_CXX = [*SANITIZE, *CALLS, "-fno-omit-frame-pointer", "-fno-wrapv", "-O1", "-g1"] if SANITIZERS else []


def fastest_instruction_sets() -> set[str]:
    """What this machine's CPU runs: all that a sanitizer build instruments, as each set takes minutes then."""
    cpuinfo = Path("/proc/cpuinfo")
    found = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    if found >= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}:
        return {"avx512"} | (found & {"avx512_bf16"})
    return {"avx2"} if found >= {"avx2", "fma"} else {"baseline"}


def say(message: str) -> None:
    """Reports a build decision where pip shows it with -v and a plain build always does."""
    print(f"tensorops: {message}", file=sys.stderr, flush=True)


def with_cuda() -> bool:
    """TENSOROPS_CUDA decides; 'auto' builds CUDA where torch has it and a toolkit is found, GPU visible or not."""
    wish = os.environ.get("TENSOROPS_CUDA", "auto")
    if wish not in ("0", "1", "auto"):
        raise SystemExit(f"TENSOROPS_CUDA must be 0, 1 or auto, got {wish!r}")
    if wish == "0":
        say("CUDA kernels: no (TENSOROPS_CUDA=0)")
        return False
    missing = []
    if torch.version.cuda is None:
        missing.append(f"torch {torch.__version__} is a CPU build")
    if CUDA_HOME is None:
        missing.append("no CUDA toolkit was found (set CUDA_HOME)")
    if not missing:
        say(f"CUDA kernels: yes (torch has CUDA {torch.version.cuda}, toolkit at {CUDA_HOME})")
        return True
    if wish == "1":
        raise SystemExit(f"TENSOROPS_CUDA=1, but {' and '.join(missing)}")
    say(f"CUDA kernels: no ({' and '.join(missing)})")
    return False


def cuda_architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, else the visible GPUs', else a stated default."""
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        if torch.cuda.is_available():
            found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
            os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(
                f"{major}.{minor}{'a' if (major, minor) == (9, 0) else ''}" for major, minor in sorted(found)
            )
        else:
            os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_CUDA_ARCHITECTURES
    return os.environ["TORCH_CUDA_ARCH_LIST"]


def set_job_count(gigabytes_per_job: float) -> None:
    """One job per core, but no more than memory allows; MAX_JOBS, when set, is obeyed by torch's BuildExtension."""
    if "MAX_JOBS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = cores
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
            jobs = max(1, min(cores, int(memory / gigabytes_per_job)))
        os.environ["MAX_JOBS"] = str(jobs)
    say(f"jobs: {os.environ['MAX_JOBS']}")


def put_ninja_on_path() -> None:
    """Torch calls `ninja`, and builds file after file where there is none: as in a virtual environment not activated."""
    try:
        import ninja
    except ImportError:
        return
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", os.defpath)])


def in_ninja(text: str | Path, path: bool = False) -> str:
    """Text as a ninja file spells it."""
    text = str(text).replace("$", "$$")
    return text.replace(" ", "$ ").replace(":", "$:") if path else text


def write_if_changed(path: Path, text: str) -> None:
    """Leaves alone what is so already, or all that is made of it would be made again."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def sleefs_own(header: str) -> str:
    """Sleef's header without what some torch puts around it: the same for every torch, or kernels would be made again."""
    begin, end = header.find("#ifndef __SLEEF_H__"), header.rfind("#endif // #ifndef __SLEEF_H__")
    return header if begin < 0 or end < 0 else header[begin:end] + "#endif\n"


def git_commit() -> str:
    """The commit being built, marked when the tree differs from it; 'unknown' outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


class Build(BuildExtension):
    """BuildExtension with the inner kernels compiled once per instruction set and the build facts written first."""

    def run(self) -> None:
        """Builds, and writes beside the binary what `import tensorops` compares before it loads the binary."""
        super().run()
        cuda = torch.version.cuda if "TENSOROPS_WITH_CUDA" in dict(self.extensions[0].define_macros) else ""
        facts = f'"""What _C was built against; by setup.py."""\n\nTORCH = "{torch.__version__}"\nCUDA = "{cuda}"\n'
        Path(self.get_ext_fullpath(self.extensions[0].name)).with_name("_build.py").write_text(facts)

    def get_outputs(self) -> list[str]:
        """The binary and the file beside it."""
        outputs = super().get_outputs()
        return [*outputs, *(str(Path(path).with_name("_build.py")) for path in outputs if "_C." in Path(path).name)]

    def build_extensions(self) -> None:
        """Builds and reports the time."""
        started = time.perf_counter()
        super().build_extensions()
        say(f"built in {time.perf_counter() - started:.0f} s")

    def build_extension(self, extension) -> None:
        """Writes build_facts.h and compiles the per-instruction-set objects before the extension itself."""
        generated = Path(self.build_temp).resolve() / "generated"
        self.write_facts(generated)
        extension.include_dirs.append(str(generated))
        plain = extension.extra_compile_args
        plain = plain["cxx"] if isinstance(plain, dict) else plain
        include_dirs = [*self.compiler.include_dirs, *extension.include_dirs]
        # On one core, while the kernels take all: their last files leave cores idle.
        with ThreadPoolExecutor() as pool:
            prefix = pool.submit(self.precompile, ROOT / "csrc/prefix.h", generated, list(plain), include_dirs)
            extension.extra_objects += self.compile_kernels()
        plain += prefix.result()
        super().build_extension(extension)

    def compile_kernels(self) -> list[str]:
        """Compiles the inner kernels, once per instruction set; returns the objects.

        They know nothing of torch but its Sleef, so their objects lie outside build_temp, where a build against another
        torch, or with sanitizers, finds them made. What sanitizers instrument is this build's own.
        """
        # -O3 for loops, no errno or trap semantics so that they vectorise; NaN, inf and signed zero keep their meaning.
        fast = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
        # GCC 12 calls the undefined operand of its own AVX-512 intrinsics used uninitialized.
        quiet = ["-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
        kernels = ROOT / "csrc/cpu/kernels"
        shared = ROOT / "build/kernels"
        own = Path(self.build_temp).resolve() / "kernels" if SANITIZERS else shared
        sleef = shared / "include/sleef.h"
        if X86:
            write_if_changed(sleef, sleefs_own((Path(include_paths()[0]) / sleef.name).read_text()))
        ccache = [path] if (path := shutil.which("ccache")) else []  # as torch's own does
        command = [*ccache, *self.compile_command(), *CXX, *fast, *quiet, f"-I{ROOT / 'csrc'}", f"-I{sleef.parent}"]

        text = f"rule cxx\n  command = {in_ninja(shlex.join(command))} $extra -MMD -MF $out.d -c $in -o $out\n"
        text += "  depfile = $out.d\n  deps = gcc\n"
        jobs = []
        for name, flags_of_set in (INSTRUCTION_SETS | EXTENSIONS).items():
            instrumented = bool(SANITIZERS) and name in fastest_instruction_sets()
            extra = [*(SANITIZE_CXX if instrumented else []), *flags_of_set, f"-DTENSOROPS_ISA={name}"]
            for source in sorted((kernels if name in INSTRUCTION_SETS else kernels / name).glob("*.cpp")):
                output = (own if instrumented else shared) / name / f"{source.stem}.o"
                jobs.append((source, output, extra))
        jobs.sort(key=lambda job: [*LONGEST_KERNELS, job[0].stem].index(job[0].stem))
        for source, output, extra in jobs:
            text += f"build {in_ninja(output, path=True)}: cxx {in_ninja(source, path=True)}\n"
            text += f"  extra = {in_ninja(shlex.join(extra))}\n"
        manifest = own / "build.ninja"
        write_if_changed(manifest, text)
        # In the shared folder, where ninja keeps the record of how each object was made.
        subprocess.run(["ninja", "-C", str(shared), "-f", str(manifest), "-j", os.environ["MAX_JOBS"]], check=True)
        return [str(output) for _, output, _ in jobs]

    def compile_command(self) -> list[str]:
        """The compiler, and the flags that Python's own build gives every extension."""
        return [*shlex.split(os.environ.get("CXX", "c++")), *self.compiler.compiler_so[1:]]

    def precompile(self, header: Path, folder: Path, flags: list[str], include_dirs: list[str]) -> list[str]:
        """Compiles a header once for all files; returns the flags that make them use it. GCC's way; others parse it anew."""
        compiler = [*self.compile_command(), *flags]
        about = subprocess.run([*compiler, "-v"], capture_output=True, text=True, check=True).stderr
        if "gcc version" not in about:
            return []
        # GCC takes NAME.gch for NAME, and NAME itself where the flags of a file do not fit.
        name = folder / header.name
        command = [
            *compiler,
            *(f"-I{path}" for path in include_dirs),
            "-x",
            "c++-header",
            str(header),
            "-o",
            f"{name}.gch",
        ]
        made_from = "\n".join([about, torch.__version__, *command, header.read_text()])
        stamp = folder / f"{header.name}.made_from"
        if not stamp.exists() or stamp.read_text() != made_from:
            name.write_text(f'#include "{header}"\n')
            subprocess.run(command, check=True)
            stamp.write_text(made_from)
        # Torch compiles through ccache where it finds one, which asks for this before it caches such files.
        os.environ.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")
        return ["-include", str(name)]

    def write_facts(self, folder: Path) -> None:
        """Bakes in what `python -m tensorops.info` prints."""
        cuda = "TENSOROPS_WITH_CUDA" in dict(self.extensions[0].define_macros)
        compiler = subprocess.run(
            [*self.compiler.compiler_cxx[:1], "--version"], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        facts = {
            "TORCH_VERSION_BUILT": torch.__version__,
            "COMPILER": compiler[0] if compiler else "unknown",
            "COMPILE_FLAGS": "; ".join(f"{k}: {' '.join(v)}" for k, v in (INSTRUCTION_SETS | EXTENSIONS).items()),
            "CUDA_VERSION": torch.version.cuda if cuda else "",
            "CUDA_ARCHITECTURES": os.environ.get("TORCH_CUDA_ARCH_LIST", "") if cuda else "",
            "GIT_COMMIT": git_commit(),
        }
        quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in facts.items()}
        text = "#pragma once\n" + "".join(f'#define TENSOROPS_{name} "{value}"\n' for name, value in quoted.items())
        write_if_changed(folder / "build_facts.h", text)


def extension():
    """The one extension module, tensorops._C."""
    rooms = ["csrc", "csrc/python", "csrc/ops", "csrc/autograd", "csrc/autocast", "csrc/functionalize", "csrc/cpu"]
    cxx = [*CXX, *INSTRUCTION_SETS["baseline"], *SANITIZE_CXX]
    cuda = with_cuda()
    if cuda:
        rooms.append("csrc/cuda")
        say(f"CUDA architectures: {cuda_architectures()}")
    set_job_count(4.0 if cuda else 2.0)
    sources = [path for room in rooms for path in (ROOT / room).glob("*.cpp")]
    if cuda:
        sources += (ROOT / "csrc/cuda/kernels").glob("*.cu")
    if "address" in SANITIZERS:
        sources.append(ROOT / "tools/asan_vectors.cpp")
    names = sorted(str(path.relative_to(ROOT)) for path in sources)
    kind = CUDAExtension if cuda else CppExtension
    nvcc = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler", "-fvisibility=hidden"]
    return kind(
        "tensorops._C",
        names,
        include_dirs=[str(ROOT / "csrc")],
        define_macros=[("TENSOROPS_WITH_CUDA", "1")] if cuda else [],
        extra_compile_args={"cxx": cxx, "nvcc": nvcc} if cuda else cxx,
        extra_link_args=SANITIZE or (["-Wl,-s"] if sys.platform == "linux" else []),
    )


put_ninja_on_path()
setup(ext_modules=[extension()], cmdclass={"build_ext": Build.with_options(no_python_abi_suffix=False)})
