"""Every way a request can fail, as plain exceptions.

Nothing here knows HTTP: `web.error_responses` turns each class into a response. A person reads the message of an error in
docker's terminal, so it says what is wrong, with which name, and what to do.
"""

from collections.abc import Sequence

from proxy.core.text import printable


class NixfrontError(Exception):
    """Any error that nixfront reports. `lasting`: the same request would fail again, so the error may be stored.

    Its text ends in terminals, and may quote a builder or a package set. So it shows no control character but line ends.
    """

    lasting = False

    def __init__(self, *arguments: object) -> None:
        """Texts are made fit for a terminal, as they may quote a log, a registry or a client."""
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in arguments))


def reason(error: Exception) -> str:
    """Why a file cannot be used: an error of the system without its number, which only programmers know."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


# --- the request ------------------------------------------------------------------------------------------


class NameInvalid(NixfrontError):
    """The repository path is no list of packages."""

    lasting = True


class NotMirrored(NixfrontError):
    """A client wants an image of another registry, and this mirror does not serve that image."""

    lasting = True


class BodyInvalid(NixfrontError):
    """The body of the request breaks the rules of HTTP, or stands still: its end is unknown."""


class TagUnknown(NixfrontError):
    """The tag names no revision of the package set."""

    lasting = True


class DigestLost(NixfrontError):
    """The registry lost an image of ours, and this host cannot make one with this digest again."""

    lasting = True


class ImageUnknown(NixfrontError):
    """The operator's file has no image of this name, or two that differ only in case."""

    lasting = True


class ImageInvalid(NixfrontError):
    """The definition of a named image is wrong; the message names the image and every wrong key."""

    lasting = True


class PackageUnknown(NixfrontError):
    """The package set has no attribute of this name, or several that differ only in case."""

    lasting = True


class PackageRefused(NixfrontError):
    """The operator's policy, or the package set itself, forbids this package."""

    lasting = True


class ImageTooLarge(NixfrontError):
    """The closure is larger than the operator allows."""

    lasting = True


# --- the client -------------------------------------------------------------------------------------------


class NotMadeHere(NixfrontError):
    """The operator forbids builds of this repository. Images that the registry already has stay available."""

    lasting = True


class BuildDenied(NixfrontError):
    """The registry accepts this client, but the operator does not let it start builds."""


class PushDenied(NixfrontError):
    """The operator does not let this client write to the registry through nixfront."""


class SiteDenied(NixfrontError):
    """A browser works for a web site that may not do this, or calls nixfront by a name that is not its own."""


class MirrorRefused(NixfrontError):
    """The registry refuses an image that the mirror serves; its client would silently take that of another registry."""


# --- the Nix side -----------------------------------------------------------------------------------------


class PackageSetUnavailable(NixfrontError):
    """Nix cannot fetch or read the source of the package set."""


class SourceMissing(PackageSetUnavailable):
    """There is nothing at the address of the package set."""


class NixUnavailable(NixfrontError):
    """Nix is missing on this host, or does not start."""


class EvaluationFailed(NixfrontError):
    """Nix cannot evaluate the packages; the message holds its last lines."""

    lasting = True


class BuildFailed(NixfrontError):
    """Nix cannot build or fetch a package; the message holds the last lines of its log."""

    lasting = True


class BuildTimedOut(BuildFailed):
    """The build did not end within its deadline."""


class DerivationLost(NixfrontError):
    """Garbage collection removed a derivation after its evaluation; another evaluation brings it back."""


class CacheUnusable(NixfrontError):
    """A binary cache does not send what it should. `elsewhere`: another try may get the same bytes, perhaps from another cache."""

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


class StoreUnreadable(NixfrontError):
    """A store path is unreadable, so its layer cannot be packed."""


#: What a person can do about an unreadable store.
STORE_CURE = "`nix-store --verify --check-contents --repair` on this host mends its store"


class Unforeseen(NixfrontError):
    """A bug in nixfront; the log has its traceback."""


class StoreFull(NixfrontError):
    """The disk under the Nix store is full."""


class Busy(NixfrontError):
    """This host has no room for another build now; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 30) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyBuilds(Busy):
    """This client has started as many builds within a minute as the operator allows."""


class Stopping(NixfrontError):
    """nixfront is about to stop and starts no builds."""


class PackageUnusable(NixfrontError):
    """The package exists but cannot be part of an image, for example because it is a single data file."""

    lasting = True


class StillBuilding(NixfrontError):
    """The client has waited as long as it may, and the build goes on; the message says how far it is."""


# --- the registry -----------------------------------------------------------------------------------------


class RegistryUnavailable(NixfrontError):
    """The backing registry does not answer, or broke the connection."""


class RegistryRefused(NixfrontError):
    """The backing registry answered one of nixfront's own requests with an error status.

    `body` is the start of its response; `temporary` says whether another try may succeed.
    """

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        hint = "; check which rights registry.username has there" if status in (401, 403) else ""
        super().__init__(
            f"the registry answered {status} to {method} {url}: {body[:500]}".rstrip(": \n") + hint
        )
        self.status = status
        self.body = body
        self.temporary = status >= 500 or status == 429


class DestinationUnusable(NixfrontError):
    """nixfront cannot write an image into this folder, or the folder holds something else."""


class DigestMismatch(NixfrontError):
    """The registry stored or sent other bytes than it should."""


class DigestNotReady(NixfrontError):
    """A caller wants the digest of a layer before the last byte of the layer went out."""


class StateUnavailable(NixfrontError):
    """The state back end (SQLite or Redis) does not answer."""


# --- processes and settings -------------------------------------------------------------------------------


class ProcessFailed(NixfrontError):
    """A child process did not start, failed, or ran out of time.

    `returncode` is None if the process never started. `timed_out`: nixfront killed it at its deadline. `tail` holds the last
    lines that it wrote to standard error.
    """

    def __init__(
        self, program: str, returncode: int | None, tail: Sequence[str] = (), *, timed_out: bool = False
    ) -> None:
        how = "ran out of time" if timed_out else f"ended with {returncode}"
        super().__init__(f"{program} {'could not be started' if returncode is None else how}")
        self.program = program
        self.returncode = returncode
        self.tail = tuple(tail)
        self.timed_out = timed_out


class SettingsInvalid(NixfrontError):
    """The configuration has an unknown key or a wrong value; the message names the key's path."""

    def __init__(self, *problems: str) -> None:
        """One text for each key."""
        super().__init__("; ".join(problems))
        self.problems = tuple(map(printable, problems))


class ArgumentsInvalid(SettingsInvalid):
    """The settings may be right, but an argument of the command names what is not there, or must not be."""


def from_record(kind: str, message: str) -> NixfrontError:
    """The error that another machine recorded; `kind` is the name of its class.

    Only a lasting error keeps its class; any other becomes `Unforeseen`.
    """
    error_class = globals().get(kind)
    if isinstance(error_class, type) and issubclass(error_class, NixfrontError) and error_class.lasting:
        return error_class(message)
    return Unforeseen(message)
