// Every elementwise op, one row each; all rooms expand this table. A formula is written once, over a V that is a SIMD
// register (CPU), a scalar (CUDA) or a differentiable tensor expression (autograd), with the functions of
// elementwise_formulas.h. To add an op, add a row (and its name in python/tensorops).
//
//   UNARY(name, domain, saved, scalars, formula of x, slope, curve)
//     slope   derivative, in x when `saved` is self, in y (the result) when `saved` is result; it becomes the kernel of
//             <name>_backward(grad, saved) = grad * slope
//     curve   derivative of the slope by the same variable, used at tensor level by double backward; flat where it vanishes
//   BINARY(name, domain, scalars, formula of a and b, gradient for a, gradient for b)
//   TERNARY(name, domain, scalars, formula of a, b and c, and the three gradients)
//     gradients are tensor-level expressions in g (incoming gradient) and the inputs; `none` where there is no gradient,
//     `not_implemented` where torch refuses to compute one
//   p0 p1 p2 are the op's scalar arguments, declared in `scalars` as the schema writes them
//
// domain  FLOATING   integers are computed in the default float dtype (sin, div)
//         REAL       integers keep their dtype (abs, add)
//         ACTIVATION floating dtypes only (gelu)
//         PREDICATE  the result is bool
#pragma once

