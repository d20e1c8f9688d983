/* Elementary functions of float: the same bits from every compiler and on every processor, as long as
   no product is fused with a sum.

   Only additions, products, divisions, comparisons and conversions, each rounded by itself, and
   what IEEE 754 leaves no choice about. Polynomials are minimax fits of this project. Errors are in
   units in the last place of the result, over all arguments that are numbers. */

static inline float ofcv_bits_to_float(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline int32_t ofcv_float_to_bits(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* 2^k for -126 <= k <= 127 */
static inline float ofcv_power_of_two(int32_t k) { return ofcv_bits_to_float((k + 127) << 23); }

/* What is no number becomes the highest, so that all results have an integer part. */
static inline float ofcv_between(float x, float lowest, float highest) {
  const float y = x < highest ? x : highest;
  return y > lowest ? y : lowest;
}

/* The nearest integer, for |x| < 2^22: adding the shift leaves it in the last bits. */
static inline float ofcv_nearest(float x) {
  const float shift = 0x1.8p+23f;
  return (x + shift) - shift;
}

/* e^x = 2^k e^r, r = x - k log(2), |r| <= log(2)/2, e^r = 1 + r + r^2 q(r) */
static inline float ofcv_exp(float x) {
  const float largest = 0x1.62e43p+6f, smallest = -0x1.9fe368p+6f;
  const float y = ofcv_between(x, smallest, largest), k = ofcv_nearest(y * 0x1.715476p+0f);
  const float r = (y - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
  float q = 0x1.6a2352p-10f;
  q = q * r + 0x1.123a6cp-7f;
  q = q * r + 0x1.5558f4p-5f;
  q = q * r + 0x1.55549p-3f;
  q = q * r + 0x1.fffffcp-2f;
  const float e = (q * r) * r + r;
  /* in two steps, since 2^k alone may be no float */
  const int32_t n = (int32_t)k, half = n / 2;
  const float result = ((e + 1.0f) * ofcv_power_of_two(half)) * ofcv_power_of_two(n - half);
  return x > largest ? (float)INFINITY : x != x ? x : x < smallest ? 0.0f : result;
}

/* tanh x = x + x^3 p(x^2) for |x| < 0.6, else 1 - 2 / (e^(2 |x|) + 1) with the sign of x */
static inline float ofcv_tanh(float x) {
  const float a = x < 0.0f ? -x : x, z = x * x;
  float p = 0x1.23e4dep-9f;
  p = p * z - 0x1.0ec0eep-7f;
  p = p * z + 0x1.6411a4p-6f;
  p = p * z - 0x1.b9f9e6p-5f;
  p = p * z + 0x1.11109cp-3f;
  p = p * z - 0x1.555554p-2f;
  const float near = x + (x * z) * p;
  const float far = 1.0f - 2.0f / (ofcv_exp(a + a) + 1.0f);
  const float result = a < 0.6f ? near : x < 0.0f ? -far : far;
  return x == 0.0f || x != x ? x : result;
}

/* 1 / (1 + e^-x), with e^-|x| alone, which never is too large */
static inline float ofcv_sigmoid(float x) {
  const float e = ofcv_exp(x < 0.0f ? x : -x), sum = 1.0f + e;
  const float lost = e - (sum - 1.0f); /* by the rounding of the sum */
  const float q = (x < 0.0f ? e : 1.0f) / sum;
  return q - q * (lost / sum);
}

/* log x = k log(2) + log(1 + f), 1 + f = x / 2^k in [sqrt(1/2), sqrt(2)),
   log(1 + f) = f - f^2 / 2 + f^3 p(f) */
static inline float ofcv_log(float x) {
  const int is_tiny = x < 0x1p-126f;
  const uint32_t bits = (uint32_t)ofcv_float_to_bits(is_tiny ? x * 0x1p+24f : x);
  /* the biased exponent of x / sqrt(1/2) */
  const uint32_t exponent = (bits - 0x3f3504f3u + 0x3f800000u) >> 23;
  const int32_t k = (int32_t)exponent - 127;
  const float f = ofcv_bits_to_float((int32_t)(bits - (exponent << 23) + 0x3f800000u)) - 1.0f;
  float p = 0x1.14577p-4f;
  p = p * f - 0x1.de511p-4f;
  p = p * f + 0x1.e6fbbcp-4f;
  p = p * f - 0x1.fc1fa8p-4f;
  p = p * f + 0x1.23368cp-3f;
  p = p * f - 0x1.555c54p-3f;
  p = p * f + 0x1.99a4cp-3f;
  p = p * f - 0x1.000006p-2f;
  p = p * f + 0x1.555548p-2f;
  const float n = (float)(is_tiny ? k - 24 : k), square = f * f;
  const float low = n * 0x1.7f7d1cp-20f + ((f * square) * p - 0.5f * square);
  const float result = n * 0x1.62e4p-1f + (f + low);
  return x > 0.0f ? (x <= 0x1.fffffep+127f ? result : x) : x == 0.0f ? -(float)INFINITY : (float)NAN;
}

/* log(1 + x) for x >= 0: what rounding takes from 1 + x comes back as a factor of the argument */
static inline float ofcv_log1p(float x) {
  const float u = 1.0f + x;
  const float lost = x - (u - 1.0f);
  return u == 1.0f || !(x <= 0x1.fffffep+127f) ? x : ofcv_log(u) + lost / u;
}

/* log(1 + e^x) */
static inline float ofcv_softplus(float x) {
  const float e = ofcv_exp(x < 0.0f ? x : -x);
  return (x < 0.0f ? 0.0f : x) + ofcv_log1p(e);
}

/* e^x - 1 = 2^k (e^r - 1) + (2^k - 1) */
static inline float ofcv_expm1(float x) {
  const float largest = 0x1.62e43p+6f, smallest = -0x1.18p+4f;
  const float y = ofcv_between(x, smallest, largest), k = ofcv_nearest(y * 0x1.715476p+0f);
  const float high = y - k * 0x1.62e4p-1f, low = k * 0x1.7f7d1cp-20f;
  const float r = high - low, lost = (high - r) - low;
  float q = 0x1.a032cap-13f;
  q = q * r + 0x1.6d7296p-10f;
  q = q * r + 0x1.11118ap-7f;
  q = q * r + 0x1.5554bp-5f;
  q = q * r + 0x1.555556p-3f;
  q = q * r + 0.5f;
  const float e = r + ((q * r) * r + lost);
  const int32_t n = (int32_t)k, half = n / 2;
  const float scale = ofcv_power_of_two(half), rest = ofcv_power_of_two(n - half);
  /* 2^k - 1 first where it is not lost beside 2^k e */
  const float small = scale * rest * e + (scale * rest - 1.0f);
  const float large = (e + 1.0f) * scale * rest - 1.0f;
  const float result = n < 24 ? small : large;
  return x > largest ? (float)INFINITY : x != x ? x : x < smallest ? -1.0f : x == 0.0f ? x : result;
}

/* erf x = x p(x^2) for |x| < 1, a polynomial of |x| - 5/2 up to 4, 1 beyond */
static inline float ofcv_erf(float x) {
  const double a = x < 0.0f ? -(double)x : (double)x, z = a * a, u = a - 2.5;
  double p = -0x1.44cfc5ca6e95ap-17, q = -0x1.206cf6233d04cp-17;
  p = p * z + 0x1.d8b8909d9479fp-14;
  p = p * z - 0x1.bcd7df353790ep-11;
  p = p * z + 0x1.562b19e840660p-8;
  p = p * z - 0x1.b829d8cdc0faep-6;
  p = p * z + 0x1.ce2f09abf48c8p-4;
  p = p * z - 0x1.812746682b87ap-2;
  p = p * z + 0x1.20dd750406240p+0;
  q = q * u + 0x1.65575d94c6d7cp-16;
  q = q * u + 0x1.ec867b6d7ca74p-15;
  q = q * u - 0x1.25de1208a5810p-12;
  q = q * u + 0x1.33da614a452a3p-12;
  q = q * u + 0x1.2c5f4c0d80d89p-11;
  q = q * u - 0x1.725450380114fp-9;
  q = q * u + 0x1.8fd8e9d703debp-8;
  q = q * u - 0x1.1a330bd3d2904p-7;
  q = q * u + 0x1.11bda0ef6e4f5p-7;
  q = q * u - 0x1.64fca1e4be74ep-8;
  q = q * u + 0x1.1d7a42af17545p-9;
  q = q * u + 0x1.ffcaaa1a55cafp-1;
  const double size = a < 1.0 ? a * p : a < 4.0 ? q : 1.0;
  return x != x ? x : (float)(x < 0.0f ? -size : size);
}

/* x = (4 n + quarter) pi / 2 + r, |r| <= pi / 4, for |x| < 2^30 */
static inline double ofcv_near_quarter(double x, int *quarter) {
  const double shift = 0x1.8p+52;
  const double shifted = x * 0x1.45f306dc9c883p-1 + shift, k = shifted - shift;
  *quarter = (int)((int64_t)k & 3);
  return ((x - k * 0x1.921fb4p+0) - k * 0x1.4442dp-24) - k * 0x1.8469898cc517p-48;
}

/* The same for larger ones, with as many digits of 2 / pi as count. */
static inline double ofcv_far_quarter(float x, int *quarter) {
  static const uint32_t digits[] = {0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0,
                                    0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561};
  const int32_t bits = ofcv_float_to_bits(x) & 0x7fffffff;
  const uint64_t mantissa = (uint64_t)((bits & 0x7fffff) | 0x800000);
  /* x = mantissa 2^e; the digits of 2 / pi before 2^(2 - e) give multiples of 2 pi */
  const int first = (bits >> 23) - 150 - 2, word = first / 32, skip = first % 32;
  uint32_t window[3];
  for (int i = 0; i < 3; ++i) {
    const uint64_t pair = ((uint64_t)digits[word + i] << 32) | digits[word + i + 1];
    window[i] = (uint32_t)(pair >> (32 - skip));
  }
  const uint64_t low = mantissa * window[2], middle = mantissa * window[1] + (low >> 32);
  const uint64_t high = mantissa * window[0] + (middle >> 32);
  const uint64_t product = (high << 32) | (middle & 0xffffffffu);
  /* two bits of quarters and 62 of a fraction, which is taken from -1/2 to 1/2 */
  const int64_t fraction = (int64_t)(product << 2);
  *quarter = (int)(((product >> 62) + (fraction < 0)) & 3);
  double r = (double)fraction * 0x1p-64 * 0x1.921fb54442d18p+0;
  if (x < 0.0f) {
    r = -r;
    *quarter = (4 - *quarter) & 3;
  }
  return r;
}

static inline double ofcv_quarter(float x, int *quarter) {
  const float size = x < 0.0f ? -x : x;
  return size < 0x1p+30f ? ofcv_near_quarter((double)x, quarter) : ofcv_far_quarter(x, quarter);
}

/* sin r = r + r^3 p(r^2), cos r = 1 - r^2 / 2 + r^4 p(r^2), |r| <= pi / 4 */
static inline double ofcv_sin_of_rest(double r) {
  const double z = r * r;
  double p = 0x1.6cb80257df5afp-19;
  p = p * z - 0x1.a00f11bed450cp-13;
  p = p * z + 0x1.111107e1a105ap-7;
  p = p * z - 0x1.5555554bb42cap-3;
  return r + (r * z) * p;
}

static inline double ofcv_cos_of_rest(double r) {
  const double z = r * r;
  double p = -0x1.24635e3668927p-22;
  p = p * z + 0x1.a01284b97a015p-16;
  p = p * z - 0x1.6c16bb545ef82p-10;
  p = p * z + 0x1.555555528bc69p-5;
  return (1.0 - 0.5 * z) + (z * z) * p;
}

static inline float ofcv_sin_or_cos(float x, int further) {
  int quarter;
  if (!(x - x == 0.0f)) return (float)NAN;
  const double r = ofcv_quarter(x, &quarter);
  const int place = (quarter + further) & 3;
  const double size = place & 1 ? ofcv_cos_of_rest(r) : ofcv_sin_of_rest(r);
  return (float)(place & 2 ? -size : size);
}

static inline float ofcv_sin(float x) { return x == 0.0f ? x : ofcv_sin_or_cos(x, 0); }
static inline float ofcv_cos(float x) { return ofcv_sin_or_cos(x, 1); }

/* atan2 by atan t = t + t^3 p(t^2) for t up to tan(pi / 8), pi / 4 + atan((t - 1) / (t + 1)) beyond */
static inline float ofcv_atan2(float y, float x) {
  const double a = y < 0.0f ? -(double)y : (double)y, b = x < 0.0f ? -(double)x : (double)x;
  const int is_steep = a > b, are_infinite = a == b && a > 0x1.fffffep+127;
  const double small = are_infinite ? 1.0 : is_steep ? b : a;
  const double large = are_infinite ? 1.0 : is_steep ? a : b;
  const int is_wide = small > 0x1.a827999fcef32p-2 * large;
  const double below = is_wide ? small + large : large;
  const double t = below > 0.0 ? (is_wide ? small - large : small) / below : 0.0, z = t * t;
  double p = 0x1.84475cff5105ep-5;
  p = p * z - 0x1.5b1b1fc4cfecbp-4;
  p = p * z + 0x1.c46064583a924p-4;
  p = p * z - 0x1.247eb6f5c705dp-3;
  p = p * z + 0x1.99991774b6d74p-3;
  p = p * z - 0x1.555554c46e358p-2;
  double angle = (t + (t * z) * p) + (is_wide ? 0x1.921fb54442d18p-1 : 0.0);
  angle = is_steep ? 0x1.921fb54442d18p+0 - angle : angle;
  angle = ofcv_float_to_bits(x) < 0 ? 0x1.921fb54442d18p+1 - angle : angle;
  return x != x || y != y ? x + y : (float)(ofcv_float_to_bits(y) < 0 ? -angle : angle);
}

/* acos x = pi / 2 - asin x for |x| < 1/2, 2 asin(sqrt((1 - x) / 2)) above, pi minus that below */
static inline float ofcv_acos(float x) {
  const double a = x < 0.0f ? -(double)x : (double)x;
  const int is_near = a < 0.5;
  const double z = is_near ? a * a : 0.5 * (1.0 - a), root = is_near ? a : sqrt(z);
  double p = 0x1.33dd3878ec9a8p-5;
  p = p * z + 0x1.d7b006254e6c9p-7;
  p = p * z + 0x1.04a8a5ae2220bp-5;
  p = p * z + 0x1.6cac3a5810e7bp-5;
  p = p * z + 0x1.33388cbe88059p-4;
  p = p * z + 0x1.55554c3f8ff14p-3;
  const double asin = root + (root * z) * p;
  const double half_pi = 0x1.921fb54442d18p+0;
  const double angle = is_near ? half_pi - (x < 0.0f ? -asin : asin)
                               : x < 0.0f ? 2.0 * (half_pi - asin) : 2.0 * asin;
  return a <= 1.0 ? (float)angle : (float)NAN;
}
