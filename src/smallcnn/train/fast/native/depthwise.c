/* Depthwise convolutions: one filter per channel.

   Rows of the image are read into a ring of cached lines with batch norm and activation applied and zeros at both
   sides; backwards a ring holds the gradient of the output. Channels go in slices, so that the ring stays small. */

#include "rows.h"
#include "threads.h"

#define SLICE 64 /* channels */
#define TAPS 9   /* held in registers at once */

struct depthwise {
    int64_t images;
    int32_t height, width, channels, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, top, left;
};

/* out[u] (+)= sum over taps of at[t][u * step] * weight[t], one register's width of channels. */
INLINE void apply_of(int taps, int add, const float **at, const float **weight, int64_t offset, int64_t step,
                     int64_t count, float *out, int64_t ldo, int n) {
    vec w[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++) w[t] = load(weight[t] + offset);
    for (int64_t u = 0; u < count; u++, out += ldo) {
        vec sum = add ? load_some(out, n) : (vec){0};
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++) sum += load(at[t] + offset + u * step) * w[t];
        store_some(out, sum, n);
    }
}

/* out[u] (+)= sum over taps of at[t][u * step] * weight[t]; slope[t] += sum over u of at[t][u * step] * x[u]. */
INLINE void apply_back_of(int taps, int add, const float **at, const float **weight, float **slope, int64_t offset,
                          int64_t step, const float *x, int64_t ldx, int64_t count, float *out, int64_t ldo, int n) {
    vec s[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++) s[t] = load(slope[t] + offset);
    for (int64_t u = 0; u < count; u++, out += ldo, x += ldx) {
        vec sum = add ? load_some(out, n) : (vec){0}, seen = load(x);
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++) {
            vec g = load(at[t] + offset + u * step);
            sum += g * load(weight[t] + offset);
            s[t] += g * seen;
        }
        store_some(out, sum, n);
    }
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++) store(slope[t] + offset, s[t]);
}

#define BY_TAPS(CALL)                                                                                                 \
    switch (taps) {                                                                                                   \
    case 1: CALL(1); break;                                                                                           \
    case 2: CALL(2); break;                                                                                           \
    case 3: CALL(3); break;                                                                                           \
    case 4: CALL(4); break;                                                                                           \
    case 5: CALL(5); break;                                                                                           \
    case 6: CALL(6); break;                                                                                           \
    case 7: CALL(7); break;                                                                                           \
    case 8: CALL(8); break;                                                                                           \
    default: CALL(9);                                                                                                 \
    }

/* All channels of a slice, any number of taps. */
static void apply(int count_of_taps, const float **at, const float **weight, int64_t step, int64_t count, float *out,
                  int64_t ldo, int channels) {
    for (int first = 0; first < count_of_taps; first += TAPS) {
        int taps = MIN(TAPS, count_of_taps - first);
        const float **a = at + first, **w = weight + first;
        for (int c = 0; c < channels; c += LANES) {
#define APPLY(taps)                                                                                                   \
    if (first)                                                                                                        \
        apply_of(taps, 1, a, w, c, step, count, out + c, ldo, channels - c);                                          \
    else                                                                                                              \
        apply_of(taps, 0, a, w, c, step, count, out + c, ldo, channels - c)
            BY_TAPS(APPLY)
        }
    }
}

static void apply_back(int count_of_taps, const float **at, const float **weight, float **slope, int64_t step,
                       const float *x, int64_t ldx, int64_t count, float *out, int64_t ldo, int channels) {
    for (int first = 0; first < count_of_taps; first += TAPS) {
        int taps = MIN(TAPS, count_of_taps - first);
        const float **a = at + first, **w = weight + first;
        float **s = slope + first;
        for (int c = 0; c < channels; c += LANES) {
#define APPLY_BACK(taps)                                                                                              \
    if (first)                                                                                                        \
        apply_back_of(taps, 1, a, w, s, c, step, x + c, ldx, count, out + c, ldo, channels - c);                      \
    else                                                                                                              \
        apply_back_of(taps, 0, a, w, s, c, step, x + c, ldx, count, out + c, ldo, channels - c)
            BY_TAPS(APPLY_BACK)
        }
    }
}

