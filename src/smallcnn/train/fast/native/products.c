/* Convolutions as matrix products, with one row per output pixel: the pixels in its window.

   1x1 convolutions read their rows in place; others gather them. Each block of rows fits the second-level cache and
   goes through all operations at once. Forward: batch norm and activation of the input, the product, statistics of the
   output. Backward: the gradient of batch norm, both products, the gradient of the input's activation. */

#include "ahead.h"
#include "rows.h"
#include "threads.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 14 /* rows of a tile: 14 x 2 registers of sums leave 4 of 32 for the factors */
#define TILES(ar, ai, ldb, add)                                                                                       \
    TILE_ROWS(1, ar, ai, ldb, add) TILE_ROWS(2, ar, ai, ldb, add) TILE_ROWS(3, ar, ai, ldb, add)                      \
    TILE_ROWS(4, ar, ai, ldb, add) TILE_ROWS(5, ar, ai, ldb, add) TILE_ROWS(6, ar, ai, ldb, add)                      \
    TILE_ROWS(7, ar, ai, ldb, add) TILE_ROWS(8, ar, ai, ldb, add) TILE_ROWS(9, ar, ai, ldb, add)                      \
    TILE_ROWS(10, ar, ai, ldb, add) TILE_ROWS(11, ar, ai, ldb, add) TILE_ROWS(12, ar, ai, ldb, add)                   \
    TILE_ROWS(13, ar, ai, ldb, add) TILE_ROWS(14, ar, ai, ldb, add)
#else
#define ROWS 6 /* 6 x 2 registers leave 4 of 16 */
#define TILES(ar, ai, ldb, add)                                                                                       \
    TILE_ROWS(1, ar, ai, ldb, add) TILE_ROWS(2, ar, ai, ldb, add) TILE_ROWS(3, ar, ai, ldb, add)                      \
    TILE_ROWS(4, ar, ai, ldb, add) TILE_ROWS(5, ar, ai, ldb, add) TILE_ROWS(6, ar, ai, ldb, add)
#endif
#define WIDTH (2 * LANES)  /* columns of a tile */
#define CACHED (48 * 1024) /* floats in a block of rows: 192 KB */

struct conv {
    int64_t images;
    int32_t height, width, channels, out_height, out_width, out, groups; /* groups: 1x1 convolutions only */
    int32_t kernel_height, kernel_width, stride_y, stride_x, top, left;
};

/* c[r][:] (+)= sum over i of a[r * ar + i * ai] * b[i * ldb + :], for `rows` rows and `columns` <= WIDTH columns. */
INLINE void tile_of(int rows, int vectors, int64_t k, const float *a, int64_t ar, int64_t ai, const float *b,
                    int64_t ldb, float *c, int64_t ldc, int columns, int add, const float *ahead, int64_t each) {
    vec sum[ROWS][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sum[r][v] = (vec){0};
    for (int64_t i = 0; i < k; i++, a += ai, b += ldb, ahead += each) {
        vec right[2];
        fetch(ahead);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) right[v] = load(b + v * LANES);
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            vec left = splat(a[r * ar]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sum[r][v] += left * right[v];
        }
    }
    int last = columns - (vectors - 1) * LANES;
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++, c += ldc) {
        if (vectors == 2) store(c, add ? load(c) + sum[r][0] : sum[r][0]);
        float *end = c + (vectors - 1) * LANES;
        store_some(end, add ? load_some(end, last) + sum[r][vectors - 1] : sum[r][vectors - 1], last);
    }
}

#define TILE(name, ar, ai, ldb_, add)                                                                                 \
    static void name(int rows, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,         \
                     int64_t ldc, int columns, const float *ahead, int64_t each) {                                    \
        (void)ldb;                                                                                                    \
        switch (2 * rows + (columns > LANES)) { TILES(ar, ai, ldb_, add) }                                            \
    }
#define TILE_ROWS(rows, ar, ai, ldb, add)                                                                             \
    case 2 * rows: tile_of(rows, 1, k, a, ar, ai, b, ldb, c, ldc, columns, add, ahead, each); break;                  \
    case 2 * rows + 1: tile_of(rows, 2, k, a, ar, ai, b, ldb, c, ldc, columns, add, ahead, each); break;

