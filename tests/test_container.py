"""nn.Sequential: layers computed together give what each gives, and a layer that someone watches is called by itself."""

from __future__ import annotations

import copy

import pytest
import tensorops
import torch
from tensorops import _C, nn


def called_one_by_one(layers: torch.nn.Sequential) -> torch.nn.Sequential:
    """The same layers, each called by itself."""
    return torch.nn.Sequential(*copy.deepcopy(layers))


ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Tanh, nn.GELU, lambda: nn.GELU("tanh"), lambda: nn.ReLU(inplace=True))
TOGETHER = {
    "linear": lambda: nn.Sequential(*(layer for act in ACTIVATIONS for layer in (nn.Linear(6, 6), act()))),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)),
    "pool": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(3, 1, 1)),
    "pool in place": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.MaxPool2d(2, ceil_mode=True)),
    "pool first": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
    "pool first, in place": lambda: nn.Sequential(nn.ReLU(True), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", TOGETHER)
def test_layers_computed_together_give_what_each_gives(name, dtype):
    together = TOGETHER[name]().to(dtype)
    apart = called_one_by_one(together)
    x = torch.randn(2, 3, 9, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0, 0, 0, 0] = float("nan")
    # In bf16 the sums reach the activation unrounded.
    tolerance = {"rtol": 2e-2, "atol": 1e-2} if dtype is torch.bfloat16 else {}
    with torch.no_grad():
        mine, its = x.clone(), x.clone()
        torch.testing.assert_close(together(mine), apart(its), equal_nan=True, **tolerance)
        assert torch.equal(mine.nan_to_num(), its.nan_to_num())
    if "first, in place" in name:
        return
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    for model, input in ((together, a), (apart, b)):
        model(input).nan_to_num().square().sum().backward()
    for mine, its in zip((a, *together.parameters()), (b, *apart.parameters()), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, equal_nan=True, **tolerance)


def test_linear_and_activation_are_one_call(monkeypatch):
    calls = []
    fused = _C._linear_activation
    monkeypatch.setattr(_C, "_linear_activation", lambda *args: calls.append(args[-1]) or fused(*args))
    TOGETHER["linear"]()(torch.randn(2, 6))
    assert calls == ["relu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "relu"]


def test_relu_passes_over_the_pooled_image(monkeypatch):
    seen = []
    relu_ = _C.relu_
    monkeypatch.setattr(_C, "relu_", lambda x: seen.append(tuple(x.shape)) or relu_(x))
    TOGETHER["pool"]()(torch.randn(2, 3, 9, 6))
    assert seen == [(2, 4, 3, 2), (2, 4, 3, 2)]


def test_autocast():
    together = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid())
    x = torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        mine, its = together(x), called_one_by_one(together)(x)
    assert mine.dtype == its.dtype == torch.bfloat16
    torch.testing.assert_close(mine, its, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_a_watched_layer_is_called_by_itself(at):
    layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    shapes = []
    x = torch.randn(2, 6, 6)
    expected = called_one_by_one(layers)(x)
    hook = layers[at].register_forward_hook(lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape)))
    torch.testing.assert_close(layers(x), expected)
    full, pooled = torch.Size([2, 6, 6]), torch.Size([2, 3, 3])
    assert shapes == [(full, pooled if at == 4 else full)]
    hook.remove()
    given = []
    layers[at].forward = lambda input: given.append(input.shape) or input
    assert layers(x).shape == (full if at == 4 else pooled)
    assert given == [full]


def test_hooks_of_all_modules_and_modes_see_every_layer():
    layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.MaxPool2d(2))
    called = []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda layer, *_: called.append(type(layer)))
    try:
        layers(torch.randn(2, 6, 6))
    finally:
        hook.remove()
    assert called == [nn.Linear, nn.ReLU, nn.MaxPool2d, nn.Sequential]

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            called.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        layers(torch.randn(2, 6, 6))
    assert {tensorops.nn.functional.linear, tensorops.relu} <= set(called)


def uncovered(dtype: torch.dtype, sparse: bool) -> torch.nn.Sequential:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3), nn.GELU("tanh")).to(dtype)
    if sparse:
        layers[0].weight = torch.nn.Parameter(torch.eye(4).to_sparse_csr(), requires_grad=False)
    return layers if dtype.is_floating_point else layers[:2]


@pytest.mark.parametrize(("dtype", "sparse"), [(torch.complex64, False), (torch.float32, True)])
@pytest.mark.filterwarnings("ignore")
def test_what_no_kernel_covers_falls_back_by_the_layers_own_names(dtype, sparse):
    layers, x = uncovered(dtype, sparse), torch.randn(2, 4, dtype=dtype)
    before = tensorops.fallbacks()
    torch.testing.assert_close(layers(x), torch.nn.Sequential(*layers)(x))
    after = tensorops.fallbacks()
    assert after["linear"] == before.get("linear", 0) + 2
    assert "_linear_activation" not in after
    with tensorops.strict(), pytest.raises(NotImplementedError, match=r"tensorops\.linear has no kernel"):
        layers(x)


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
def test_subclasses_are_handed_to_each_layer(which):
    seen = []

    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    layers, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()), torch.randn(2, 4)
    if which == "input":
        x = x.as_subclass(Own)
    else:
        own = getattr(layers[1], which).detach().as_subclass(Own)
        setattr(layers[1], which, torch.nn.Parameter(own))
    assert type(layers(x)) is Own
    assert {tensorops.nn.functional.linear, tensorops.tanh} <= set(seen)


def test_a_layer_that_makes_a_subclass():
    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            assert func is not _C._linear_activation
            return super().__torch_function__(func, types, args, kwargs or {})

    class Make(torch.nn.Module):
        def forward(self, input):
            return input.as_subclass(Own)

    assert type(nn.Sequential(Make(), nn.Linear(4, 3), nn.Tanh())(torch.randn(2, 4))) is Own


def test_indices_of_the_maxima_come_after_relu():
    layers = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    x = torch.randn(2, 6, 6)
    for mine, its in zip(layers(x), called_one_by_one(layers)(x), strict=True):
        assert torch.equal(mine, its)


def test_traces_have_every_layer():
    traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.randn(2, 4))
    graph = str(traced.inlined_graph)
    assert "tensorops::linear" in graph and "tensorops::tanh" in graph


def test_torch_func_gets_every_layer(monkeypatch):
    monkeypatch.setattr(_C, "_linear_activation", None)
    layers, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.randn(5, 4)
    torch.testing.assert_close(torch.vmap(layers)(x), called_one_by_one(layers)(x))


def test_layers_of_torchs_own_can_be_scripted():
    layers = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).eval()
    x = torch.randn(2, 3)
    assert torch.equal(torch.jit.script(layers)(x), layers(x))
