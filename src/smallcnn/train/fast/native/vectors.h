/* One SIMD register of floats, in the vector extensions common to clang and gcc. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))
#define ROUND_UP(n, unit) (((n) + (unit) - 1) / (unit) * (unit))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));
typedef float vec_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec_anywhere *)p; }
INLINE void store(float *p, vec v) { *(vec_anywhere *)p = v; }
INLINE vec splat(float value) { return value - (vec){0}; }
INLINE vec where(mask m, vec yes, vec no) { return (vec)(((mask)yes & m) | ((mask)no & ~m)); }

/* The first n < LANES lanes; the others are zero. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#include <immintrin.h>
static const int32_t ONES_THEN_ZEROS[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
INLINE __m256i first(int n) { return _mm256_loadu_si256((const __m256i *)(ONES_THEN_ZEROS + 8 - n)); }
INLINE vec load_first(const float *p, int n) { return (vec)_mm256_maskload_ps(p, first(n)); }
INLINE void store_first(float *p, vec v, int n) { _mm256_maskstore_ps(p, first(n), (__m256)v); }
#elif defined(__AVX512F__)
#include <immintrin.h>
INLINE vec load_first(const float *p, int n) { return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void store_first(float *p, vec v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#else
INLINE vec load_first(const float *p, int n) {
    vec v = {0};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
INLINE void store_first(float *p, vec v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
}
#endif

/* The remaining n lanes of a row, with a fast path for whole registers. */
INLINE vec load_some(const float *p, int n) { return n >= LANES ? load(p) : load_first(p, n); }
INLINE void store_some(float *p, vec v, int n) {
    if (n >= LANES)
        store(p, v);
    else
        store_first(p, v, n);
}

#endif
