"""Every way a request can fail, as plain exceptions.

No HTTP here: `oci_errors` says what each class looks like on the wire. The message of an error is written for
the person at the docker terminal: what is wrong, with which name, and what to do.
"""

from collections.abc import Sequence


class NixfrontError(Exception):
    """Anything nixfront itself reports. `lasting`: the same request would fail again, so it may be remembered."""

    lasting = False


# --- the request ------------------------------------------------------------------------------------------


class NameInvalid(NixfrontError):
    """The repository path cannot be read as a list of packages."""

    lasting = True


class NotMirrored(NixfrontError):
    """Asked for as of another registry, it is not among what this mirror serves in its place."""

    lasting = True


class TagUnknown(NixfrontError):
    """The tag names no revision of the package set."""

    lasting = True


class ImageUnknown(NixfrontError):
    """The operator's file has no image of this name, or two that differ only in case."""

    lasting = True


class ImageInvalid(NixfrontError):
    """A named image is defined wrongly; the message names it and every wrong key."""

    lasting = True


class PackageUnknown(NixfrontError):
    """A name is not in the package set, or fits more than one attribute."""

    lasting = True


class PackageRefused(NixfrontError):
    """The operator's policy, or the package set's own, does not let this package be served."""

    lasting = True


class ImageTooLarge(NixfrontError):
    """The closure is larger than the operator allows."""

    lasting = True


# --- who asks ---------------------------------------------------------------------------------------------


class NotMadeHere(NixfrontError):
    """The operator lets no image of this name be made; one that is in the registry is served all the same."""

    lasting = True


class BuildDenied(NixfrontError):
    """The registry let this client ask, but the operator lets it have nothing made."""


# --- the Nix side -----------------------------------------------------------------------------------------


class PackageSetUnavailable(NixfrontError):
    """The source of the package set could not be fetched or read."""


class SourceMissing(PackageSetUnavailable):
    """Where the source of the package set should be, there is nothing."""


class NixUnavailable(NixfrontError):
    """Nix is not installed, or does not start."""


class EvaluationFailed(NixfrontError):
    """Nix refused to evaluate what was asked for; the message holds its last lines."""

    lasting = True


class BuildFailed(NixfrontError):
    """A package could not be built or fetched; the message holds the last lines of its log."""

    lasting = True


class BuildTimedOut(BuildFailed):
    """The build did not end within its deadline."""


class DerivationLost(NixfrontError):
    """What was evaluated a moment ago has been collected as garbage: to be evaluated once more."""


class StoreUnreadable(NixfrontError):
    """A store path could not be read while it was packed."""


#: What a person can do about it.
STORE_CURE = "`nix-store --verify --check-contents --repair` on this host mends its store"


class Unforeseen(NixfrontError):
    """An error of ours that nobody thought of; the log has it."""


class StoreFull(NixfrontError):
    """The disk under the Nix store is full."""


class Busy(NixfrontError):
    """More is asked for than this host does at once; `retry_after`: seconds after which to try again."""

    def __init__(self, message: str, retry_after: int = 30) -> None:
        """Keep when to come again."""
        super().__init__(message)
        self.retry_after = retry_after


class TooManyBuilds(Busy):
    """This client began as many builds as it may, for now."""


class Stopping(NixfrontError):
    """nixfront is being stopped, and starts nothing new."""


class PackageUnusable(NixfrontError):
    """A package exists but cannot be put into an image (for example one that is a plain data file)."""

    lasting = True


class StillBuilding(NixfrontError):
    """The build goes on, but the client has waited as long as one may; the message says how far it is."""


# --- the registry -----------------------------------------------------------------------------------------


class RegistryUnavailable(NixfrontError):
    """The backing registry cannot be reached, or broke the connection."""


class RegistryRefused(NixfrontError):
    """The backing registry answered a request of ours with a status that is not success.

    `body` is the start of what it said, bounded; `temporary` says whether trying again can help.
    """

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        """Keep the evidence: what was asked, and what came back."""
        hint = "; nixfront comes there as registry.username says" if status in (401, 403) else ""
        super().__init__(
            f"the registry answered {status} to {method} {url}: {body[:500]}".rstrip(": \n") + hint
        )
        self.status = status
        self.body = body
        self.temporary = status >= 500 or status == 429


class DestinationUnusable(NixfrontError):
    """The folder that an image is to be written into cannot be written, or holds something else."""


class DigestMismatch(NixfrontError):
    """The registry stored other bytes than we sent."""


class DigestNotReady(NixfrontError):
    """A layer's digest was asked for before its bytes were all read."""


class StateUnavailable(NixfrontError):
    """Where nixfront keeps what it knows does not answer."""


# --- processes and settings -------------------------------------------------------------------------------


class ProcessFailed(NixfrontError):
    """A child process could not be started, ended with a failure, or ran out of time.

    `returncode` is None when it never started; `timed_out` when it was killed at its deadline;
    `tail` is the last lines that it wrote on standard error.
    """

    def __init__(
        self, program: str, returncode: int | None, tail: Sequence[str] = (), *, timed_out: bool = False
    ) -> None:
        """Keep what is needed to say later which program failed and how."""
        how = "ran out of time" if timed_out else f"ended with {returncode}"
        super().__init__(f"{program} {'could not be started' if returncode is None else how}")
        self.program = program
        self.returncode = returncode
        self.tail = tuple(tail)
        self.timed_out = timed_out


class SettingsInvalid(NixfrontError):
    """The configuration has an unknown key or a wrong value; the message names the key's path."""


def from_record(kind: str, message: str) -> NixfrontError:
    """The error that another machine met, by the name of its class; one that is no lasting error is `Unforeseen`."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, NixfrontError) and found.lasting:
        return found(message)
    return Unforeseen(message)
