/* All kernels of one type and one instruction set.
 *
 * A template: a file in tu/ includes it once, after defining
 *     REAL    float or double: the type of buffers and arithmetic
 *     FLOATS  defined where REAL is float
 *     BITS    the unsigned integer of its size
 *     TARGET  the instruction set as the compiler spells it; undefined for the compiler's own default
 *     TABLE   the name of the table it defines
 *     REGISTERS how many vectors it holds, where these are more than 16
 *     VECTORS the header of its own vectors, where it has one
 * and, where size counts more than speed,
 *     COMPACT for target_begin.h
 * All else is static, so that no function compiled for one instruction set can be linked into another.
 */
#include "elementary.h"
#include "prefetch.h"
#include "table.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "target_begin.h"

#define NAME_(a, b) a##_##b
#define NAME(a, b) NAME_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define PER_ELEMENT INLINED /* pure, once for each element, in the buffers' type */
#define PER_STEP static     /* once for each step, in double */

typedef REAL real;

/* How loops go through memory: a stride after the other, each of which asks for what is LATER.
 *
 * The processor runs ahead as far as what it has begun fits into its queues. Arithmetic that waits for memory fills these: a rule
 * took a seventh longer than its floor, which moves the same bytes. But it has few lines on their way at a time, and stops where
 * it is asked for more: with strides twice as long AdamW takes a twentieth longer. What is nearer comes too late; what is four
 * times as far is gone again (python -m bench.compare).
 */
enum { STRIDE = 4 * FASTLR_LINE / sizeof(real), LATER = 2048 }; /* elements, bytes */

typedef struct {
    real scale, l2, rate, decay;
} apply;

/* Terms of up to FASTLR_SUMS sums. */
typedef struct {
    double t0, t1, t2, t3;
} sums;

/* What a rule makes of an element: the direction u, or with MOVES_P the new parameter p; the new state; terms of TRAIL; and
 * what has the sign of u, but is less work, if HEADING asks for it. */
typedef struct {
    real u, p, s0, s1, s2, s3, s4, way;
    sums sums;
} out;

/* What a step is made of beside the rule's own hyper-parameters, in double. RULE_at() may change all but the sums. */
typedef struct {
    double rate, decay;      /* p ← p − (rate u + decay p); at first lr, and lr times the decoupled decay */
    double *carry;           /* CARRY numbers, kept until the next step; all 0 before the first */
    const fastlr_sums *sums; /* of SURVEY, or in RULE_after() of TRAIL; NULL while RULE_survey()'s step is made */
} pace;

/* Only correctly rounded operations (+ − × ÷ √) appear below and in the rules: the same bits everywhere. */

/* The gradient as a rule sees it. */
PER_ELEMENT real seen(real g, real x, apply a)
{
    real d = a.scale * g;
    if (a.l2 != 0)
        d += a.l2 * x;
    return d;
}

/* Where the direction that it makes of that leads. */
PER_ELEMENT real moved(real x, real u, apply a)
{
    real move = a.rate * u;
    if (a.decay != 0)
        move += a.decay * x;
    return x - move;
}

PER_ELEMENT real root(real x)
{
    return _Generic((real)0, float: sqrtf, double: sqrt)(x);
}

PER_ELEMENT real modulus(real x)
{
    return _Generic((real)0, float: fabsf, double: fabs)(x);
}

/* 1, −1, or x itself where it is 0 or NaN. */
PER_ELEMENT real sign(real x)
{
    return x > 0 ? 1 : x < 0 ? -1 : x;
}

/* (1 − a) old + a new. Not b old + (1 − b) new: narrowed to float32, b = 0.999 leaves 1 − b off by 1e-5, and b = 1 − 1e-8
 * never forgets; narrowed itself, a = 1 − b is right to half an ulp. At a = 1 old − a old is 0: exactly new. */
PER_ELEMENT real average(real old, real new, real a)
{
    return (old - a * old) + a * new;
}

/* A quarter of the largest number. */
static UNKNOWN real most_square = _Generic((real)0, float: FLT_MAX, double: DBL_MAX) / 4;

/* x², or that where it is less: an average of squares must stay finite, or it would be ∞ − ∞ at the next step. A gradient of
 * 1e19 then passes like any other large one. NaN stays. */
PER_ELEMENT real square(real x)
{
    const real most = most_square, y = x * x;
    return y > most ? most : y;
}

