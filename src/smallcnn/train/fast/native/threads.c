#include "threads.h"

static void (*gomp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int (*thread_number)(void);
static int (*number_of_threads)(void);

/* Entry points of the OpenMP library that PyTorch has loaded. */
void fast_use_openmp(void *parallel, void *number, void *threads) {
    gomp_parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))parallel;
    thread_number = (int (*)(void))number;
    number_of_threads = (int (*)(void))threads;
}

struct team {
    void (*task)(void *, int, int);
    void *work;
    int parts;
};

static void member(void *given) {
    struct team *team = given;
    for (int part = thread_number(); part < team->parts; part += number_of_threads())
        team->task(team->work, part, team->parts);
}

void in_parts(void (*task)(void *, int, int), void *work, int parts) {
    struct team team = {task, work, parts};
    if (parts == 1)
        task(work, 0, 1);
    else
        gomp_parallel(member, &team, (unsigned)parts, 0);
}

float *scratch(enum use use, size_t floats) {
    static _Thread_local struct {
        float *memory;
        size_t size;
    } kept[USES];
    if (kept[use].size < floats) {
        free(kept[use].memory);
        kept[use].size = floats + floats / 2;
        void *fresh = NULL;
        if (posix_memalign(&fresh, 128, kept[use].size * sizeof(float))) abort();
        kept[use].memory = fresh;
    }
    return kept[use].memory;
}
