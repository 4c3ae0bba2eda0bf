"""What a name on the command line stands for: a folder, a hub id, or `demo`."""

import re
from difflib import get_close_matches
from pathlib import Path

from fgdiag.errors import ModelNotFound
from fgdiag.zoo import demo_folder


def source_of(name: str) -> str:
    """Return the folder or hub id that `name` stands for, `demo` among others; `ModelNotFound` where for none."""
    if name == "demo":
        return str(demo_folder())
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(
                f"{name} has no config.json: give a folder that `save_pretrained` has written."
            )
        return str(folder)
    if folder.exists():
        raise ModelNotFound(
            f"{name} is a file: give a folder that `save_pretrained` has written, or a hub id."
        )
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is None:  # no hub id, as every VLM on the hub has an owner
        close = get_close_matches(
            folder.name, [config.parent.name for config in folder.parent.glob("*/config.json")]
        )
        hint = (
            f"did you mean {folder.with_name(close[0])}?"
            if close
            else "give such a folder, or a hub id `owner/name`."
        )
        raise ModelNotFound(f"There is no folder {name} that `save_pretrained` has written; {hint}")
    return name
