/* What a translation unit of kernels exports: one table for each type and instruction set. */
#ifndef FASTLR_TABLE_H
#define FASTLR_TABLE_H

#include "fastlr.h"

typedef struct {
    double lane[FASTLR_LANES];
    uint64_t largest; /* magnitude(): infinity and NaN are the largest */
} fastlr_gauge;

enum { FASTLR_TILE_WIDTH = 1024 }; /* columns at most that the functions of factored.h are given */

/* The passes of a rule that keeps means of rows and columns; see kernels/factored.h. */
typedef struct {
    double (*gather)(size_t rows, size_t cols, size_t stride, const void *p, const void *g, const fastlr_step *,
                     double *row, size_t apart, double *col);
    double (*fold)(size_t n, void *mean, const double *sums, size_t item, size_t parts, size_t part, double over,
                   const fastlr_step *);
    double (*judge)(size_t rows, size_t cols, size_t stride, const void *g, const void *r, const void *c, double mean,
                    const fastlr_step *);
    void (*apply)(size_t rows, size_t cols, size_t stride, void *p, void *g, const void *r, const void *c, double mean,
                  double p2, double u2, double n, const fastlr_step *, bool zero);
    void (*gather_vector)(size_t n, const void *p, const void *g, void *v, const fastlr_step *, double *p2, double *u2);
    void (*apply_vector)(size_t n, void *p, void *g, const void *v, double p2, double u2, double size,
                         const fastlr_step *, bool zero);
} fastlr_factored;

enum { FASTLR_TOGETHER = 4 }; /* gradients of a row at most that add_rows() is given */

typedef struct {
    const fastlr_rule *const *rules;  /* ends with NULL */
    const fastlr_rule *const *others; /* that are not a sweep; ends with NULL */
    const fastlr_factored *factored;
    void (*gauge)(size_t n, const void *g, double scale, size_t k, fastlr_gauge *);
    double (*number)(uint64_t magnitude); /* back from the bit pattern */
    const fastlr_rule *const *row_rules;  /* beside `rules`; ends with NULL */
    void (*add_rows)(size_t n, const void *g, const uint64_t *pairs, size_t count, bool first, double *sum);
    void (*narrow_row)(size_t n, const double *sum, void *narrowed);
} fastlr_table;

const fastlr_table *fastlr_table_of(fastlr_dtype);

#endif
