/* What is done to a block of rows (one pixel's channels each) while it is in the cache.

   A tensor is kept as its convolution wrote it. Who reads it applies batch norm and activation:

       value = act(scale * data + shift)                     struct source

   Who computes the gradient of a value turns it into that of the activation's input, dz, and adds up what batch norm's
   own gradient needs, sum(dz) and sum(dz * (data - mean)):   struct finish
   The gradient of the data follows when it is read:

       gradient = c0 * dz + c1 * data + c2                    struct gradient  */

#ifndef ROWS_H
#define ROWS_H

#include "vectors.h"

enum { PLAIN, CLIP, LEAKY, HARD_SWISH, ACTIVATIONS };

struct source {
    const float *data, *scale, *shift; /* scale and shift: both or none */
    float low, high;                   /* of CLIP; of LEAKY low is the slope */
    int act;
};

struct gradient {
    const float *dz, *data, *c0, *c1, *c2; /* c0 null: dz itself; c1 null: c0 * dz */
};

struct finish {
    struct source value;  /* data null: the gradient is left as it is */
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

/* out = value; `at` is where `rows` rows of `columns` begin in s->data. */
void read_rows(const struct source *s, const float *at, int64_t rows, int columns, int64_t ld, float *out, int64_t ldo,
               int channel);

/* out = gradient, of rows that begin at `offset` floats. */
void gradient_rows(const struct gradient *g, int64_t offset, int64_t rows, int columns, int64_t ld, float *out,
                   int64_t ldo, int channel);

/* In place: g, the gradient of a value, becomes dz. sums: (2, channels), see flush. */
void finish_rows(const struct finish *f, int64_t offset, int64_t rows, int columns, int64_t ld, float *g, int64_t ldg,
                 int channel, float *sums, int64_t channels);

/* Adds sum(y - pivot) and sum((y - pivot)^2) to sums (2, channels), see flush. The pivot, any row of y, is of the size
   of the values, so that no digits are lost where they lie far from zero and close together. */
void add_statistics(const float *y, int64_t rows, int columns, int64_t ld, const float *pivot, float *sums,
                    int64_t channels);

/* Sums are floats over a few hundred rows, doubles over all: adds `few` to `all` and clears it. */
void flush(float *few, double *all, int64_t count);

/* Sums (2, channels) of y - pivot and its square over `rows` rows become those of y. */
void unpivot(double *sums, const float *pivot, int64_t rows, int64_t channels);

#endif
