/* Memory that comes next. Multiplication leaves the memory idle, so its loops fetch what the next block of rows reads and
   writes into the second-level cache, a line or two with each step. */

#ifndef AHEAD_H
#define AHEAD_H

#include "vectors.h"

#define LINE 16 /* floats in a line of the cache */

struct ahead {
    struct {
        const float *at;
        int64_t floats;
    } ranges[6]; /* the last one first */
    int count;
};

/* Adds a range; nothing if `at` is null or the range is empty. */
INLINE void expect(struct ahead *a, const float *at, int64_t floats) {
    if (!at || floats <= 0) return;
    a->ranges[a->count].at = at;
    a->ranges[a->count++].floats = floats;
}

INLINE int64_t floats_ahead(const struct ahead *a) {
    int64_t floats = 0;
    for (int i = 0; i < a->count; i++) floats += a->ranges[i].floats;
    return floats;
}

/* Where a loop of so many fetches starts, and the floats between two of them: 0 if nothing is left, to fetch the line
   at `idle` again, which costs less than a branch. It may fetch a little past the end of a range. */
INLINE const float *take(struct ahead *a, int64_t fetches, const float *idle, int64_t *each) {
    *each = 0;
    if (!a->count) return idle;
    *each = LINE;
    const float *at = a->ranges[a->count - 1].at;
    a->ranges[a->count - 1].at += fetches * LINE;
    if ((a->ranges[a->count - 1].floats -= fetches * LINE) <= 0) a->count--;
    return at;
}

INLINE void fetch(const float *at) { __builtin_prefetch(at, 0, 2); }

#endif
