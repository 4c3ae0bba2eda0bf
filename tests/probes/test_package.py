import pkgutil
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


@pytest.mark.parametrize("name", fgdiag_probes.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(fgdiag_probes, name).__name__ == name


def test_no_room_hides_a_public_name() -> None:
    """Once a room is imported, it is an attribute of the package under its own name."""
    rooms = {room.name for room in pkgutil.iter_modules(fgdiag_probes.__path__)}
    assert not rooms & set(fgdiag_probes.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fgdiag_probes.nothing  # noqa: B018
