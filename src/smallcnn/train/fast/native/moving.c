/* Operations between convolutions: batch norm's vectors, copies, sums, pools, channel moves. */

#include <math.h>

#include "rows.h"
#include "threads.h"

#define BLOCK 32 /* rows, which stay in the cache between two passes */

/* ---- Batch norm: from sums over the batch to one factor and one addend per channel.

   Totals are (1 + 2 * channels) doubles: the number of rows, then two sums per channel. Between two of these functions
   the totals of several processes may be added. */

/* Adds up sums (parts, 2, channels). */
void fast_total(int parts, int channels, double count, const double *sums, double *totals) {
    *totals++ = count;
    for (int c = 0; c < 2 * channels; c++) {
        double sum = 0;
        for (int part = 0; part < parts; part++) sum += sums[2 * (int64_t)part * channels + c];
        totals[c] = sum;
    }
}

/* From totals of x and its square: mean, inverse (of the standard deviation), and the scale and shift for batch norm as
   scale * x + shift. Running statistics are updated by `momentum`. */
void fast_norm(int channels, const double *totals, const float *gamma, const float *beta, float *running_mean,
               float *running_var, double momentum, double epsilon, float *mean, float *inverse, float *scale,
               float *shift) {
    double count = *totals++;
    for (int c = 0; c < channels; c++) {
        double m = totals[c] / count, variance = totals[channels + c] / count - m * m;
        if (variance < 0) variance = 0;
        double i = 1 / sqrt(variance + epsilon);
        mean[c] = (float)m;
        inverse[c] = (float)i;
        scale[c] = (float)(gamma[c] * i);
        shift[c] = (float)(beta[c] - m * gamma[c] * i);
        running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * m);
        running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * variance * count / MAX(count - 1, 1));
    }
}

/* From totals of dz and dz * (x - mean), `own` of this process and `all` of all: the gradients of gamma and beta over
   its own rows, and c0, c1, c2 for the gradient of x. `frozen`: the statistics were constant. */
void fast_norm_backward(int channels, const double *own, const double *all, const float *mean, const float *inverse,
                        const float *scale, int frozen, float *to_gamma, float *to_beta, float *c0, float *c1,
                        float *c2) {
    double count = *all++;
    own++;
    for (int c = 0; c < channels; c++) {
        double slope = frozen ? 0 : -scale[c] * inverse[c] * (double)inverse[c] * all[channels + c] / count;
        to_gamma[c] = (float)(own[channels + c] * inverse[c]);
        to_beta[c] = (float)own[c];
        c0[c] = scale[c];
        c1[c] = (float)slope;
        c2[c] = frozen ? 0 : (float)(-scale[c] * all[c] / count - slope * mean[c]);
    }
}

/* ---- Operations on all rows of a tensor. `ld`: floats from one row to the next. */

struct rows_job {
    const struct source *a, *b;
    const struct gradient *gradient;
    const struct finish *finish;
    const float *in;
    float *out;
    double *sums;
    int64_t rows, ld, ldo;
    int channels;
};

static float *zeros(float *few, int64_t channels) { return memset(few, 0, 2 * (size_t)channels * sizeof(float)); }

static void statistics_part(void *given, int part, int parts) {
    const struct rows_job *j = given;
    int64_t begin, end;
    double *sums = j->sums + (int64_t)part * 2 * j->channels;
    memset(sums, 0, 2 * (size_t)j->channels * sizeof(double));
    share(j->rows, 1, part, parts, &begin, &end);
    float *few = zeros(scratch(BY_PART, 2 * (size_t)j->channels), j->channels);
    const float *pivot = j->in + begin * j->channels;
    for (int64_t r = begin; r < end; r += BLOCK) {
        add_statistics(j->in + r * j->channels, MIN(BLOCK, end - r), j->channels, j->channels, pivot, few,
                       j->channels);
        flush(few, sums, 2 * j->channels);
    }
    if (begin < end) unpivot(sums, pivot, end - begin, j->channels);
}

