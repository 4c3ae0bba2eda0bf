"""`import fgdiag` is quick and light, and offers what it says."""

import subprocess
import sys

import fgdiag

HEAVY = ("torch", "transformers", "sklearn", "pandas", "plotly", "dash", "captum", "umap")


def test_importing_fgdiag_loads_nothing_heavy():
    code = f"import sys, fgdiag; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in fgdiag.__all__:
        thing = getattr(fgdiag, name)
        assert callable(thing), f"{name} is {thing!r}"
