/* What the segments of a schedule's table are, and one evaluator for each instruction set. fastlr/schedules/tree.py writes
 * the tables and has the same names. */
#ifndef FASTLR_SCHEDULE_H
#define FASTLR_SCHEDULE_H

#include "elementary.h"
#include "fastlr.h"

enum {
    KIND_CONSTANT,
    KIND_INTERPOLATE,
    KIND_EXPONENTIAL,
    KIND_INVERSE_TIME,
    KIND_TIME_BASED,
    KIND_INVERSE_SQRT,
    KIND_NOAM,
    KIND_POWER_LAW,
    KIND_POLYNOMIAL_CYCLE,
    KIND_TRIANGLE,
    KIND_NOISE,
    KIND_CUSTOM,
    KIND_SEQUENCE,
    KIND_REPEAT,
    KIND_PRODUCT,
    KIND_SUM,
    KIND_CLOCK,
    KIND_CLIP,
    KIND_SCALE,
    KIND_END,
};

enum {
    SHAPE_LINEAR,
    SHAPE_COSINE,
    SHAPE_COSINE_POWER,
    SHAPE_POLYNOMIAL,
    SHAPE_POLYNOMIAL_POWER,
    SHAPE_POWER,
    SHAPE_ROOT,
    SHAPE_ROOT_LEFT,
    SHAPE_REX,
    SHAPE_TANH,
    SHAPE_EXPONENTIAL,
    SHAPE_GEOMETRIC,
};

/* ln Γ(z) − ½ ln 2π for z > 0, by Stirling's series. */
ELEMENTARY double stirling(double z)
{
    double product = z;
    for (int k = 1; k < 16; k++)
        product *= z + k;
    const bool large = z > 1e6; /* where the product would overflow, and the series needs no help */
    product = large ? 1 : product;
    const double y = large ? z : z + 16, v = 1 / y, q = v * v;
    const twofold l = logarithm_of(y);
    const double series = v * (1. / 12 - q * (1. / 360 - q * (1. / 1260 - q * (1. / 1680 - q * (1. / 1188)))));
    return ((y - 0.5) * l.hi - y) + ((y - 0.5) * l.lo + series) - logarithm(product);
}

/* What curves.h makes for an instruction set. */
typedef struct {
    int (*doubles)(const fastlr_segment *, size_t n, const double *t, double *out);
    int (*ints)(const fastlr_segment *, size_t n, const int64_t *t, double *out);
    int (*wide)(const fastlr_segment *, double hi, double lo, double *out);
} fastlr_evaluator;
extern const fastlr_evaluator fastlr_evaluator_baseline, fastlr_evaluator_avx2, fastlr_evaluator_avx512;

#endif
