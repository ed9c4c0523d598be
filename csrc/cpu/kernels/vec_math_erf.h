// erf, erfc and the normal distribution of our own. Coefficients and errors: see vec_math.h.
#pragma once

#include "cpu/kernels/vec_math_exp.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// x + x p(x^2) near zero, 1 - g(|x|)^8 beyond, as the eighth root of erfc is close to a line; 1 from `last` on. 2.1 ulp, in f64
// 1.8; without FMA 2.4 and 2.
template <class T>
struct Erf;
template <>
struct Erf<float> {
  static constexpr float near_to = 1.1f, last = 3.95f;
  static constexpr float near[] = {7.121521776e-05f, -7.783187903e-04f, 5.161996931e-03f, -2.683977783e-02f,
                                   1.128324866e-01f, -3.761259615e-01f, 1.283791661e-01f};
  static constexpr float root[] = {1.593643974e-04f, -2.571837977e-03f, 1.337228157e-02f, -1.239197515e-02f,
                                   -6.014692411e-02f, -1.459004730e-01f, 1.001060009e+00f};
};
template <>
struct Erf<double> {
  static constexpr double near_to = 1.2, last = 5.93;
  static constexpr double near[] = {4.81064606524793315e-11, -1.05620263668030718e-09, 1.44061533237411930e-08,
                                    -1.63042573959867793e-07, 1.64556436462007415e-06, -1.49251798749449731e-05,
                                    1.20553094390256254e-04, -8.54832623068721648e-04, 5.22397760824345157e-03,
                                    -2.68661706429026877e-02, 1.12837916709400646e-01, -3.76126389031833486e-01,
                                    1.28379167095512559e-01};
  static constexpr double root[] = {1.02772068028905642e-12, -4.60810355689975429e-11, 9.28349081443591925e-10,
                                    -1.07880897883621073e-08, 7.63374876737325046e-08, -3.08163606900884635e-07,
                                    4.56365796789510675e-07, 1.68818516916661612e-06, -1.58781073506036866e-05,
                                    1.19242845398806645e-04, -5.65319256239746760e-04, 2.49763312479622432e-04,
                                    6.53468753624510731e-03, -2.05592947140709062e-03, -6.96438352551951578e-02,
                                    -1.41044064771857547e-01, 9.99999617791359818e-01};
};
template <class T>
TENSOROPS_INLINE Vec<T> erf(Vec<T> x) {
  using E = Erf<T>;
  const Vec<T> t = minimum(abs(x), E::last), g = polynomial(t, E::root), g2 = g * g, g4 = g2 * g2;
  const Vec<T> small = fma(polynomial(x * x, E::near), x, x), large = fma(-g4, g4, Vec<T>(T(1)));
  return copysign(select(t < E::near_to, small, large), x);
}

