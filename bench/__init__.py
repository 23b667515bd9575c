"""Benchmarks: every engine checked against the reference, then timed in interleaved rounds. See METHODOLOGY.md."""
