/* What a translation unit of kernels exports: one table for each type and instruction set. */
#ifndef FASTLR_TABLE_H
#define FASTLR_TABLE_H

#include "fastlr.h"

enum { FASTLR_LANES = 32 }; /* independent sums in a block: measured best with gcc for AVX2 and AVX-512 */

typedef struct {
    double lane[FASTLR_LANES];
    uint64_t largest; /* magnitude(): infinity and NaN are the largest */
} fastlr_gauge;

typedef struct {
    const fastlr_rule *const *rules; /* ends with NULL */
    void (*gauge)(size_t n, const void *g, double scale, size_t k, fastlr_gauge *);
    double (*number)(uint64_t magnitude); /* back from the bit pattern */
} fastlr_table;

const fastlr_table *fastlr_table_of(fastlr_dtype);

#endif
