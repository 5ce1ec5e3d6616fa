/* Depthwise convolutions: one filter per channel.

   Rows of the image are read into a ring of cached lines, with batch norm and activation applied and zeros on both
   sides. In the backward pass a ring holds the gradient of the output. A line is padded by one register per pixel: at
   the tensor's own pitch, loads would wait for stores to addresses with the same low 12 bits. */

#include "ahead.h"
#include "rows.h"
#include "threads.h"

#define TAPS 3 /* rows and columns of a window computed at once: 9 weights stay in registers */
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers */
#define PIXELS 4      /* neighbours computed at once, which share the loads of their windows */
#define PIXELS_BACK 4 /* the same beside 9 gradients of weights */
#else
#define PIXELS 2
#define PIXELS_BACK 1
#endif

struct depthwise {
    int64_t images;
    int32_t height, width, channels, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, top, left;
};

/* Part of a window: pixels and weights for one register of channels. */
struct window {
    int rows, columns;         /* at most TAPS each */
    const float *at[TAPS];     /* the first pixel of each row; the others follow, `pitch` floats apart */
    const float *weight[TAPS]; /* likewise, `next` floats apart */
    float *slope[TAPS];        /* likewise: gradients of the weights */
    int64_t pitch, next;
};

/* `pixels` of out (+)= sum of pixel * weight over windows one pixel apart. */
INLINE void windows_of(int rows, int columns, int pixels, int add, const float *const *at, int64_t pitch,
                       vec weight[TAPS][TAPS], const float *out, int64_t ldo, int n, vec *total) {
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++) total[p] = add ? load_some(out + p * ldo, n) : (vec){0};
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
        for (int x = 0; x < columns + pixels - 1; x++) {
            vec pixel = load(at[i] + x * pitch);
#pragma GCC unroll 4
            for (int p = 0; p < pixels; p++)
                if (x >= p && x - p < columns) total[p] += pixel * weight[i][x - p];
        }
}

/* out[u] (+)= sum of pixel * weight over the window moved by u * step; adds to the statistics of out if `sums`. */
INLINE void apply_of(int rows, int columns, int add, const struct window *w, int64_t c, int64_t step, int64_t count,
                     float *out, int64_t channels, int n, const float *pivot, float *sums, struct ahead *ahead,
                     int fetches) {
    vec weight[TAPS][TAPS], total[PIXELS], sum = {0}, square = {0}, p = {0};
    const float *at[TAPS];
    int64_t pitch = w->pitch, each, u = 0; /* a local copy: stores might alias w */
    const float *coming = take(ahead, count * fetches, out, &each);
    if (sums) p = load_some(pivot + c, n);
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) {
        at[i] = w->at[i] + c;
#pragma GCC unroll 3
        for (int j = 0; j < columns; j++) weight[i][j] = load(w->weight[i] + j * w->next + c);
    }
    out += c;
#define ADVANCE(pixels)                                                                                               \
    do {                                                                                                              \
        for (int i = 0; i < (pixels) * fetches; i++, coming += each) fetch(coming);                                   \
        windows_of(rows, columns, pixels, add, at, pitch, weight, out, channels, n, total);                           \
        for (int i = 0; i < rows; i++) at[i] += (pixels) * step;                                                      \
        for (int i = 0; i < (pixels); i++, out += channels) {                                                         \
            vec d = total[i] - p;                                                                                     \
            store_some(out, total[i], n);                                                                             \
            sum += d;                                                                                                 \
            square += d * d;                                                                                          \
        }                                                                                                             \
    } while (0)
    for (; step == pitch && u + PIXELS <= count; u += PIXELS) ADVANCE(PIXELS);
    for (; u < count; u++) ADVANCE(1);
#undef ADVANCE
    if (sums) {
        store_some(sums + c, load_some(sums + c, n) + sum, n);
        store_some(sums + channels + c, load_some(sums + channels + c, n) + square, n);
    }
}

/* The same, and slope += sum over u of x[u] * pixel. */
INLINE void apply_back_of(int rows, int columns, int add, const struct window *w, int64_t c, const float *x,
                          int64_t ldx, int64_t count, float *out, int64_t ldo, int n, struct ahead *ahead,
                          int fetches) {
    vec weight[TAPS][TAPS], slope[TAPS][TAPS];
    const float *at[TAPS];
    int64_t pitch = w->pitch, each, u = 0;
    const float *coming = take(ahead, count * fetches, x, &each);
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) {
        at[i] = w->at[i] + c;
#pragma GCC unroll 3
        for (int j = 0; j < columns; j++) {
            weight[i][j] = load(w->weight[i] + j * w->next + c);
            slope[i][j] = (vec){0};
        }
    }
    out += c;
