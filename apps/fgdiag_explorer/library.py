"""The runs that are shown, by the names under which the browser asks for them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fgdiag_probes.comparable import short_names

from fgdiag.store import IMAGES, MANIFEST, RESULTS
from fgdiag_explorer.results import Results
from fgdiag_explorer.worker import Worker


class Library(Mapping[str, Results]):
    """Results by name; those of a run that changed on disk are read anew.

    Parameters
    ----------
    runs
        Folders of runs.
    device
        Where their models are opened, once somebody asks for it.

    Raises
    ------
    RunIncomplete, RunMismatch
        There is no run in one of them.
    """

    def __init__(self, runs: Iterable[str | Path], *, device: str = "auto") -> None:
        self.worker = Worker(device)
        self._paths = short_names([Path(run) for run in runs])
        self._read = {name: (_stamp(path), Results(name, path)) for name, path in self._paths.items()}

    def __getitem__(self, name: str) -> Results:
        path = self._paths[name]
        stamp, results = self._read[name]
        if _stamp(path) != stamp:
            stamp, results = self._read[name] = (_stamp(path), Results(name, path))
        return results

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def chosen(self, name: str | None) -> Results:
        """Return the run of that name, or the first where there is none of it."""
        return self[name if name in self._paths else next(iter(self._paths))]


def _stamp(path: Path) -> tuple[tuple[str, int], ...]:
    """What changes when something is found anew: names and times of the results."""
    known = [path / MANIFEST, path / IMAGES, *sorted((path / RESULTS).glob("*.*"))]
    return tuple((file.name, file.stat().st_mtime_ns) for file in known if file.is_file())
