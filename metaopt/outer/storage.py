"""The few file operations that a commit is made of, one method each, so that a test can fail or stop at any of them."""

import errno
import os
import shutil
from pathlib import Path

__all__ = ["Storage"]


class Storage:
    """The real file system. Every method either happens or raises OSError; after `sync_directory` the names in it are durable."""

    def make_directory(self, path: Path) -> None:
        """Create `path`; its parents exist."""
        path.mkdir()

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file and wait until its bytes are on the disk."""
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def sync_directory(self, path: Path) -> None:
        """Wait until the names in `path` are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
                raise
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the free name `target` in one step."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a directory and what is in it."""
        shutil.rmtree(path)