#define TENSOROPS_UNARY_TABLE(UNARY)                                                                                   \
  UNARY(abs, REAL, self, "", abs(x), sign(x), flat)                                                                    \
  UNARY(neg, REAL, none, "", -x, -1, flat)                                                                             \
  UNARY(sqrt, FLOATING, result, "", sqrt(x), 0.5 / y, -0.5 / (y * y))                                                  \
  UNARY(rsqrt, FLOATING, result, "", 1 / sqrt(x), -0.5 * y * y * y, -1.5 * y * y)                                      \
  UNARY(square, REAL, self, "", x * x, 2 * x, 2)                                                                       \
  UNARY(reciprocal, FLOATING, result, "", 1 / x, -y * y, -2 * y)                                                       \
  UNARY(exp, FLOATING, result, "", exp(x), y, 1)                                                                       \
  UNARY(exp2, FLOATING, result, "", exp2(x), kLn2 * y, kLn2)                                                           \
  UNARY(expm1, FLOATING, result, "", expm1(x), y + 1, 1)                                                               \
  UNARY(log, FLOATING, self, "", log(x), 1 / x, -1 / (x * x))                                                          \
  UNARY(log2, FLOATING, self, "", log2(x), 1 / (kLn2 * x), -1 / (kLn2 * x * x))                                        \
  UNARY(log10, FLOATING, self, "", log10(x), 1 / (kLn10 * x), -1 / (kLn10 * x * x))                                    \
  UNARY(log1p, FLOATING, self, "", log1p(x), 1 / (x + 1), -1 / ((x + 1) * (x + 1)))                                    \
  UNARY(sin, FLOATING, self, "", sin(x), cos(x), -sin(x))                                                              \
  UNARY(cos, FLOATING, self, "", cos(x), -sin(x), -cos(x))                                                             \
  UNARY(tan, FLOATING, result, "", tan(x), 1 + y * y, 2 * y)                                                           \
  UNARY(asin, FLOATING, self, "", asin(x), asin_slope(x), x / ((1 - x) * (1 + x)) * asin_slope(x))                     \
  UNARY(acos, FLOATING, self, "", acos(x), -asin_slope(x), -x / ((1 - x) * (1 + x)) * asin_slope(x))                   \
  UNARY(atan, FLOATING, self, "", atan(x), 1 / (1 + x * x), -2 * x / ((1 + x * x) * (1 + x * x)))                      \
  UNARY(sinh, FLOATING, self, "", sinh(x), cosh(x), sinh(x))                                                           \
  UNARY(cosh, FLOATING, self, "", cosh(x), sinh(x), cosh(x))                                                           \
  UNARY(tanh, FLOATING, result, "", tanh(x), 1 - y * y, -2 * y)                                                        \
  UNARY(sigmoid, FLOATING, result, "", sigmoid(x), y * (1 - y), 1 - 2 * y)                                             \
  UNARY(erf, FLOATING, self, "", erf(x), kTwoOverSqrtPi * exp(-x * x), -2 * kTwoOverSqrtPi * x * exp(-x * x))          \
  UNARY(erfc, FLOATING, self, "", erfc(x), -kTwoOverSqrtPi * exp(-x * x), 2 * kTwoOverSqrtPi * x * exp(-x * x))        \
  UNARY(sign, REAL, none, "", sign(x), 0, flat)                                                                        \
  UNARY(ceil, REAL, none, "", ceil(x), 0, flat)                                                                        \
  UNARY(floor, REAL, none, "", floor(x), 0, flat)                                                                      \
  UNARY(round, REAL, none, "", round(x), 0, flat)                                                                      \
  UNARY(_round_decimals, ACTIVATION, none, ", Scalar scale", round(x * p0) / p0, 0, flat)                              \
  UNARY(_round_tens, ACTIVATION, none, ", Scalar scale", round(x / p0) * p0, 0, flat)                                  \
  UNARY(trunc, REAL, none, "", trunc(x), 0, flat)                                                                      \
  UNARY(frac, ACTIVATION, none, "", x - trunc(x), 1, flat)                                                             \
  UNARY(relu, REAL, result, "", maximum(x, 0), select(y <= 0, V(0), 1), flat)                                          \
  UNARY(relu6, REAL, result, "", minimum(maximum(x, 0), 6), select((y > 0) & (y < 6), V(1), 0), flat)                  \
  UNARY(leaky_relu, ACTIVATION, self, ", Scalar negative_slope=0.01", select(x > 0, x, p0 * x),                        \
        select(x > 0, V(1), p0), flat)                                                                                 \
  UNARY(elu, ACTIVATION, self, ", Scalar alpha=1, Scalar scale=1, Scalar input_scale=1", elu(x, p0, p1, p2),           \
        elu_slope(x, p0, p1, p2), elu_curve(x, p0, p1, p2))                                                            \
  UNARY(selu, ACTIVATION, self, "", elu(x, V(kSeluAlpha), V(kSeluScale), V(1)),                                        \
        elu_slope(x, V(kSeluAlpha), V(kSeluScale), V(1)), elu_curve(x, V(kSeluAlpha), V(kSeluScale), V(1)))            \
  UNARY(_gelu_erf, ACTIVATION, self, "", gelu(x), gelu_slope(x), gelu_curve(x))                                        \
  UNARY(_gelu_tanh, ACTIVATION, self, "", gelu_tanh(x), gelu_tanh_slope(x), gelu_tanh_curve(x))                        \
  UNARY(silu, ACTIVATION, self, "", x * sigmoid(x), silu_slope(x), silu_curve(x))                                      \
  UNARY(mish, ACTIVATION, self, "", mish(x), mish_slope(x), mish_curve(x))                                             \
  UNARY(softplus, ACTIVATION, self, ", Scalar beta=1, Scalar threshold=20",                                            \
        select(x * p0 > p1, x, softplus(x * p0) / p0), select(x * p0 > p1, V(1), sigmoid(x * p0)),                     \
        select(x * p0 > p1, V(0), p0 * sigmoid(x * p0) * sigmoid(-(x * p0))))                                          \
  UNARY(softsign, FLOATING, self, "", x / (1 + abs(x)), 1 / ((1 + abs(x)) * (1 + abs(x))),                             \
        -2 * sign(x) / ((1 + abs(x)) * (1 + abs(x)) * (1 + abs(x))))                                                   \
  UNARY(hardtanh, REAL, self, ", Scalar min_val=-1, Scalar max_val=1", minimum(maximum(x, p0), p1),                    \
        select((x > p0) & (x < p1), V(1), 0), flat)                                                                    \
  UNARY(hardswish, ACTIVATION, self, "", x * minimum(maximum(x + 3, 0), 6) / 6,                                        \
        select(x >= 3, V(1), select(x <= -3, V(0), x / 3 + 0.5)), select((x <= -3) | (x >= 3), V(0), 1.0 / 3))         \
  UNARY(hardsigmoid, ACTIVATION, self, "", minimum(maximum(x + 3, 0), 6) / 6,                                          \
        select((x > -3) & (x < 3), V(1.0 / 6), 0), flat)                                                               \
  UNARY(logsigmoid, ACTIVATION, self, "", -softplus(-x), sigmoid(-x), -sigmoid(x) * sigmoid(-x))                       \
  UNARY(tanhshrink, FLOATING, self, "", tanhshrink(x), tanh(x) * tanh(x), 2 * tanh(x) * (1 - tanh(x) * tanh(x)))       \
  UNARY(threshold, REAL, self, ", Scalar threshold, Scalar value", select(x <= p0, p1, x),                             \
        select(x <= p0, V(0), V(1)), flat)                                                                             \
  UNARY(_clamp, REAL, self, ", Scalar min, Scalar max", minimum(maximum(x, p0), p1),                                   \
        select((x >= p0) & (x <= p1), V(1), 0), flat)                                                                  \
  UNARY(_cube, REAL, self, "", x * x * x, 3 * x * x, 6 * x)                                                            \
  UNARY(_inverse_square, FLOATING, self, "", 1 / (x * x), -2 / (x * x * x), 6 / (x * x * x * x))                       \
  UNARY(isnan, PREDICATE, none, "", indicator(isnan(x)), 0, flat)                                                      \
  UNARY(isinf, PREDICATE, none, "", indicator(isinf(x)), 0, flat)                                                      \
  UNARY(isfinite, PREDICATE, none, "", indicator(isfinite(x)), 0, flat)                                                \
  UNARY(logical_not, PREDICATE, none, "", indicator(x == 0), 0, flat)

