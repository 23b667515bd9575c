/* RAdam's rectification, r √c2: ρ measures on how many gradients v rests, and r shortens the step while they are few.
 *
 *     ρ∞ = 2 / (1 − b2) − 1,  ρ = ρ∞ − 2 t b2ᵗ / c2,  c2 = 1 − b2ᵗ
 *     r² = (ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ)     ρ > 5
 *
 * 0 where ρ ≤ 5: too few to trust v.
 */
PER_STEP double rectification(double b2, int64_t t)
{
    const double c2 = complement(b2, t), most = 2 / (1 - b2) - 1, rho = most - 2 * (double)t * (1 - c2) / c2;
    return rho > 5 ? sqrt(c2 * ((rho - 4) * (rho - 2) * most) / ((most - 4) * (most - 2) * rho)) : 0;
}
