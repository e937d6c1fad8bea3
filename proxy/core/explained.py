"""An error about a package, in the words of the path that the client typed. No IO."""

import re

from proxy.core.errors import NixfrontError, PackageUnknown
from proxy.core.model import ImageRequest


def explained(error: NixfrontError, request: ImageRequest) -> NixfrontError:
    """The error; its message says which packages a meta-package named, and what a name that is no package may mean."""
    if not isinstance(error, PackageUnknown):
        return error
    message = str(error)
    hints = [hint for name, hint in request.hints if says_missing(message, name)]
    if hints:
        message = f"{'; '.join(hints)} ({message})"
    if request.preset.packages:
        message += f"; {'/'.join(request.presets)} in front stands for {', '.join(request.preset.packages)}"
    return PackageUnknown(message)


def says_missing(message: str, name: str) -> bool:
    """Whether the message of a `PackageUnknown` says that this name of the path is no package."""
    return re.search(rf"no package {re.escape(name)}(?![\w.-])", message) is not None
