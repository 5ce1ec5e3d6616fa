/* The runtime's interface to the operating system. Declared here, as a cross compiler lacks some of the headers.

       allocate, release    memory aligned to ALIGNMENT bytes
       start, join          one thread; its stack holds the small intermediates of kernels
       yield                yield this core to another thread
       sleep_while, wake    on a word: sleep while it has a value, wake all sleepers
       nanoseconds          a monotonic clock

   NO_SYSTEM: WebAssembly and firmware have none of these. */

#if defined(__wasm__) || !(defined(__linux__) || defined(__APPLE__) || defined(_WIN32))
#define NO_SYSTEM 1
#endif

#ifdef NO_SYSTEM
static void *allocate(size_t bytes) { return (void)bytes, NULL; }
static void release(void *memory) { (void)memory; }
static uint64_t nanoseconds(void) { return 0; } /* unused */
#else
#define STACK_BYTES ((size_t)1 << 20)

struct gate { /* where threads sleep: on systems without futex, one for all words of a context */
    _Alignas(16) unsigned char mutex[128], condition[128];
};
#endif

#if defined(__linux__) || defined(__APPLE__)
int posix_memalign(void **, size_t, size_t);
void free(void *);
int pthread_create(uintptr_t *, const void *, void *(*)(void *), void *);
int pthread_join(uintptr_t, void **);
int pthread_attr_init(void *);
int pthread_attr_setstacksize(void *, size_t);
int pthread_attr_destroy(void *);
int sched_yield(void);
int clock_gettime(int, long *);

static void *allocate(size_t bytes) {
    void *memory;
    return posix_memalign(&memory, ALIGNMENT, bytes) ? NULL : memory;
}

static void release(void *memory) { free(memory); }

static int start(uintptr_t *thread, void *(*body)(void *), void *argument) {
    _Alignas(16) unsigned char attributes[128]; /* pthread_attr_t has 56 or 64 bytes */
    if (pthread_attr_init(attributes)) return SMALLCNN_THREAD;
    pthread_attr_setstacksize(attributes, STACK_BYTES);
    int error = pthread_create(thread, attributes, body, argument);
    pthread_attr_destroy(attributes);
    return error ? SMALLCNN_THREAD : SMALLCNN_OK;
}

static void join(uintptr_t thread) { pthread_join(thread, NULL); }

static void yield(void) { sched_yield(); }

static uint64_t nanoseconds(void) {
    long time[2]; /* struct timespec of every 64-bit system here */
#ifdef __APPLE__
    clock_gettime(6, time);
#else
    clock_gettime(1, time);
#endif
    return (uint64_t)time[0] * 1000000000 + (uint64_t)time[1];
}
#endif

#if defined(__linux__)
long syscall(long, ...);
#ifdef __x86_64__
#define SYS_FUTEX 202
#else
#define SYS_FUTEX 98
#endif
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129

static void open_gate(struct gate *gate) { (void)gate; }
static void close_gate(struct gate *gate) { (void)gate; }

static void sleep_while(struct gate *gate, uint32_t *word, uint32_t value) {
    (void)gate;
    syscall(SYS_FUTEX, word, FUTEX_WAIT_PRIVATE, value, NULL);
}

static void wake(struct gate *gate, uint32_t *word) {
    (void)gate;
    syscall(SYS_FUTEX, word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}
#elif defined(__APPLE__)
int pthread_mutex_init(void *, const void *);
int pthread_mutex_lock(void *);
int pthread_mutex_unlock(void *);
int pthread_mutex_destroy(void *);
int pthread_cond_init(void *, const void *);
int pthread_cond_wait(void *, void *);
int pthread_cond_broadcast(void *);
int pthread_cond_destroy(void *);

static void open_gate(struct gate *gate) {
    pthread_mutex_init(gate->mutex, NULL);
    pthread_cond_init(gate->condition, NULL);
}

static void close_gate(struct gate *gate) {
    pthread_mutex_destroy(gate->mutex);
    pthread_cond_destroy(gate->condition);
}

static void sleep_while(struct gate *gate, uint32_t *word, uint32_t value) {
    pthread_mutex_lock(gate->mutex);
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) pthread_cond_wait(gate->condition, gate->mutex);
    pthread_mutex_unlock(gate->mutex);
}