TILE(tile, lda, 1, WIDTH, 0)          /* rows of a times packed b */
TILE(tile_transposed, 1, lda, ldb, 1) /* columns of a times rows of b, accumulated */

/* Height of tiles for so many rows: all alike, as low tiles wait for the sums' latency. */
static int height_of(int64_t rows) {
    int64_t tiles = (rows + ROWS - 1) / ROWS;
    return (int)((rows + tiles - 1) / tiles);
}

/* rows x columns of c = a times the packed panels of b, each (k, WIDTH). */
static void multiply(int64_t rows, int64_t k, int columns, const float *a, int64_t lda, const float *panels, float *c,
                     int64_t ldc, struct ahead *ahead) {
    int height = height_of(rows);
    int64_t each;
    for (int j = 0; j < columns; j += WIDTH, panels += k * WIDTH)
        for (int64_t r = 0; r < rows; r += height) {
            const float *fetched = take(ahead, k, panels, &each);
            tile((int)MIN(height, rows - r), k, a + r * lda, lda, panels, 0, c + r * ldc + j, ldc,
                 MIN(WIDTH, columns - j), fetched, each);
        }
}

/* c (m x n, rows of ROUND_UP(n, WIDTH)) += transposed a (rows x m) times b (rows x n). */
static void multiply_transposed(int64_t rows, int m, int n, const float *a, int64_t lda, const float *b, int64_t ldb,
                                float *c, struct ahead *ahead) {
    int height = height_of(m);
    int64_t ldc = ROUND_UP(n, WIDTH), each;
    for (int j = 0; j < n; j += WIDTH)
        for (int i = 0; i < m; i += height) {
            const float *fetched = take(ahead, rows, b, &each);
            tile_transposed(MIN(height, m - i), rows, a + i, lda, b + j, ldb, c + i * ldc + j, ldc,
                            n - j > LANES ? WIDTH : LANES, fetched, each);
        }
}

static int is_direct(const struct conv *g) {
    return g->kernel_height * g->kernel_width * g->stride_y * g->stride_x == 1 && !g->top && !g->left;
}

static int is_plain(const struct source *s) { return s->act == PLAIN && !s->scale; }

static int inputs_of(const struct conv *g) { /* inputs per output */
    return g->kernel_height * g->kernel_width * g->channels / g->groups;
}

/* The last rows of the source that were read, with batch norm and activation applied and zeros on both sides. */
struct lines {
    float *ring; /* kernel height lines of `pitch` floats */
    int64_t pitch, read;
};

static int64_t pitch_of(const struct conv *g) {
    return (int64_t)MAX((g->out_width - 1) * g->stride_x + g->kernel_width, g->left + g->width) * g->channels + LANES;
}

/* The line of a row, counted over all images; rows are asked for in ascending order. */
static const float *line_of(const struct conv *g, const struct source *s, struct lines *lines, int64_t row) {
    int C = g->channels, kh = g->kernel_height;
    for (int64_t next = MAX(lines->read, row - kh + 1); next <= row; next++, lines->read = next)
        read_rows(s, s->data + next * g->width * C, g->width, C, C,
                  lines->ring + next % kh * lines->pitch + (int64_t)g->left * C, C, 0);
    return lines->ring + row % kh * lines->pitch;
}

INLINE void copy(float *to, const float *from, int n) {
    for (; n >= LANES; n -= LANES, to += LANES, from += LANES) store(to, load(from));
    if (n) store_first(to, load_first(from, n), n);
}

INLINE void add(float *to, const float *from, int64_t n) {
    for (; n >= LANES; n -= LANES, to += LANES, from += LANES) store(to, load(to) + load(from));
    if (n) store_first(to, load_first(to, (int)n) + load_first(from, (int)n), (int)n);
}

