/* The two Halide structures that kernels read; see HalideRuntime.h. */

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t min, extent, stride;
    uint32_t flags;
} dimension_t;

typedef struct {
    uint64_t device;
    const void *device_interface;
    uint8_t *host;
    uint64_t flags;
    uint8_t code, bits;
    uint16_t lanes;
    int32_t dimensions;
    dimension_t *dim;
    void *padding;
} buffer_t;
