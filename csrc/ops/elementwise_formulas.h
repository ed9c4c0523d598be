// Formulas too long for a table row, over the same V as elementwise_table.h. Each room includes this file inside its own
// namespace, after it has defined select, exp, sqrt, tanh, ... for its V. TENSOROPS_FORMULA is the room's function
// qualifier (always_inline, __device__, inline).

// The curve of a piecewise linear op.
struct Flat {};
constexpr Flat flat;

constexpr double kLn2 = 0.693147180559945309417;
constexpr double kLn10 = 2.30258509299404568402;
constexpr double kTwoOverSqrtPi = 1.12837916709551257390;
constexpr double kSqrtHalf = 0.707106781186547524401;
constexpr double kInvSqrt2Pi = 0.398942280401432677940;
constexpr double kGeluTanhScale = 0.797884560802865355880;  // sqrt(2/pi)
constexpr double kGeluTanhCubic = 0.044715;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSeluScale = 1.0507009873554804934193349852946;

template <class V>
TENSOROPS_FORMULA V sign(V x) {
  return select(x > 0, V(1), select(x < 0, V(-1), V(0)));
}

// 1 - x * x would lose its digits where x is close to 1.
template <class V>
TENSOROPS_FORMULA V asin_slope(V x) {
  return 1 / sqrt((1 - x) * (1 + x));
}

// x - tanh(x), for |x| <= 1 by Lambert's continued fraction of tanh(x) = x * P(x²) / Q(x²), cut where it is exact to less
// than the rounding of f64: x * (Q - P) / Q is a difference of no close numbers.
template <class V>
TENSOROPS_FORMULA V tanhshrink(V x) {
  const V s = x * x;
  const V difference = 11486475 + s * (810810 + s * (12870 + s * 44));
  const V q = 34459425 + s * (16216200 + s * (945945 + s * (13860 + s * 45)));
  return select(abs(x) <= 1, x * s * (difference / q), x - tanh(x));
}

// Stable on both sides: exp never sees a positive argument.
template <class V>
TENSOROPS_FORMULA V sigmoid(V x) {
  const V e = exp(-abs(x));
  const V inverse = 1 / (1 + e);
  return select(x >= 0, inverse, e * inverse);
}

// log(1 + exp(x)) without overflow.
template <class V>
TENSOROPS_FORMULA V softplus(V x) {
  return maximum(x, 0) + log1p(exp(-abs(x)));
}

template <class V>
TENSOROPS_FORMULA V elu(V x, V alpha, V scale, V input_scale) {
  return select(x > 0, scale * x, scale * alpha * expm1(input_scale * x));
}
template <class V>
TENSOROPS_FORMULA V elu_slope(V x, V alpha, V scale, V input_scale) {
  return select(x > 0, scale, scale * alpha * input_scale * exp(input_scale * x));
}
template <class V>
TENSOROPS_FORMULA V elu_curve(V x, V alpha, V scale, V input_scale) {
  return select(x > 0, V(0), scale * alpha * input_scale * input_scale * exp(input_scale * x));
}

// Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415: x * Phi(x).
template <class V>
TENSOROPS_FORMULA V normal_cdf(V x) {
  return 0.5 * (1 + erf(kSqrtHalf * x));
}
template <class V>
TENSOROPS_FORMULA V normal_pdf(V x) {
  return kInvSqrt2Pi * exp(-0.5 * x * x);
}
template <class V>
TENSOROPS_FORMULA V gelu(V x) {
  return x * normal_cdf(x);
}
template <class V>
TENSOROPS_FORMULA V gelu_slope(V x) {
  return normal_cdf(x) + x * normal_pdf(x);
}
template <class V>
TENSOROPS_FORMULA V gelu_curve(V x) {
  return (2 - x * x) * normal_pdf(x);
}

