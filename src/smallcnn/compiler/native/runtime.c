/* Runs a compiled network: executes the steps of its table, alone or with other threads.

   Compiled once per network together with network.h, which the linker writes: the tables of steps and outputs, the
   weights, and

       NETWORK_FEATURES  NETWORK_METADATA  NETWORK_HEIGHT  _WIDTH  _CHANNELS
       NETWORK_MOST  objects found, 0 for no detector
       NETWORK_ARENA  NETWORK_SCRATCH  bytes      NETWORK_STEPS  _BUFFERS  _DIMENSIONS  _OUTPUTS  lengths of the tables

   A context is one block of memory: the context itself, the kernels' arguments per thread, the arena, and each thread's
   scratch. Everything is laid out at creation; running only calls kernels. */

#pragma GCC visibility push(default)
#include "smallcnn.h"
#pragma GCC visibility pop

#define ALIGNMENT 128 /* two cache lines: x86 fetches them in pairs */
#define ROUND_UP(bytes, unit) (((bytes) + (unit) - 1) & ~(uintptr_t)((unit) - 1))

#include "system.h"

#include "buffer.h"
#include "detector.h"

/* The tables in network.h. */
enum space { ARENA, WEIGHTS, INPUT, OUTPUT }; /* OUTPUT + i: output i */

struct dimension {
    int32_t extent, stride;
};

struct buffer {
    uint64_t offset;
    uint16_t space;
    uint8_t code, bits, dimensions; /* dimensions: how many of DIMENSIONS belong to it, in order */
};

struct output {
    const char *name;
    int32_t number, dimensions, shape[SMALLCNN_DIMENSIONS], zero;
    double scale;
};

struct step {
    int (*kernel)(void **);
    int32_t label;   /* where it starts in LABELS; a pointer would cost a relocation */
    int32_t buffers; /* how many of BUFFERS belong to it, in order; the last is the output */
    int32_t split;   /* the output's dimension that threads split, or -1 */
    int32_t grain;
};

#include "network.h"

#include "cpu.h"

struct signal { /* a number that one thread raises and others wait for */
    _Alignas(ALIGNMENT) uint32_t value;
    uint32_t sleepers;
};

struct thread {
    struct signal done; /* the last barrier it reached */
    struct smallcnn_net *net;
    int index, error;
    uint32_t runs, meetings;
    const uint8_t *image; /* what `buffers` point into */
    uint8_t *outputs[NETWORK_OUTPUTS];
    uint8_t *scratch;
    struct block *top;
    size_t used, most_used;
    void *self;    /* the user context of kernels */
    void ***calls; /* per step: the kernel's arguments, or null without work */
    buffer_t *buffers;
    uintptr_t handle;
};

struct smallcnn_net {
    struct signal go; /* the run that has started */
    int threads, stop;
    const uint8_t *image;
    uint8_t *outputs[NETWORK_OUTPUTS];
    int limited; /* whether limits hold instead of the network's own */
    struct limits limits;
    struct thread *thread;
#ifndef NO_SYSTEM
    int own; /* whether smallcnn_create allocated the memory */
    uint64_t until_yield, until_sleep; /* ticks */
    struct gate gate;
#endif
};

/* ---- Called by kernels: memory from a stack of blocks in the thread's scratch. */

struct block {
    struct block *below;
    size_t used_below;
    int freed, spilled; /* to memory from the system */
};

#define BLOCK_HEAD 64
_Static_assert(sizeof(struct block) <= BLOCK_HEAD, "a block begins with its head");

void *halide_malloc(void *user_context, size_t bytes) {
    struct thread *thread = user_context;
    size_t needed = BLOCK_HEAD + ROUND_UP(bytes, 64), end = thread->used + needed;
    int spills = end > NETWORK_SCRATCH;
    struct block *block;
    if (spills) { /* the run will fail, but a kernel cannot be stopped midway */
        thread->error = SMALLCNN_SCRATCH;
        block = allocate(needed);
        if (!block) __builtin_trap();
    } else {
        block = (struct block *)(void *)(thread->scratch + thread->used);
    }
    *block = (struct block){thread->top, thread->used, 0, spills};
    thread->top = block;
    thread->used = end;
    if (end > thread->most_used) thread->most_used = end;
    return (uint8_t *)block + BLOCK_HEAD;
}

