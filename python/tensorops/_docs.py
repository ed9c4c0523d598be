"""Docstrings of the C functions: signature, formula, dtypes, shapes, errors."""

from __future__ import annotations

import re

import torch

from . import _C

# What each function computes. An in-place twin (relu_) takes its base's line.
SUMMARIES = {
    # elementwise, one tensor
    "abs": "|x|",
    "neg": "-x",
    "sqrt": "√x",
    "rsqrt": "1 / √x",
    "square": "x²",
    "reciprocal": "1 / x",
    "exp": "eˣ",
    "exp2": "2ˣ",
    "expm1": "eˣ - 1, accurate near 0",
    "log": "natural logarithm",
    "log2": "logarithm to base 2",
    "log10": "logarithm to base 10",
    "log1p": "log(1 + x), accurate near 0",
    "sin": "sine",
    "cos": "cosine",
    "tan": "tangent",
    "asin": "arc sine",
    "acos": "arc cosine",
    "atan": "arc tangent",
    "sinh": "hyperbolic sine",
    "cosh": "hyperbolic cosine",
    "tanh": "hyperbolic tangent",
    "sigmoid": "1 / (1 + e⁻ˣ)",
    "erf": "error function, 2/√π ∫₀ˣ exp(-t²) dt",
    "erfc": "1 - erf(x), accurate for large x",
    "sign": "-1, 0 or 1",
    "ceil": "the least integer not below x",
    "floor": "the greatest integer not above x",
    "round": "the nearest integer, halves to even",
    "trunc": "x without its fraction",
    "frac": "x - trunc(x)",
    "relu": "max(0, x)",
    "relu6": "min(max(0, x), 6)",
    "leaky_relu": "x where x > 0, negative_slope · x elsewhere",
    "elu": "x where x > 0, alpha · (eˣ - 1) elsewhere (Clevert et al. 2015, arXiv:1511.07289)",
    "selu": "the scaled elu that keeps mean and variance (Klambauer et al. 2017, arXiv:1706.02515)",
    "gelu": "x · Φ(x), or its tanh approximation (Hendrycks and Gimpel 2016, arXiv:1606.08415)",
    "silu": "x · sigmoid(x)",
    "mish": "x · tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)",
    "softplus": "log(1 + exp(beta · x)) / beta, and x itself where beta · x > threshold",
    "softsign": "x / (1 + |x|)",
    "hardtanh": "x within [min_val, max_val]",
    "hardswish": "x · relu6(x + 3) / 6 (Howard et al. 2019, arXiv:1905.02244)",
    "hardsigmoid": "relu6(x + 3) / 6",
    "logsigmoid": "log(sigmoid(x))",
    "tanhshrink": "x - tanh(x)",
    "threshold": "x where x > threshold, value elsewhere",
    "isnan": "whether x is NaN",
    "isinf": "whether x is ±infinity",
    "isfinite": "whether x is neither NaN nor ±infinity",
    "logical_not": "whether x is zero",
    # elementwise, several tensors
    "add": "input + alpha · other",
    "sub": "input - alpha · other",
    "mul": "input · other",
    "div": "input / other; rounded towards zero with rounding_mode='trunc', down with 'floor'",
    "floor_divide": "input / other, rounded down",
    "pow": "input to the power of exponent",
    "fmod": "the remainder of input / other with input's sign, as in C",
    "remainder": "the remainder of input / other with other's sign, as in Python",
    "atan2": "the angle of the point (other, input)",
    "maximum": "the greater of both; NaN if either is",
    "minimum": "the lesser of both; NaN if either is",
    "eq": "input = other",
    "ne": "input ≠ other",
    "lt": "input < other",
    "le": "input ≤ other",
    "gt": "input > other",
    "ge": "input ≥ other",
    "logical_and": "both are nonzero",
    "logical_or": "either is nonzero",
    "logical_xor": "exactly one is nonzero",
    "where": "input where condition holds, other elsewhere",
    "lerp": "input + weight · (end - input)",
    "addcmul": "input + value · tensor1 · tensor2",
    "addcdiv": "input + value · tensor1 / tensor2",
    "clamp": "x within [min, max], either of which may be absent",
    "prelu": "x where x > 0, weight · x elsewhere; one weight, or one per channel (dimension 1)",
    # matmul
    "mm": "matrix product (n, k) · (k, m)",
    "mv": "matrix times vector, (n, k) · (k)",
    "bmm": "a matrix product per batch, (b, n, k) · (b, k, m)",
    "dot": "sum of input · other over two vectors of one length",
    "matmul": "matrix product over the last two dimensions, broadcasting the others; vectors as in numpy",
    "addmm": "beta · input + alpha · mat1 · mat2",
    "addmv": "beta · input + alpha · mat · vec",
    "addbmm": "beta · input + alpha · the sum over the batch of batch1 · batch2",
    "baddbmm": "beta · input + alpha · batch1 · batch2",
    "addr": "beta · input + alpha · the outer product of vec1 and vec2",
    "outer": "outer product of two vectors",
    "linear": "input · weightᵀ + bias over the last dimension",
    # convolution and pooling
    "conv2d": "cross-correlation of (N, C, H, W) or (C, H, W) with weight (out, C / groups, kH, kW), plus bias",
    "max_pool2d": "the greatest element of each window; NaN wins",
    "max_pool2d_with_indices": "the greatest element of each window, and its flat index in the plane",
    "avg_pool2d": "the mean of each window",
    "max_unpool2d": "each element at its index in a plane of output_size, zeros elsewhere",
    # reduction
    "sum": "sum over dim, or over everything",
    "mean": "mean over dim, or over everything",
    "var": "variance over dim, the divisor being the count less correction",
    "std": "square root of var",
    "var_mean": "var and mean in one pass",
    "std_mean": "std and mean in one pass",
    "prod": "product over dim, or over everything",
    "max": "the greatest element; with dim also its index; with other, maximum",
    "min": "the least element; with dim also its index; with other, minimum",
    "amax": "the greatest element over dims; its gradient is shared evenly among ties",
    "amin": "the least element over dims; its gradient is shared evenly among ties",
    "aminmax": "amin and amax in one pass",
    "argmax": "index of the greatest element",
    "argmin": "index of the least element",
    "any": "whether any element is nonzero",
    "all": "whether no element is zero",
    "norm": "the p-norm, (Σ|x|ᵖ)^(1/p)",
    "logsumexp": "log Σ eˣ without overflow",
    "cumsum": "running sum along dim",
    "cumprod": "running product along dim",
    "count_nonzero": "how many elements are not zero",
    "softmax": "eˣ / Σ eˣ along dim, without overflow",
    "log_softmax": "x - log Σ eˣ along dim, without overflow",
    # loss
    "nll_loss": "-weight[target] · input[target], classes in dimension 1",
    "cross_entropy": "nll_loss of log_softmax; also against class probabilities",
    "mse_loss": "(input - target)²",
    "binary_cross_entropy": "-weight · (target · log(input) + (1 - target) · log(1 - input)), logarithms at least -100",
}

