/* exp, log, tanh and powers in double, from arithmetic alone, so that every target gives the same float once rounded.
   Relative errors are some 1e-15. */

#include <stdint.h>

#pragma STDC FP_CONTRACT OFF

static double power_of_two(int64_t n) {
    union {
        uint64_t bits;
        double value;
    } made = {(uint64_t)(n + 1023) << 52};
    return made.value;
}

/* exp(x) = 2**n * exp(r), |r| <= log(2) / 2, by its series. */
static double exponential(double x) {
    static const double terms[] = {1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,
                                   1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800, 1. / 87178291200};
    if (!(x > -708)) return x == x ? 0 : x;
    if (x > 709) x = 709;
    double n = (double)(int64_t)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10, sum = 0;
    for (int i = 14; i >= 0; i--) sum = sum * r + terms[i];
    return sum * power_of_two((int64_t)n);
}

/* log(x) = n log(2) + 2 artanh((m - 1) / (m + 1)), m near 1; x above 0. */
static double logarithm(double x) {
    union {
        double value;
        uint64_t bits;
    } of = {x};
    int64_t n = (int64_t)(of.bits >> 52) - 1023;
    of.bits = (of.bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    if (of.value > 1.4142135623730951) of.value *= 0.5, n++;
    double f = (of.value - 1) / (of.value + 1), square = f * f, sum = 0;
    for (int i = 23; i > 0; i -= 2) sum = sum * square + 1.0 / i;
    return 2 * f * sum + (double)n * 0.6931471805599453;
}

/* x to the p, for x and p of at least 0; what is below counts as 0. */
static double power(double x, double p) {
    if (p == 0) return 1;
    return x > 0 ? exponential(p * logarithm(x)) : x == x ? 0 : x;
}

static double sigmoid(double x) { return 1 / (1 + exponential(-x)); }

static double hyperbolic_tangent(double x) {
    if (x > -1e-3 && x < 1e-3) return x - x * x * x / 3;
    if (x > 20 || x < -20) return x > 0 ? 1 : -1;
    double e = exponential(2 * x);
    return (e - 1) / (e + 1);
}
