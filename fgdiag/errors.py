"""Every error fgdiag raises on purpose.

    FgdiagError
    ├── SiteNotFound        the model has no site of that name
    ├── ClassNotFound       the labelled images have no class of that name
    ├── SiteNeverRan        a hook did not fire, or what it saw is not what the anatomy says
    ├── ModelNotSupported   not a vision-language model fgdiag can find the parts of
    ├── ModelNotFound       no such hub id or folder, or it cannot be loaded
    ├── ImagesNotUsable     an image source that cannot be read as labelled images
    ├── ImageUnreadable     one image cannot be decoded (recorded, never fatal to a run)
    ├── RunMismatch         a run on disk was made with something else than what is asked now
    ├── NotComparable       runs differ in more than the model, so laying them side by side would mislead
    ├── RunBusy             another process is writing this run
    ├── RunIncomplete       a step needs results that an earlier step has not written yet
    ├── NoSpace             the disk is full or the folder cannot be written
    ├── TrainingDiverged    the loss of a training is no longer a number
    ├── EndpointFailed      a served model does not answer, or must not be asked so
    ├── DownloadFailed      a file could not be fetched, or is not the file that was pinned
    └── ControlFailed       a control is not where it must be, so no number of the run can be believed

Each message is one line: what was got, what was expected, what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FgdiagError(Exception):
    """Anything a user can mend. The command line prints it as one line and exits with 1."""


class SiteNotFound(FgdiagError, LookupError):
    """The model has no site of that name."""

    @classmethod
    def among(cls, asked: str, known: Iterable[str]) -> "SiteNotFound":
        """Say what was asked for, the nearest known name, and where to see them all."""
        known = list(known)
        close = get_close_matches(asked, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return cls(f"No site {asked!r} here.{hint} `fgdiag inspect MODEL` lists all {len(known)}.")


class ClassNotFound(FgdiagError, LookupError):
    """The labelled images have no class of that name."""


class SiteNeverRan(FgdiagError, RuntimeError):
    """A hook did not fire, or what it saw is not what the anatomy says."""


class ModelNotSupported(FgdiagError, TypeError):
    """Not a vision-language model that fgdiag can find the parts of."""


class ModelNotFound(FgdiagError, FileNotFoundError):
    """No such hub id or folder, or it cannot be loaded."""


class ImagesNotUsable(FgdiagError, ValueError):
    """An image source that cannot be read as labelled images."""


class ImageUnreadable(FgdiagError, ValueError):
    """One image cannot be decoded. A run records the reason and goes on."""


class RunMismatch(FgdiagError, ValueError):
    """A run on disk was made with something else than what is asked now."""


class NotComparable(FgdiagError, ValueError):
    """Runs differ in more than the model, so laying them side by side would mislead.

    Attributes
    ----------
    reasons
        What differs, a sentence each, with what would make the runs comparable.
    """

    def __init__(self, message: str, reasons: Iterable[str] = ()) -> None:
        self.reasons = tuple(reasons)
        super().__init__(" ".join([message, *self.reasons]))


class RunBusy(FgdiagError, RuntimeError):
    """Another process is writing this run."""


class RunIncomplete(FgdiagError, FileNotFoundError):
    """A step needs results that an earlier step has not written yet."""


class NoSpace(FgdiagError, OSError):
    """The disk is full, or the folder cannot be written."""


class TrainingDiverged(FgdiagError, ArithmeticError):
    """The loss of a training, or its gradient, is no longer a number."""


class EndpointFailed(FgdiagError, ConnectionError):
    """A served model does not answer, or must not be asked so."""


class DownloadFailed(FgdiagError, ConnectionError):
    """A file could not be fetched, or is not the file that was pinned."""


class ControlFailed(FgdiagError, RuntimeError):
    """A control is not where it must be, so no number of the run can be believed."""