// The tanh approximation of the same paper.
template <class V>
TENSOROPS_FORMULA V gelu_tanh_argument(V x) {
  return kGeluTanhScale * x * (1 + kGeluTanhCubic * x * x);
}
template <class V>
TENSOROPS_FORMULA V gelu_tanh_argument_slope(V x) {
  return kGeluTanhScale * (1 + 3 * kGeluTanhCubic * x * x);
}
template <class V>
TENSOROPS_FORMULA V gelu_tanh(V x) {
  return 0.5 * x * (1 + tanh(gelu_tanh_argument(x)));
}
template <class V>
TENSOROPS_FORMULA V gelu_tanh_slope(V x) {
  const V t = tanh(gelu_tanh_argument(x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * gelu_tanh_argument_slope(x);
}
template <class V>
TENSOROPS_FORMULA V gelu_tanh_curve(V x) {
  const V t = tanh(gelu_tanh_argument(x));
  const V u = gelu_tanh_argument_slope(x);
  return (1 - t * t) * (u + 0.5 * x * (6 * kGeluTanhScale * kGeluTanhCubic * x - 2 * t * u * u));
}

template <class V>
TENSOROPS_FORMULA V silu_slope(V x) {
  const V s = sigmoid(x);
  return s * (1 + x * (1 - s));
}
template <class V>
TENSOROPS_FORMULA V silu_curve(V x) {
  const V s = sigmoid(x);
  return s * (1 - s) * (2 + x * (1 - 2 * s));
}

// Misra 2019, https://arxiv.org/abs/1908.08681: x * tanh(softplus(x)). With w = exp(x) that tanh is n / (n + 2) for
// n = w (w + 2), and 1 - tanh is 2 / (n + 2); both are scaled by exp(-2x) where x is positive, so that nothing overflows
// and neither is the difference of close numbers. e is exp(-|x|).
template <class V>
TENSOROPS_FORMULA V mish_numerator(V x, V e) {
  return select(x >= 0, 1 + 2 * e, e * (e + 2));
}
template <class V>
TENSOROPS_FORMULA V mish_complement(V x, V e) {
  return select(x >= 0, 2 * e * e, V(2));
}
template <class V>
TENSOROPS_FORMULA V mish(V x) {
  const V e = exp(-abs(x));
  const V n = mish_numerator(x, e);
  return x * (n / (n + mish_complement(x, e)));
}
template <class V>
TENSOROPS_FORMULA V mish_slope(V x) {
  const V e = exp(-abs(x));
  const V n = mish_numerator(x, e), c = mish_complement(x, e), scale = 1 / (n + c);
  const V t = n * scale;
  return t + x * sigmoid(x) * (c * scale) * (1 + t);
}
template <class V>
TENSOROPS_FORMULA V mish_curve(V x) {
  const V e = exp(-abs(x));
  const V n = mish_numerator(x, e), c = mish_complement(x, e), scale = 1 / (n + c);
  const V t = n * scale, s = sigmoid(x);
  return (c * scale) * (1 + t) * s * (2 + x * (1 - s - 2 * t * s));
}

// Python's floor division: the sign of the remainder is the divisor's.
template <class V>
TENSOROPS_FORMULA V remainder(V a, V b) {
  const V r = fmod(a, b);
  return select((r != 0) & ((r < 0) ^ (b < 0)), r + b, r);
}

// -g * a / b², rounded once but for what underflows: each step's rounding error is added at the end. residual(x, y, z) is
// z - x * y, exact for z = x * y and x = z / y as rounded.
template <class V>
TENSOROPS_FORMULA V div_gradient(V g, V a, V b) {
  const V quotient = a / b, slope = quotient / b, product = g * slope;
  const V slope_error = (residual(slope, b, quotient) + residual(quotient, b, a) / b) / b;
  const V error = g * slope_error - residual(g, slope, product);
  return -(product + select(isfinite(error), error, 0));
}

// d(a^b)/da and d(a^b)/db, times g: 0 where the exponent is 0, and where the base is 0 and the limit is.
template <class V>
TENSOROPS_FORMULA V pow_base_gradient(V g, V a, V b) {
  return select(b == 0, V(0), g * b * pow(a, b - 1));
}
template <class V>
TENSOROPS_FORMULA V pow_exponent_gradient(V g, V a, V b) {
  return select((a == 0) & (b >= 0), V(0), g * pow(a, b) * log(a));
}

template <class V>
TENSOROPS_FORMULA V lerp(V start, V end, V weight) {
  // Both ends are exact, as in torch.
  return select(abs(weight) < 0.5, start + weight * (end - start), end - (end - start) * (1 - weight));
}