#define ADVANCE(pixels)                                                                                               \
    do {                                                                                                              \
        vec total[pixels], seen[pixels];                                                                              \
        for (int i = 0; i < (pixels) * fetches; i++, coming += each) fetch(coming);                                   \
        for (int i = 0; i < (pixels); i++, x += ldx) {                                                                \
            seen[i] = load(x);                                                                                        \
            total[i] = add ? load_some(out + i * ldo, n) : (vec){0};                                                  \
        }                                                                                                             \
        _Pragma("GCC unroll 3") for (int i = 0; i < rows; i++, at[i - 1] += (pixels) * pitch)                         \
            _Pragma("GCC unroll 6") for (int j = 0; j < columns + (pixels) - 1; j++) {                                \
            vec pixel = load(at[i] + j * pitch);                                                                      \
            _Pragma("GCC unroll 4") for (int p = 0; p < (pixels); p++) if (j >= p && j - p < columns) {               \
                total[p] += pixel * weight[i][j - p];                                                                 \
                slope[i][j - p] += pixel * seen[p];                                                                   \
            }                                                                                                         \
        }                                                                                                             \
        for (int i = 0; i < (pixels); i++, out += ldo) store_some(out, total[i], n);                                  \
    } while (0)
    for (; u + PIXELS_BACK <= count; u += PIXELS_BACK) ADVANCE(PIXELS_BACK);
    for (; u < count; u++) ADVANCE(1);
#undef ADVANCE
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < columns; j++) {
            float *to = w->slope[i] + j * w->next + c;
            store(to, load(to) + slope[i][j]);
        }
}

#define EACH_WINDOW(CALL, add)                                                                                        \
    switch (4 * w->rows + w->columns) {                                                                               \
    case 5: CALL(1, 1, add); break;                                                                                   \
    case 6: CALL(1, 2, add); break;                                                                                   \
    case 7: CALL(1, 3, add); break;                                                                                   \
    case 9: CALL(2, 1, add); break;                                                                                   \
    case 10: CALL(2, 2, add); break;                                                                                  \
    case 11: CALL(2, 3, add); break;                                                                                  \
    case 13: CALL(3, 1, add); break;                                                                                  \
    case 14: CALL(3, 2, add); break;                                                                                  \
    default: CALL(3, 3, add);                                                                                         \
    }

/* Channels [from, to) of out. */
static void apply(const struct window *w, int from, int to, int add, int64_t step, int64_t count, float *out,
                  int channels, const float *pivot, float *sums, struct ahead *ahead, int fetches) {
    for (int c = from; c < to; c += LANES) {
#define APPLY(rows, columns, add) \
    apply_of(rows, columns, add, w, c, step, count, out, channels, channels - c, pivot, sums, ahead, fetches)
        if (add)
            EACH_WINDOW(APPLY, 1)
        else
            EACH_WINDOW(APPLY, 0)
    }
}

/* x: channels from `from` on. */
static void apply_back(const struct window *w, int from, int to, int channels, int add, const float *x, int64_t ldx,
                       int64_t count, float *out, int64_t ldo, struct ahead *ahead, int fetches) {
    for (int c = from; c < to; c += LANES, x += LANES) {
#define APPLY_BACK(rows, columns, add) \
    apply_back_of(rows, columns, add, w, c, x, ldx, count, out, ldo, channels - c, ahead, fetches)
        if (add)
            EACH_WINDOW(APPLY_BACK, 1)
        else
            EACH_WINDOW(APPLY_BACK, 0)
    }
}

/* Channels of a row that go through all operations at once, so that six rows of them fit the first-level cache. */
static int chunk_of(int width) { return (int)ROUND_UP(MAX(1, 1600 / width), 2 * LANES); }

/* Lines to fetch with each of so many steps. */
static int fetches_in(const struct ahead *ahead, int64_t steps) {
    return (int)((floats_ahead(ahead) + LINE * steps - 1) / (LINE * steps));
}

struct forward {
    const struct depthwise *shape;
    const struct source *source;
    const float *weights;
    float *out;
    double *sums;
};

static int64_t pitch_of(const struct depthwise *d) { return ROUND_UP(d->channels, LANES) + LANES; }

