/* Checks that this CPU and its operating system support the kernels. Runs on any CPU. */

struct feature {
    const char *name;
    int (*present)(void);
};

#if defined(__x86_64__)
#include <cpuid.h>

#define BITS(value, mask) (((value) & (mask)) == (mask))
#define ONCE __attribute__((cold, noinline)) static /* runs once per file: small rather than fast */

ONCE int sse41(void) { /* as in Penryn: SSSE3, CMPXCHG16B, SSE4.1 */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && BITS(c, 1u << 9 | 1u << 13 | 1u << 19);
}

/* Whether the operating system saves these register sets: 2 SSE, 4 AVX, 0xe0 AVX-512. */
ONCE int saved(unsigned parts) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return 0; /* OSXSAVE */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return BITS(low, parts);
}

ONCE int avx2(void) { /* x86-64-v3, as in Haswell */
    unsigned a, b, c, d;
    const unsigned one = 1u << 12 | 1u << 20 | 1u << 22 | 1u << 23 | 1u << 28 | 1u << 29; /* FMA SSE4.2 MOVBE POPCNT
                                                                                           AVX F16C */
    const unsigned seven = 1u << 3 | 1u << 5 | 1u << 8; /* BMI1 AVX2 BMI2 */
    const unsigned extended = 1u << 5;                  /* LZCNT */
    if (!sse41() || !saved(6) || !__get_cpuid(1, &a, &b, &c, &d) || !BITS(c, one)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !BITS(b, seven)) return 0;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && BITS(c, extended);
}

ONCE int avx512(void) { /* x86-64-v4, as in Skylake's servers: F DQ CD BW VL */
    unsigned a, b, c, d;
    if (!avx2() || !saved(0xe6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return BITS(b, 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31);
}

ONCE int avxvnni(void) { /* AVX-VNNI, as in Alder Lake */
    unsigned a, b, c, d;
    if (!avx2() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return 0; /* a: the last part of this leaf */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && BITS(a, 1u << 4);
}

ONCE int vnni(void) { /* AVX-512 with VBMI, VBMI2 and VNNI, as in Ice Lake and Zen 4 */
    unsigned a, b, c, d;
    return avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && BITS(c, 1u << 1 | 1u << 6 | 1u << 11);
}

static const struct feature FEATURES[] = {
    {"sse41", sse41}, {"avx2", avx2}, {"avxvnni", avxvnni}, {"avx512", avx512}, {"vnni", vnni}};

#elif defined(__aarch64__)
#if defined(__linux__)
unsigned long getauxval(unsigned long);
static int dotprod(void) { return getauxval(16) >> 20 & 1; } /* AT_HWCAP, HWCAP_ASIMDDP */
#elif defined(__APPLE__)
int sysctlbyname(const char *, void *, size_t *, void *, size_t);
static int dotprod(void) {
    int value = 0;
    size_t bytes = sizeof value;
    return !sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &bytes, NULL, 0) && value;
}
#else
static int dotprod(void) { return 1; } /* firmware is built for its CPU and may not be allowed to query it */
#endif
static const struct feature FEATURES[] = {{"dotprod", dotprod}};

#else
static const struct feature FEATURES[] = {{" ", NULL}}; /* WebAssembly is validated as a whole when loaded */
#endif

static int has(const char *word, size_t length) {
    for (size_t i = 0; i < sizeof FEATURES / sizeof *FEATURES; i++) {
        const char *name = FEATURES[i].name;
        size_t same = 0;
        while (same < length && name[same] == word[same]) same++; /* a shorter name ends in a different byte */
        if (same == length && !name[same]) return FEATURES[i].present();
    }
    return 0;
}

int smallcnn_has(const char *feature) {
    size_t length = 0;
    while (feature && feature[length]) length++;
    return length && has(feature, length);
}

int smallcnn_supported(void) {
    for (const char *word = NETWORK_FEATURES; *word;) {
        size_t length = 0;
        while (word[length] && word[length] != ' ') length++;
        if (!has(word, length)) return 0;
        word += length + (word[length] == ' ');
    }
    return 1;
}
