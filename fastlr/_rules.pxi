# Included by _core.pyx: what the kernels say of their rules, and their elementary functions.

def rule_info(str name):
    """What a kernel does, from its entry in the table: a dict of counts.

    "states" and "inputs" are buffers beside parameters and gradients, "passes" reads of the gradients in a step after
    the first, and "accesses" numbers read or written an element: times the size of one, the bytes that it moves. Decay
    in the gradient is one more in a read before the step. Of a rule for rows it is those of rows given.
    """
    cdef const fastlr_rule *rule = fastlr_find_rows(name.encode(), FASTLR_F32)
    if rule == NULL:
        raise ValueError(f"no rule {name!r}")
    return {"states": rule.states, "inputs": rule.inputs, "passes": rule.passes, "accesses": rule.accesses}


def state_bits(str name):
    """Of a rule's states, a bit each: which are never negative, and which must not be narrowed below float32."""
    cdef const fastlr_rule *rule = fastlr_find_rows(name.encode(), FASTLR_F32)
    if rule == NULL:
        raise ValueError(f"no rule {name!r}")
    return rule.squares, rule.precise


def carried(str name):
    """How many numbers a rule keeps from step to step, and by what: "tensor", "group" or "model"."""
    cdef const fastlr_rule *rule = fastlr_find_rows(name.encode(), FASTLR_F32)
    return rule.carry, "model" if rule.scope == FASTLR_MODEL else "group" if rule.scope == FASTLR_GROUP else "tensor"


def elementary(str name, double x, double y=0.0):
    """A function of kernels/elementary.h, `y` being the exponent of "power": the same bits on every machine."""
    if name == "exponential":
        return exponential(x)
    if name == "logarithm":
        return logarithm(x)
    if name == "power":
        return power(x, y)
    if name == "cosine_pi":
        return cosine_pi(x)
    if name == "sine_pi":
        return sine_pi(x)
    if name == "tanh_of":
        return tanh_of(x)
    raise ValueError(f"unknown function {name!r}; see kernels/elementary.h")


def per_tensor(str rule):
    """Whether the rule sums over each tensor by itself."""
    return fastlr_find_rows(rule.encode(), FASTLR_F32).scope == FASTLR_TENSOR