static void forward_part(void *given, int part, int parts) {
    const struct forward *f = given;
    const struct depthwise *d = f->shape;
    int C = d->channels, kh = d->kernel_height, kw = d->kernel_width;
    int64_t pitch = pitch_of(d), ldw = ROUND_UP(C, LANES), begin, end;
    int64_t line = MAX((d->out_width - 1) * d->stride_x + kw, d->left + d->width) * pitch;
    share(d->images, 1, part, parts, &begin, &end);
    float *lines = scratch(BY_PART, (size_t)(kh * line + 3 * C)), *few = lines + kh * line;
    float *pivot = few + 2 * C;
    memset(lines, 0, (size_t)(kh * line + 2 * C) * sizeof(float));
    double *sums = f->sums ? f->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    int chunk = chunk_of(d->out_width), windows = (kh + TAPS - 1) / TAPS * ((kw + TAPS - 1) / TAPS);
    int64_t in_row = (int64_t)d->width * C, out_row = (int64_t)d->out_width * C, steps = windows * out_row / LANES;
    for (int64_t image = begin; image < end; image++) {
        const float *data = f->source->data + image * d->height * in_row;
        int read = 0; /* rows so far */
        for (int y = 0; y < d->out_height; y++) {
            int fused = image > begin || y; /* with statistics, except for the first row, which provides the pivot */
            int top = y * d->stride_y - d->top, first = MAX(0, -top), last = MIN(kh, d->height - top);
            int next = MAX(read, top), needed = MIN(d->height, top + kh);
            float *out = f->out + (image * d->out_height + y) * out_row;
            struct ahead ahead = {.count = 0};
            expect(&ahead, out + out_row, out_row);
            expect(&ahead, data + needed * in_row, d->stride_y * in_row);
            int fetches = fetches_in(&ahead, MAX(1, steps));
            if (first >= last) { /* the window sees only padding */
                memset(out, 0, (size_t)out_row * sizeof(float));
                fused = 0;
            }
            for (int c = 0; c < C; c += chunk) {
                int to = MIN(C, c + chunk);
                for (int r = next; r < needed; r++)
                    read_rows(f->source, data + r * in_row + c, d->width, to - c, C,
                              lines + r % kh * line + d->left * pitch + c, pitch, c);
                for (int i = first; i < last; i += TAPS)
                    for (int j = 0; j < kw; j += TAPS) {
                        struct window w = {.rows = MIN(TAPS, last - i), .columns = MIN(TAPS, kw - j), .pitch = pitch};
                        w.next = ldw;
                        for (int r = 0; r < w.rows; r++) {
                            w.at[r] = lines + (top + i + r) % kh * line + j * pitch;
                            w.weight[r] = f->weights + ((i + r) * kw + j) * ldw;
                        }
                        int done = i + TAPS >= last && j + TAPS >= kw;
                        apply(&w, c, to, i > first || j, d->stride_x * pitch, d->out_width, out, C, pivot,
                              sums && fused && done ? few : NULL, &ahead, fetches);
                    }
            }
            read = MAX(read, needed);
            if (sums && !fused) {
                if (image == begin && !y) memcpy(pivot, out, (size_t)C * sizeof(float));
                add_statistics(out, d->out_width, C, C, pivot, few, C);
            }
        }
        if (sums) flush(few, sums, 2 * C);
    }
    if (sums && begin < end) unpivot(sums, pivot, (end - begin) * d->out_height * d->out_width, C);
}

static int64_t packed_floats(const struct depthwise *d) {
    return (int64_t)d->kernel_height * d->kernel_width * ROUND_UP(d->channels, LANES);
}

/* weights (channels, taps) -> (taps, channels rounded up to whole registers), padded with zeros. */
static void pack(const struct depthwise *d, const float *weights, float *packed) {
    int taps = d->kernel_height * d->kernel_width, ld = ROUND_UP(d->channels, LANES);
    memset(packed, 0, (size_t)packed_floats(d) * sizeof(float));
    for (int c = 0; c < d->channels; c++)
        for (int t = 0; t < taps; t++) packed[t * ld + c] = weights[c * taps + t];
}

/* out (images, out_height, out_width, channels) = source * weights (channels, kernel height, kernel width); sums as in
   fast_conv. */