struct forward {
    const struct depthwise *shape;
    const struct source *source;
    const float *weights, *pivot; /* weights (taps, channels rounded up) */
    float *out;
    double *sums;
};

static void forward_part(void *given, int part, int parts) {
    const struct forward *f = given;
    const struct depthwise *d = f->shape;
    int C = d->channels, taps = d->kernel_height * d->kernel_width, ring = d->kernel_height;
    int64_t ldw = ROUND_UP(C, LANES), needed = (int64_t)(d->out_width - 1) * d->stride_x + d->kernel_width;
    int64_t line = MAX(needed, d->left + d->width) * SLICE, begin, end;
    share(d->images, 1, part, parts, &begin, &end);
    float *lines = scratch(BY_PART, (size_t)(ring * line));
    double *sums = f->sums ? f->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    const float *at[taps], *weight[taps];
    for (int c0 = 0; c0 < C; c0 += SLICE) {
        int channels = MIN(SLICE, C - c0);
        int64_t wide = ROUND_UP(channels, LANES);
        memset(lines, 0, (size_t)(ring * line) * sizeof(float));
        for (int64_t image = begin; image < end; image++) {
            int next = 0; /* row to read */
            for (int y = 0; y < d->out_height; y++) {
                int first = y * d->stride_y - d->top, count = 0;
                for (next = MAX(next, first); next < MIN(d->height, first + d->kernel_height); next++)
                    read_rows(f->source, f->source->data + (image * d->height + next) * d->width * C + c0, d->width,
                              channels, C, lines + next % ring * line + d->left * wide, wide, c0);
                for (int i = MAX(0, -first); i < MIN(d->kernel_height, d->height - first); i++)
                    for (int j = 0; j < d->kernel_width; j++, count++) {
                        at[count] = lines + (first + i) % ring * line + j * wide;
                        weight[count] = f->weights + (i * d->kernel_width + j) * ldw + c0;
                    }
                float *out = f->out + (image * d->out_height + y) * d->out_width * C + c0;
                if (!count) /* the window sees only padding */
                    for (int x = 0; x < d->out_width; x++) memset(out + (int64_t)x * C, 0, (size_t)channels * 4);
                apply(count, at, weight, d->stride_x * wide, d->out_width, out, C, channels);
                if (sums) add_statistics(out, d->out_width, channels, C, f->pivot + c0, sums + c0, C);
            }
        }
    }
}

/* weights (channels, taps) -> (taps, channels rounded up to whole registers), zeros behind. */
static void pack(const struct depthwise *d, const float *weights, float *packed) {
    int taps = d->kernel_height * d->kernel_width;
    int64_t ld = ROUND_UP(d->channels, LANES);
    for (int t = 0; t < taps; t++)
        for (int64_t c = 0; c < ld; c++) packed[t * ld + c] = c < d->channels ? weights[c * taps + t] : 0;
}

static int64_t packed_floats(const struct depthwise *d) {
    return (int64_t)d->kernel_height * d->kernel_width * ROUND_UP(d->channels, LANES);
}

/* out (images, out_height, out_width, channels) = source * weights (channels, kernel height, kernel width); sums as for
   fast_conv. */
void fast_depthwise(int parts, const struct depthwise *shape, const struct source *source, const float *weights,
                    const float *pivot, float *out, double *sums) {
    float *packed = scratch(BY_CALL, (size_t)packed_floats(shape));
    pack(shape, weights, packed);
    struct forward f = {shape, source, packed, pivot, out, sums};
    in_parts(forward_part, &f, parts);
}

struct backward {
    const struct depthwise *shape;
    const struct source *source;
    const struct gradient *gradient;
    const struct finish *finish;
    const float *weights;
    float *to_source, *to_weights; /* to_weights: (parts, packed_floats) */
};

static int down(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); } /* a / b, rounded down */