/* The larger, or NaN if either is. */
PER_ELEMENT real larger(real a, real b)
{
    return a > b || a != a ? a : b;
}

/* Whether both have one sign. Not a b > 0, which underflows. */
PER_ELEMENT bool agree(real a, real b)
{
    return ((a > 0) & (b > 0)) | ((a < 0) & (b < 0));
}

typedef BITS bits;

/* |x| as an unsigned integer: ordered as the numbers are, with infinity and then NaN above them. */
PER_ELEMENT bits magnitude(real x)
{
    bits b;
    memcpy(&b, &x, sizeof b);
    return b & ((bits)-1 >> 1);
}

/* ∛x for x ≥ 0, within 1.71 u; 0, ∞ and NaN stay. By r, which goes to 1 / ∛x without a division, and one step of Newton's:
 *
 *     r ← r (1 + h/3 + 2h²/9 + 14h³/81)                  h = 1 − x r³: the error e of r becomes 35/3 e⁴
 *     y ← x r² + (x − (x r²)³) r²/3                      and 8 e²
 *
 * A multiple of the exponent's bias less a third of x's bits, as integers, are the bits of a number within 1/29 of 1 / ∛x: one
 * step leaves e < 2e-5, two some u. Of the last one's roundings those of the cube, 2 u, count a third, the sum's u all, and the
 * difference has none, for both are close. x is taken 2^54 times as large or as small, and ∛2^54 is 2^18, so that nothing is
 * denormal or infinite on the way.
 */
PER_ELEMENT real cube_root(real x)
{
    enum { LOW = 8 * sizeof(real) - 32, STEPS = sizeof(real) == sizeof(float) ? 1 : 2 };
    const uint32_t magic = sizeof(real) == sizeof(float) ? 0x54a20000 : 0x553eeaab;
    const real most = _Generic((real)0, float: FLT_MAX, double: DBL_MAX), third = (real)1 / 3;
    const bool small = x < 1;
    const real scaled = x * (real)(small ? 0x1p54 : 0x1p-54);
    bits b;
    memcpy(&b, &scaled, sizeof b);
    b = (bits)(magic - (uint32_t)(b >> LOW) / 3) << LOW;
    real r;
    memcpy(&r, &b, sizeof r);
    for (int k = 0; k < STEPS; k++) {
        const real h = 1 - (scaled * r) * (r * r);
        r = r + (r * h) * (third + h * ((real)2 / 9 + h * ((real)14 / 81)));
    }
    const real r2 = r * r, near = scaled * r2, y = near + (scaled - near * (near * near)) * (r2 * third);
    return ((x > 0) & (x <= most)) ? y * (real)(small ? 0x1p-18 : 0x1p18) : x;
}

PER_STEP bool is_finite(real x)
{
    return x - x == 0;
}

/* A double > 0, never narrowed to 0 or a denormal: ε must keep 0 / (√0 + ε) at 0. */
PER_STEP real positive(double x)
{
    const double least = _Generic((real)0, float: (double)FLT_MIN, double: DBL_MIN);
    return (real)(x > least ? x : least);
}

/* At most the largest number: a ratio to a norm that is next to 0 must not be infinite. */
PER_STEP double within(double x)
{
    const double most = _Generic((real)0, float: (double)FLT_MAX, double: DBL_MAX);
    return x > most ? most : x;
}

/* What part of a tensor's elements a cautious step keeps: 1/1000 or more, so that the others grow no further. */
PER_STEP double share(double kept, size_t n)
{
    const double x = kept / (double)n;
    return x > 1e-3 ? x : 1e-3;
}

/* 1 − b^t by repeated squaring, of complements: 1 − (1 − x)(1 − y) = x + y (1 − x). Nothing cancels, where 1 − 0.999²
 * would lose three digits; and the bits are the same on every platform, which pow() does not promise. */
PER_STEP double complement(double b, int64_t t)
{
    double y = 0;
    for (double x = 1 - b; t > 0; t >>= 1, x = x + x * (1 - x))
        if (t & 1)
            y = y + x * (1 - y);
    return y;
}

#ifdef FLOATS
#include "bits.h"
#endif
#include "floor.h"
#include "reduce.h"
#include "rows.h"
#include "rules/rectify.h"