#define TENSOROPS_BINARY_TABLE(BINARY)                                                                                 \
  BINARY(add, REAL, ", *, Scalar alpha=1", a + p0 * b, g, g * p0)                                                      \
  BINARY(sub, REAL, ", *, Scalar alpha=1", a - p0 * b, g, -g * p0)                                                     \
  BINARY(mul, REAL, "", a * b, g * b, g * a)                                                                           \
  BINARY(_div_true, FLOATING, "", a / b, g / b, div_gradient(g, a, b))                                                 \
  BINARY(_div_floor, REAL, "", div_floor(a, b), V(0), V(0))                                                            \
  BINARY(_div_trunc, REAL, "", div_trunc(a, b), V(0), V(0))                                                            \
  BINARY(floor_divide, REAL, "", div_floor(a, b), not_implemented, not_implemented)                                    \
  BINARY(pow, REAL, "", pow(a, b), pow_base_gradient(g, a, b), pow_exponent_gradient(g, a, b))                         \
  BINARY(fmod, REAL, "", fmod(a, b), g, -g * div_trunc(a, b))                                                          \
  BINARY(remainder, REAL, "", remainder(a, b), g, -g * div_floor(a, b))                                                \
  BINARY(atan2, FLOATING, "", atan2(a, b), g * (b / (a * a + b * b)), -g * (a / (a * a + b * b)))                      \
  BINARY(maximum, REAL, "", maximum(a, b), select(a == b, g / 2, select(a < b, V(0), g)),                              \
         select(a == b, g / 2, select(a > b, V(0), g)))                                                                \
  BINARY(minimum, REAL, "", minimum(a, b), select(a == b, g / 2, select(a > b, V(0), g)),                              \
         select(a == b, g / 2, select(a < b, V(0), g)))                                                                \
  BINARY(_prelu, ACTIVATION, "", select(a > 0, a, a * b), select(a > 0, g, g * b), select(a > 0, V(0), g * a))         \
  BINARY(_clamp_min, REAL, "", maximum(a, b), select(a >= b, g, 0), select(a < b, g, 0))                               \
  BINARY(_clamp_max, REAL, "", minimum(a, b), select(a <= b, g, 0), select(a > b, g, 0))                               \
  BINARY(eq, PREDICATE, "", indicator(a == b), none, none)                                                             \
  BINARY(ne, PREDICATE, "", indicator(a != b), none, none)                                                             \
  BINARY(lt, PREDICATE, "", indicator(a < b), none, none)                                                              \
  BINARY(le, PREDICATE, "", indicator(a <= b), none, none)                                                             \
  BINARY(gt, PREDICATE, "", indicator(a > b), none, none)                                                              \
  BINARY(ge, PREDICATE, "", indicator(a >= b), none, none)                                                             \
  BINARY(_is_extremum, PREDICATE, "", indicator((a == b) | isnan(a)), none, none)                                      \
  BINARY(logical_and, PREDICATE, "", indicator((a != 0) & (b != 0)), none, none)                                       \
  BINARY(logical_or, PREDICATE, "", indicator((a != 0) | (b != 0)), none, none)                                        \
  BINARY(logical_xor, PREDICATE, "", indicator((a != 0) ^ (b != 0)), none, none)

