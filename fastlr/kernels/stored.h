/* What run.c needs of spans that are not stored as the arithmetic's type: stored.c. */
#ifndef FASTLR_STORED_H
#define FASTLR_STORED_H

#include "table.h"

/* From and to float32, n ≤ FASTLR_QUANTUM elements; exactly that many, or all of a span, where there is a scale. */
typedef struct {
    uint64_t key,
        index; /* of stochastic rounding: what is the step's, and the place of the first element in the model */
} fastlr_chance;

typedef struct {
    void (*load[FASTLR_FORMATS])(size_t n, const void *from, const void *beside, float *to);
    void (*save[FASTLR_FORMATS])(size_t n, const float *from, void *to, void *beside, fastlr_chance);
    void (*limit)(size_t n, float *g, float most);                      /* g ← min(max(g, −most), most) */
    void (*follow)(size_t n, float *mean, const float *p, float share); /* mean ← (1 − share) mean + share p */
    void (*add)(size_t n, float *sum, const float *g);                  /* sum ← sum + g */
} fastlr_codec;

const fastlr_codec *fastlr_codec_in_use(void);

/* Elements skip to skip + n of the span, which has a `stored`; k and the sums as in fastlr_rule. */
void fastlr_sweep_stored(const fastlr_rule *, const fastlr_span *, size_t skip, size_t n, bool zero, size_t k,
                         fastlr_lanes *);
void fastlr_survey_stored(const fastlr_rule *, const fastlr_span *, size_t skip, size_t n, size_t k, fastlr_lanes *);
void fastlr_gauge_stored(const fastlr_table *, const fastlr_span *, size_t skip, size_t n, double scale, size_t k,
                         fastlr_gauge *);
/* p, in float32, plus g. */
void fastlr_add_stored(const fastlr_span *, size_t skip, size_t n);

#endif