static void gather(const struct conv *g, const struct source *s, struct lines *lines, int64_t row, int64_t rows,
                   float *out, int64_t ldo) {
    int C = g->channels, n = g->kernel_width * C;
    for (int64_t end = row + rows; row < end;) {
        int64_t image = row / (g->out_height * g->out_width);
        int place = (int)(row - image * g->out_height * g->out_width), x0 = place % g->out_width;
        int many = (int)MIN(end - row, g->out_width - x0);
        for (int i = 0; i < g->kernel_height; i++) {
            int y = place / g->out_width * g->stride_y - g->top + i;
            float *to = out + i * n;
            if (y < 0 || y >= g->height) {
                for (int x = 0; x < many; x++, to += ldo) memset(to, 0, (size_t)n * sizeof(float));
                continue;
            }
            const float *from = line_of(g, s, lines, image * g->height + y) + (int64_t)x0 * g->stride_x * C;
            for (int x = 0; x < many; x++, to += ldo, from += g->stride_x * C) copy(to, from, n);
        }
        row += many;
        out += many * ldo;
    }
}

/* The reverse: adds the rows of `from` to the pixels they were gathered from. */
static void scatter(const struct conv *g, float *to, int64_t row, int64_t rows, const float *from, int64_t ld) {
    int C = g->channels, kw = g->kernel_width;
    for (int64_t end = row + rows; row < end; row++, from += ld) {
        int64_t image = row / (g->out_height * g->out_width);
        int place = (int)(row - image * g->out_height * g->out_width);
        int x0 = place % g->out_width * g->stride_x - g->left;
        int first = MAX(0, -x0), last = MIN(kw, g->width - x0);
        for (int i = 0; i < g->kernel_height; i++) {
            int y = place / g->out_width * g->stride_y - g->top + i;
            if (y >= 0 && y < g->height && first < last)
                add(to + ((image * g->height + y) * g->width + x0 + first) * C, from + (i * kw + first) * C,
                    (int64_t)(last - first) * C);
        }
    }
}

/* Rows of window pixels: in place if no copy is needed, else gathered into `copied`. Sets *ld. */
static const float *windows(const struct conv *g, const struct source *s, struct lines *lines, int64_t row,
                            int64_t rows, int needs_copy, float *copied, int64_t *ld) {
    int C = g->channels;
    if (!is_direct(g)) {
        gather(g, s, lines, row, rows, copied, *ld);
        return copied;
    }
    if (is_plain(s) && !needs_copy) {
        *ld = C;
        return s->data + row * C;
    }
    read_rows(s, s->data + row * C, rows, C, C, copied, *ld, 0);
    return copied;
}

struct forward {
    const struct conv *conv;
    const struct source *source;
    const float *packed;
    float *out;
    double *sums;
};

static void forward_part(void *given, int part, int parts) {
    const struct forward *f = given;
    const struct conv *g = f->conv;
    int k = inputs_of(g), n = g->out / g->groups, all = k * g->groups, direct = is_direct(g);
    int64_t begin, end, block = ROUND_UP(MAX(48, MIN(192, CACHED / all)), ROWS);
    share(g->images * g->out_height * g->out_width, ROWS, part, parts, &begin, &end);
    int64_t ring = direct ? 0 : g->kernel_height * pitch_of(g);
    float *copied = scratch(BY_PART, (size_t)(block * (all + LANES) + 3 * g->out + ring));
    float *few = copied + block * (all + LANES), *pivot = few + 2 * g->out;
    struct lines lines = {memset(pivot + g->out, 0, (size_t)ring * sizeof(float)), pitch_of(g), 0};
    double *sums = f->sums ? f->sums + (int64_t)part * 2 * g->out : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)g->out * sizeof(double));
    memset(few, 0, 2 * (size_t)g->out * sizeof(float));
    for (int64_t row = begin; row < end; row += block) {
        int64_t rows = MIN(block, end - row), ld = all + LANES;
        const float *a = windows(g, f->source, &lines, row, rows, 0, copied, &ld);
        float *out = f->out + row * g->out;
        struct ahead ahead = {.count = 0};
        int64_t coming = MIN(block, end - row - rows);
        expect(&ahead, out + rows * g->out, coming * g->out);
        if (direct) expect(&ahead, f->source->data + (row + rows) * g->channels, coming * g->channels);
        for (int i = 0; i < g->groups; i++)
            multiply(rows, k, n, a + i * k, ld, f->packed + (int64_t)i * k * ROUND_UP(n, WIDTH), out + i * n, g->out,
                     &ahead);
        if (sums) {
            if (row == begin) memcpy(pivot, out, (size_t)g->out * sizeof(float));
            add_statistics(out, rows, g->out, g->out, pivot, few, g->out);
            flush(few, sums, 2 * g->out);
        }
    }
    if (sums && begin < end) unpivot(sums, pivot, end - begin, g->out);
}