#define TENSOROPS_TERNARY_TABLE(TERNARY)                                                                               \
  TERNARY(where, REAL, "", select(a != 0, b, c), none, select(a, g, 0), select(a, V(0), g))                            \
  TERNARY(lerp, ACTIVATION, "", lerp(a, b, c), g * (1 - c), g * c, g * (b - a))                                        \
  TERNARY(addcmul, REAL, ", *, Scalar value=1", a + p0 * b * c, g, g * (p0 * c), g * (p0 * b))                         \
  TERNARY(addcdiv, ACTIVATION, ", *, Scalar value=1", a + p0 * (b / c), g, g * (p0 / c), p0 * div_gradient(g, b, c))   \
  TERNARY(_div_gradient, ACTIVATION, "", div_gradient(a, b, c), div_gradient(g, b, c), div_gradient(g, a, c),          \
          -2 * div_gradient(g, a, c) * (b / c))                                                                        \
  TERNARY(_pow_base_gradient, ACTIVATION, "", pow_base_gradient(a, b, c), pow_base_gradient(g, b, c),                  \
          pow_base_gradient(g * a * c, b, c - 1),                                                                      \
          select(c == 0, V(0), g * a * pow(b, c - 1) + pow_exponent_gradient(g * a * c, b, c - 1)))                    \
  TERNARY(_pow_exponent_gradient, ACTIVATION, "", pow_exponent_gradient(a, b, c), pow_exponent_gradient(g, b, c),      \
          select((b == 0) & (c >= 0), V(0), pow_base_gradient(g * a * log(b), b, c) + g * a * pow(b, c - 1)),          \
          select((b == 0) & (c >= 0), V(0), pow_exponent_gradient(g * a * log(b), b, c)))                              \
  TERNARY(_var_gradient, ACTIVATION, "", a * (b - c), g * (b - c), g * a, -(g * a))                                    \
  TERNARY(_logsumexp_gradient, ACTIVATION, "", a * exp(b - c), logsumexp_gradient(g, b, c),                            \
          logsumexp_gradient(g * a, b, c), -logsumexp_gradient(g * a, b, c))                                           \
  TERNARY(_clamp_between, REAL, "", minimum(maximum(a, b), c), select((a >= b) & (a <= c), g, 0),                      \
          select((a < b) & (b < c), g, 0), select((a > c) | (c < b), g, 0))

namespace tensorops {

// One name per op: the rows, and the backward of each unary row.
// clang-format off
enum class Elementwise : int {
#define UNARY(name, ...) name, name##_backward,
  TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
#define BINARY(name, ...) name,
  TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, ...) name,
  TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY
  count
};
// clang-format on
constexpr int kElementwiseCount = static_cast<int>(Elementwise::count);

enum class Domain { FLOATING, REAL, ACTIVATION, PREDICATE };
enum class Saved { none, self, result };

}  // namespace tensorops
