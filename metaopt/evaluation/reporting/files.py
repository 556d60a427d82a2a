"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["TEMPORARY", "write_whole"]

TEMPORARY = ".writing-"  # how names of files begin that are not whole yet


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it meanwhile sees the old content or the new one, and nothing is left of a write that fails."""
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp keeps others out; a report is for reading
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