/* weights (out, inputs) of each group -> panels of WIDTH outputs, (inputs, WIDTH) each. */
static void pack_forward(const struct conv *g, const float *weights, float *packed) {
    int k = inputs_of(g), n = g->out / g->groups;
    for (int group = 0; group < g->groups; group++, weights += (int64_t)n * k)
        for (int j = 0; j < n; j += WIDTH, packed += (int64_t)k * WIDTH) {
            int wide = MIN(WIDTH, n - j);
            if (wide < WIDTH) memset(packed, 0, (size_t)k * WIDTH * sizeof(float));
            for (int i0 = 0; i0 < k; i0 += 16)
                for (int c = 0; c < wide; c++)
                    for (int i = i0; i < MIN(k, i0 + 16); i++)
                        packed[i * WIDTH + c] = weights[(int64_t)(j + c) * k + i];
        }
}

/* weights (out, inputs) of each group -> panels of WIDTH inputs, (out, WIDTH) each. */
static void pack_backward(const struct conv *g, const float *weights, float *packed) {
    int k = inputs_of(g), n = g->out / g->groups;
    for (int group = 0; group < g->groups; group++, weights += (int64_t)n * k)
        for (int j = 0; j < k; j += WIDTH, packed += (int64_t)n * WIDTH) {
            int wide = MIN(WIDTH, k - j);
            for (int i = 0; i < n; i++)
                for (int c = 0; c < WIDTH; c++) packed[i * WIDTH + c] = c < wide ? weights[(int64_t)i * k + j + c] : 0;
        }
}

/* out (images, out_height, out_width, out) = source * weights (out, kernel height, kernel width, channels / groups).
   sums (parts, 2, out), if not null, receives the sums of out and of its square. */
void fast_conv(int parts, const struct conv *conv, const struct source *source, const float *weights,
               float *out, double *sums) {
    int n = conv->out / conv->groups;
    float *packed = scratch(BY_CALL, (size_t)conv->groups * (size_t)inputs_of(conv) * (size_t)ROUND_UP(n, WIDTH));
    pack_forward(conv, weights, packed);
    struct forward f = {conv, source, packed, out, sums};
    in_parts(forward_part, &f, parts);
}

struct backward {
    const struct conv *conv;
    const struct source *source;
    const struct gradient *gradient;
    const struct finish *finish;
    const float *packed;
    float *to_source, *to_weights; /* either may be null; to_weights: (parts, out, ROUND_UP(inputs, WIDTH)) */
};

static int64_t weight_floats(const struct conv *g) { return (int64_t)g->out * ROUND_UP(inputs_of(g), WIDTH); }

