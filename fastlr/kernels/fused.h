/* The loop of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage).
 */

/* Element i of parameters or gradients, float32 or bfloat16. */
#ifndef NARROW_ACCESS
#define NARROW_ACCESS
INLINED float wide_at(bool half, const void *x, size_t i)
{
    return half ? bf16_widen(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}
#endif

/* sweep.h's element, on copies of its numbers. Returns the new parameter. */
INLINED float NAME(RULE, step_of)(float x, float d, float *s0, float *s1, apply a, NAME(OF, step) h)
{
    NAME(RULE, element)(0, &x, &d, s0, s1, NULL, NULL, NULL, NULL, NULL, a, h, false, false);
    return x;
}

#define SET_P(i, x)                                                                                                    \
    do {                                                                                                               \
        if (half_p)                                                                                                    \
            ((uint16_t *)p)[i] = (uint16_t)bf16_narrow(x);                                                             \
        else                                                                                                           \
            ((float *)p)[i] = x;                                                                                       \
    } while (0)

/* State in bfloat16. */
INLINED void NAME(RULE, halves)(size_t n, bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                uint16_t *restrict s0, uint16_t *restrict s1, apply a, NAME(OF, step) h)
{
    for (size_t i = 0; i < n; i++) {
        float t0 = bf16_widen(s0[i]), t1 = STATES > 1 ? bf16_widen(s1[i]) : 0;
        const float x = NAME(RULE, step_of)(wide_at(half_p, p, i), wide_at(half_g, g, i), &t0, &t1, a, h);
        SET_P(i, x);
        s0[i] = (uint16_t)bf16_narrow(t0);
        if (STATES > 1)
            s1[i] = (uint16_t)bf16_narrow(t1);
    }
}

#define WIDEN(k, code, scale) (SQUARES >> k & 1 ? uint8_widen(code, scale) : int8_widen((int8_t)(code), scale))
#define TOP(k) (SQUARES >> k & 1 ? UINT8_TOP : INT8_TOP)
#define PUT(k, x, factor) (SQUARES >> k & 1 ? uint8_narrow(x, factor) : int8_narrow(x, factor))

/* State in 8 bits, one quantum: the new state is narrowed when the largest of it is known. */
INLINED void NAME(RULE, quantum)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                 uint8_t *restrict s0, uint8_t *restrict s1, float *restrict scale0,
                                 float *restrict scale1, apply a, NAME(OF, step) h)
{
    _Alignas(64) float n0[FASTLR_QUANTUM], n1[FASTLR_QUANTUM];
    const float c0 = *scale0, c1 = STATES > 1 ? *scale1 : 0;
    uint32_t most0 = 0, most1 = 0;
    for (size_t i = 0; i < FASTLR_QUANTUM; i++) {
        float t0 = WIDEN(0, s0[i], c0), t1 = STATES > 1 ? WIDEN(1, s1[i], c1) : 0;
        const float x = NAME(RULE, step_of)(wide_at(half_p, p, i), wide_at(half_g, g, i), &t0, &t1, a, h);
        SET_P(i, x);
        n0[i] = t0;
        most0 = (word_of(t0) & MAGNITUDE) > most0 ? word_of(t0) & MAGNITUDE : most0;
        if (STATES > 1) {
            n1[i] = t1;
            most1 = (word_of(t1) & MAGNITUDE) > most1 ? word_of(t1) & MAGNITUDE : most1;
        }
    }
    float f0, f1 = 0;
    *scale0 = scale_of(most0, TOP(0), &f0);
    if (STATES > 1)
        *scale1 = scale_of(most1, TOP(1), &f1);
    for (size_t i = 0; i < FASTLR_QUANTUM; i++) {
        s0[i] = PUT(0, n0[i], f0);
        if (STATES > 1)
            s1[i] = PUT(1, n1[i], f1);
    }
}

static void NAME(RULE, fused)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                              void *const *scale, const fastlr_step *step)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
#define FUSE(half_p, half_g)                                                                                           \
    do {                                                                                                               \
        if (!scale)                                                                                                    \
            NAME(RULE, halves)(n, half_p, p, half_g, g, s[0], STATES > 1 ? s[1] : NULL, b.a, b.h);                     \
        for (size_t k = 0; scale && k < n / FASTLR_QUANTUM; k++) {                                                     \
            const size_t i = k * FASTLR_QUANTUM;                                                                       \
            NAME(RULE, quantum)(half_p, (char *)p + i * (half_p ? 2 : 4), half_g,                                      \
                                (const char *)g + i * (half_g ? 2 : 4), (uint8_t *)s[0] + i,                           \
                                STATES > 1 ? (uint8_t *)s[1] + i : NULL, (float *)scale[0] + k,                        \
                                STATES > 1 ? (float *)scale[1] + k : NULL, b.a, b.h);                                  \
        }                                                                                                              \
    } while (0)
    if (half_p)
        FUSE(true, true); /* narrower parameters than gradients go by stored.c */
    else if (half_g)
        FUSE(false, true);
    else
        FUSE(false, false);
}

#undef FUSE
#undef SET_P
#undef WIDEN
#undef TOP
#undef PUT
