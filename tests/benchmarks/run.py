"""Run every benchmark and write their figures as one table.

python tests/benchmarks/run.py [--quick] [-o TABLE.md]
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def main() -> None:
    """Run them one after the other; what each prints goes to stderr."""
    parser = argparse.ArgumentParser(description="Run every benchmark and write a table.")
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks.md"), metavar="TABLE.md")
    asked = parser.parse_args()
    names = sorted(file.stem for file in HERE.glob("*.py") if file.name != Path(__file__).name)
    figures = {name: run(name, quick=asked.quick) for name in names}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(table(figures))
    print(asked.out.read_text(), end="")


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """Return the figures a benchmark prints as its last line."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", *["--quick"] * quick]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{name}\n{done.stdout}", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Write a row a figure, with the machine above."""
    lines = [
        f"{date.today()}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}\n",
        "| benchmark | figure | value |",
        "|---|---|---|",
    ]
    for name, found in figures.items():
        numbers = {key: value for key, value in found.items() if isinstance(value, int | float)}
        lines += [f"| {name} | {key} | {value:.4g} |" for key, value in numbers.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