/* Sums (parts, 2, channels) of `in` and its square. */
void fast_statistics(int parts, int64_t rows, int channels, const float *in, double *sums) {
    struct rows_job job = {.in = in, .sums = sums, .rows = rows, .channels = channels};
    in_parts(statistics_part, &job, parts);
}

static void read_part(void *given, int part, int parts) {
    const struct rows_job *j = given;
    int64_t begin, end;
    share(j->rows, 1, part, parts, &begin, &end);
    read_rows(j->a, j->a->data + begin * j->ld, end - begin, j->channels, j->ld, j->out + begin * j->ldo, j->ldo, 0);
}

/* out (rows of ldo) = a (rows of ld): materialises a value, or writes it into some channels of another tensor. */
void fast_read(int parts, int64_t rows, int channels, const struct source *a, int64_t ld, float *out, int64_t ldo) {
    struct rows_job job = {.a = a, .out = out, .rows = rows, .ld = ld, .ldo = ldo, .channels = channels};
    in_parts(read_part, &job, parts);
}

static void add_part(void *given, int part, int parts) {
    const struct rows_job *j = given;
    int64_t begin, end, C = j->channels;
    float *kept = scratch(BY_PART, (size_t)(BLOCK * C));
    share(j->rows, 1, part, parts, &begin, &end);
    for (int64_t r = begin; r < end; r += BLOCK) {
        int64_t rows = MIN(BLOCK, end - r), floats = rows * C, i = 0;
        float *out = j->out + r * C;
        read_rows(j->a, j->a->data + r * C, rows, j->channels, C, kept, C, 0);
        read_rows(j->b, j->b->data + r * C, rows, j->channels, C, out, C, 0);
        for (; i < floats; i++) out[i] += kept[i];
    }
}

/* out = a + b. */
void fast_add(int parts, int64_t rows, int channels, const struct source *a, const struct source *b, float *out) {
    struct rows_job job = {.a = a, .b = b, .out = out, .rows = rows, .channels = channels};
    in_parts(add_part, &job, parts);
}

static void gradient_part(void *given, int part, int parts) {
    const struct rows_job *j = given;
    int64_t begin, end, C = j->channels;
    share(j->rows, 1, part, parts, &begin, &end);
    gradient_rows(j->gradient, begin * C, end - begin, j->channels, C, j->out + begin * C, C, 0);
}

/* Writes out the gradient before batch norm. */
void fast_gradient(int parts, int64_t rows, int channels, const struct gradient *gradient, float *out) {
    struct rows_job job = {.gradient = gradient, .out = out, .rows = rows, .channels = channels};
    in_parts(gradient_part, &job, parts);
}

static void finish_part(void *given, int part, int parts) {
    const struct rows_job *j = given;
    int64_t begin, end, C = j->channels;
    double *sums = j->finish->sums ? j->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    share(j->rows, 1, part, parts, &begin, &end);
    float *few = zeros(scratch(BY_PART, 2 * (size_t)C), C);
    for (int64_t r = begin; r < end; r += BLOCK) {
        int64_t rows = MIN(BLOCK, end - r);
        float *out = j->out + r * C;
        for (int64_t i = 0; j->in != j->out && i < rows; i++)
            memcpy(out + i * C, j->in + (r + i) * j->ld, (size_t)C * sizeof(float));
        finish_rows(j->finish, r * C, rows, j->channels, C, out, C, 0, few, C);
        if (sums) flush(few, sums, 2 * C);
    }
}

/* out = in (rows of ld), the finished gradient of a value; out may be in. */
void fast_finish(int parts, int64_t rows, int channels, const float *in, int64_t ld, const struct finish *finish,
                 float *out) {
    struct rows_job job = {.in = in, .finish = finish, .out = out, .rows = rows, .ld = ld, .channels = channels};
    in_parts(finish_part, &job, parts);
}

