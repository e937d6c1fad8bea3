"""The date of an archive: that of its newest file."""

import lzma
import tarfile
import zlib

from proxy.core.errors import PackageSetUnavailable


def newest(archive: str) -> int:
    """The newest modification time in a tarball, in seconds. Raises `PackageSetUnavailable`."""
    try:
        with tarfile.open(archive) as tar:
            return int(max((member.mtime for member in tar), default=0))
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise PackageSetUnavailable(f"the fetched archive is no tarball that can be read: {error}") from error
