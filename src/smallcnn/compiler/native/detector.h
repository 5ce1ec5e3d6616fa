/* What a detector keeps; a negative number is that of the network. After buffer.h. */

struct limits {
    float threshold, overlap;
    int32_t most;
};

/* The limits of the run that calls a kernel. */
const struct limits *detector_limits(void *context);