static void backward_part(void *given, int part, int parts) {
    const struct backward *b = given;
    const struct conv *g = b->conv;
    int k = inputs_of(g), n = g->out / g->groups, all = k * g->groups, C = g->channels, direct = is_direct(g);
    int64_t pixels = (int64_t)g->height * g->width, places = (int64_t)g->out_height * g->out_width;
    int64_t block = ROUND_UP(MAX(96, MIN(192, CACHED / (2 * all + g->out))), ROWS);
    int64_t unit = direct ? ROWS : places, begin, end;
    share(g->images * places, unit, part, parts, &begin, &end);
    int64_t step = direct ? block : places * MAX(1, block / places); /* whole images if windows share pixels */

    int64_t lda = all + LANES, ldg = g->out + LANES;
    int64_t ring = direct ? 0 : g->kernel_height * pitch_of(g);
    float *copied = scratch(BY_PART, (size_t)(block * (lda + ldg + all) + WIDTH + 2 * C + ring));
    float *slopes = copied + block * lda + WIDTH, *columns = slopes + block * ldg, *few = columns + block * all;
    struct lines lines = {memset(few + 2 * C, 0, (size_t)ring * sizeof(float)), pitch_of(g), 0};
    memset(few, 0, 2 * (size_t)C * sizeof(float));
    float *to_weights = b->to_weights ? b->to_weights + part * weight_floats(g) : NULL;
    if (to_weights) memset(to_weights, 0, (size_t)weight_floats(g) * sizeof(float));
    double *sums = b->finish->sums ? b->finish->sums + (int64_t)part * 2 * C : NULL;
    if (sums) memset(sums, 0, 2 * (size_t)C * sizeof(double));

    for (int64_t from = begin; from < end; from += step) {
        int64_t to = MIN(end, from + step), image = from / places, pixel = direct ? from : image * pixels;
        int64_t covered = direct ? to - from : (to - from) / places * pixels;
        float *at = b->to_source ? b->to_source + pixel * C : NULL;
        if (at && !direct) memset(at, 0, (size_t)(covered * C) * sizeof(float));
        for (int64_t row = from; row < to; row += block) {
            int64_t rows = MIN(block, to - row), lds = g->out, ld = lda;
            const float *slope = b->gradient->dz + row * g->out;
            if (b->gradient->c0) {
                gradient_rows(b->gradient, row * g->out, rows, g->out, g->out, slopes, ldg, 0);
                slope = slopes, lds = ldg;
            }
            struct ahead ahead = {.count = 0};
            int64_t coming = MIN(block, end - row - rows), next = (row + rows) * g->out;
            if (direct) expect(&ahead, at ? at + rows * C : NULL, coming * C);
            if (direct) expect(&ahead, b->source->data + (row + rows) * C, coming * C);
            expect(&ahead, b->gradient->c1 ? b->gradient->data + next : NULL, coming * g->out);
            expect(&ahead, b->gradient->dz + next, coming * g->out);
            for (int i = 0; at && i < g->groups; i++)
                multiply(rows, n, k, slope + i * n, lds, b->packed + (int64_t)i * n * ROUND_UP(k, WIDTH),
                         direct ? at + i * k : columns, direct ? C : all, &ahead);
            if (at && !direct) scatter(g, b->to_source, row, rows, columns, all);
            if (to_weights) {
                const float *a = windows(g, b->source, &lines, row, rows, k % LANES, copied, &ld);
                for (int i = 0; i < g->groups; i++)
                    multiply_transposed(rows, n, k, slope + i * n, lds, a + i * k, ld,
                                        to_weights + (int64_t)i * n * ROUND_UP(k, WIDTH), &ahead);
            }
        }
        if (at) finish_rows(b->finish, pixel * C, covered, C, C, at, C, 0, few, C);
        if (at && sums) flush(few, sums, 2 * C);
    }
}

/* Gradients of fast_conv. to_source, if not null, receives the finished gradient of the source; to_weights, if not
   null, that of the weights, in their layout. */
void fast_conv_backward(int parts, const struct conv *conv, const struct source *source,
                        const struct gradient *gradient, const struct finish *finish, const float *weights,
                        float *to_source, float *to_weights) {
    int k = inputs_of(conv), n = conv->out / conv->groups;
    int64_t partial = to_weights ? weight_floats(conv) : 0;
    float *kept = scratch(BY_CALL, (size_t)(parts * partial + (int64_t)conv->groups * n * ROUND_UP(k, WIDTH)));
    float *packed = kept + parts * partial;
    if (to_source) pack_backward(conv, weights, packed);
    struct backward b = {conv, source, gradient, finish, packed, to_source, to_weights ? kept : NULL};
    in_parts(backward_part, &b, parts);
    for (int i = 0; to_weights && i < conv->out; i++)
        for (int j = 0; j < k; j++) {
            float sum = 0;
            for (int part = 0; part < parts; part++) sum += kept[part * partial + (int64_t)i * ROUND_UP(k, WIDTH) + j];
            to_weights[(int64_t)i * k + j] = sum;
        }
}