/* ---- Channel shuffle: out[j * groups + i] = in[i * (channels / groups) + j]. */

struct shuffle_job {
    const struct source *a;
    const struct finish *finish;
    const float *in;
    float *out;
    int64_t rows;
    int channels, groups;
};

static void shuffle_part(void *given, int part, int parts) {
    const struct shuffle_job *s = given;
    int C = s->channels, width = C / s->groups;
    int64_t begin, end;
    float *row = scratch(BY_PART, (size_t)C);
    share(s->rows, 1, part, parts, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        read_rows(s->a, s->a->data + r * C, 1, C, C, row, C, 0);
        for (int i = 0; i < s->groups; i++)
            for (int j = 0; j < width; j++) s->out[r * C + j * s->groups + i] = row[i * width + j];
    }
}

void fast_shuffle(int parts, int64_t rows, int channels, int groups, const struct source *a, float *out) {
    struct shuffle_job job = {.a = a, .out = out, .rows = rows, .channels = channels, .groups = groups};
    in_parts(shuffle_part, &job, parts);
}

static void shuffle_back_part(void *given, int part, int parts) {
    const struct shuffle_job *s = given;
    int C = s->channels, width = C / s->groups;
    int64_t begin, end;
    double *sums = s->finish->sums ? s->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    share(s->rows, 1, part, parts, &begin, &end);
    float *few = zeros(scratch(BY_PART, 2 * (size_t)C), C);
    for (int64_t r0 = begin; r0 < end; r0 += BLOCK) {
        int64_t rows = MIN(BLOCK, end - r0);
        for (int64_t r = r0; r < r0 + rows; r++)
            for (int i = 0; i < s->groups; i++)
                for (int j = 0; j < width; j++) s->out[r * C + i * width + j] = s->in[r * C + j * s->groups + i];
        finish_rows(s->finish, r0 * C, rows, C, C, s->out + r0 * C, C, 0, few, C);
        if (sums) flush(few, sums, 2 * C);
    }
}

void fast_shuffle_backward(int parts, int64_t rows, int channels, int groups, const float *in,
                           const struct finish *finish, float *out) {
    struct shuffle_job job = {NULL, finish, in, out, rows, channels, groups};
    in_parts(shuffle_back_part, &job, parts);
}

/* ---- Pools. */

struct pool {
    int64_t images;
    int32_t height, width, channels, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, top, left;
    int32_t average, count_padding;
};

struct pool_job {
    const struct pool *pool;
    const struct source *source;
    const struct finish *finish;
    const float *in;
    float *out;
};

struct window {
    int y0, y1, x0, x1;
    float share; /* of an average */
};

static struct window window_at(const struct pool *p, int y, int x) {
    int top = y * p->stride_y - p->top, left = x * p->stride_x - p->left;
    struct window w = {MAX(0, top), MIN(p->height, top + p->kernel_height), MAX(0, left),
                       MIN(p->width, left + p->kernel_width), 0};
    int counted = p->count_padding ? p->kernel_height * p->kernel_width : (w.y1 - w.y0) * (w.x1 - w.x0);
    w.share = 1.0f / (float)MAX(counted, 1);
    return w;
}

/* Applies batch norm and activation to an image once, in the thread's memory, as pooling windows may overlap. */
static const float *read_image(const struct pool *p, const struct source *s, int64_t image, float *kept) {
    int64_t pixels = (int64_t)p->height * p->width;
    const float *at = s->data + image * pixels * p->channels;
    if (s->act == PLAIN && !s->scale) return at;
    read_rows(s, at, pixels, p->channels, p->channels, kept, p->channels, 0);
    return kept;
}