#if defined(__FMA__)  // without it libm's
// 1 - x - x p(x^2) up to 3/4. Beyond it is exp(-x^2) w q(t) of w = 1 / (|x| + c) and t = 1 - 2 c w, whose last two coefficients
// stand apart. What the square, w and the last two steps of q round away is carried along. 1.7 ulp, in f64 2.3.
template <class T>
struct Erfc;
template <>
struct Erfc<float> {
  static constexpr float c = 3, zero_from = 10.1f;
  static constexpr float near[] = {-6.552400882e-04f, 5.083367694e-03f, -2.681683004e-02f, 1.128292605e-01f,
                                   -3.761257231e-01f, 1.283791512e-01f};
  static constexpr float far[] = {-4.207428719e-04f, 2.854733728e-03f, -1.260008779e-03f, -2.678856067e-02f,
                                  1.195346862e-01f, -3.104700744e-01f, 5.902279615e-01f};
  static constexpr float far_1 = -8.833944201e-01f, far_0 = 1.074006915e+00f;
};
template <>
struct Erfc<double> {
  static constexpr double c = 4, zero_from = 27.3;
  static constexpr double near[] = {1.12627525078898524e-08, -1.58777365588297648e-07, 1.64227375955253286e-06,
                                    -1.49236285477929178e-05, 1.20552646556708069e-04, -8.54832549705129212e-04,
                                    5.22397760334688318e-03, -2.68661706431563771e-02, 1.12837916709451827e-01,
                                    -3.76126389031835151e-01, 1.28379167095512559e-01};
  static constexpr double far[] = {-9.70289736371972233e-09, 9.52580983147216328e-08, -5.30234752909764972e-08,
                                   -8.23113441049466464e-07, 1.40453611291291727e-06, 4.68485840365120297e-06,
                                   -1.88517291312844457e-05, -3.63314529955638767e-06, 1.76810370751414008e-04,
                                   -4.55052828063737865e-04, -2.80958491676689586e-04, 6.11205563260922621e-03,
                                   -2.63700533706151541e-02, 7.63815149147460265e-02, -1.74010937238871399e-01,
                                   3.30851587877620645e-01, -5.40853831313243050e-01, 7.73208702265247183e-01};
  static constexpr double far_1 = -9.76548729080881972e-01, far_0 = 1.09599566100049106e+00;
};
template <class T>
TENSOROPS_INLINE Vec<T> erfc_of_positive(Vec<T> x) {
  using E = Erfc<T>;
  using L = Logarithms<T>;
  const Vec<T> one = T(1), square = x * x, n = round_to_integer(square * -L::log2_e);
  const Vec<T> r = fma(n, Vec<T>(-L::ln_2), -square) + fma(n, Vec<T>(-L::ln_2_low), fma(-x, x, square));
  const Vec<T> sum = x + E::c, w = one / sum, sum_low = x - (sum - E::c);
  const Vec<T> w_low = w * fma(-w, sum_low, fma(-w, sum, one));
  const Vec<T> t = fma(Vec<T>(-2 * E::c), w_low, fma(Vec<T>(-2 * E::c), w, one));
  const Vec<T> q2 = polynomial(t, E::far), q1 = fma(t, q2, Vec<T>(E::far_1)), q = fma(t, q1, Vec<T>(E::far_0));
  const Vec<T> q_low = fma(t, fma(t, q2, E::far_1 - q1), fma(t, q1, E::far_0 - q));
  const Vec<T> value = q * w, low = fma(q, w_low, fma(q_low, w, fma(q, w, -value))), power = expm1_of_reduced(r);
  return scale_by_power_of_two(value + fma(value, power, fma(low, power, low)), n);
}
template <class T>
TENSOROPS_INLINE Vec<T> erfc(Vec<T> x) {
  using E = Erfc<T>;
  const Vec<T> magnitude = abs(x), far = erfc_of_positive(minimum(magnitude, E::zero_from));
  const Vec<T> near = fma(-x, polynomial(x * x, E::near), T(1) - x);
  return select(magnitude < T(0.75), near, select(x < T(0), T(2) - far, far));
}
#endif

