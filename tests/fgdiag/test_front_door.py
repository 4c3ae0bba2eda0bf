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


def test_no_room_hides_a_public_name():
    """A room named like a function would take its place in `fgdiag` as soon as it is imported."""
    code = (
        "import fgdiag, importlib, pkgutil\n"
        "for room in pkgutil.iter_modules(fgdiag.__path__): importlib.import_module(f'fgdiag.{room.name}')\n"
        "print([name for name in fgdiag.__all__ if not callable(getattr(fgdiag, name))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
