# Included by _core.pyx: the machine, and what the kernels say of themselves.

MAX_THREADS = FASTLR_MAX_THREADS
BLOCK = FASTLR_BLOCK

cdef int threads = 1


def set_threads(int n):
    global threads
    threads = n


def get_threads():
    return threads


def processors():
    """Processors this process may use: affinity, cut by the container's quota."""
    return fastlr_processors()


def isas():
    """{name: whether this machine runs it}, for every instruction set of this build, narrowest first."""
    cdef int n = 0
    found = {}
    while fastlr_isa_name(n) != NULL:
        found[fastlr_isa_name(n).decode()] = fastlr_isa_runs(n)
        n += 1
    return found


def isa():
    return fastlr_isa_name(fastlr_isa()).decode()


def use_isa(str name):
    """Switches the whole process; the name is one that `isas()` says runs."""
    for n, (known, runs) in enumerate(isas().items()):
        if known == name and runs:
            fastlr_use_isa(n)
            return
    raise ValueError(f"unknown or unsupported instruction set {name!r}; see isas()")


ASKINGS = ("little", "late", "all")


def asks():
    """What loops ask for before they need it: next to nothing, what inlined ones come to late too, or every buffer."""
    return ASKINGS[<int>fastlr_asks()]


def ask(str asking):
    """Switches the whole process to one of `ASKINGS`; no result depends on it."""
    fastlr_ask(<fastlr_asking><int>ASKINGS.index(asking))


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