#include "rules/adabelief.h"
#include "rules/adadelta.h"
#include "rules/adagrad.h"
#include "rules/adahessian.h"
#include "rules/adam.h"
#include "rules/adamax.h"
#include "rules/adan.h"
#include "rules/ademamix.h"
#include "rules/adopt.h"
#include "rules/asgd.h"
#include "rules/dadapt.h"
#include "rules/distance.h"
#include "rules/ftrl.h"
#include "rules/hypergradient.h"
#include "rules/lamb.h"
#include "rules/laprop.h"
#include "rules/lars.h"
#include "rules/lazy_adam.h"
#include "rules/madgrad.h"
#include "rules/mechanic.h"
#include "rules/muon.h"
#include "rules/nadam.h"
#include "rules/novograd.h"
#include "rules/prodigy.h"
#include "rules/qhadam.h"
#include "rules/qhm.h"
#include "rules/radam.h"
#include "rules/rmsprop.h"
#include "rules/row_adagrad.h"
#include "rules/rprop.h"
#include "rules/schedule_free.h"
#include "rules/sgd.h"
#include "rules/sign.h"
#include "rules/sophia.h"
#include "rules/stable_adamw.h"
#include "rules/yogi.h"

#include "rules/adafactor.h"

#include "factored.h"

/* Every rule has its line here. */
/* clang-format off */
static const fastlr_rule *const rules[] = {
    &adabelief_rule,
    &adabelief_cautious_rule,
    &adadelta_rule,
    &adagrad_rule,
    &adahessian_rule,
    &adam_rule,
    &adam_cautious_rule,
    &adam_hd_rule,
    &adamax_rule,
    &adamax_cautious_rule,
    &adan_rule,
    &adan_cautious_rule,
    &ademamix_rule,
    &ademamix_cautious_rule,
    &adopt_rule,
    &adopt_cautious_rule,
    &amsgrad_rule,
    &amsgrad_cautious_rule,
    &asgd_rule,
    &dadapt_adam_rule,
    &dadapt_sgd_rule,
    &dog_rule,
    &dog_averaged_rule,
    &dowg_rule,
    &floor_0_rule,
    &floor_0_origin_rule,
    &floor_1_rule,
    &floor_1_origin_rule,
    &floor_2_rule,
    &floor_stored_rule,
    &floor_2_origin_rule,
    &floor_3_rule,
    &floor_3_origin_rule,
    &floor_4_rule,
    &floor_5_rule,
    &ftrl_rule,
    &lamb_rule,
    &lamb_cautious_rule,
    &laprop_rule,
    &laprop_cautious_rule,
    &lars_rule,
    &lars_momentum_rule,
    &ldog_rule,
    &ldog_averaged_rule,
    &lion_rule,
    &lion_cautious_rule,
    &madgrad_rule,
    &mechanic_rule,
    &momentum_rule,
    &momentum_cautious_rule,
    &muon_rule,
    &nadam_rule,
    &nadam_cautious_rule,
    &novograd_rule,
    &prodigy_rule,
    &qhadam_rule,
    &qhadam_cautious_rule,
    &qhm_rule,
    &qhm_cautious_rule,
    &radam_rule,
    &radam_cautious_rule,
    &rmsprop_rule,
    &rmsprop_centered_rule,
    &rmsprop_centered_momentum_rule,
    &rmsprop_momentum_rule,
    &rprop_rule,
    &schedule_free_adamw_rule,
    &schedule_free_sgd_rule,
    &schedule_free_x_rule,
    &sgd_rule,
    &sgd_hd_rule,
    &sign_sgd_rule,
    &signum_rule,
    &signum_cautious_rule,
    &sophia_rule,
    &sophia_informed_rule,
    &stable_adamw_rule,
    &yogi_rule,
    &yogi_cautious_rule,
    NULL,
};

/* Rules for rows.c alone: most keep something for each row. */
static const fastlr_rule *const row_rules[] = {
    &lazy_adam_rows,
    &row_adagrad_rows,
    NULL,
};
/* clang-format on */

static const fastlr_rule *const others[] = {&adafactor_rule, NULL};

const fastlr_table TABLE = {
    .rules = rules,
    .others = others,
    .factored = &factored,
    .gauge = gauge,
    .number = number,
    .row_rules = row_rules,
    .add_rows = add_rows,
    .narrow_row = narrow_row,
};

#include "target_end.h"
