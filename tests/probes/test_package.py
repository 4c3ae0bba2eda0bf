import subprocess
import sys

import fgdiag_probes
import pytest


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, fgdiag_probes; "
        "print([name for name in ('torch', 'pandas', 'plotly', 'sklearn') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_names_of_this_room_resolve() -> None:
    for name in ("probe_layers", "loss_budget", "confused_pairs", "LayerCurves", "LossBudget", "Verdict"):
        assert getattr(fgdiag_probes, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fgdiag_probes.nothing  # noqa: B018
