"""The README's code runs."""

import pathlib
import re

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_runs(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.S))
    exec(compile(code, str(README), "exec"), {})
    step, rate, norm, skipped = capsys.readouterr().out.split()
    assert (step, rate, skipped) == ("1", "1e-05", "False")
    assert float(norm) == (0.25 * 7840) ** 0.5