static void pool_part(void *given, int part, int parts) {
    const struct pool_job *j = given;
    const struct pool *p = j->pool;
    int C = p->channels;
    int64_t begin, end;
    float *kept = scratch(BY_PART, (size_t)p->height * (size_t)p->width * (size_t)C);
    share(p->images, 1, part, parts, &begin, &end);
    for (int64_t image = begin; image < end; image++) {
        const float *seen = read_image(p, j->source, image, kept);
        float *out = j->out + image * p->out_height * p->out_width * C;
        for (int y = 0; y < p->out_height; y++)
            for (int x = 0; x < p->out_width; x++, out += C) {
                struct window w = window_at(p, y, x);
                for (int c = 0; c < C; c += LANES) {
                    int n = C - c;
                    vec best = splat(p->average ? 0 : -INFINITY);
                    for (int i = w.y0; i < w.y1; i++)
                        for (int k = w.x0; k < w.x1; k++) {
                            vec v = load_some(seen + ((int64_t)i * p->width + k) * C + c, n);
                            best = p->average ? best + v : where(best >= v, best, v);
                        }
                    store_some(out + c, p->average ? best * w.share : best, n);
                }
            }
    }
}

void fast_pool(int parts, const struct pool *pool, const struct source *source, float *out) {
    struct pool_job job = {pool, source, NULL, NULL, out};
    in_parts(pool_part, &job, parts);
}

static void pool_back_part(void *given, int part, int parts) {
    const struct pool_job *j = given;
    const struct pool *p = j->pool;
    int C = p->channels;
    int64_t pixels = (int64_t)p->height * p->width, begin, end;
    int tiled = p->kernel_height == p->stride_y && p->kernel_width == p->stride_x && !p->top && !p->left &&
                p->out_height * p->stride_y == p->height && p->out_width * p->stride_x == p->width;
    float *kept = scratch(BY_PART, (size_t)((pixels + 2) * C)), *few = zeros(kept + pixels * C, C);
    double *sums = j->finish->sums ? j->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));
    share(p->images, 1, part, parts, &begin, &end);
    for (int64_t image = begin; image < end; image++) {
        const float *seen = p->average ? NULL : read_image(p, j->source, image, kept);
        const float *in = j->in + image * p->out_height * p->out_width * C;
        float *out = j->out + image * pixels * C;
        if (!tiled) memset(out, 0, (size_t)(pixels * C) * sizeof(float));
        for (int y = 0; y < p->out_height; y++)
            for (int x = 0; x < p->out_width; x++, in += C) {
                struct window w = window_at(p, y, x);
                for (int c = 0; c < C; c += LANES) {
                    int n = C - c;
                    vec g = load_some(in + c, n), best = splat(-INFINITY);
                    if (!p->average)
                        for (int i = w.y0; i < w.y1; i++)
                            for (int k = w.x0; k < w.x1; k++) {
                                vec v = load_some(seen + ((int64_t)i * p->width + k) * C + c, n);
                                best = where(best >= v, best, v);
                            }
                    else
                        g *= w.share;
                    mask open = splat(0) == splat(0); /* lanes whose first maximum has not been found */
                    for (int i = w.y0; i < w.y1; i++)
                        for (int k = w.x0; k < w.x1; k++) {
                            int64_t place = ((int64_t)i * p->width + k) * C + c;
                            vec given_back = g;
                            if (!p->average) {
                                mask here = open & (load_some(seen + place, n) == best);
                                given_back = (vec)((mask)g & here);
                                open &= ~here;
                            }
                            if (!tiled) given_back += load_some(out + place, n);
                            store_some(out + place, given_back, n);
                        }
                }
            }
        finish_rows(j->finish, image * pixels * C, pixels, C, C, out, C, 0, few, C);
        if (sums) flush(few, sums, 2 * C);
    }
}

/* in: gradient of the pool's output; out: finished gradient of its source. */
void fast_pool_backward(int parts, const struct pool *pool, const struct source *source, const float *in,
                        const struct finish *finish, float *out) {
    struct pool_job job = {pool, source, finish, in, out};
    in_parts(pool_back_part, &job, parts);
}
