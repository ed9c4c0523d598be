"""Fits the polynomials of csrc/cpu/kernels/vec_math_f32.h and prints their coefficients, lowest power first.

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
    nodes = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    points = [mp.mpf(x) for x in (high - low) / 2 * nodes + (low + high) / 2]
    values = np.array([float(target(x)) for x in points])
    weights = np.array([float(weight(x)) for x in points])
    basis = np.polynomial.chebyshev.chebvander(nodes, degree)
    lawson = np.full(len(nodes), 1 / len(nodes))
    for _ in range(60):
        scale = np.sqrt(lawson) * weights
        coefficients, *_ = np.linalg.lstsq(basis * scale[:, None], values * scale, rcond=None)
        error = np.abs((basis @ coefficients - values) * weights)
        lawson *= error / np.sum(lawson * error)
    to_nodes = np.polynomial.Polynomial([-(low + high) / (high - low), 2 / (high - low)])
    polynomial = np.polynomial.Polynomial(np.polynomial.chebyshev.cheb2poly(coefficients))(to_nodes)
    return polynomial.coef, float(error.max())


def main() -> None:
    """Prints one line per polynomial."""
    half_ln2 = float(mp.log(2) / 2) * 1.01
    root = mp.sqrt

    def normal(u: mp.mpf) -> mp.mpf:
        return root((u + 1) * (5.5**2 / 2))

    fits = {
        # exp(r) = 1 + r + r^2 q(r)
        "exp q(r)": fit(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r * r / mp.exp(r), -half_ln2, half_ln2, 4),
        # tanh(x) = x + x s p(s), s = x^2
        "tanh p(s)": fit(lambda s: (mp.tanh(root(s)) / root(s) - 1) / s, lambda s: s, 0.0, 0.36, 4),
        # erf(x) = x + x p(s)
        "erf p(s)": fit(lambda s: mp.erf(root(s)) / root(s) - 1, lambda s: root(s) / mp.erf(root(s)), 0.0, 0.8649, 6),
        # erf(t) = 1 - exp(q(t))
        "erf q(t)": fit(lambda t: mp.log(mp.erfc(t)), mp.erfc, 0.92, 4.0, 6),
        # the normal distribution's cdf(x) = 1/2 + x p(u), u = x^2 / (5.5^2 / 2) - 1; weighted for x cdf(x)
        "cdf p(u)": fit(
            lambda u: mp.erf(normal(u) * root(0.5)) / (2 * normal(u)),
            lambda u: normal(u) * max(normal(u), 1),
            -1.0,
            1.0,
            16,
        ),
    }
    for name, (coefficients, error) in fits.items():
        print(f"{name}, error {error:.1e}: " + ", ".join(f"{np.float32(c):.9e}f" for c in coefficients))


if __name__ == "__main__":
    main()
