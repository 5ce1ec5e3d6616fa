/* Work in parts. Only their number determines the parts, so sums do not depend on which thread computes a part. */

#ifndef THREADS_H
#define THREADS_H

#include <stdlib.h>

/* Calls task(work, part, parts) for each part, on PyTorch's OpenMP threads, so that no threads are added. */
void in_parts(void (*task)(void *, int, int), void *work, int parts);

/* A thread-local buffer of at least `floats`, aligned to a cache line, valid until the next call for the same use. */
enum use { BY_PART, BY_CALL, USES };
float *scratch(enum use use, size_t floats);

/* The range [*begin, *end) of a part, in multiples of `unit`. */
static inline void share(int64_t total, int64_t unit, int part, int parts, int64_t *begin, int64_t *end) {
    int64_t units = (total + unit - 1) / unit;
    *begin = units * part / parts * unit;
    *end = units * (part + 1) / parts * unit;
    if (*end > total) *end = total;
    if (*begin > total) *begin = total;
}

#endif
