/* A detector's end, as smallcnn.reference.detection defines it. It reads the maps of the heads where they lie:

       pieces of the code, of the scores [, of the objectness], anchors (4, ANCHORS), result (lanes, MOST)

   Names in capitals are constants of the network; THRESHOLD, OVERLAP and MOST hold unless the run has limits of its own,
   and it has no higher MOST. An anchor is live if a class may be above the threshold, which a
   comparison of raw numbers tells; only of live anchors are scores computed, and boxes decoded only of those that may be
   kept. Working memory is that of all anchors being live. */

enum { SIGMOID, SOFTMAX, NONE, LINEAR, EXP, TANH };

void *halide_malloc(void *context, size_t bytes);
void halide_free(void *context, void *memory);

#define INFINITE __builtin_inff()
#define TOGETHER 16 /* classes whose scores are looked at together */

struct box {
    float left, top, right, bottom;
};

struct live {
    const SCORE_NUMBER *scores;
    struct box box;   /* once it is `decoded` */
    int32_t anchor, decoded;
    float limit;      /* a class is above the threshold only if its raw score is above this */
    double top, sum;  /* of a softmax */
    double level;     /* the raw score whose probability is 1 */
    double own;       /* objectness to its power */
};
_Static_assert(sizeof(struct live) <= LIVE_BYTES, "as planned"); /* less where pointers have 32 bits */

/* Numbers that order as wanted: falling score, then rising class and anchor. */
struct place {
    uint64_t first;
    uint32_t live;
};
_Static_assert(sizeof(struct place) == PLACE_BYTES, "as planned");

static float real_score(SCORE_NUMBER stored) { return SCORE_REAL(stored); }

static int before(struct place a, struct place b) { return a.first < b.first || (a.first == b.first && a.live < b.live); }

static struct place place_of(float score, int class, int live) {
    union {
        float value;
        uint32_t bits;
    } of = {score}; /* above 0, so that its bits rise with it */
    return (struct place){(uint64_t)~of.bits << 32 | (uint32_t)class, (uint32_t)live};
}

static float score_of(struct place place) {
    union {
        uint32_t bits;
        float value;
    } of = {~(uint32_t)(place.first >> 32)};
    return of.value;
}

