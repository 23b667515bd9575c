/* What run.c needs of spans that are not stored as the arithmetic's type: stored.c. */
#ifndef FASTLR_STORED_H
#define FASTLR_STORED_H

#include "table.h"

typedef struct {
    uint64_t key,
        index; /* of stochastic rounding: what is the step's, and the place of the first element in the model */
} fastlr_chance;

/* From and to the arithmetic's type, n ≤ FASTLR_QUANTUM elements; exactly that many, or all of a span, where there is a scale.
 * What float64 is not stored as is NULL. */
typedef struct {
    void (*load[FASTLR_FORMATS])(size_t n, const void *from, const void *beside, void *to);
    void (*save[FASTLR_FORMATS])(size_t n, const void *from, void *to, void *beside, fastlr_chance);
    void (*limit)(size_t n, void *g, double most);                     /* g ← min(max(g, −most), most) */
    void (*follow)(size_t n, void *mean, const void *p, double share); /* mean ← (1 − share) mean + share p */
    void (*add)(size_t n, void *sum, const void *g);                   /* sum ← sum + g */
} fastlr_codec;

const fastlr_codec *fastlr_codec_of(fastlr_dtype);

/* Elements skip to skip + n of the span, which has a `stored`; k and the sums as in fastlr_rule. */
void fastlr_sweep_stored(const fastlr_rule *, const fastlr_span *, size_t skip, size_t n, bool zero, size_t k,
                         fastlr_lanes *);
void fastlr_survey_stored(const fastlr_rule *, const fastlr_span *, size_t skip, size_t n, size_t k, fastlr_lanes *);
void fastlr_gauge_stored(fastlr_dtype, const fastlr_span *, size_t skip, size_t n, double scale, size_t k,
                         fastlr_gauge *);
/* p plus g. */
void fastlr_add_stored(fastlr_dtype, const fastlr_span *, size_t skip, size_t n);

#endif
