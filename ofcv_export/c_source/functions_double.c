/* Elementary functions of double: the same bits from every compiler and on every processor, as long as
   no product is fused with a sum.

   Only additions, products, divisions, square roots, comparisons and conversions, each rounded by
   itself, and what IEEE 754 leaves no choice about. Polynomials are minimax fits of this project.
   Errors are below two units in the last place of the result. A constant's second part, where
   there is one, is what the first lacks. */

static inline double ofcv_bits_to_double(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint64_t ofcv_double_to_bits(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline int ofcv_is_negative_d(double x) { return (int)(ofcv_double_to_bits(x) >> 63); }

/* A size >= 0 with the sign of x */
static inline double ofcv_with_sign_d(double size, double x) {
  const uint64_t sign = ofcv_double_to_bits(x) & ((uint64_t)1 << 63);
  return ofcv_bits_to_double(ofcv_double_to_bits(size) | sign);
}

/* 2^k for -1022 <= k <= 1023 */
static inline double ofcv_power_of_two_d(int32_t k) {
  return ofcv_bits_to_double((uint64_t)(k + 1023) << 52);
}

/* What is no number becomes the highest, so that all results have an integer part. */
static inline double ofcv_between_d(double x, double lowest, double highest) {
  const double y = x < highest ? x : highest;
  return y > lowest ? y : lowest;
}

/* The nearest integer, for |x| < 2^51: adding the shift leaves it in the last bits. */
static inline double ofcv_nearest_d(double x) {
  const double shift = 0x1.8p+52;
  return (x + shift) - shift;
}

/* a + b = sum + lost, exactly */
static inline double ofcv_sum_d(double a, double b, double *lost) {
  const double sum = a + b, of_b = sum - a;
  *lost = (a - (sum - of_b)) + (b - of_b);
  return sum;
}

/* x = n log(2) + r, |r| <= log(2)/2, e^r - 1 = r + r^2 q(r) */
static inline double ofcv_exp_of_rest_d(double x, int32_t *n) {
  const double k = ofcv_nearest_d(x * 0x1.71547652b82fep+0);
  const double high = x - k * 0x1.62e42fefa38p-1, low = k * 0x1.ef35793c7673p-45;
  const double r = high - low, lost = (high - r) - low;
  double q = 0x1.1ee884021cf03p-29;
  q = q * r + 0x1.af5ea97300964p-26;
  q = q * r + 0x1.27e53640e2f34p-22;
  q = q * r + 0x1.71ddf863025bbp-19;
  q = q * r + 0x1.a01a017bb5304p-16;
  q = q * r + 0x1.a01a01afdddf4p-13;
  q = q * r + 0x1.6c16c16c1f0c4p-10;
  q = q * r + 0x1.111111110f6c4p-7;
  q = q * r + 0x1.555555555553fp-5;
  q = q * r + 0x1.5555555555559p-3;
  q = q * r + 0.5;
  *n = (int32_t)k;
  return r + ((q * r) * r + lost);
}

/* e^x = 2^n (1 + (e^r - 1)); the rest is what rounding takes from it */
static inline double ofcv_exp_with_rest_d(double x, double *rest) {
  const double largest = 0x1.62e42fefa39efp+9, smallest = -0x1.74910d52d3051p+9;
  int32_t n;
  const double e = ofcv_exp_of_rest_d(ofcv_between_d(x, smallest, largest), &n);
  /* in two steps, since 2^n alone may be no double */
  const int32_t half = n / 2;
  const double scale = ofcv_power_of_two_d(half), further = ofcv_power_of_two_d(n - half);
  const double sum = 1.0 + e, result = (sum * scale) * further;
  *rest = ((e - (sum - 1.0)) * scale) * further;
  return x > largest ? (double)INFINITY : x != x ? x : x < smallest ? 0.0 : result;
}

static inline double ofcv_exp_d(double x) {
  double rest;
  return ofcv_exp_with_rest_d(x, &rest);
}

/* e^x - 1 = 2^n (e^r - 1) + (2^n - 1) */
static inline double ofcv_expm1_d(double x) {
  const double largest = 0x1.62e42fefa39efp+9;
  int32_t n;
  const double e = ofcv_exp_of_rest_d(ofcv_between_d(x, -40.0, largest), &n);
  const int32_t half = n / 2;
  const double scale = ofcv_power_of_two_d(half), rest = ofcv_power_of_two_d(n - half);
  /* 2^n - 1 first where it is not lost beside 2^n e */
  const double small = scale * rest * e + (scale * rest - 1.0);
  const double large = (e + 1.0) * scale * rest - 1.0;
  const double result = n < 54 ? small : large;
  return x > largest ? (double)INFINITY : x != x || x == 0.0 ? x : result;
}

/* tanh x = x + x^3 p(x^2) for |x| < 0.55, else 1 - 2 / (e^(2 |x|) + 1) with the sign of x */
static inline double ofcv_tanh_d(double x) {
  const double a = fabs(x), z = x * x;
  double p = -0x1.46fcf8c38cadcp-16;
  p = p * z + 0x1.5d6c7161054abp-14;
  p = p * z - 0x1.e96d174c8afcfp-13;
  p = p * z + 0x1.34836d12f515fp-11;
  p = p * z - 0x1.7d8fcbf624e4bp-10;
  p = p * z + 0x1.d6d29b02670ddp-9;
  p = p * z - 0x1.226e2f10ed652p-7;
  p = p * z + 0x1.664f485955da6p-6;
  p = p * z - 0x1.ba1ba1b97d158p-5;
  p = p * z + 0x1.1111111110797p-3;
  p = p * z - 0x1.555555555554fp-2;
  const double near = a + (a * z) * p;
  const double far = 1.0 - 2.0 / (ofcv_exp_d(a + a) + 1.0);
  return ofcv_with_sign_d(a < 0.55 ? near : far, x);
}

/* 1 / (1 + e^-x), with e^-|x| alone, which never is too large */
static inline double ofcv_sigmoid_d(double x) {
  double rest;
  const double e = ofcv_exp_with_rest_d(-fabs(x), &rest), sum = 1.0 + e;
  const double lost = (e - (sum - 1.0)) + rest; /* by the roundings of e and of the sum */
  const double q = (x < 0.0 ? e : 1.0) / sum;
  return q + ((x < 0.0 ? rest : 0.0) - q * lost) / sum;
}

/* log(u + lost) = k log(2) + log(1 + f) + lost / u for normal u > 0 and lost far below it,
   1 + f = u / 2^k in [sqrt(1/2), sqrt(2)); log(1 + f) = 2 s + s^3 p(s^2) with s = f / (2 + f),
   where 2 s = f - s f. More is added to k. */
static inline double ofcv_log_of_sum_d(double u, double lost, int32_t more) {
  const uint64_t bits = ofcv_double_to_bits(u);
  /* the biased exponent of u / sqrt(1/2) */
  const uint64_t exponent = (bits + ((uint64_t)0x3ff00000 << 32) - 0x3fe6a09e667f3bcd) >> 52;
  const double f = ofcv_bits_to_double(bits - (exponent << 52) + ((uint64_t)0x3ff << 52)) - 1.0;
  const double s = f / (2.0 + f), z = s * s, n = (double)((int32_t)exponent - 1023 + more);
  double p = 0x1.2f06ee3269fcap-3;
  p = p * z + 0x1.39a19a6ef1b7p-3;
  p = p * z + 0x1.74663fe0cd3bp-3;
  p = p * z + 0x1.c71c520614534p-3;
  p = p * z + 0x1.24924941f34e5p-2;
  p = p * z + 0x1.999999997fdb5p-2;
  p = p * z + 0x1.5555555555592p-1;
  const double low = (n * 0x1.ef35793c7673p-45 + lost / u) - s * (f - z * p);
  return n * 0x1.62e42fefa38p-1 + (f + low);
}

static inline double ofcv_log_d(double x) {
  const int is_tiny = x < 0x1p-1022;
  const double result = ofcv_log_of_sum_d(is_tiny ? x * 0x1p+54 : x, 0.0, is_tiny ? -54 : 0);
  return x > 0.0    ? (x <= 0x1.fffffffffffffp+1023 ? result : x)
         : x == 0.0 ? -(double)INFINITY
                    : (double)NAN;
}

/* log(1 + x), with what rounding takes from 1 + x */
static inline double ofcv_log1p_d(double x) {
  double lost;
  const double u = ofcv_sum_d(1.0, x, &lost), result = ofcv_log_of_sum_d(u, lost, 0);
  return x > -1.0    ? (x <= 0x1.fffffffffffffp+1023 && x != 0.0 ? result : x)
         : x == -1.0 ? -(double)INFINITY
                     : (double)NAN;
}

/* log(1 + e^x) */
static inline double ofcv_softplus_d(double x) {
  double rest, lost;
  const double e = ofcv_exp_with_rest_d(-fabs(x), &rest), u = ofcv_sum_d(1.0, e, &lost);
  return (x < 0.0 ? 0.0 : x) + ofcv_log_of_sum_d(u, lost + rest, 0);
}

/* erf x = x + x p(x^2) for |x| < 1, else 1 - e^(-x^2) q((|x| - 2) / (|x| + 2)), 1 from 6 on */
static inline double ofcv_erf_d(double x) {
  const double a = fabs(x), z = x * x, b = ofcv_between_d(a, 1.0, 6.0), u = (b - 2.0) / (b + 2.0);
  double p = 0x1.057996dc405e5p-34, q = -0x1.a84366942705ep-17;
  p = p * z - 0x1.386aba0b0e2d1p-30;
  p = p * z + 0x1.f7a41034343c3p-27;
  p = p * z - 0x1.5f1d3697de446p-23;
  p = p * z + 0x1.b9def19977315p-20;
  p = p * z - 0x1.f4d1df38fb0dcp-17;
  p = p * z + 0x1.f9a321a11a06dp-14;
  p = p * z - 0x1.c02db3d8ed054p-11;
  p = p * z + 0x1.565bcd0db02d9p-8;
  p = p * z - 0x1.b82ce3128499cp-6;
  p = p * z + 0x1.ce2f21a042b2p-4;
  p = p * z - 0x1.812746b0379e6p-2;
  p = p * z + 0x1.06eba8214db69p-3;
  q = q * u - 0x1.be7746a865b7p-16;
  q = q * u + 0x1.cf709be6f7c92p-16;
  q = q * u + 0x1.6d8266ad4daa4p-13;
  q = q * u + 0x1.6d352faf820c1p-15;
  q = q * u - 0x1.016b53715f317p-10;
  q = q * u - 0x1.bc258dc28fedfp-11;
  q = q * u + 0x1.ca95ed864290cp-8;
  q = q * u + 0x1.e947158ad91bcp-9;
  q = q * u - 0x1.437f0b68ccc67p-4;
  q = q * u + 0x1.eeea7dc8a790cp-3;
  q = q * u - 0x1.b57034efd3f56p-2;
  q = q * u + 0x1.058671b52c776p-2;
  const double near = a + a * p, far = 1.0 - ofcv_exp_d(-(b * b)) * q;
  return x != x ? x : ofcv_with_sign_d(a < 1.0 ? near : far, x);
}

/* x = (4 n + quarter) pi / 2 + r + low, |r| <= pi / 4, for |x| < 2^20: pi / 2 in parts of 33 bits,
   whose products with k are exact */
static inline double ofcv_near_quarter_d(double x, int *quarter, double *low) {
  const double k = ofcv_nearest_d(x * 0x1.45f306dc9c883p-1);
  double first, second;
  const double part = ofcv_sum_d(x - k * 0x1.921fb544p+0, -k * 0x1.0b4611a6p-34, &first);
  const double high = ofcv_sum_d(part, -k * 0x1.3198a2ep-69, &second);
  const double rest = (first + second) - k * 0x1.b839a252049c1p-104, r = high + rest;
  *quarter = (int)k & 3;
  *low = (high - r) + rest;
  return r;
}

/* The same for larger ones, with as many digits of 2 / pi as count. */
static inline double ofcv_far_quarter_d(double x, int *quarter, double *low) {
  static const uint32_t digits[] = {
      0x00000000, 0x00000000, 0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599,
      0x3c439041, 0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c,
      0xfe1deb1c, 0xb129a73e, 0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639,
      0x835339f4, 0x9c845f8b, 0xbdf9283b, 0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f,
      0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d, 0x7527bac7, 0xebe5f17b, 0x3d0739f7,
      0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046};
  const uint64_t bits = ofcv_double_to_bits(x), one = 1;
  const uint64_t mantissa = (bits & ((one << 52) - 1)) | (one << 52), word = 0xffffffff;
  /* x = mantissa 2^e; digits of 2 / pi before 2^(2 - e) give multiples of 2 pi; 64 zeros lead */
  const int start = (int)((bits >> 52) & 0x7ff) - 1075 - 2 + 64, skip = start % 32;
  const uint32_t *window = digits + start / 32;
  /* mantissa times 192 digits modulo 2^192, the lowest words first */
  uint64_t product[6], carry = 0, before = 0;
  for (int i = 0; i < 6; ++i) {
    const uint64_t pair = ((uint64_t)window[5 - i] << 32) | window[6 - i];
    const uint64_t digit = (pair >> (32 - skip)) & word;
    const uint64_t below = (mantissa & word) * digit, above = (mantissa >> 32) * before;
    const uint64_t sum = (below & word) + (above & word) + carry;
    product[i] = sum & word;
    carry = (below >> 32) + (above >> 32) + (sum >> 32);
    before = digit;
  }
  /* two bits of quarters and 126 of a fraction, which is taken from -1/2 to 1/2 */
  uint64_t upper = (product[5] << 32) | product[4], lower = (product[3] << 32) | product[2];
  const uint64_t whole = upper >> 62;
  upper = (upper << 2) | (lower >> 62);
  lower <<= 2;
  const uint64_t is_negative = upper >> 63;
  if (is_negative) {
    lower = ~lower + 1;
    upper = ~upper + (lower == 0);
  }
  double first, second, third;
  const double head =
      ofcv_sum_d((double)(upper >> 32) * 0x1p-32, (double)(upper & word) * 0x1p-64, &first);
  const double tail =
      ofcv_sum_d((double)(lower >> 32) * 0x1p-96, (double)(lower & word) * 0x1p-128, &second);
  const double fraction = ofcv_sum_d(head, tail, &third);
  /* times pi / 2: the product of the first 26 bits of each is exact */
  const double most = ofcv_bits_to_double(ofcv_double_to_bits(fraction) & ~((one << 27) - 1));
  const double less = (fraction - most) + (third + (first + second));
  const double exact = most * 0x1.921fb58p+0;
  const double more = less * 0x1.921fb54442d18p+0 - most * 0x1.dde973dcb3b3ap-27;
  const double r = exact + more, rest = (exact - r) + more;
  const int is_opposite = ofcv_is_negative_d(x), count = (int)(whole + is_negative);
  *quarter = (is_opposite ? -count : count) & 3;
  *low = (is_negative != 0) != is_opposite ? -rest : rest;
  return (is_negative != 0) != is_opposite ? -r : r;
}

/* sin(r + low) = r + r^3 p(r^2) + low cos r, |r| <= pi / 4 */
static inline double ofcv_sin_of_rest_d(double r, double low) {
  const double z = r * r;
  double p = -0x1.aaa144e951fd2p-41;
  p = p * z + 0x1.61208a4609992p-33;
  p = p * z - 0x1.ae64528a6345p-26;
  p = p * z + 0x1.71de3a532e325p-19;
  p = p * z - 0x1.a01a01a018a5p-13;
  p = p * z + 0x1.111111111110bp-7;
  p = p * z - 0x1.5555555555555p-3;
  return r + ((r * z) * p + low * (1.0 - 0.5 * z));
}

/* cos(r + low) = 1 - r^2 / 2 + r^4 p(r^2) - low sin r */
static inline double ofcv_cos_of_rest_d(double r, double low) {
  const double z = r * r, half = 0.5 * z, most = 1.0 - half;
  double p = -0x1.8fa3987936e3p-37;
  p = p * z + 0x1.1ee9d5cf209abp-29;
  p = p * z - 0x1.27e4f7e80c03ep-22;
  p = p * z + 0x1.a01a019c80a4fp-16;
  p = p * z - 0x1.6c16c16c14f6dp-10;
  p = p * z + 0x1.555555555554bp-5;
  return most + (((1.0 - most) - half) + ((z * z) * p - r * low));
}

static inline double ofcv_sin_or_cos_d(double x, int further) {
  int quarter;
  double low;
  if (!(x - x == 0.0)) return (double)NAN;
  const double r = fabs(x) < 0x1p+20 ? ofcv_near_quarter_d(x, &quarter, &low)
                                     : ofcv_far_quarter_d(x, &quarter, &low);
  const int place = (quarter + further) & 3;
  const double size = place & 1 ? ofcv_cos_of_rest_d(r, low) : ofcv_sin_of_rest_d(r, low);
  return place & 2 ? -size : size;
}

static inline double ofcv_sin_d(double x) { return x == 0.0 ? x : ofcv_sin_or_cos_d(x, 0); }
static inline double ofcv_cos_d(double x) { return ofcv_sin_or_cos_d(x, 1); }

/* atan2 by atan c + atan((a - c b) / (b + c a)) with c = 0, 1/2 or 1, atan t = t + t^3 p(t^2) */
static inline double ofcv_atan2_d(double y, double x) {
  const double a = fabs(y), b = fabs(x);
  const int is_steep = a > b;
  const double below = is_steep ? b : a, above = is_steep ? a : b;
  const int are_infinite = below > 0x1.fffffffffffffp+1023;
  /* so that neither sums are too large nor halves too small */
  const double scale = above > 0x1p+1000 ? 0.25 : above < 0x1p-900 ? 0x1p+100 : 1.0;
  const double small = are_infinite ? 1.0 : below * scale;
  const double large = are_infinite ? 1.0 : above * scale;
  const int is_one = small > 0.7 * large, is_half = small > 0.33 * large;
  const double c = is_one ? 1.0 : is_half ? 0.5 : 0.0;
  const double from = is_one ? 0x1.921fb54442d18p-1 : is_half ? 0x1.dac670561bb4fp-2 : 0.0;
  const double from_rest = is_one ? 0x1.1a62633145c07p-55 : is_half ? 0x1.a2b7f222f65e2p-56 : 0.0;
  /* a product with c = 0 would be no number for an infinity */
  const double t = above == 0.0 ? 0.0
                   : is_half    ? (small - c * large) / (large + c * small)
                                : small / large;
  const double z = t * t;
  double p = 0x1.ce790d064ac67p-6;
  p = p * z - 0x1.8a68602e2839p-5;
  p = p * z + 0x1.dcd4430350608p-5;
  p = p * z - 0x1.10d8c5d4d236cp-4;
  p = p * z + 0x1.3b10856b58279p-4;
  p = p * z - 0x1.745cf9de5f91ep-4;
  p = p * z + 0x1.c71c711de2d0ep-4;
  p = p * z - 0x1.2492492379dd4p-3;
  p = p * z + 0x1.9999999997cccp-3;
  p = p * z - 0x1.555555555554dp-2;
  /* from the nearest axis, which is turn half pi away */
  const double off = from + (t + ((t * z) * p + from_rest));
  const int is_left = ofcv_is_negative_d(x);
  const double turn = is_steep ? 1.0 : is_left ? 2.0 : 0.0;
  const double signed_off = is_steep != is_left ? -off : off;
  const double angle = turn * 0x1.921fb54442d18p+0 + (signed_off + turn * 0x1.1a62633145c07p-54);
  return x != x || y != y ? x + y : ofcv_with_sign_d(angle, y);
}

/* acos x = pi / 2 - asin x for |x| < 1/2, 2 asin(sqrt((1 - x) / 2)) above, pi minus that below,
   asin v = v + v^3 p(v^2) */
static inline double ofcv_acos_d(double x) {
  const double a = fabs(x);
  const int is_near = a < 0.5;
  const double z = is_near ? a * a : 0.5 * (1.0 - a), root = is_near ? a : sqrt(z);
  double p = 0x1.0b801b630f5cp-5;
  p = p * z - 0x1.58b17303c8e1ep-6;
  p = p * z + 0x1.641927637807cp-6;
  p = p * z + 0x1.e4638362047a8p-9;
  p = p * z + 0x1.6156a2479a8fbp-7;
  p = p * z + 0x1.7580f9817f506p-7;
  p = p * z + 0x1.ca20197c4f126p-7;
  p = p * z + 0x1.1c49eaa06c9b9p-6;
  p = p * z + 0x1.6e8bdf30b5p-6;
  p = p * z + 0x1.f1c71a9220406p-6;
  p = p * z + 0x1.6db6db7219ea7p-5;
  p = p * z + 0x1.333333332e08dp-4;
  p = p * z + 0x1.5555555555577p-3;
  const double sign = is_near && x < 0.0 ? -1.0 : 1.0, rest = (root * z) * p;
  const double v = sign * root, v_rest = sign * rest;
  const double from_half_pi = 0x1.921fb54442d18p+0 - (v + (v_rest - 0x1.1a62633145c07p-54));
  const double angle = is_near ? from_half_pi : x < 0.0 ? 2.0 * from_half_pi : 2.0 * (root + rest);
  return a <= 1.0 ? angle : (double)NAN;
}
