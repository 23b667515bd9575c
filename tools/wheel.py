"""Builds the sdist and, from it, the wheel; checks what is in them; tries the wheel where the repository is not.

    python tools/wheel.py [--keep DIRECTORY]

Needs git, a C compiler and PyPI. The commit that is checked out is built, each in an environment with what
pyproject.toml says and nothing else. The wheel is installed in a new environment in another directory, where it makes a
step, runs the demo, and passes tests/test_embedding.py: C programs and a Cython module are built against it there.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ("build", "twine", "auditwheel")
TRIAL = """
import fastlr, numpy as np
p = np.ones(3, np.float32)
fastlr.AdamW(p, lr=0.1, weight_decay=0).step(np.float32([1, -2, 0]))
assert (abs(p - [0.9, 1.1, 1]) < 1e-6).all(), p
print(fastlr.__version__, "with numpy", np.__version__, "in", fastlr.__file__)
"""


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(place: pathlib.Path, *packages: object) -> pathlib.Path:
    """The Python of a new environment."""
    run(sys.executable, "-m", "venv", place)
    run(place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return place / "bin" / "python"


def compare(what: str, found: set[str], expected: set[str]) -> None:
    for names, wrong in ((found - expected, "should not be in it"), (expected - found, "is missing")):
        for name in sorted(names):
            print(f"{what}: {name} {wrong}")
    if found != expected:
        raise SystemExit(1)
    print(f"{what}: its {len(found)} files and no others")


def check_sdist(path: pathlib.Path, tracked: set[str]) -> None:
    """What is needed to build, and to read."""
    with tarfile.open(path) as tar:
        names = {x.name.partition("/")[2] for x in tar.getmembers() if x.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    top = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "pyproject.toml", "setup.py"}
    names = {name for name in names if not name.startswith("fastlr_kernels.egg-info/")}
    compare(path.name, names, made | top | {name for name in tracked if name.startswith("fastlr/")})


def check_wheel(path: pathlib.Path, tracked: set[str], built: pathlib.Path) -> None:
    """Python, stubs, what others build against, the extension and the archive; nothing says where it was built."""
    kept = re.compile(r"fastlr/(.*\.py|.*\.pyi|[^/]*\.pxd|py\.typed|include/[^/]*\.h)")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not re.match(r"fastlr_kernels-[^/]*\.dist-info/", name)}
        licenses = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        for name in archive.namelist():
            if os.fsencode(built) in archive.read(name):
                raise SystemExit(f"{path.name}: {name} has the path {built} in it")
    names = {re.sub(r"_core\..*\.so$", "_core.so", name) for name in names}
    assert licenses, "no LICENSE"
    compare(path.name, names, {"fastlr/_core.so", "fastlr/lib/libfastlr.a", *filter(kept.fullmatch, tracked)})


def try_wheel(path: pathlib.Path, away: pathlib.Path) -> None:
    packages = (f"{path}[demo]", "pytest", "hypothesis", "Cython", "setuptools")
    python = environment(away / "venv", *packages)
    bare = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"}
    bare["PATH"] = f"{python.parent}{os.pathsep}{bare['PATH']}"
    print(run(python, "-c", TRIAL, cwd=away, env=bare).strip())
    print(run(python, "-m", "fastlr", "info", cwd=away, env=bare).strip().splitlines()[0])
    run(python, "-m", "fastlr", "demo", cwd=away, env=bare)
    print("demo: done")
    for name in ("tests", "examples"):
        shutil.copytree(ROOT / name, away / name, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = "not (gcc or clang or shared or numba or compiled)"  # of `make lib`, and of Numba
    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "-o", "addopts=", "-k", elsewhere)
    print(run(python, "-m", "pytest", *options, "tests/test_embedding.py", cwd=away, env=bare).strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=pathlib.Path, help="where to copy the two files, once all is well")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as directory:
        away = pathlib.Path(directory).resolve()
        source, dist = away / "source", away / "dist"
        run("git", "clone", "--quiet", ROOT, source)
        tracked = set(run("git", "ls-files", cwd=source).splitlines())
        python = environment(away / "tools", *TOOLS)
        run(python, "-m", "build", "--outdir", dist, source, env={**os.environ, "TMPDIR": str(away)})
        (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
        run(python, "-m", "twine", "check", "--strict", sdist, wheel)
        check_sdist(sdist, tracked)
        check_wheel(wheel, tracked, away)
        if sys.platform == "linux":
            print(re.findall(r'"(\w*linux\w*)"', run(python.parent / "auditwheel", "show", wheel))[0], "at the least")
        shutil.rmtree(source)
        try_wheel(wheel, away)
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                shutil.copy(path, keep)


if __name__ == "__main__":
    main()