DTYPES = {
    "FLOATING": "float32, float64, bfloat16, float16; integers and bool are computed in the default dtype.",
    "REAL": "float32, float64, bfloat16, float16, integers, and bool where torch has it.",
    "ACTIVATION": "float32, float64, bfloat16, float16.",
    "PREDICATE": "any but complex; the result is bool.",
}
# Functions that stand on several rows of the elementwise table.
COMPOSITES = {"div": "FLOATING", "gelu": "ACTIVATION", "clamp": "REAL", "prelu": "ACTIVATION"}
OTHER_DTYPES = "those of torch's CPU and CUDA kernels, complex excepted."

BAD_LABEL = "Raises IndexError if a target other than ignore_index is no class."
REDUCTION = "reduction: 0 none, 1 mean, 2 sum."
NOTES = {
    "prelu": "Raises RuntimeError if weight has neither one element nor one per channel.",
    "clamp": "Raises RuntimeError if both bounds are absent.",
    "floor_divide": "Raises RuntimeError if its gradient is asked for; that of div(rounding_mode='floor') is zero.",
    "round": "decimals: digits behind the point to keep, of floating dtypes; below 0, to tens, hundreds, and so on.",
    "max_unpool2d": "Raises an error, and writes nothing, if an index lies outside the output plane.",
    "nll_loss": f"{BAD_LABEL} {REDUCTION}",
    "cross_entropy": f"{BAD_LABEL} {REDUCTION}",
    "mse_loss": REDUCTION,
    "binary_cross_entropy": "Raises RuntimeError if an input lies outside [0, 1]. " + REDUCTION,
    "mm": "Raises RuntimeError unless both are matrices and the inner sizes agree.",
    "matmul": "Raises RuntimeError if the inner sizes differ or the batches do not broadcast.",
    "conv2d": "Raises RuntimeError if channels, groups, kernel and padding do not fit.",
}


def python_signature(signature: str) -> str:
    """'relu(input, *, out=None)' of the argument parser's 'relu(Tensor input, *, Tensor out=None)'."""
    name, parameters = signature[:-1].split("(", 1)
    plain = [re.sub(r"^\S+ ", "", p.strip()) for p in parameters.split(", ")]
    return f"{name}({', '.join(plain)})"


def docstring(name: str, torch_path: str, signatures: list[str], domain: str | None) -> str:
    """The whole docstring; its first lines are the text signature where there is just one overload."""
    base = name.removesuffix("_")
    if len(signatures) == 1:
        text = f"{python_signature(signatures[0])}\n--\n\n"
    else:
        text = "\n".join(signatures).replace("std::string_view", "str") + "\n\n"
    if base in SUMMARIES:
        text += f"{SUMMARIES[base]}{', in place' if name != base else ''}.\n\n"
    if domain:
        text += f"Shapes: any{'; the tensors are broadcast' if signatures[0].count('Tensor ') > 2 else ''}.\n"
    text += f"Dtypes: {DTYPES[domain] if domain else OTHER_DTYPES}\n"
    if base in NOTES:
        text += NOTES[base] + "\n"
    return f"{text}\nSee {torch_path}: arguments, defaults, results and errors are the same.\n"


def attach() -> None:
    """Gives each C function its docstring."""
    signatures = _C.signatures()
    domains = _C.elementwise_ops | COMPOSITES
    for name, torch_path in _C.bound_functions().items():
        domain = domains.get(name.removesuffix("_"))
        current = [signature for signature in signatures[name] if not signature.endswith("|deprecated")]
        torch._C._add_docstr(getattr(_C, name), docstring(name, torch_path, current, domain))