static void backward_part(void *given, int part, int parts) {
    const struct backward *b = given;
    const struct depthwise *d = b->shape;
    int C = d->channels, kh = d->kernel_height, kw = d->kernel_width, sy = d->stride_y, sx = d->stride_x;
    int ring = (kh + sy - 1) / sy + 1, before = kw; /* zero pixels before a line of the ring */
    int64_t ldw = ROUND_UP(C, LANES), begin, end;
    int64_t pixels = before + MAX(d->out_width, (d->width - 1 + d->left) / sx + 1), line = pixels * SLICE;
    share(d->images, 1, part, parts, &begin, &end);
    float *lines = scratch(BY_PART, (size_t)(ring * line + (int64_t)d->width * SLICE)), *seen = lines + ring * line;
    float *to_weights = b->to_weights + part * packed_floats(d);
    memset(to_weights, 0, (size_t)packed_floats(d) * sizeof(float));
    double *sums = b->finish->sums ? b->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    const float *at[kh * kw], *weight[kh * kw];
    float *slope[kh * kw], partial[kh * kw * SLICE] __attribute__((aligned(64)));
    for (int c0 = 0; c0 < C; c0 += SLICE) {
        int channels = MIN(SLICE, C - c0);
        int64_t wide = ROUND_UP(channels, LANES);
        memset(lines, 0, (size_t)(ring * line + (int64_t)d->width * SLICE) * sizeof(float));
        for (int64_t image = begin; image < end; image++) {
            int next = 0; /* output row to read */
            memset(partial, 0, sizeof(partial));
            for (int y = 0; y < d->height; y++) {
                int64_t offset = (image * d->height + y) * d->width * C + c0;
                int last = MIN(d->out_height - 1, (y + d->top) / sy), lowest = -down(kh - 1 - y - d->top, sy);
                for (next = MAX(next, lowest); next <= last; next++)
                    gradient_rows(b->gradient, (image * d->out_height + next) * d->out_width * C + c0, d->out_width,
                                  channels, C, lines + next % ring * line + before * wide, wide, c0);
                read_rows(b->source, b->source->data + offset, d->width, channels, C, seen, wide, c0);
                for (int phase = 0; phase < MIN(sx, d->width); phase++) {
                    int count = 0;
                    for (int i = 0; i < kh; i++) {
                        int row = y + d->top - i;
                        if (row < 0 || row % sy || row / sy >= d->out_height) continue;
                        for (int j = 0; j < kw; j++) {
                            int place = phase + d->left - j;
                            if (place % sx) continue;
                            at[count] = lines + row / sy % ring * line + (before + down(place, sx)) * wide;
                            weight[count] = b->weights + (i * kw + j) * ldw + c0;
                            slope[count++] = partial + (i * kw + j) * SLICE;
                        }
                    }
                    int64_t many = (d->width - phase + sx - 1) / sx;
                    float *out = b->to_source + offset + (int64_t)phase * C;
                    for (int64_t u = 0; !count && u < many; u++) memset(out + u * sx * C, 0, (size_t)channels * 4);
                    apply_back(count, at, weight, slope, wide, seen + phase * wide, sx * wide, many, out,
                               (int64_t)sx * C, channels);
                }
                finish_rows(b->finish, offset, d->width, channels, C, b->to_source + offset, C, c0, sums, C);
            }
            for (int t = 0; t < kh * kw; t++)
                for (int c = 0; c < channels; c++) to_weights[t * ldw + c0 + c] += partial[t * SLICE + c];
        }
    }
}

/* The gradients of fast_depthwise: to_source that of the source, finished; to_weights laid out like the weights. */
void fast_depthwise_backward(int parts, const struct depthwise *shape, const struct source *source,
                             const struct gradient *gradient, const struct finish *finish, const float *weights,
                             float *to_source, float *to_weights) {
    int taps = shape->kernel_height * shape->kernel_width;
    int64_t size = packed_floats(shape), ld = ROUND_UP(shape->channels, LANES);
    float *packed = scratch(BY_CALL, (size_t)((parts + 1) * size)), *partial = packed + size;
    pack(shape, weights, packed);
    struct backward b = {shape, source, gradient, finish, packed, to_source, partial};
    in_parts(backward_part, &b, parts);
    for (int c = 0; c < shape->channels; c++)
        for (int t = 0; t < taps; t++) {
            float sum = 0;
            for (int part = 0; part < parts; part++) sum += partial[part * size + t * ld + c];
            to_weights[(int64_t)c * taps + t] = sum;
        }
}
