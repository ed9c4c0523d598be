"""Fits the polynomials of csrc/cpu/kernels/vec_math_*.h, and prints them, highest power first.

Each fit minimises the largest weighted error on Chebyshev nodes: least squares in the Chebyshev basis, re-weighted by
Lawson's algorithm (1961) until the errors level out. Needs numpy and mpmath.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 40
Function = Callable[[mp.mpf], mp.mpf]


def fit(target: Function, weight: Function, low: float, high: float, degree: int) -> tuple[np.ndarray, float]:
    """Coefficients of the best polynomial on [low, high], and the largest weighted error."""
    nodes = np.cos(np.pi * (np.arange(500) + 0.5) / 500)
    points = [mp.mpf(x) for x in (high - low) / 2 * nodes + (low + high) / 2]
    values = np.array([float(target(x)) for x in points])
    weights = np.array([float(weight(x)) for x in points])
    basis = np.polynomial.chebyshev.chebvander(nodes, degree)
    lawson = np.full(len(nodes), 1 / len(nodes))
    best, least = np.zeros(degree + 1), np.inf
    for _ in range(60):
        scale = np.sqrt(lawson) * weights
        coefficients, *_ = np.linalg.lstsq(basis * scale[:, None], values * scale, rcond=None)
        error = np.abs((basis @ coefficients - values) * weights)
        if error.max() < least:
            best, least = coefficients, float(error.max())
        lawson *= error / error.max() + 1e-9  # more than nothing, as an error of nothing may be noise
        lawson /= lawson.sum()
    to_nodes = np.polynomial.Polynomial([-(low + high) / (high - low), 2 / (high - low)])
    polynomial = np.polynomial.Polynomial(np.polynomial.chebyshev.cheb2poly(best))(to_nodes)
    return polynomial.coef[::-1], least


def fit_f64(target: Function, weight: Function, low: float, high: float, degree: int) -> tuple[np.ndarray, float]:
    """The same for f64, in whose own arithmetic a fit is only as exact as its values: the rest is fitted once more."""
    first, _ = fit(target, weight, low, high, degree)
    second, error = fit(lambda x: target(x) - mp.polyval(first.tolist(), x), weight, low, high, degree)
    return first + second, error


def fit_rounded(
    fitted: Callable[..., tuple[np.ndarray, float]],
    dtype: type,
    target: Function,
    weight: Function,
    low: float,
    high: float,
    degree: int,
    count: int,
) -> tuple[np.ndarray, float]:
    """A fit whose last coefficients are rounded one by one, the others making good for it: far from 0 errors add up."""
    fixed: list[float] = []
    for k in range(count):
        found, error = fitted(
            lambda t, k=k: (target(t) - mp.polyval([mp.mpf(c) for c in fixed] or [mp.mpf(0)], t)) / t**k,
            lambda t, k=k: weight(t) * abs(t) ** k,
            low,
            high,
            degree - k,
        )
        fixed.insert(0, float(dtype(found[-1])))
    return np.concatenate([found[:-1], fixed]), error


def erfc_quotient(c: float) -> Function:
    """erfc(a) exp(a^2) (a + c), of t = (a - c) / (a + c)."""

    def value(t: mp.mpf) -> mp.mpf:
        a = c * (1 + t) / (1 - t)
        return mp.exp(a * a) * mp.erfc(a) * (a + c)

    return value


def normal_tail(dtype: type, pieces: int, piece: float, degree: int) -> tuple[np.ndarray, float]:
    """By column the pieces around multiples of `piece`: a centre, and coefficients of |x| - centre for 1 - cdf of the normal
    distribution. At a centre that and cdf have all digits of their dtype and no more (Gal 1986). The last piece is zero."""

    def tail(t: mp.mpf) -> mp.mpf:
        return mp.erfc(t / mp.sqrt(2)) / 2

    digits = np.finfo(dtype).nmant + 1

    def rounded(value: mp.mpf) -> float:
        return float(mp.nint(value * 2**digits)) / 2**digits if value > 2**-6 else float(dtype(value))

    found, errors = [], []
    for k in range(pieces - 1):
        middle = dtype(k * piece)
        near = middle + np.arange(-2000, 2001).astype(dtype) * np.spacing(middle) if k else [middle]
        centre = float(min(near, key=lambda c: abs(tail(mp.mpf(float(c))) - rounded(tail(mp.mpf(float(c)))))))
        value = rounded(tail(mp.mpf(centre)))
        low, high = (k - 0.5) * piece - centre if k else 1e-9, (k + 0.5) * piece - centre
        fitted = fit if dtype is np.float32 else fit_f64
        slopes, error = fitted(
            lambda r, c=centre, v=value: (tail(c + r) - v) / r,
            lambda r, c=centre: abs(r) / tail(c),
            low,
            high,
            degree - 1,
        )
        found.append([centre, *slopes, value])
        errors.append(error * value)
    return np.array([*found, [pieces * piece, *[0.0] * (degree + 1)]], dtype).T, max(errors)


def main() -> None:
    """Prints the coefficients under the names they have in the header."""
    root, log, one = mp.sqrt, mp.log, mp.mpf(1)
    half_ln2 = float(log(2) / 2) * 1.01
    quarter = float((mp.pi / 4 + 0.01) ** 2)
    f32 = {
        "kExp": fit(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r * r / mp.exp(r), -half_ln2, half_ln2, 4),
        "kExp2, but for its last, 1": fit(
            lambda r: (mp.power(2, r) - 1) / r, lambda r: abs(r) / mp.power(2, r), -0.5, 0.5, 5
        ),
        "kSinh": fit(
            lambda s: (mp.sinh(root(s)) / root(s) - 1) / s, lambda s: s * root(s) / mp.sinh(root(s)), 0.0, 1.0, 3
        ),
        "kTanh": fit(lambda s: (mp.tanh(root(s)) / root(s) - 1) / s, lambda s: s, 0.0, 0.36, 4),
        "kLog": fit(lambda z: (mp.log1p(z) - z) / z**2, lambda z: z * z / abs(mp.log1p(z)), -0.2501, 0.5001, 8),
        "kSin": fit(
            lambda s: (mp.sin(root(s)) / root(s) - 1) / s, lambda s: s * root(s) / mp.sin(root(s)), 0.0, quarter, 2
        ),
        "kCos": fit(lambda s: (mp.cos(root(s)) - 1 + s / 2) / s**2, lambda s: s * s / mp.cos(root(s)), 0.0, quarter, 2),
        "kAsin": fit(
            lambda s: (mp.asin(root(s)) / root(s) - 1) / s, lambda s: s * root(s) / mp.asin(root(s)), 0.0, 0.25, 4
        ),
        "kAtan": fit(
            lambda s: (mp.atan(root(s)) / root(s) - 1) / s, lambda s: s * root(s) / mp.atan(root(s)), 0.0, 1.0, 8
        ),
        "Erf<float>::near": fit(
            lambda s: mp.erf(root(s)) / root(s) - 1, lambda s: root(s) / mp.erf(root(s)), 0.0, 1.11**2, 6
        ),
        "Erf<float>::root": fit(
            lambda t: root(root(root(mp.erfc(t)))), lambda t: 8 * mp.erfc(t) ** (7 * one / 8), 1.09, 3.95, 6
        ),
        "Erfc<float>::near": fit(
            lambda s: mp.erf(root(s)) / root(s) - 1, lambda s: root(s) / mp.erfc(root(s)), 1e-12, 0.75**2 + 0.001, 5
        ),
        "Erfc<float>::far": fit_rounded(
            fit, np.float32, erfc_quotient(3.0), lambda t: 1 / erfc_quotient(3.0)(t), -2.25 / 3.75, 7.1 / 13.1, 8, 5
        ),
        "NormalCdf<float>::near": fit(
            lambda s: mp.erf(root(s / 2)) / root(s) / 2, lambda s: root(s) * root(1 + s), 1e-9, 1.56**2, 6
        ),
        "NormalCdf<float>::root": fit(
            lambda t: root(root(root(mp.erfc(t / root(2)) / 2))),
            lambda t: 8 * t * (mp.erfc(t / root(2)) / 2) ** (7 * one / 8),
            1.54,
            5.6,
            6,
        ),
    }
    f64 = {
        "kExpF64": fit_f64(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r * r / mp.exp(r), -half_ln2, half_ln2, 9),
        "kSinhF64": fit_f64(
            lambda s: (mp.sinh(root(s)) / root(s) - 1) / s, lambda s: s * root(s) / mp.sinh(root(s)), 0.0, 1.0, 6
        ),
        "kTanhF64": fit_f64(lambda s: (mp.tanh(root(s)) / root(s) - 1) / s, lambda s: s, 0.0, 0.36, 10),
        "Erf<double>::near": fit_f64(
            lambda s: mp.erf(root(s)) / root(s) - 1, lambda s: root(s) / mp.erf(root(s)), 0.0, 1.21**2, 12
        ),
        "Erf<double>::root": fit_f64(
            lambda t: root(root(root(mp.erfc(t)))), lambda t: 8 * mp.erfc(t) ** (7 * one / 8), 1.19, 5.93, 16
        ),
        "Erfc<double>::near": fit_f64(
            lambda s: mp.erf(root(s)) / root(s) - 1, lambda s: root(s) / mp.erfc(root(s)), 1e-12, 0.75**2 + 0.001, 10
        ),
        "Erfc<double>::far": fit_rounded(
            fit_f64,
            np.float64,
            erfc_quotient(4.0),
            lambda t: 1 / erfc_quotient(4.0)(t),
            -3.25 / 4.75,
            23.3 / 31.3,
            19,
            8,
        ),
        "kLogF64": fit_f64(lambda w: (2 * mp.atanh(root(w)) / root(w) - 2) / w, lambda w: w / 2, 1e-9, 0.0401, 6),
        "NormalCdf<double>::near": fit_f64(lambda s: mp.erf(root(s / 2)) / root(s) / 2, root, 1e-9, 1.71**2, 12),
        "NormalCdf<double>::root": fit_f64(
            lambda t: root(root(root(mp.erfc(t / root(2)) / 2))),
            lambda t: 8 * (mp.erfc(t / root(2)) / 2) ** (3 * one / 8),
            1.69,
            8.3,
            20,
        ),
        "kLog2Wide": fit(lambda s: 2 * mp.atanh(root(s)) / root(s) / log(2), lambda s: one, 1e-12, 0.0401, 5),
        "kExp2Wide": fit(lambda r: mp.power(2, r), lambda r: 1 / mp.power(2, r), -0.5, 0.5, 6),
    }
    for name, (coefficients, error) in (f32 | f64).items():
        dtype, digits = (np.float32, "{:.9e}f") if name in f32 else (np.float64, "{:.17e}")
        print(f"{name}, error {error:.1e}: " + ", ".join(digits.format(c) for c in coefficients.astype(dtype)))
    for name, dtype, digits, size in (
        ("float", np.float32, "{:.9e}f", (16, 13 / 32, 5)),
        ("double", np.float64, "{:.17e}", (8, 41 / 32, 16)),
    ):
        table, error = normal_tail(dtype, *size)
        print(f"NormalTail<{name}>::table, error {error:.1e}:")
        for row in table:
            print("    {" + ", ".join(digits.format(c) for c in row) + "},")


if __name__ == "__main__":
    main()
