/* The loop every rule runs in.
 *
 * A template: include it after the rule with
 *     RULE    the rule's name; RULE_hyper, RULE_step, RULE_at() and RULE() exist
 *     STATES  how many state buffers the rule has, 0 to 3
 * It defines RULE_rule, the rule's entry in the table, and undefines both parameters.
 *
 * The rule turns the gradient into a direction u; applying it is the same for all:
 *
 *     g' = scale g (+ l2 p)        u, state' = rule(g', state)        p ← p − (rate u + decay p)
 *
 * decay is η λ, not 1 − η λ: narrowed to float32, 1 − 1e-8 would be 1, and the decay lost even where the rest of the
 * step moves p. The guards keep an infinite parameter from becoming NaN through 0 · ∞.
 */

typedef struct {
    apply a;
    NAME(RULE, step) h;
} NAME(RULE, block);

static bool NAME(RULE, prepare)(const fastlr_hyper *o, int64_t t, fastlr_step *step)
{
    _Static_assert(sizeof(NAME(RULE, block)) <= sizeof *step, "FASTLR_STEP_SLOTS");
    _Static_assert(sizeof(NAME(RULE, hyper)) <= sizeof o->rule, "FASTLR_HYPERS");
    double rate = o->lr;
    const NAME(RULE, step) h = NAME(RULE, at)((const NAME(RULE, hyper) *)o->rule, t, &rate);
    const apply a = {(real)o->scale, (real)o->l2, (real)rate, (real)(o->lr * o->decay)};
    *(NAME(RULE, block) *)step = (NAME(RULE, block)){a, h};
    /* A scale that is NaN was meant: clipping by the norm of gradients that hold one. */
    return (is_finite(a.scale) || o->scale != o->scale) && is_finite(a.l2) && is_finite(a.rate) && is_finite(a.decay);
}

/* `zero` is a constant where this is inlined, so each of the two loops below is free of it. */
INLINED void NAME(RULE, loop)(size_t n, real *restrict p, real *restrict g, real *restrict s0, real *restrict s1,
                              real *restrict s2, apply a, NAME(RULE, step) h, const bool zero)
{
    (void)s0, (void)s1, (void)s2;
    for (size_t i = 0; i < n; i++) {
        const real x = p[i];
        real d = a.scale * g[i];
        if (a.l2 != 0)
            d += a.l2 * x;
#if STATES == 0
        const out o = RULE(d, h);
#elif STATES == 1
        const out o = RULE(d, s0[i], h);
        s0[i] = o.s0;
#elif STATES == 2
        const out o = RULE(d, s0[i], s1[i], h);
        s0[i] = o.s0, s1[i] = o.s1;
#else
        const out o = RULE(d, s0[i], s1[i], s2[i], h);
        s0[i] = o.s0, s1[i] = o.s1, s2[i] = o.s2;
#endif
        real move = a.rate * o.u;
        if (a.decay != 0)
            move += a.decay * x;
        p[i] = x - move;
        if (zero)
            g[i] = 0;
    }
}

static void NAME(RULE, sweep)(size_t n, void *p, void *g, void *s0, void *s1, void *s2, const fastlr_step *step,
                              bool zero)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
    if (zero)
        NAME(RULE, loop)(n, p, g, s0, s1, s2, b.a, b.h, true);
    else
        NAME(RULE, loop)(n, p, g, s0, s1, s2, b.a, b.h, false);
}

static const fastlr_rule NAME(RULE, rule) = {
    .name = TEXT(RULE),
    .size = sizeof(real),
    .states = STATES,
    .hypers = sizeof(NAME(RULE, hyper)) / sizeof(double),
    .prepare = NAME(RULE, prepare),
    .sweep = NAME(RULE, sweep),
};

#undef RULE
#undef STATES
