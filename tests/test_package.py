"""The package around the kernels: names, re-exports, optimize, fallbacks, strict mode, what it composes with."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
import warnings

import pytest
import tensorops
import tensorops.nn.functional as F
import torch
from tensorops import _C, _fallback, _version_check, nn


def model() -> torch.nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 4, 1, padding="valid"),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def images() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_everything_of_torch_nn_is_there():
    assert not [name for name in dir(torch.nn) if not hasattr(nn, name)]
    assert not [name for name in dir(torch.nn.functional) if not hasattr(F, name)]
    assert {"grad", "common_types", "init", "Conv2d", "BatchNorm2d"} <= set(nn.__all__)
    assert nn.functional is F
    assert nn.BatchNorm2d is torch.nn.BatchNorm2d


@pytest.mark.parametrize("name", nn.modules.OURS)
def test_module_is_ours_with_torchs_face(name):
    ours, torchs = getattr(nn, name), getattr(torch.nn, name)
    assert ours.__module__.startswith("tensorops.nn.modules.")
    assert ours.__module__.removeprefix("tensorops") == torchs.__module__.removeprefix("torch")
    assert issubclass(ours, torchs)
    assert inspect.signature(ours) == inspect.signature(torchs)
    assert pickle.loads(pickle.dumps(ours)) is ours


@pytest.mark.parametrize("name", ["utils.rnn", "utils.prune", "init", "modules.batchnorm", "attention"])
def test_submodules_are_torchs_own(name):
    torchs = importlib.import_module(f"torch.nn.{name}")
    assert importlib.import_module(f"tensorops.nn.{name}") is torchs
    assert torchs.__spec__.name == f"torch.nn.{name}"


def test_optimize_and_restore():
    ours = model()
    theirs = tensorops.restore(copy.deepcopy(ours))
    assert all(type(module).__module__.startswith("torch.") for module in theirs.modules())
    assert repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(ours(images()), theirs(images()))
    first = theirs[0]
    hooked = []
    first.register_forward_hook(lambda *_: hooked.append(1))
    assert tensorops.optimize(theirs) is theirs
    assert theirs[0] is first
    assert type(first) is nn.Conv2d
    theirs(images())
    assert hooked == [1]


def test_optimize_leaves_subclasses_and_patched_instances():
    class Own(torch.nn.Linear):
        pass

    patched = torch.nn.ReLU()
    patched.forward = lambda x: x
    swapped = tensorops.optimize(torch.nn.Sequential(Own(2, 2), patched))
    assert type(swapped[0]) is Own
    assert type(swapped[1]) is torch.nn.ReLU


def test_functions_and_modules_copy_and_pickle():
    assert copy.deepcopy(tensorops.relu) is tensorops.relu
    assert pickle.loads(pickle.dumps(F.gelu)) is F.gelu
    again = pickle.loads(pickle.dumps(model()))
    assert [type(a) for a in again] == [type(a) for a in model()]


@pytest.mark.parametrize("name", sorted(_C.bound_functions()))
def test_docstring_and_stand_in(name):
    function = getattr(_C, name)
    if not name.startswith("_"):
        assert function.__doc__ and f"See {_C.bound_functions()[name]}" in function.__doc__
        assert len(function.__doc__.split("\n\n")) > 2, "no summary in _docs.py"


def test_fallback_is_counted_warned_of_once_and_refused_in_strict_mode():
    z = torch.randn(3, dtype=torch.complex64)
    before = tensorops.fallbacks().get("cosh", 0)
    _fallback._counts.pop("cosh", None)
    with pytest.warns(UserWarning, match=r"tensorops.cosh has no kernel .*complex64 on cpu"):
        assert torch.equal(tensorops.cosh(z), torch.cosh(z))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensorops.cosh(z)
    assert tensorops.fallbacks()["cosh"] == 2
    _fallback._counts["cosh"] += before
    with tensorops.strict(), pytest.raises(NotImplementedError, match="cosh"):
        tensorops.cosh(z)
    tensorops.cosh(z)
    tensorops.strict(True)
    try:
        with pytest.raises(NotImplementedError, match="cosh"):
            tensorops.cosh(z)
    finally:
        tensorops.strict(False)


def test_every_function_has_a_torch_function_to_fall_back_on():
    torchs = [name for name in tensorops._OURS if _fallback.torch_function(name, _C.bound_functions()[name]) is None]
    assert not torchs


@pytest.mark.parametrize(
    ("name", "says"),
    [("gelu", "use tensorops.nn.functional.gelu"), ("fft", "use torch.fft"), ("nonsense", "no attribute 'nonsense'")],
)
def test_missing_names_say_where_to_look(name, says):
    with pytest.raises(AttributeError, match=says):
        getattr(tensorops, name)


def test_version_mismatch_names_both_and_the_command():
    assert _version_check.mismatch("2.13.0+cpu", "", "2.13.1+cpu", None) is None
    says = _version_check.mismatch("2.13.0+cpu", "", "2.11.0+cu130", "13.0")
    assert "2.13.0+cpu" in says and "2.11.0+cu130" in says
    assert "CPU build" in _version_check.mismatch("2.11.0+cu130", "13.0", "2.11.0+cpu", None)
    code = (
        "import torch; torch.__version__ = '1.99.0'\ntry: import tensorops\nexcept ImportError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch 1.99.0 is installed" in printed
    assert "pip install --no-build-isolation" in printed


def conv_and_linear(F, image, weight, rows, matrix):
    """A program whose products FlopCounterMode counts."""
    maps = F.conv2d(image, weight, padding=1, groups=2)
    return F.linear(rows, matrix).sum() + maps.sum()


FLOPS = {
    "mm": lambda root, d: root.mm(d(5, 7), d(7, 3)),
    "addmm": lambda root, d: root.addmm(d(3), d(5, 7), d(7, 3)),
    "bmm": lambda root, d: root.bmm(d(2, 5, 7), d(2, 7, 3)),
    "baddbmm": lambda root, d: root.baddbmm(d(5, 3), d(2, 5, 7), d(2, 7, 3)),
    "matmul": lambda root, d: root.matmul(d(2, 4, 5, 7), d(7, 3)),
    "mv": lambda root, d: root.mv(d(5, 7), d(7)),
    "backward": lambda root, d: conv_and_linear(
        root.nn.functional, d(3, 4, 9, 8), d(6, 2, 3, 3), d(2, 5, 7), d(3, 7)
    ).backward(),
}


@pytest.mark.parametrize("name", FLOPS)
def test_flops_are_counted_as_torchs(name):
    from torch.utils.flop_counter import FlopCounterMode

    def count(root) -> int:
        with FlopCounterMode(display=False) as counter:
            FLOPS[name](root, lambda *shape: torch.randn(shape, requires_grad=True))
        return counter.get_total_flops()

    assert count(tensorops) == count(torch)


def test_import_does_not_load_the_flop_counter():
    code = "import sys, tensorops; assert 'torch.utils.flop_counter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_does_not_load_dynamo():
    code = "import sys, tensorops; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_info():
    printed = subprocess.run(
        [sys.executable, "-m", "tensorops.info"], capture_output=True, text=True, check=True
    ).stdout
    for word in ("built against torch", "compiler", _C.cpu_capability(), "conv2d", "torch.nn"):
        assert word in printed
    assert ("AVX512-BF16" in printed) == _C.has_avx512_bf16()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_model_compiles_without_a_break(backend):
    torch._dynamo.reset()
    ours = model()
    theirs = tensorops.restore(copy.deepcopy(ours))
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    y, expected = compiled(images()), theirs(images())
    torch.testing.assert_close(y, expected)
    y.square().mean().backward()
    expected.square().mean().backward()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)


def test_numbers_inplace_out_and_uncovered_compile():
    def f(x, z):
        y = tensorops.sub(1, tensorops.mul(tensorops.pow(x, 2), 2.5))
        y = tensorops.add(y, 3, alpha=2)
        tensorops.relu_(y)
        out = torch.empty_like(y)
        tensorops.div(y, 4, out=out)
        return out, tensorops.tanh(z)

    x, z = torch.randn(4), torch.randn(3, dtype=torch.complex64)
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        for got, want in zip(torch.compile(f, fullgraph=True, backend=backend)(x, z), f(x, z), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("strict", [False, True])
def test_exports_our_ops(strict):
    ours = model().eval()
    program = torch.export.export(ours, (images(),), dynamic_shapes=({0: torch.export.Dim("b")},), strict=strict)
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"tensorops.max_pool2d.default", "tensorops.linear.default"} <= targets
    torch.testing.assert_close(program.module()(images()[:3]), ours(images()[:3]))


def test_jit_trace():
    ours = model().eval()
    traced = torch.jit.trace(ours, (images(),))
    assert "tensorops::linear" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(images()), ours(images()))


def test_torch_function_sees_our_functions():
    seen = []

    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.randn(3).as_subclass(Own)
    assert type(F.relu(x)) is Own
    assert tensorops.relu in seen


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mse_loss", (None, None)),
        ("binary_cross_entropy", (None, None)),
        ("max_unpool2d", (None, None, 2)),
        ("softmax", (None,)),
        ("log_softmax", (None,)),
    ],
)
def test_python_functions_hand_over_to_torch_function(name, arguments):
    class Duck:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return func

    function = getattr(F, name)
    assert function(*(Duck() if argument is None else argument for argument in arguments)) is function


@pytest.mark.parametrize("module", [nn.MSELoss(), nn.BCELoss()])
def test_losses_trace_symbolically(module):
    x, y = torch.rand(3), torch.rand(3)
    assert torch.equal(torch.fx.symbolic_trace(module)(x, y), module(x, y))


def test_per_example_gradients():
    ours = model().eval()
    theirs = tensorops.restore(copy.deepcopy(ours))

    def gradients(module):
        def loss(parameters, x):
            return torch.func.functional_call(module, parameters, (x[None],)).square().sum()

        return torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(dict(module.named_parameters()), images())

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop.*tensorops")
        mine = gradients(ours)
    for name, its in gradients(theirs).items():
        torch.testing.assert_close(mine[name], its, rtol=1e-4, atol=1e-4)


def batched(shapes):
    """Every choice of which arguments have the batch, 3 long, as dimension 1 where it can be."""
    for choice in range(1, 2 ** len(shapes)):
        tensors, dims = [], []
        for i, shape in enumerate(shapes):
            dim = min(len(shape), 1) if choice >> i & 1 else None
            tensors.append(torch.randn(shape if dim is None else (*shape[:dim], 3, *shape[dim:])))
            dims.append(dim)
        yield tensors, tuple(dims)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("add", [(2, 4), (4,)]),
        ("mul", [(), (5,)]),
        ("lerp", [(2, 3), (3,), (2, 1)]),
        ("mm", [(2, 4), (4, 5)]),
        ("bmm", [(2, 3, 4), (2, 4, 5)]),
        ("mv", [(2, 4), (4,)]),
        ("dot", [(4,), (4,)]),
        ("outer", [(2,), (4,)]),
        ("matmul", [(2, 3, 4), (4,)]),
        ("addmm", [(5,), (2, 4), (4, 5)]),
        ("addmv", [(2,), (2, 4), (4,)]),
        ("baddbmm", [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
        ("addr", [(2, 4), (2,), (4,)]),
        ("nn.functional.linear", [(2, 7, 4), (5, 4), (5,)]),
        ("nn.functional.linear", [(4,), (5, 4)]),
        ("nn.functional.conv2d", [(2, 4, 6, 6), (8, 4, 3, 3), (8,)]),
    ],
)
def test_vmap_equals_torchs(name, shapes):
    def find(owner):
        for part in name.split("."):
            owner = getattr(owner, part)
        return owner

    ours, theirs = find(tensorops), find(torch)
    wanted = tuple(range(len(shapes)))
    for tensors, dims in batched(shapes):
        for f, g in (
            (ours, theirs),
            tuple(torch.func.grad(lambda *a, f=f: f(*a).square().sum(), argnums=wanted) for f in (ours, theirs)),
        ):
            torch.testing.assert_close(
                torch.vmap(f, in_dims=dims)(*tensors), torch.vmap(g, in_dims=dims)(*tensors), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(3,), (3, 4)])
def test_vmap_takes_numbers_where_the_op_has_tensors(dtype, shape):
    x = torch.rand(shape).mul(5).to(dtype)
    for call in (
        lambda t, x: t.div(x, 0.1),
        lambda t, x: t.mul(x, 3),
        lambda t, x: t.pow(2.5, x),
        lambda t, x: t.where(x > 1, x, 0.1),
        lambda t, x: t.where(x > 1, 1, 2.5),
        lambda t, x: t.where(x > 1, 2.5, 1),
        lambda t, x: t.where(x > 1, 1, 2),
    ):
        got, want = (torch.vmap(lambda x, t=t, call=call: call(t, x))(x) for t in (tensorops, torch))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["maximum", "mean", "var", "div"])
def test_second_derivatives_under_vmap(name):
    x = torch.rand(4, 4)
    for transform in (torch.func.jacrev, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        got, want = (
            transform(lambda x, t=t: getattr(t, name)(x, *{"maximum": [x.T], "div": [2.5]}.get(name, [])))(x)
            for t in (tensorops, torch)
        )
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_writing_in_place_under_func_grad():
    x, y = torch.randn(3), torch.randn(3)
    for call in (
        lambda t, x: method(t, "mul_")(x.clone(), x),
        lambda t, x: method(t, "square_")(x * y),
        lambda t, x: method(t, "addr_")(torch.outer(x, y), x, x.clone()),
    ):
        got, want = (torch.func.grad(lambda x, t=t, call=call: call(t, x).sum())(x) for t in (tensorops, torch))
        torch.testing.assert_close(got, want)


def method(root, name):
    return getattr(torch.Tensor if root is torch else root, name)


def test_vmap_keeps_type_promotion_and_writes_in_place():
    scalars = torch.arange(3, dtype=torch.float64)
    row = torch.randn(4)
    assert torch.vmap(lambda s: tensorops.add(s, row))(scalars).dtype == torch.float32

    def inplace(x, y):
        x = x.clone()
        tensorops.add_(x, y)
        tensorops.mul_(x, 2.0)
        return x

    x, y = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(torch.vmap(inplace)(x, y), (x + y) * 2)
    with pytest.raises(RuntimeError, match="same for all examples"):
        torch.vmap(lambda x, y: tensorops.add_(x, y), in_dims=(None, 0))(row, torch.randn(3, 4))


def ops_without_cuda_kernel() -> set[str]:
    """Names of ops that have a kernel of their own on the CPU and none on CUDA; composites have neither."""
    cpu, cuda = (
        {op for op in torch._C._dispatch_get_registrations_for_dispatch_key(key) if op.startswith("tensorops::")}
        for key in ("CPU", "CUDA")
    )
    assert cpu
    return cpu - cuda


@pytest.mark.skipif(not _C.build_facts()["cuda"], reason="a build for the CPU alone")
def test_every_op_has_a_cuda_kernel():
    assert not ops_without_cuda_kernel()


def test_a_missing_cuda_kernel_is_noticed():
    library = torch.library.Library("tensorops", "FRAGMENT")
    try:
        library.define("_on_the_cpu_alone(Tensor input) -> Tensor")
        library.define("_on_both(Tensor input) -> Tensor")
        library.define("_composite(Tensor input) -> Tensor")
        library.impl("_on_the_cpu_alone", torch.clone, "CPU")
        for key in ("CPU", "CUDA"):
            library.impl("_on_both", torch.clone, key)
        library.impl("_composite", torch.clone, "CompositeImplicitAutograd")
        noticed = ops_without_cuda_kernel()
        assert "tensorops::_on_the_cpu_alone" in noticed
        assert not {"tensorops::_on_both", "tensorops::_composite"} & noticed
    finally:
        library._destroy()
