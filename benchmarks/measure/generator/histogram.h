/* Latencies in whole microseconds, in buckets of the HDR histogram with 3 significant digits
 * (http://hdrhistogram.org): 2,048 buckets of one, then 1,024 for each doubling. Recording is a shift
 * and an increment. Printed as [lowest value of the bucket, count] pairs. */
#include <stdint.h>
#include <stdio.h>

#define HALF 1024
#define BUCKETS (32 * HALF)

typedef struct { uint64_t counts[BUCKETS]; } histogram;

static void record(histogram *h, uint64_t ns) {
    uint64_t value = (ns + 500) / 1000;
    int shift = 64 - __builtin_clzll(value | (2 * HALF - 1)) - 11;
    uint64_t index = ((uint64_t)shift << 10) + (value >> shift);
    h->counts[index < BUCKETS ? index : BUCKETS - 1]++;
}

static void print_histogram(const char *name, const histogram *h) {
    const char *comma = "";
    printf(", \"%s\": [", name);
    for (uint64_t i = 0; i < BUCKETS; i++)
        if (h->counts[i]) {
            uint64_t shift = i < 2 * HALF ? 0 : (i >> 10) - 1;
            uint64_t value = (i - (shift << 10)) << shift;
            printf("%s[%llu, %llu]", comma, (unsigned long long)value, (unsigned long long)h->counts[i]);
            comma = ", ";
        }
    printf("]");
}
