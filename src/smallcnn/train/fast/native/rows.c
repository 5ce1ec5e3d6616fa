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

/* `wide` registers of channels, down the rows; the last register has `n` lanes. */
INLINE void finish_column(int act, int affine, int wide, const struct finish *f, int64_t offset, int64_t rows,
                          int64_t ld, float *g, int64_t ldg, int channel, int n, float *sums, int64_t channels) {
    const struct source *s = &f->value;
    const float *data = s->data + offset, *addend = f->addend + offset;
    vec low = splat(s->low), high = splat(s->high), scale[2], shift[2], mean[2], sum[2], product[2];
    int has_data = s->data != NULL, has_addend = f->addend != NULL;
    for (int w = 0; w < wide; w++) {
        int at = channel + w * LANES;
        sum[w] = product[w] = mean[w] = (vec){0};
        if (affine) scale[w] = load_some(s->scale + at, n), shift[w] = load_some(s->shift + at, n);
        if (f->mean) mean[w] = load_some(f->mean + at, n);
    }
    for (int64_t r = 0; r < rows; r++, data += ld, addend += ld, g += ldg)
        for (int w = 0; w < wide; w++) {
            vec dz = load_some(g + w * LANES, n);
            if (has_addend) dz += load_some(addend + w * LANES, n);
            if (has_data) {
                vec x = load_some(data + w * LANES, n);
                dz = through(act, low, high, affine ? x * scale[w] + shift[w] : x, dz);
                sum[w] += dz;
                product[w] += dz * (x - mean[w]);
            }
            store_some(g + w * LANES, dz, n);
        }
    for (int w = 0; f->mean && w < wide; w++) {
        float *to = sums + channel + w * LANES;
        store_some(to, load_some(to, n) + sum[w], n);
        store_some(to + channels, load_some(to + channels, n) + product[w], n);
    }
}

INLINE void finish_as(int act, int affine, const struct finish *f, int64_t offset, int64_t rows, int columns,
                      int64_t ld, float *g, int64_t ldg, int channel, float *sums, int64_t channels) {
    int c = 0;
    for (; c + 2 * LANES <= columns; c += 2 * LANES)
        finish_column(act, affine, 2, f, offset + c, rows, ld, g + c, ldg, channel + c, LANES, sums, channels);
    for (; c + LANES <= columns; c += LANES)
        finish_column(act, affine, 1, f, offset + c, rows, ld, g + c, ldg, channel + c, LANES, sums, channels);
    if (c < columns)
        finish_column(act, affine, 1, f, offset + c, rows, ld, g + c, ldg, channel + c, columns - c, sums, channels);
}

void finish_rows(const struct finish *f, int64_t offset, int64_t rows, int columns, int64_t ld, float *g, int64_t ldg,
                 int channel, float *sums, int64_t channels) {
    if (!f->value.data && !f->addend) return;
#define FINISH(act, affine) finish_as(act, affine, f, offset, rows, columns, ld, g, ldg, channel, sums, channels)
    FOR_EACH_KIND(f->value.act, f->value.scale, FINISH)
}

INLINE void statistics_column(int wide, const float *y, int64_t rows, int64_t ld, const float *pivot, int n,
                              float *sums, int64_t channels) {
    vec p[4], sum[4], square[4];
    for (int w = 0; w < wide; w++) sum[w] = square[w] = (vec){0}, p[w] = load_some(pivot + w * LANES, n);
    for (int64_t r = 0; r < rows; r++, y += ld)
        for (int w = 0; w < wide; w++) {
            vec d = load_some(y + w * LANES, n) - p[w];
            sum[w] += d;
            square[w] += d * d;
        }
    for (int w = 0; w < wide; w++, sums += LANES) {
        store_some(sums, load_some(sums, n) + sum[w], n);
        store_some(sums + channels, load_some(sums + channels, n) + square[w], n);
    }
}

void add_statistics(const float *y, int64_t rows, int columns, int64_t ld, const float *pivot, float *sums,
                    int64_t channels) {
    int c = 0;
    for (; c + 4 * LANES <= columns; c += 4 * LANES)
        statistics_column(4, y + c, rows, ld, pivot + c, LANES, sums + c, channels);
    for (; c + 2 * LANES <= columns; c += 2 * LANES)
        statistics_column(2, y + c, rows, ld, pivot + c, LANES, sums + c, channels);
    for (; c + LANES <= columns; c += LANES)
        statistics_column(1, y + c, rows, ld, pivot + c, LANES, sums + c, channels);
    if (c < columns) statistics_column(1, y + c, rows, ld, pivot + c, columns - c, sums + c, channels);
}

void flush(float *few, double *all, int64_t count) {
    for (int64_t i = 0; i < count; i++) all[i] += few[i];
    memset(few, 0, (size_t)count * sizeof(float));
}

void unpivot(double *sums, const float *pivot, int64_t rows, int64_t channels) {
    for (int64_t c = 0; c < channels; c++) {
        double p = pivot[c], sum = sums[c];
        sums[c] = sum + (double)rows * p;
        sums[channels + c] += 2 * p * sum + (double)rows * p * p;
    }
}