// The normal distribution's, for gelu.
#if defined(__AVX512F__)
// From a table of 1 - cdf(|x|), as one instruction looks up the coefficients of all lanes: by column pieces of |x| of one
// width, the last of them zero; by row the piece's centre, then the coefficients of |x| - centre. The centres are such that
// neither 1 - cdf there nor cdf is rounded. x cdf(x) is good to 1.6 ulp and, where x is negative, to 2.5e-8 (f64: 5e-17).
template <class T>
struct NormalTail;
template <>
struct NormalTail<float> {
  static constexpr float width = 13.0f / 32, zero_from = 6;
  static constexpr float table[7][16] = {
      {0.0f, 4.062641859e-01f, 8.125857115e-01f, 1.218567491e+00f, 1.625095606e+00f, 2.031072378e+00f, 2.437818527e+00f,
       2.843725443e+00f, 3.250426292e+00f, 3.656596899e+00f, 4.063254833e+00f, 4.467948437e+00f, 4.874109745e+00f,
       5.282085419e+00f, 5.688298225e+00f, 6.500000000e+00f},
      {-9.702644311e-03f, -6.189614534e-03f, 1.217040466e-03f, 5.796786398e-03f, 5.182594061e-03f, 2.010536613e-03f,
       -4.303245514e-04f, -1.147675095e-03f, -8.644324844e-04f, -4.243214498e-04f, -1.547421853e-04f, -4.404224819e-05f,
       -1.002855788e-05f, -1.853684921e-06f, -2.807712463e-07f, 0.0f},
      {-8.090171468e-05f, -1.747000031e-02f, -2.255328931e-02f, -1.456287876e-02f, -2.650619717e-03f, 4.753757268e-03f,
       6.072986871e-03f, 4.216202535e-03f, 2.087028464e-03f, 7.960840594e-04f, 2.413317270e-04f, 5.969025733e-05f,
       1.203948341e-05f, 1.987378710e-06f, 2.741491016e-07f, 0.0f},
      {6.649965793e-02f, 5.111752450e-02f, 1.623691246e-02f, -1.534376852e-02f, -2.913189121e-02f, -2.641556598e-02f,
       -1.683691889e-02f, -8.264180273e-03f, -3.230261616e-03f, -1.027341699e-03f, -2.680233156e-04f, -5.830844020e-05f,
       -1.049353796e-05f, -1.561503382e-06f, -1.959828779e-07f, 0.0f},
      {-4.413832642e-07f, 7.461679727e-02f, 1.165091768e-01f, 1.156868935e-01f, 8.655475825e-02f, 5.150220916e-02f,
       2.491106652e-02f, 9.948267601e-03f, 3.292930312e-03f, 9.109473322e-04f, 2.106375323e-04f, 4.120804442e-05f,
       6.740839126e-06f, 9.198590760e-07f, 1.066638546e-07f, 0.0f},
      {-3.989422619e-01f, -3.673413098e-01f, -2.867667079e-01f, -1.898745149e-01f, -1.065217182e-01f, -5.071335286e-02f,
       -2.043679543e-02f, -6.996635348e-03f, -2.026238712e-03f, -4.983099643e-04f, -1.037054972e-04f, -1.845424777e-05f,
       -2.767953220e-06f, -3.486755702e-07f, -3.756250422e-08f, 0.0f},
      {5.000000000e-01f, 3.422742486e-01f, 2.082278132e-01f, 1.115041971e-01f, 5.207109451e-02f, 2.112382650e-02f,
       7.388094906e-03f, 2.229472622e-03f, 5.761606735e-04f, 1.277929114e-04f, 2.419657358e-05f, 3.948666745e-06f,
       5.465010986e-07f, 6.386080997e-08f, 6.415580067e-09f, 0.0f}};
};
template <>
struct NormalTail<double> {
  static constexpr double width = 41.0 / 32, zero_from = 9;
  static constexpr double table[18][8] = {
      {0.0, 1.28124999999974865e+00, 2.56250000000028688e+00, 3.84374999999971800e+00, 5.12500000000068479e+00,
       6.40624999999998579e+00, 7.68749999999879474e+00, 1.02500000000000000e+01},
      {-8.87304666991484831e-09, 5.72373081541020264e-09, 7.44071081165897682e-10, -2.36677003606989075e-10,
       4.45045129252622872e-12, 2.20657504614060743e-15, 5.14072144940293581e-15, 0.0},
      {5.90437834695602213e-08, 2.86877357005782178e-09, -7.60056705172372181e-09, 2.31639112879539716e-10,
       3.54452692442103032e-11, -1.15856218159904327e-12, -1.65654044310779324e-14, 0.0},
      {-2.29875216607115102e-08, -1.12022197369010336e-07, 6.82629771319025843e-09, 3.51810408553776085e-09,
       -2.78911964700007842e-10, 7.91571390083970569e-12, 3.92073570891083587e-14, 0.0},
      {-6.45245339758781025e-07, 9.16786446411698502e-08, 1.12576689138811984e-07, -1.71577287809211951e-08,
       8.73998139111925936e-10, -3.41211755399239539e-11, -9.67362110693450707e-14, 0.0},
      {-1.36102933090409550e-08, 1.57890232052059173e-06, -4.15133887452041635e-07, 1.77880038987652342e-08,
       -6.16426861145448468e-10, 1.16744564489105460e-10, 2.17650049624974809e-13, 0.0},
      {9.45131159250478352e-06, -3.49665907937591303e-06, -4.41488655626602479e-07, 1.68016830297062985e-07,
       -8.89004577503177679e-09, -3.33101754006263499e-10, -4.28360393478997859e-13, 0.0},
      {-2.44738895333529091e-09, -1.59161365204349729e-05, 6.72386674965825523e-06, -9.45082301686070137e-07,
       5.82521278471395495e-08, 8.06301735202714642e-10, 7.46743837952803030e-13, 0.0},
      {-1.15434009995264944e-04, 6.53919422666818196e-05, -1.37465903643402862e-05, 1.98298703018797532e-06,
       -2.23076556814328354e-07, -1.66769108177906233e-09, -1.15113320087952199e-12, 0.0},
      {-1.40345364808971496e-10, 8.48007775954608416e-05, -3.60145834353140765e-05, 2.05728070415016208e-06,
       6.30839866309366442e-07, 2.94820601904243685e-09, 1.55521670453999576e-12, 0.0},
      {1.18732823691188667e-03, -7.96774787384008890e-04, 2.46864457067481479e-04, -2.94338214986991215e-05,
       -1.40041399753495088e-06, -4.43175234523973362e-09, -1.82196566621028762e-12, 0.0},
      {-2.35568094912871553e-12, 3.99538313690361673e-04, -4.01885763625848039e-04, 1.12791009941811559e-04,
       2.48546987155550606e-06, 5.60614307815844895e-09, 1.82532375187197019e-12, 0.0},
      {-9.97355700985620361e-03, 6.07861799559533244e-03, -8.37862683837557309e-04, -2.73004428428928053e-04,
       -3.52216248052554390e-06, -5.87049856549730891e-09, -1.53424994367837761e-12, 0.0},
      {-8.97606221588443905e-15, -1.27318239811984070e-02, 5.69792213697540781e-03, 4.65768389929884852e-04,
       3.92282935927963378e-06, 4.96377868639840821e-09, 1.05326021760487974e-12, 0.0},
      {6.64903800669057188e-02, -1.87739206663089173e-02, -1.38821494107463864e-02, -5.67033475755083214e-04,
       -3.32491740024848827e-06, -3.26228618347516014e-09, -5.67576559812168108e-13, 0.0},
      {-4.08218534794076955e-18, 1.12472072667577902e-01, 1.91719789756904097e-02, 4.74692044078566617e-04,
       2.02332635854503041e-06, 1.56585917708147134e-09, 2.25305709144560223e-13, 0.0},
      {-3.98942280401432703e-01, -1.75566162212838328e-01, -1.49634957859030027e-02, -2.46994234317331977e-04,
       -7.89590774065998074e-07, -4.88853596749307302e-10, -5.86161193026164261e-14, 0.0},
      {5.00000000000000000e-01, 1.00052934477469990e-01, 5.19607938208687184e-03, 6.05842214532998589e-05,
       1.48768873187225585e-07, 7.45711703763549108e-11, 7.50189231320425960e-15, 0.0}};
};
TENSOROPS_INLINE Vec<float> look_up(const float (&table)[16], Vec<float> piece) {
  return Vec<float>((Native<float>::type)_mm512_permutexvar_ps((__m512i)piece.v, _mm512_loadu_ps(table)));
}
TENSOROPS_INLINE Vec<double> look_up(const double (&table)[8], Vec<double> piece) {
  return Vec<double>((Native<double>::type)_mm512_permutexvar_pd((__m512i)piece.v, _mm512_loadu_pd(table)));
}
template <class T>
TENSOROPS_INLINE Vec<T> own_normal_cdf(Vec<T> x) {
  using N = NormalTail<T>;
  constexpr int kRows = sizeof(N::table) / sizeof(N::table[0]);
  // The piece is in the lowest bits of a sum with `integers`, which are all that is looked at.
  const Vec<T> t = minimum(abs(x), N::zero_from), piece = fma(t, Vec<T>(1 / N::width), Vec<T>(Exponential<T>::integers));
  const Vec<T> r = t - look_up(N::table[0], piece), at_centre = look_up(N::table[kRows - 1], piece);
  Vec<T> slope = look_up(N::table[1], piece);
#pragma GCC unroll 16
  for (int i = 2; i < kRows - 1; ++i) slope = fma(slope, r, look_up(N::table[i], piece));
  return select_by_sign(x, fma(slope, r, at_centre), fma(-slope, r, T(1) - at_centre));
}
#else
// 1/2 + x p(x^2) near zero, g(|x|)^8 left of it and, from 1, right of it, up to `last`; in f64
// fitted to the root of what is small, so that that keeps digits. In f32 x cdf(x) is good to 1.6 ulp where x is positive and to
// 1.1e-7 where it is negative (torch's to 4.7 and 1.0e-6).
template <class T>
struct NormalCdf;
template <>
struct NormalCdf<float> {
  static constexpr float near_to = 1.55f, last = 5.6f;
  static constexpr float near[] = {3.793753933e-07f, -8.483702914e-06f, 1.136980645e-04f, -1.185600297e-03f,
                                   9.972657077e-03f, -6.649016589e-02f, 3.989422619e-01f};
  static constexpr float root[] = {1.876143324e-05f, -4.242890573e-04f, 3.110532416e-03f, -4.160294309e-03f,
                                   -2.732779086e-02f, -9.483318031e-02f, 9.180614948e-01f};
};
template <>
struct NormalCdf<double> {
  static constexpr double near_to = 1.7, last = 8.3;
  static constexpr double near[] = {4.06969151319499769e-15, -1.80807458547310969e-13, 4.96153044585974820e-12,
                                    -1.12527827752148110e-10, 2.27245933079010466e-09, -4.12250177222185155e-08,
                                    6.65967562647476985e-07, -9.44465493365432815e-06, 1.15434686964793596e-04,
                                    -1.18732821528059465e-03, 9.97355701000123517e-03, -6.64903800669026518e-02,
                                    3.98942280401432592e-01};
  static constexpr double root[] = {3.23071206482525299e-19, -3.01258729716133058e-17, 1.31560695460674737e-15,
                                    -3.58295648645262787e-14, 6.84856731165118368e-13, -9.81641459117291941e-12,
                                    1.09913710494617036e-10, -9.80577425167463279e-10, 6.93427245595327454e-09,
                                    -3.76434981282534754e-08, 1.49203905557213388e-07, -4.08469005238753860e-07,
                                    4.38263676213856340e-07, 6.60348638476522493e-06, -5.92682617237758126e-05,
                                    3.26510357669522352e-05, 1.50659016500848337e-03, -6.73375087289977258e-04,
                                    -3.19280332778696663e-02, -9.14570786945850950e-02, 9.17003905747183712e-01};
};
template <class T>
TENSOROPS_INLINE Vec<T> own_normal_cdf(Vec<T> x) {
  using N = NormalCdf<T>;
  const Vec<T> t = abs(x), g = polynomial(minimum(t, N::last), N::root), g2 = g * g, g4 = g2 * g2;
  const Vec<T> near = fma(polynomial(x * x, N::near), x, Vec<T>(T(0.5)));
  const Vec<T> tail = select(t > N::last, Vec<T>(T(0)), g4 * g4), far = select(x < T(0), tail, T(1) - tail);
  return select(t < N::near_to, near, far);
}
#endif

// Beside the template of the formulas, which goes by way of erf.
TENSOROPS_INLINE Vec<float> normal_cdf(Vec<float> x) { return own_normal_cdf(x); }
TENSOROPS_INLINE Vec<double> normal_cdf(Vec<double> x) { return own_normal_cdf(x); }

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
