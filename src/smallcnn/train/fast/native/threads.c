#include "threads.h"

#include <stdint.h>

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

/* Sets this thread to take denormal numbers for zero, which are a hundred times as slow as others; returns its setting
   for `restore`. */
#if defined(__x86_64__)
static void restore(uint64_t setting) { __builtin_ia32_ldmxcsr((unsigned)setting); }
static uint64_t flush_denormals(void) {
    unsigned before = __builtin_ia32_stmxcsr();
    restore(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
}
#elif defined(__aarch64__)
static void restore(uint64_t setting) { __asm__ volatile("msr fpcr, %0" : : "r"(setting) : "memory"); }
static uint64_t flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    restore(before | 1 << 24); /* FZ */
    return before;
}
#else
static void restore(uint64_t setting) { (void)setting; }
static uint64_t flush_denormals(void) { return 0; }
#endif

static void work_on(const struct team *team, int first, int step) {
    uint64_t setting = flush_denormals();
    for (int part = first; part < team->parts; part += step) team->task(team->work, part, team->parts);
    restore(setting);
}

static void member(void *given) { work_on(given, thread_number(), number_of_threads()); }

void in_parts(void (*task)(void *, int, int), void *work, int parts) {
    struct team team = {task, work, parts};
    if (parts == 1)
        work_on(&team, 0, 1);
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
