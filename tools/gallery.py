"""`python tools/gallery.py [directory]`: a page with a picture of every schedule, docs/schedules.md by default.

The same pictures each time, by one version of matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

from fastlr import schedules as S
from fastlr.plots import BLUE, finish, label, panels

# One of each, as one would write it; the pictures show 1,000 updates.
SHOWN = {
    "constant": "constant(1.0)",
    "linear": "linear(1.0, 0.0, 1000)",
    "ramp of any shape": "ramp(0.0, 1.0, 1000, shape='tanh')",
    "linear warm-up, then to 0": "linear_to_zero(1.0, 200, 1000)",
    "polynomial": "polynomial(1.0, 0.0, 1000, power=2)",
    "polynomial, cycling": "polynomial(1.0, 0.0, 300, power=2, cycle=True)",
    "step": "step(1.0, 0.5, 200)",
    "multi-step": "multistep(1.0, {500: 0.3, 800: 0.3})",
    "piecewise": "piecewise([200, 600], [0.3, 1.0, 0.1])",
    "interpolated": "interpolate({0: 0.1, 300: 1.0, 1000: 0.0}, 'cosine')",
    "exponential": "exponential(1.0, 0.5, 200)",
    "exponential, staircase": "exponential(1.0, 0.5, 200, staircase=True)",
    "natural exponential": "natural_exponential(1.0, 0.004)",
    "inverse time": "inverse_time(1.0, 0.01)",
    "time-based, the literal recursion": "time_based(1.0, 1e-5)",
    "inverse square root": "inverse_sqrt(1.0, 100).warmup(100)",
    "Noam": "noam(512, 200)",
    "cosine": "cosine(1.0, 0.0, 1000)",
    "cosine with k-decay": "cosine(1.0, 0.0, 1000, k=2)",
    "cosine, warmed up": "cosine(1.0, 0.0, 900).warmup(100)",
    "cosine, the warm-up included": "warmup_cosine(1.0, 100, 1000)",
    "warm restarts": "warm_restarts(1.0, 0.0, 150, mult=2, decay=0.8)",
    "cyclical, triangular": "cyclical(0.1, 1.0, 100)",
    "cyclical, triangular2": "cyclical(0.1, 1.0, 100, mode='triangular2')",
    "cyclical, exp_range": "cyclical(0.1, 1.0, 100, mode='exp_range', gamma=0.998)",
    "one cycle": "one_cycle(1.0, 1000)",
    "one cycle, three phases": "one_cycle(1.0, 1000, three_phase=True)",
    "one cycle of a momentum": "cycle(0.95, 0.85, 0.95, 0.95, 1000)",
    "warm-up, exponential": "constant(1.0).warmup(400, shape='exponential')",
    "warm-up, 1-sqrt": "constant(1.0).warmup(400, shape='1-sqrt')",
    "warmup-stable-decay": "wsd(1.0, 100, 600, 300)",
    "REX": "rex(1.0, 0.0, 1000)",
    "REX, d = 0.9": "rex(1.0, 0.0, 1000, d=0.9)",
    "tanh": "tanh(1.0, 0.0, 1000)",
    "flat, then cosine": "flat_cosine(1.0, 1000)",
    "infinite": "infinite(1.0, 0.3, 100, 300, 400, 200)",
    "rewarmed": "cosine(1.0, 0.1, 500).rewarm(cosine(0.7, 0.0, 400), 100)",
    "tri-stage": "tri_stage(1.0, 150, 350, 500)",
    "power law in tokens": "power_law(0.03, 0.5, ceiling=0.01, tokens_per_step=1.0).warmup(100)",
    "noise": "cosine(1.0, 0.0, 1000) * noise(0.8, 1.2)",
    "extended": "cosine(1.0, 0.0, 600).extend(1000, 300)",
}
STEPS = 1000


ROOT = Path(__file__).resolve().parent.parent


def picture(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-") + ".svg"


def page() -> str:
    lines = ["# Schedules", "", "Every schedule over 1,000 updates. Made by `python tools/gallery.py`.", ""]
    lines += ["| schedule | as written | |", "| --- | --- | --- |"]
    lines += [f"| {title} | `S.{text}` | ![{title}](schedules/{picture(title)}) |" for title, text in SHOWN.items()]
    return "\n".join(lines) + "\n"


def write(directory: Path) -> Path:
    pictures = directory / "schedules"
    pictures.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "fastlr"  # or its ids are random
    for title, text in SHOWN.items():
        figure, (ax,) = panels(1, size=(3.6, 1.7))
        S.parse(text).plot(ax, STEPS, color=BLUE)
        label(ax, "", "")
        figure.savefig(pictures / picture(title), metadata={"Date": None})
        finish(figure, None)
    (directory / "schedules.md").write_text(page(), encoding="utf-8")
    return directory / "schedules.md"


if __name__ == "__main__":
    print(write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"))
