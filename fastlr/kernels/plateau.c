/* When a metric stops improving: one transition, pure. The rule is torch's, but for
 * - the margin, threshold |best|, where torch's best (1 − threshold) lies on the wrong side of a negative best;
 * - the metric, which may be smoothed first: average ← s average + (1 − s) metric, over 1 − s^n (n metrics seen). */
#include "elementary.h"
#include "fastlr.h"

#include <math.h>

fastlr_plateau_state fastlr_plateau_next(const fastlr_plateau *o, fastlr_plateau_state s, double metric)
{
    if (o->skip_nan && metric != metric)
        return s;
    double value = metric;
    if (o->smoothing > 0 && metric == metric) {
        s.average = o->smoothing * s.average + (1 - o->smoothing) * metric;
        s.seen += 1;
        value = s.average / (1 - power(o->smoothing, s.seen));
    }
    const double margin = o->relative && isfinite(s.best) ? o->threshold * fabs(s.best)
                          : o->relative                   ? 0
                                                          : o->threshold;
    const bool better = o->maximize ? value > s.best + margin : value < s.best - margin; /* NaN is not */
    s.best = better ? value : s.best;
    s.bad = better ? 0 : s.bad + 1;
    if (s.cooling > 0) {
        s.cooling -= 1;
        s.bad = 0;
    }
    if (s.bad > o->patience) {
        const double next = s.scale * o->factor;
        s.scale = next > o->least ? next : s.scale > o->least ? o->least : s.scale;
        s.cooling = o->cooldown;
        s.bad = 0;
    }
    return s;
}
