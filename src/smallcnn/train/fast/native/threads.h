/* Work in parts. The parts are fixed by their number alone, so that sums come out the same whoever computes a part. */

#ifndef THREADS_H
#define THREADS_H

#include <stdlib.h>

/* Calls task(work, part, parts) for each part, on PyTorch's own OpenMP threads, so that there are never more. */
void in_parts(void (*task)(void *, int, int), void *work, int parts);

/* At least so many floats of this thread, on a cache line, until the next call for the same use. */
enum use { BY_PART, BY_CALL, USES };
float *scratch(enum use use, size_t floats);

/* The share [*begin, *end) of a part, in multiples of `unit`. */
static inline void share(int64_t total, int64_t unit, int part, int parts, int64_t *begin, int64_t *end) {
    int64_t units = (total + unit - 1) / unit;
    *begin = units * part / parts * unit;
    *end = units * (part + 1) / parts * unit;
    if (*end > total) *end = total;
    if (*begin > total) *begin = total;
}

#endif