void halide_free(void *user_context, void *memory) {
    struct thread *thread = user_context;
    ((struct block *)(void *)((uint8_t *)memory - BLOCK_HEAD))->freed = 1;
    while (thread->top && thread->top->freed) {
        struct block *block = thread->top;
        thread->top = block->below;
        thread->used = block->used_below;
        if (block->spilled) release(block);
    }
}

#if NETWORK_MOST
const struct limits *detector_limits(void *user_context) {
    static const struct limits own = {-1, -1, -1};
    const struct smallcnn_net *net = ((struct thread *)user_context)->net;
    return net->limited ? &net->limits : &own;
}
#endif

void halide_error(void *user_context, const char *message) {
    (void)message;
    ((struct thread *)user_context)->error = SMALLCNN_KERNEL;
}

/* ---- Called by compiled code; elsewhere part of every C library. */

#ifdef __wasm__
void *memset(void *to, int value, size_t bytes) { return __builtin_memset(to, value, bytes); } /* one instruction */
void *memcpy(void *to, const void *from, size_t bytes) { return __builtin_memcpy(to, from, bytes); }
#endif

#ifdef _WIN32
int _fltused; /* required by code with floating point */

void *memset(void *to, int value, size_t bytes) {
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t bytes) {
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

/* Touches each page of a large stack frame of rax bytes in order; keeps every register. */
__asm__(".globl __chkstk\n"
        "__chkstk:\n"
        "    pushq %rcx\n"
        "    pushq %rax\n"
        "    leaq 24(%rsp), %rcx\n"
        "1:  cmpq $0x1000, %rax\n"
        "    jbe 2f\n"
        "    subq $0x1000, %rcx\n"
        "    testb %cl, (%rcx)\n"
        "    subq $0x1000, %rax\n"
        "    jmp 1b\n"
        "2:  subq %rax, %rcx\n"
        "    testb %cl, (%rcx)\n"
        "    popq %rax\n"
        "    popq %rcx\n"
        "    retq\n");
#endif

/* ---- Threads: at a barrier each raises its own signal and waits for the others'. */

#ifndef NO_SYSTEM
/* A waiting thread first spins, so that a barrier costs little; then yields its core, perhaps to the thread it waits
   for; then sleeps. The yield phase is longer than most steps, and than a caller needs between images. 30 steps of
   31 us take, in us on a 2.4 GHz Zen 3: one thread 930; two threads on two cores 475, on one core 1100; on one core
   with 20 us of spinning 1600 to 4000, with 200 us 16000. A barrier of two threads takes 0.09. */
#define LOOK_MICROSECONDS 2
#define YIELD_MICROSECONDS 200

static int reached(struct signal *signal, uint32_t value) {
    return (int32_t)(__atomic_load_n(&signal->value, __ATOMIC_ACQUIRE) - value) >= 0;
}

static void raise(struct smallcnn_net *net, struct signal *signal, uint32_t value) {
    __atomic_exchange_n(&signal->value, value, __ATOMIC_SEQ_CST); /* before checking for sleepers */
    if (__atomic_load_n(&signal->sleepers, __ATOMIC_SEQ_CST)) wake(&net->gate, &signal->value);
}

static void await(struct smallcnn_net *net, struct signal *signal, uint32_t value) {
    if (reached(signal, value)) return;
    for (uint64_t begin = ticks(), waited = 0; waited < net->until_sleep; waited = ticks() - begin) {
        for (int i = 0; i < 32; i++) {
            if (reached(signal, value)) return;
            pause();
        }
        if (waited > net->until_yield) yield();
    }
    __atomic_fetch_add(&signal->sleepers, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        uint32_t seen = __atomic_load_n(&signal->value, __ATOMIC_SEQ_CST);
        if ((int32_t)(seen - value) >= 0) break;
        sleep_while(&net->gate, &signal->value, seen);
    }
    __atomic_fetch_sub(&signal->sleepers, 1, __ATOMIC_SEQ_CST);
}

static void await_workers(struct thread *thread) {
    struct smallcnn_net *net = thread->net;
    for (int i = 0; i < net->threads; i++)
        if (i != thread->index) await(net, &net->thread[i].done, thread->meetings);
}

/* Barrier between step - 1 and `step`. An unsplit step runs on the first thread; threads wait only if they need to. */
static void meet(struct thread *thread, int step) {
    struct smallcnn_net *net = thread->net;
    int shared_before = step > 0 && STEPS[step - 1].split >= 0;
    int shared_after = step < NETWORK_STEPS && STEPS[step].split >= 0;
    int first = thread->index == 0;
    if (net->threads == 1 || step == 0 || !(shared_before || shared_after)) return;
    thread->meetings++;
    if (shared_before || first) raise(net, &thread->done, thread->meetings);
    if (shared_before && (first || shared_after))
        await_workers(thread);
    else if (!first && shared_after)
        await(net, &net->thread[0].done, thread->meetings);
}
#else
static void meet(struct thread *thread, int step) {
    (void)thread;
    (void)step;
}
#endif

/* ---- Running. */

/* Points the buffers of the image and the outputs to those of this run. */
static void bind(struct thread *thread) {
    const struct smallcnn_net *net = thread->net;
    uintptr_t moved[OUTPUT + NETWORK_OUTPUTS] = {[INPUT] = (uintptr_t)net->image - (uintptr_t)thread->image};
    int same = !moved[INPUT];
    thread->image = net->image;
    for (int i = 0; i < NETWORK_OUTPUTS; i++) {
        moved[OUTPUT + i] = (uintptr_t)net->outputs[i] - (uintptr_t)thread->outputs[i];
        thread->outputs[i] = net->outputs[i];
        same &= !moved[OUTPUT + i];
    }
    for (int i = 0; !same && i < NETWORK_BUFFERS; i++)
        thread->buffers[i].host = (uint8_t *)((uintptr_t)thread->buffers[i].host + moved[BUFFERS[i].space]);
}

static void walk(struct thread *thread, uint64_t *times) {
    thread->error = SMALLCNN_OK;
    thread->top = NULL;
    thread->used = 0;
    bind(thread);
    for (int i = 0; i < NETWORK_STEPS; i++) {
        meet(thread, i);
        if (times) times[i] = nanoseconds();
        if (thread->calls[i] && STEPS[i].kernel(thread->calls[i]) && !thread->error) thread->error = SMALLCNN_KERNEL;
    }
    meet(thread, NETWORK_STEPS);
}

static int run(struct smallcnn_net *net, const uint8_t *image, void *const *outputs, uint64_t *times) {
    if (!net || !image || !outputs) return SMALLCNN_ARGUMENT;
    for (int i = 0; i < NETWORK_OUTPUTS; i++)
        if (!outputs[i]) return SMALLCNN_ARGUMENT;
    net->image = image;
    for (int i = 0; i < NETWORK_OUTPUTS; i++) net->outputs[i] = outputs[i];
#ifndef NO_SYSTEM
    if (net->threads > 1) raise(net, &net->go, ++net->thread[0].runs);
#endif
    uint64_t setting = flush_denormals();
    walk(&net->thread[0], times);
    restore(setting);
    for (int i = 0; i < net->threads; i++)
        if (net->thread[i].error) return net->thread[i].error;
    return SMALLCNN_OK;
}

int smallcnn_run(struct smallcnn_net *net, const uint8_t *image, void *const *outputs) {
    return run(net, image, outputs, NULL);
}

#ifndef NO_SYSTEM
int smallcnn_run_timed(struct smallcnn_net *net, const uint8_t *image, void *const *outputs, uint64_t *times) {
    if (!times) return SMALLCNN_ARGUMENT;
    int error = run(net, image, outputs, times);
    uint64_t end = nanoseconds();
    if (error) return error;
    for (int i = 0; i < NETWORK_STEPS; i++) times[i] = (i + 1 < NETWORK_STEPS ? times[i + 1] : end) - times[i];
    return SMALLCNN_OK;
}

static void *work(void *argument) {
    struct thread *thread = argument;
    flush_denormals();
    for (;;) {
        await(thread->net, &thread->net->go, ++thread->runs);
        if (thread->net->stop) return NULL;
        walk(thread, NULL);
    }
}
#endif

/* ---- Creating: one block of memory, laid out once. */

#define MOST_THREADS 1024
#define TABLES_BYTES                                                                                  \
    ROUND_UP(NETWORK_BUFFERS * sizeof(buffer_t) + NETWORK_DIMENSIONS * sizeof(dimension_t) +           \
                 (NETWORK_BUFFERS + 2 * NETWORK_STEPS) * sizeof(void *),                               \
             ALIGNMENT)
#define ARENA_BYTES ROUND_UP((size_t)NETWORK_ARENA, ALIGNMENT)
#define SCRATCH_BYTES ROUND_UP((size_t)NETWORK_SCRATCH, ALIGNMENT)

static size_t block_bytes(int threads) {
    size_t each = sizeof(struct thread) + TABLES_BYTES + SCRATCH_BYTES;
    return sizeof(struct smallcnn_net) + ARENA_BYTES + (size_t)threads * each;
}

/* Reduces `dimension` to the thread's share; returns whether it is not empty. */
static int crop(buffer_t *buffer, dimension_t *dimension, int grain, int index, int threads) {
    int64_t grains = (dimension->extent + (int64_t)grain - 1) / grain;
    int64_t begin = grains * index / threads * grain, end = grains * (index + 1) / threads * grain;
    if (end > dimension->extent) end = dimension->extent;
    buffer->host += begin * dimension->stride * (buffer->bits / 8);
    dimension->min = (int32_t)begin;
    dimension->extent = (int32_t)(end - begin);
    return end > begin;
}

/* Writes the arguments of each step's kernel into `tables`. */
static void lay_tables(struct thread *thread, uint8_t *tables, uint8_t *arena, int threads) {
    uint8_t *const spaces[OUTPUT + NETWORK_OUTPUTS] = {[ARENA] = arena, [WEIGHTS] = (uint8_t *)NETWORK_WEIGHTS}; /* see bind */
    buffer_t *buffer = thread->buffers = (buffer_t *)(void *)tables;
    void **argument = (void **)(void *)(buffer + NETWORK_BUFFERS);
    thread->calls = (void ***)(void *)(argument + NETWORK_BUFFERS + NETWORK_STEPS);
    dimension_t *dimension = (dimension_t *)(void *)(thread->calls + NETWORK_STEPS);
    const struct buffer *from = BUFFERS;
    const struct dimension *extents = DIMENSIONS;
    for (int i = 0; i < NETWORK_STEPS; i++) {
        const struct step *step = &STEPS[i];
        thread->calls[i] = argument;
        *argument++ = &thread->self;
        for (int j = 0; j < step->buffers; j++, from++, buffer++) {
            *buffer = (buffer_t){.host = (uint8_t *)((uintptr_t)spaces[from->space] + (uintptr_t)from->offset),
                                 .code = from->code,
                                 .bits = from->bits,
                                 .lanes = 1,
                                 .dimensions = from->dimensions,
                                 .dim = dimension};
            *argument++ = buffer;
            for (int k = 0; k < from->dimensions; k++, extents++)
                *dimension++ = (dimension_t){.extent = extents->extent, .stride = extents->stride};
        }
        buffer_t *output = buffer - 1;
        int busy = step->split < 0 ? thread->index == 0
                                   : crop(output, &output->dim[step->split], step->grain, thread->index, threads);
        if (!busy) thread->calls[i] = NULL;
    }
}

static struct smallcnn_net *lay_out(void *memory, int threads) {
    struct smallcnn_net *net = memory;
    *net = (struct smallcnn_net){.threads = threads, .thread = (struct thread *)(net + 1)};
    uint8_t *tables = (uint8_t *)(net->thread + threads);
    uint8_t *arena = tables + (size_t)threads * TABLES_BYTES;
    uint8_t *scratch = arena + ARENA_BYTES;
    for (int i = 0; i < threads; i++) {
        struct thread *thread = &net->thread[i];
        *thread = (struct thread){.net = net, .index = i, .scratch = scratch + (size_t)i * SCRATCH_BYTES};
        thread->self = thread;
        lay_tables(thread, tables + (size_t)i * TABLES_BYTES, arena, threads);
    }
    return net;
}

int smallcnn_create_in(void *memory, size_t bytes, struct smallcnn_net **net) {
    if (!net) return SMALLCNN_ARGUMENT;
    *net = NULL;
    if (!memory || bytes < smallcnn_memory(1)) return SMALLCNN_ARGUMENT;
    if (!smallcnn_supported()) return SMALLCNN_CPU;
    *net = lay_out((void *)ROUND_UP((uintptr_t)memory, ALIGNMENT), 1);
    return SMALLCNN_OK;
}

#ifdef NO_SYSTEM
void smallcnn_destroy(struct smallcnn_net *net) { (void)net; }
#else
static int any_shared(void) {
    for (int i = 0; i < NETWORK_STEPS; i++)
        if (STEPS[i].split >= 0) return 1;
    return 0;
}

int smallcnn_create(int threads, struct smallcnn_net **result) {
    if (!result) return SMALLCNN_ARGUMENT;
    *result = NULL;
    if (threads < 1 || threads > MOST_THREADS) return SMALLCNN_ARGUMENT;
    if (!smallcnn_supported()) return SMALLCNN_CPU;
    if (!any_shared()) threads = 1;
    void *memory = allocate(block_bytes(threads));
    if (!memory) return SMALLCNN_MEMORY;
    struct smallcnn_net *net = lay_out(memory, threads);
    net->own = 1;
    net->until_yield = ticks_in(LOOK_MICROSECONDS);
    net->until_sleep = ticks_in(YIELD_MICROSECONDS);
    open_gate(&net->gate);
    for (int i = 1; i < threads; i++) {
        if (start(&net->thread[i].handle, work, &net->thread[i])) {
            net->threads = i; /* those that run */
            smallcnn_destroy(net);
            return SMALLCNN_THREAD;
        }
    }
    *result = net;
    return SMALLCNN_OK;
}

void smallcnn_destroy(struct smallcnn_net *net) {
    if (!net || !net->own) return;
    net->stop = 1;
    raise(net, &net->go, ++net->thread[0].runs);
    for (int i = 1; i < net->threads; i++) join(net->thread[i].handle);
    close_gate(&net->gate);
    release(net);
}
#endif

/* ---- Answers. */

int smallcnn_limit(struct smallcnn_net *net, float threshold, float overlap, int most) {
    if (!net || !NETWORK_MOST || !(threshold <= 1) || !(overlap <= 1) || most == 0 || most > NETWORK_MOST)
        return SMALLCNN_ARGUMENT;
    net->limits = (struct limits){threshold, overlap, most};
    net->limited = 1;
    return SMALLCNN_OK;
}

size_t smallcnn_memory(int threads) {
    return threads < 1 || threads > MOST_THREADS ? 0 : block_bytes(threads) + ALIGNMENT;
}

size_t smallcnn_scratch(const struct smallcnn_net *net) {
    size_t most = 0;
    for (int i = 0; net && i < net->threads; i++)
        if (net->thread[i].most_used > most) most = net->thread[i].most_used;
    return most;
}

int smallcnn_format(void) { return SMALLCNN_FORMAT; }
const char *smallcnn_metadata(void) { return NETWORK_METADATA; }
const char *smallcnn_features(void) { return NETWORK_FEATURES; }
int smallcnn_height(void) { return NETWORK_HEIGHT; }
int smallcnn_width(void) { return NETWORK_WIDTH; }
int smallcnn_channels(void) { return NETWORK_CHANNELS; }
int smallcnn_steps(void) { return NETWORK_STEPS; }
const char *smallcnn_label(int step) { return step >= 0 && step < NETWORK_STEPS ? LABELS + STEPS[step].label : NULL; }

static const struct output *output_at(int output) {
    return output >= 0 && output < NETWORK_OUTPUTS ? &OUTPUTS[output] : NULL;
}

int smallcnn_output_count(void) { return NETWORK_OUTPUTS; }
const char *smallcnn_output_name(int output) { return output_at(output) ? output_at(output)->name : NULL; }
int smallcnn_output_number(int output) { return output_at(output) ? output_at(output)->number : -1; }
double smallcnn_output_scale(int output) { return output_at(output) ? output_at(output)->scale : 0; }
int smallcnn_output_zero(int output) { return output_at(output) ? output_at(output)->zero : 0; }

int smallcnn_output_shape(int output, int *dimensions) {
    const struct output *found = output_at(output);
    for (int i = 0; dimensions && found && i < found->dimensions; i++) dimensions[i] = found->shape[i];
    return found ? found->dimensions : 0;
}

const char *smallcnn_error(int error) {
    switch (error) {
    case SMALLCNN_OK: return "no error";
    case SMALLCNN_CPU: return "this CPU, or its operating system, lacks features that the network was compiled for";
    case SMALLCNN_ARGUMENT: return "a null pointer, a wrong number, or too little memory was given";
    case SMALLCNN_MEMORY: return "out of memory";
    case SMALLCNN_THREAD: return "the system starts no more threads";
    case SMALLCNN_SCRATCH: return "a kernel needed more working memory than was planned";
    case SMALLCNN_KERNEL: return "a kernel reported an error";
    default: return "unknown error";
    }
}