/* Heaps: the first of `heap` is before (sign 1) or after (sign -1) all others. */
static void sink(struct place *heap, int count, int at, int sign) {
    struct place moved = heap[at];
    for (int child; (child = 2 * at + 1) < count; at = child) {
        struct place *pair = heap + child;
        if (child + 1 < count && (sign > 0 ? before(pair[1], pair[0]) : before(pair[0], pair[1]))) child++;
        if (sign > 0 ? !before(heap[child], moved) : !before(moved, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void rise(struct place *heap, int at) { /* of sign -1 */
    struct place moved = heap[at];
    for (int parent; at > 0 && before(heap[parent = (at - 1) / 2], moved); at = parent) heap[at] = heap[parent];
    heap[at] = moved;
}

/* The raw score that a class must exceed for a probability above `least`, with room for rounding. */
static float raw_limit(double least) {
    if (SCORE == NONE) return (float)(least - least * 1e-5 - 1e-30);
    if (least <= 0) return -INFINITE;
    return least >= 1 ? INFINITE : (float)(logarithm(least / (1 - least)) - 1e-3);
}

/* The probability of a raw score before objectness joins, in double. */
static double likely_of(const struct live *live, double raw) {
    if (SCORE == SIGMOID) return sigmoid(raw);
    return SCORE == SOFTMAX ? exponential(raw - live->top) / live->sum : raw;
}

/* The score of a class by its raw one, with which it rises. */
static float score_by(const struct live *live, float raw) {
    float plain = (float)likely_of(live, raw);
    return OWN_PIECES ? (float)(live->own * power(plain, 1 - OBJECTNESS_POWER)) : plain;
}

static float score(const struct live *live, int c) { return score_by(live, real_score(live->scores[c])); }

static float slack(float raw) { return 1e-6f * (raw < 0 ? -raw : raw); }

static void sum_powers(struct live *live) {
    live->top = -INFINITE;
    live->sum = 0;
    for (int c = 0; c < CLASSES; c++)
        if (real_score(live->scores[c]) > live->top) live->top = real_score(live->scores[c]);
    for (int c = 0; c < CLASSES; c++) live->sum += exponential(real_score(live->scores[c]) - live->top);
    live->level = live->top + logarithm(live->sum);
}

/* What `limit_of` needs to know of a threshold, for all anchors. */
static float common_limit(float threshold) {
    if (SCORE != SOFTMAX) return raw_limit(threshold);
    return threshold > 0 ? (float)(logarithm(threshold) - 1e-3) : -INFINITE;
}

/* The raw score that a class must exceed for a score above the threshold of `common`: close, unless objectness joins. */
static float limit_of(const struct live *live, float common) {
    if (OWN_PIECES) return live->limit;
    if (SCORE != SOFTMAX) return common;
    float limit = (float)(live->level + common);
    return limit - slack(limit);
}

/* Whether a class of a row may be above the threshold; sets the limit of its raw scores. */
static int may_be_found(struct live *live, const struct limits *limits, float usual, buffer_t *const *own) {
    float limit = usual;
    const SCORE_NUMBER *scores = live->scores;
    if (OWN_PIECES) {
        float objectness = OWN_REAL(*(const OWN_NUMBER *)row_at(own, 1, live->anchor));
        live->own = power(objectness, OBJECTNESS_POWER);
        if (!(live->own > 0)) return 0;
        double least = limits->threshold / live->own;
        limit = OBJECTNESS_POWER < 1 ? raw_limit(power(least, 1 / (1 - OBJECTNESS_POWER))) : -INFINITE;
        if (OBJECTNESS_POWER >= 1 && !(live->own > limits->threshold)) return 0;
    }
    if (SCORE == SOFTMAX) { /* at most the sigmoid of its distance from the background, and never above 1 */
        if (limit == INFINITE) return 0;
        float nothing = real_score(scores[0]);
        limit = BACKGROUND ? limit + nothing - slack(nothing) : -INFINITE;
    }
    live->limit = limit;
    int any = 0;
#ifdef SCORE_STORED /* bytes: compared as such */
    float stored = SCORE_STORED(limit);
    int least = stored < -1000 ? -1000 : stored > 1000 ? 1000 : (int)stored - 1;
    for (int c = BACKGROUND; c < CLASSES; c++) any |= scores[c] > least;
#else
    for (int c = BACKGROUND; c < CLASSES; c++) any |= scores[c] > limit;
#endif
    return any;
}

static int find_live(struct live *live, const struct limits *limits, buffer_t *const *scores, buffer_t *const *own) {
    int count = 0, anchor = 0;
    float usual = raw_limit(limits->threshold);
    for (int i = 0; i < SCORE_PIECES; i++) {
        const dimension_t *dim = scores[i]->dim;
        for (int pixel = 0; pixel < dim[1].extent; pixel++) {
            const SCORE_NUMBER *row = (const SCORE_NUMBER *)(void *)scores[i]->host + (ptrdiff_t)pixel * dim[1].stride;
            for (int c = 0; c < dim[0].extent; c += CLASSES, anchor++) {
                live[count].scores = row + c;
                live[count].anchor = anchor;
                live[count].decoded = 0;
                count += may_be_found(&live[count], limits, usual, own);
            }
        }
    }
    return count;
}

static float clipped(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/* The pieces of the code, and the anchors they are relative to. */
struct boxes {
    buffer_t *const *coded;
    const float *anchors;
};

static void decode(struct live *live, const struct boxes *boxes) {
    if (live->decoded) return;
    const CODE_NUMBER *code = row_at(boxes->coded, 4, live->anchor);
    const float *anchor = boxes->anchors + 4 * live->anchor;
    float low[2], high[2];
    for (int i = 0; i < 2; i++) {
        float shift = CODE_REAL(code[Y_FIRST ? 1 - i : i]), grown = CODE_REAL(code[2 + (Y_FIRST ? 1 - i : i)]);
        if (CENTRE == TANH) shift = (float)hyperbolic_tangent(shift);
        shift = shift * CENTRE_SCALE;
        shift = shift * anchor[2 + i];
        float centre = anchor[i] + shift;
        grown = grown * SIZE_SCALE;
        if (SIZE == EXP)
            grown = (float)exponential(grown > EXP_LIMIT ? EXP_LIMIT : grown);
        else
            grown = SIZE == SIGMOID ? (float)sigmoid(grown) : grown < 0 ? 0 : grown;
        float extent = grown * anchor[2 + i], half = extent / 2;
        low[i] = CLIP ? clipped(centre - half) : centre - half;
        high[i] = CLIP ? clipped(centre + half) : centre + half;
    }
    live->box = (struct box){low[0], low[1], high[0], high[1]};
    live->decoded = 1;
}

static float area(const struct box *box) { return (box->right - box->left) * (box->bottom - box->top); }

static int overlap(const struct box *a, const struct box *b, float most) {
    float wide = (a->right < b->right ? a->right : b->right) - (a->left > b->left ? a->left : b->left);
    float high = (a->bottom < b->bottom ? a->bottom : b->bottom) - (a->top > b->top ? a->top : b->top);
    if (!(wide > 0 && high > 0)) return 0;
    float shared = wide * high, both = area(a) + area(b), whole = both - shared;
    return whole > 0 && shared / whole > most;
}

/* The largest raw score of the classes; what is not a number never is. */
static float largest(const SCORE_NUMBER *scores) {
    SCORE_NUMBER most[8];
    for (int i = 0; i < 8; i++) most[i] = scores[BACKGROUND];
    int c = BACKGROUND;
    for (; c + 8 <= CLASSES; c += 8)
        for (int i = 0; i < 8; i++) most[i] = scores[c + i] > most[i] || most[i] != most[i] ? scores[c + i] : most[i];
    for (; c < CLASSES; c++) most[0] = scores[c] > most[0] || most[0] != most[0] ? scores[c] : most[0];
    for (int i = 1; i < 8; i++) most[0] = most[i] > most[0] || most[0] != most[0] ? most[i] : most[0];
    return real_score(most[0]);
}

/* The best score of an anchor above the threshold, or that. It rises with the raw score, which rounding may make equal
   for several. */
static float best_score(const struct live *live, float threshold) {
    float best = score_by(live, largest(live->scores));
    return best > threshold ? best : threshold;
}

/* The live anchors with a score that may be above the threshold in one of the classes from `first` to before `end`, all
   of them across classes: their number. Scores of neighbouring classes share cache lines, those of one class do not. */
static int worth_a_look(uint32_t *rows, const struct live *live, int count, int first, int end, float threshold) {
    int found = 0;
    float common = common_limit(threshold);
    for (int i = 0; i < count; i++) {
        const SCORE_NUMBER *scores = live[i].scores;
        float limit = limit_of(&live[i], common);
        int any = ACROSS;
        if (!ACROSS && end - first == TOGETHER) /* a constant, so that the loop becomes a few vectors */
            for (int c = 0; c < TOGETHER; c++) any |= real_score(scores[first + c]) > limit;
        else
            for (int c = first; !any && c < end; c++) any = real_score(scores[c]) > limit;
        rows[found] = (uint32_t)i;
        found += any;
    }
    return found;
}

/* Candidates of one class among `count` rows, or across all classes with the best of each: the heap's count. */
static int candidates(struct place *heap, const struct live *live, const uint32_t *rows, int count, int class,
                      float threshold) {
    int found = 0;
    float common = common_limit(threshold);
    for (int row = 0; row < count; row++) {
        int i = (int)rows[row];
        float best = threshold;
        if (ACROSS)
            best = best_score(&live[i], threshold);
        else if (real_score(live[i].scores[class]) > limit_of(&live[i], common))
            best = score(&live[i], class);
        if (best > threshold) heap[found++] = place_of(best, ACROSS ? 0 : class, i);
    }
    for (int i = found / 2 - 1; i >= 0; i--) sink(heap, found, i, 1);
    return found;
}

/* The class with the best score of all: the first that has it. */
static int class_of(const struct live *live, float best) {
    int c = BACKGROUND;
    float limit = limit_of(live, common_limit(best * (1 - 1e-6f)));
    while (c < CLASSES - 1 && !(real_score(live->scores[c]) > limit && score(live, c) == best)) c++;
    return c;
}

/* Adds what suppression keeps to `best`, the heap of the best of all classes, as many as the limits allow; returns its
   count. */
static int keep(struct place *best, int taken, struct place *heap, int count, struct live *live, uint32_t *kept,
                const struct limits *limits, const struct boxes *boxes) {
    const int most = limits->most;
    for (int mine = 0; count > 0 && mine < most;) {
        struct place next = heap[0];
        heap[0] = heap[--count];
        sink(heap, count, 0, 1);
        if (taken == most && !before(next, best[0])) return taken; /* nor is any later one among the best */
        int apart = 1;
        decode(&live[next.live], boxes);
        for (int i = 0; apart && i < mine; i++) apart = !overlap(&live[kept[i]].box, &live[next.live].box, limits->overlap);
        if (!apart) continue;
        kept[mine++] = next.live;
        if (ACROSS) next = place_of(score_of(next), class_of(&live[next.live], score_of(next)), (int)next.live);
        if (taken < most) {
            best[taken] = next;
            rise(best, taken++);
        } else {
            best[0] = next;
            sink(best, taken, 0, -1);
        }
    }
    return taken;
}

/* What a score must exceed to be among the best. */
static float least_of(const struct place *best, int taken, const struct limits *limits) {
    return taken > 0 && taken == limits->most ? score_of(best[0]) : limits->threshold;
}

int KERNEL(void **arguments) {
    void *context = *(void **)arguments[0];
    buffer_t *const *coded = (buffer_t *const *)(arguments + 1), *const *scores = coded + CODE_PIECES;
    buffer_t *const *own = scores + SCORE_PIECES;
    const struct boxes boxes = {coded, (const float *)(void *)own[OWN_PIECES]->host};
    const buffer_t *result = own[OWN_PIECES + 1];
    uint8_t *memory = halide_malloc(context, SCRATCH);
    struct live *live = (struct live *)(void *)memory;
    struct place *heap = (struct place *)(void *)(live + ANCHORS), *best = heap + ANCHORS;
    uint32_t *rows = (uint32_t *)(void *)(best + MOST), *kept = rows + ANCHORS;

    const struct limits *asked = detector_limits(context);
    struct limits limits = {asked->threshold < 0 ? THRESHOLD : asked->threshold,
                            asked->overlap < 0 ? OVERLAP : asked->overlap,
                            asked->most < 0 ? MOST : asked->most};
    int count = find_live(live, &limits, scores, own), taken = 0;
    if (SCORE == SOFTMAX)
        for (int i = 0; i < count; i++) sum_powers(&live[i]);
    for (int first = BACKGROUND, end = first + 1; first < (ACROSS ? BACKGROUND + 1 : CLASSES) && count; first = end) {
        /* Once there are enough, the objects of a later class must be better than the last of them: there are few after
           the first class, which therefore goes alone. */
        if (first > BACKGROUND) end = first + TOGETHER < CLASSES ? first + TOGETHER : CLASSES;
        int looked = worth_a_look(rows, live, count, first, end, least_of(best, taken, &limits));
        for (int c = first; c < end; c++) {
            int found = candidates(heap, live, rows, looked, c, least_of(best, taken, &limits));
            taken = keep(best, taken, heap, found, live, kept, &limits, &boxes);
        }
    }

    for (int i = 0; i < MOST; i++) {
        float *row = (float *)(void *)result->host + (ptrdiff_t)i * result->dim[1].stride;
        for (int lane = 0; lane < result->dim[0].extent; lane++) row[lane] = 0;
    }
    while (taken > 0) { /* the last of the heap is the last row */
        struct place last = best[0];
        best[0] = best[--taken];
        sink(best, taken, 0, -1);
        float *row = (float *)(void *)result->host + (ptrdiff_t)taken * result->dim[1].stride;
        const struct live *of = &live[last.live];
        row[0] = of->box.left;
        row[1] = of->box.top;
        row[2] = of->box.right;
        row[3] = of->box.bottom;
        row[4] = score_of(last);
        row[5] = (float)((int)(uint32_t)last.first - BACKGROUND);
    }
    halide_free(context, memory);
    return 0;
}
