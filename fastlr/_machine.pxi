# Included by _core.pyx: the machine: threads, instruction sets, what loops ask for.

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