static void wake(struct gate *gate, uint32_t *word) {
    (void)word;
    pthread_mutex_lock(gate->mutex);
    pthread_cond_broadcast(gate->condition);
    pthread_mutex_unlock(gate->mutex);
}
#elif defined(_WIN32)
void *VirtualAlloc(void *, size_t, uint32_t, uint32_t);
int VirtualFree(void *, size_t, uint32_t);
void *CreateThread(void *, size_t, uint32_t (*)(void *), void *, uint32_t, uint32_t *);
uint32_t WaitForSingleObject(void *, uint32_t);
int CloseHandle(void *);
int SwitchToThread(void);
int QueryPerformanceCounter(int64_t *);
int QueryPerformanceFrequency(int64_t *);
void InitializeSRWLock(void *);
void AcquireSRWLockExclusive(void *);
void ReleaseSRWLockExclusive(void *);
void InitializeConditionVariable(void *);
int SleepConditionVariableSRW(void *, void *, uint32_t, uint32_t);
void WakeAllConditionVariable(void *);

static void *allocate(size_t bytes) {
    return VirtualAlloc(NULL, bytes, 0x3000, 4); /* reserve and commit, read and write */
}

static void release(void *memory) { VirtualFree(memory, 0, 0x8000); }


static int start(uintptr_t *thread, void *(*body)(void *), void *argument) {
    /* A thread's result is 32 bits here and a pointer there: both use the same register, and it is ignored. */
    *thread = (uintptr_t)CreateThread(NULL, STACK_BYTES, (uint32_t(*)(void *))(void *)body, argument, 0x10000, NULL);
    return *thread ? SMALLCNN_OK : SMALLCNN_THREAD;
}

static void join(uintptr_t thread) {
    WaitForSingleObject((void *)thread, UINT32_MAX);
    CloseHandle((void *)thread);
}

static void yield(void) { SwitchToThread(); }

static uint64_t nanoseconds(void) {
    int64_t count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (uint64_t)((double)count * (1e9 / (double)frequency));
}

static void open_gate(struct gate *gate) {
    InitializeSRWLock(gate->mutex);
    InitializeConditionVariable(gate->condition);
}

static void close_gate(struct gate *gate) { (void)gate; }

static void sleep_while(struct gate *gate, uint32_t *word, uint32_t value) {
    AcquireSRWLockExclusive(gate->mutex);
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
        SleepConditionVariableSRW(gate->condition, gate->mutex, UINT32_MAX, 0);
    ReleaseSRWLockExclusive(gate->mutex);
}

static void wake(struct gate *gate, uint32_t *word) {
    (void)word;
    AcquireSRWLockExclusive(gate->mutex);
    WakeAllConditionVariable(gate->condition);
    ReleaseSRWLockExclusive(gate->mutex);
}
#endif

/* Many processors compute with denormal numbers (below 1.2e-38) a hundred times as slowly as with others. Kernels take
   them for zero, as inputs and as results: this sets the calling thread so and returns its setting for `restore`.
   WebAssembly has no such setting. */
#if defined(__x86_64__)
static inline uint64_t flush_denormals(void) {
    uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
}
static inline void restore(uint64_t setting) { __builtin_ia32_ldmxcsr((uint32_t)setting); }
#elif defined(__aarch64__)
static inline void restore(uint64_t setting) { __asm__ volatile("msr fpcr, %0" : : "r"(setting) : "memory"); }
static inline uint64_t flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    restore(before | 1 << 24); /* FZ */
    return before;
}
#else
static inline uint64_t flush_denormals(void) { return 0; }
static inline void restore(uint64_t setting) { (void)setting; }
#endif

/* Ticks of a fast counter, used only for timeouts. */
#if defined(__x86_64__)
static inline uint64_t ticks(void) { return __builtin_ia32_rdtsc(); }
static inline uint64_t ticks_in(uint64_t microseconds) { return microseconds * 2500; } /* within a factor of 2 */
static inline void pause(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static inline uint64_t ticks(void) { return __builtin_arm_rsr64("cntvct_el0"); }
static inline uint64_t ticks_in(uint64_t microseconds) {
    return microseconds * __builtin_arm_rsr64("cntfrq_el0") / 1000000;
}
static inline void pause(void) { __asm__ volatile("yield"); }
#endif
