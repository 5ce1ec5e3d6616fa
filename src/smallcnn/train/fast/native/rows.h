/* Operations on a block of rows (the channels of one pixel each) while it is in the cache.

   A tensor is stored as its convolution wrote it. Each reader applies batch norm and activation:

       value = act(scale * data + shift)                     struct source

   The kernel that computes the gradient of a value turns it into dz, the gradient of the activation's input. It also
   accumulates sum(dz) and sum(dz * (data - mean)), which batch norm's gradient needs:   struct finish
   The gradient of the data is computed when it is read:

       gradient = c0 * dz + c1 * data + c2                    struct gradient  */

#ifndef ROWS_H
#define ROWS_H

#include "vectors.h"

enum { PLAIN, CLIP, LEAKY, HARD_SWISH, ACTIVATIONS };

struct source {
    const float *data, *scale, *shift; /* scale and shift: both or none */
    float low, high;                   /* bounds of CLIP; low is the slope of LEAKY */
    int act;
};

struct gradient {
    const float *dz, *data, *c0, *c1, *c2; /* c0 null: dz itself; c1 null: c0 * dz */
};

struct finish {
    struct source value;  /* data null: the gradient stays as it is */
    const float *addend;  /* null, or what earlier readers contributed */
    const float *mean;    /* null: no sums */
    double *sums;         /* (parts, 2, channels) */
};

INLINE vec activate(int act, vec low, vec high, vec z) { /* NaN stays NaN */
    switch (act) {
    case CLIP:
        z = where(z <= low, low, z);
        return where(z >= high, high, z);
    case LEAKY:
        return where(z <= 0, z * low, z);
    case HARD_SWISH: {
        vec gate = z + 3;
        gate = where(gate <= 0, splat(0), gate);
        gate = where(gate >= 6, splat(6), gate);
        return z * gate * (1.0f / 6);
    }
    default:
        return z;
    }
}

/* g times the activation's slope at z. */
INLINE vec through(int act, vec low, vec high, vec z, vec g) {
    switch (act) {
    case CLIP:
        return where((z <= low) | (z >= high), splat(0), g);
    case LEAKY:
        return where(z <= 0, g * low, g);
    case HARD_SWISH:
        return where(z <= -3, splat(0), where(z >= 3, g, g * (z * (1.0f / 3) + 0.5f)));
    default:
        return g;
    }
}

/* out = value, for `rows` rows of `columns` that start at `at` in s->data. */
void read_rows(const struct source *s, const float *at, int64_t rows, int columns, int64_t ld, float *out, int64_t ldo,
               int channel);

/* out = gradient, for rows that start at `offset` floats. */
void gradient_rows(const struct gradient *g, int64_t offset, int64_t rows, int columns, int64_t ld, float *out,
                   int64_t ldo, int channel);

/* Turns g, the gradient of a value, into dz in place. sums: (2, channels), see flush. */
void finish_rows(const struct finish *f, int64_t offset, int64_t rows, int columns, int64_t ld, float *g, int64_t ldg,
                 int channel, float *sums, int64_t channels);

/* Adds sum(y - pivot) and sum((y - pivot)^2) to sums (2, channels), see flush. The pivot is any row of y, so
   no digits are lost if the values are large and close together. */
void add_statistics(const float *y, int64_t rows, int columns, int64_t ld, const float *pivot, float *sums,
                    int64_t channels);

/* Sums are floats over a few hundred rows and doubles over all rows: adds `few` to `all` and clears it. */
void flush(float *few, double *all, int64_t count);

/* Converts sums (2, channels) of y - pivot and its square over `rows` rows to those of y. */
void unpivot(double *sums, const float *pivot, int64_t rows, int64_t channels);

#endif