void fast_depthwise(int parts, const struct depthwise *shape, const struct source *source, const float *weights,
                    float *out, double *sums) {
    float *packed = scratch(BY_CALL, (size_t)packed_floats(shape));
    pack(shape, weights, packed);
    struct forward f = {shape, source, packed, out, sums};
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
    int chunk = chunk_of(d->width);
    int64_t pitch = pitch_of(d), ldw = ROUND_UP(C, LANES), taps = packed_floats(d);
    int64_t line = (before + MAX(d->out_width, (d->width - 1 + d->left) / sx + 1)) * pitch, begin, end;
    share(d->images, 1, part, parts, &begin, &end);
    size_t needed = (size_t)(ring * line + d->width * chunk + taps + 2 * C);
    float *lines = memset(scratch(BY_PART, needed), 0, needed * sizeof(float)), *seen = lines + ring * line;
    float *slopes = seen + d->width * chunk, *few = slopes + taps, *to_weights = b->to_weights + part * taps;
    memset(to_weights, 0, (size_t)taps * sizeof(float));
    double *sums = b->finish->sums ? b->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    int phases = MIN(sx, d->width);
    int64_t in_row = (int64_t)d->width * C, out_row = (int64_t)d->out_width * C, steps = in_row / LANES;
    const struct gradient *gradient = b->gradient;
    for (int64_t image = begin; image < end; image++) {
        int read = 0; /* output rows so far */
        for (int y = 0; y < d->height; y++) {
            int64_t offset = (image * d->height + y) * in_row, given = image * d->out_height * out_row;
            int last = MIN(d->out_height - 1, (y + d->top) / sy), lowest = MAX(0, -down(kh - 1 - y - d->top, sy));
            int next = MAX(read, lowest);
            float *to_row = b->to_source + offset;
            read = MAX(read, last + 1);
            struct ahead ahead = {.count = 0};
            expect(&ahead, to_row + in_row, in_row);
            expect(&ahead, b->source->data + offset + in_row, in_row);
            expect(&ahead, gradient->c1 ? gradient->data + given + read * out_row : NULL, out_row / sy);
            expect(&ahead, gradient->dz + given + read * out_row, out_row / sy);
            int fetches = fetches_in(&ahead, MAX(1, steps));
            for (int c = 0; c < C; c += chunk) {
                int to = MIN(C, c + chunk);
                for (int r = next; r <= last; r++)
                    gradient_rows(gradient, given + r * out_row + c, d->out_width, to - c, C,
                                  lines + r % ring * line + before * pitch + c, pitch, c);
                read_rows(b->source, b->source->data + offset + c, d->width, to - c, C, seen, chunk, c);
                /* Pixels sx apart use the same columns of the window: those with phase + left - column = sx * place.
                   The place grows by one as the column falls by sx. */
                for (int phase = 0; phase < phases; phase++) {
                    int64_t many = (d->width - phase + sx - 1) / sx;
                    int first = (phase + d->left) % sx, columns = first < kw ? (kw - 1 - first) / sx + 1 : 0, add = 0;
                    for (int low = lowest; low <= last && columns; low += TAPS)
                        for (int j = 0; j < columns; j += TAPS, add = 1) {
                            struct window w = {.rows = MIN(TAPS, last + 1 - low), .columns = MIN(TAPS, columns - j)};
                            int column = first + (columns - 1 - j) * sx;
                            w.pitch = pitch;
                            w.next = -sx * ldw;
                            for (int r = 0; r < w.rows; r++) {
                                int tap = (y + d->top - (low + r) * sy) * kw + column;
                                w.at[r] = lines + (low + r) % ring * line +
                                          (before + down(phase + d->left - column, sx)) * pitch;
                                w.weight[r] = b->weights + tap * ldw;
                                w.slope[r] = slopes + tap * ldw;
                            }
                            apply_back(&w, c, to, C, add, seen + phase * chunk, sx * chunk, many,
                                       to_row + (int64_t)phase * C, (int64_t)sx * C, &ahead, fetches);
                        }
                    for (int64_t u = 0; !add && u < many; u++)
                        memset(to_row + (u * sx + phase) * C + c, 0, (size_t)(to - c) * sizeof(float));
                }
                finish_rows(b->finish, offset + c, d->width, to - c, C, to_row + c, C, c, few, C);
            }
        }
        for (int64_t i = 0; i < taps; i++) to_weights[i] += slopes[i];
        memset(slopes, 0, (size_t)taps * sizeof(float));
        if (sums) flush(few, sums, 2 * C);
    }
}

/* Gradients of fast_depthwise: to_source is that of the source, finished; to_weights is laid out like the weights. */
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
