#include "rows.h"

INLINE void read_as(int act, int affine, const struct source *s, const float *at, int64_t rows, int columns, int64_t ld,
                    float *out, int64_t ldo, int channel) {
    vec low = splat(s->low), high = splat(s->high);
    const float *scale = s->scale + channel, *shift = s->shift + channel;
    for (int64_t r = 0; r < rows; r++, at += ld, out += ldo) {
        int c = 0;
        for (; c + LANES <= columns; c += LANES) {
            vec z = load(at + c);
            if (affine) z = z * load(scale + c) + load(shift + c);
            store(out + c, activate(act, low, high, z));
        }
        if (c < columns) {
            int n = columns - c;
            vec z = load_first(at + c, n);
            if (affine) z = z * load_first(scale + c, n) + load_first(shift + c, n);
            store_first(out + c, activate(act, low, high, z), n);
        }
    }
}

#define FOR_EACH_KIND(act, affine, body)                                                                              \
    switch (2 * (act) + ((affine) != 0)) {                                                                            \
    case 2 * PLAIN: body(PLAIN, 0); break;                                                                            \
    case 2 * PLAIN + 1: body(PLAIN, 1); break;                                                                        \
    case 2 * CLIP: body(CLIP, 0); break;                                                                              \
    case 2 * CLIP + 1: body(CLIP, 1); break;                                                                          \
    case 2 * LEAKY: body(LEAKY, 0); break;                                                                            \
    case 2 * LEAKY + 1: body(LEAKY, 1); break;                                                                        \
    case 2 * HARD_SWISH: body(HARD_SWISH, 0); break;                                                                  \
    default: body(HARD_SWISH, 1);                                                                                     \
    }

void read_rows(const struct source *s, const float *at, int64_t rows, int columns, int64_t ld, float *out, int64_t ldo,
               int channel) {
#define READ(act, affine) read_as(act, affine, s, at, rows, columns, ld, out, ldo, channel)
    FOR_EACH_KIND(s->act, s->scale, READ)
}

INLINE vec combine(int terms, const struct gradient *g, int64_t i, int c, int n) {
    vec dz = load_some(g->dz + i, n);
    if (terms == 0) return dz;
    dz = dz * load_some(g->c0 + c, n);
    if (terms == 1) return dz;
    return dz + (load_some(g->data + i, n) * load_some(g->c1 + c, n) + load_some(g->c2 + c, n));
}

INLINE void gradient_as(int terms, const struct gradient *g, int64_t offset, int64_t rows, int columns, int64_t ld,
                        float *out, int64_t ldo, int channel) {
    for (int64_t r = 0; r < rows; r++, offset += ld, out += ldo) {
        int c = 0;
        for (; c + LANES <= columns; c += LANES) store(out + c, combine(terms, g, offset + c, channel + c, LANES));
        if (c < columns) store_first(out + c, combine(terms, g, offset + c, channel + c, columns - c), columns - c);
    }
}

void gradient_rows(const struct gradient *g, int64_t offset, int64_t rows, int columns, int64_t ld, float *out,
                   int64_t ldo, int channel) {
    if (!g->c0)
        gradient_as(0, g, offset, rows, columns, ld, out, ldo, channel);
    else if (!g->c1)
        gradient_as(1, g, offset, rows, columns, ld, out, ldo, channel);
    else
        gradient_as(2, g, offset, rows, columns, ld, out, ldo, channel);
}

/* One register's width of channels, down the rows. */
INLINE void finish_column(int act, int affine, const struct finish *f, int64_t offset, int64_t rows, int64_t ld,
                          float *g, int64_t ldg, int channel, int n, double *sums, int64_t channels) {
    const struct source *s = &f->value;
    vec low = splat(s->low), high = splat(s->high), scale = {0}, shift = {0}, mean = {0}, sum = {0}, product = {0};
    if (affine) scale = load_some(s->scale + channel, n), shift = load_some(s->shift + channel, n);
    if (f->mean) mean = load_some(f->mean + channel, n);
    for (int64_t r = 0; r < rows; r++, offset += ld, g += ldg) {
        vec dz = load_some(g, n);
        if (f->addend) dz += load_some(f->addend + offset, n);
        if (s->data) {
            vec x = load_some(s->data + offset, n);
            dz = through(act, low, high, affine ? x * scale + shift : x, dz);
            sum += dz;
            product += dz * (x - mean);
        }
        store_some(g, dz, n);
    }
    if (f->mean)
        for (int i = 0; i < MIN(n, LANES); i++) {
            sums[channel + i] += sum[i];
            sums[channels + channel + i] += product[i];
        }
}

INLINE void finish_as(int act, int affine, const struct finish *f, int64_t offset, int64_t rows, int columns,
                      int64_t ld, float *g, int64_t ldg, int channel, double *sums, int64_t channels) {
    int c = 0;
    for (; c + LANES <= columns; c += LANES)
        finish_column(act, affine, f, offset + c, rows, ld, g + c, ldg, channel + c, LANES, sums, channels);
    if (c < columns)
        finish_column(act, affine, f, offset + c, rows, ld, g + c, ldg, channel + c, columns - c, sums, channels);
}

void finish_rows(const struct finish *f, int64_t offset, int64_t rows, int columns, int64_t ld, float *g, int64_t ldg,
                 int channel, double *sums, int64_t channels) {
    if (!f->value.data && !f->addend) return;
#define FINISH(act, affine) finish_as(act, affine, f, offset, rows, columns, ld, g, ldg, channel, sums, channels)
    FOR_EACH_KIND(f->value.act, f->value.scale, FINISH)
}

void add_statistics(const float *y, int64_t rows, int columns, int64_t ld, const float *pivot, double *sums,
                    int64_t channels) {
    for (int c = 0; c < columns; c += LANES) {
        int n = columns - c;
        vec p = load_some(pivot + c, n), sum = {0}, square = {0};
        const float *at = y + c;
        if (n >= LANES)
            for (int64_t r = 0; r < rows; r++, at += ld) {
                vec d = load(at) - p;
                sum += d, square += d * d;
            }
        else
            for (int64_t r = 0; r < rows; r++, at += ld) {
                vec d = load_first(at, n) - p;
                sum += d, square += d * d;
            }
        for (int i = 0; i < MIN(n, LANES); i++) {
            sums[c + i] += sum[i];
            sums[channels + c + i] += square[i];
        }
    }
}
