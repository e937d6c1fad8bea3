"""The part of a root tree that every image has, whatever its packages: directories, users, groups, and a few texts. Pure.

People build on our images, and engines start them as any user. So names, numbers and modes are those of Debian's base-files and
base-passwd, which most images have. A package adds users and groups to ours; it changes none of them.
"""

import re
from collections.abc import Iterable

from proxy.core.model import PackageSet
from proxy.image.tar import Entry, directory, file, raw, symlink

#: The PATH of every image: docker's default, which derived images and scripts rely on. Our own programs are in /bin.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CA_BUNDLE = "/etc/ssl/certs/ca-bundle.crt"

#: The HOME of every image without a user of its own. An engine sets HOME=/ for a number that passwd does not have, and no
#: image can make `/` writable: overlayfs shows the mode of the engine's own directory there. A HOME in the configuration
#: holds for every user, so it is root's own, which volumes and cache mounts name.
ROOT_HOME = "/root"

#: Name and home of the user of a meta-package. The home belongs to that user, and to the group of root: OpenShift starts every
#: image with a number of its own and with that group.
USER = "user"
HOME = f"/home/{USER}"

#: Real in every image, with their modes: users, engines and `COPY` write here. Anybody may write to /root, as to /tmp,
#: because it is everybody's HOME.
DIRECTORIES = {
    "bin": 0o755,
    "etc": 0o755,
    "etc/pki": 0o755,
    "etc/pki/tls": 0o755,
    "etc/pki/tls/certs": 0o755,
    "etc/ssl": 0o755,
    "etc/ssl/certs": 0o755,
    "home": 0o755,
    "opt": 0o755,
    "root": 0o1777,
    "run": 0o755,
    "srv": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/local": 0o755,
    "usr/local/bin": 0o755,
    "usr/local/lib": 0o755,
    "usr/local/sbin": 0o755,
    "usr/local/share": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/empty": 0o555,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}

#: Never linked from a package: the store is in layers of its own, and what runs fills the others.
NOT_FROM_PACKAGES = frozenset(
    {"nix", "nix-support", "dev", "proc", "run", "sys", "tmp", "var/empty", "var/run"}
)

#: Files of ours that the lines of packages are added to.
JOINED = ("etc/passwd", "etc/group")

# A path that programs expect -> the member of the tree that it is a link to, if that is there.
_ALIASES = {
    "etc/pki/tls/certs/ca-bundle.crt": "etc/ssl/certs/ca-bundle.crt",
    "etc/ssl/cert.pem": "etc/ssl/certs/ca-bundle.crt",
    "etc/ssl/certs/ca-certificates.crt": "etc/ssl/certs/ca-bundle.crt",
    "usr/bin/env": "bin/env",
    # System V ABI, AMD64 supplement: the interpreter in every program that was built elsewhere. nixpkgs' glibc has it in lib.
    "lib64/ld-linux-x86-64.so.2": "lib/ld-linux-x86-64.so.2",
}

# name:uid:home:shell; the group has the same number.
_USERS = (
    ("root", 0, "/root", "/bin/sh"),
    ("nobody", 65534, "/var/empty", "/bin/false"),
    ("daemon", 1, "/var/empty", "/bin/false"),
    ("bin", 2, "/var/empty", "/bin/false"),
    ("sys", 3, "/var/empty", "/bin/false"),
    ("mail", 8, "/var/empty", "/bin/false"),
    ("www-data", 33, "/var/empty", "/bin/false"),
)
# Groups of devices (`--group-add video`) and those that CI scripts name. Hosts number `render`, `kvm` and `docker` as they
# like, so a number here would be a wrong one.
_GROUPS = (
    ("root", 0),
    ("nobody", 65534),
    ("nogroup", 65534),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("kmem", 15),
    ("dialout", 20),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("www-data", 33),
    ("operator", 37),
    ("utmp", 43),
    ("video", 44),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
)
# How many fields a line has, and which of them after the name are numbers.
_FORMAT = {"etc/passwd": (7, (1, 2)), "etc/group": (4, (1,))}
_NUMBER = re.compile(r"[0-9]{1,10}")
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
# An engine mounts a file of its own here; `ctr run` and unpacked images have none.
_HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


def members(package_set: PackageSet, user: str, texts: Iterable[tuple[str, str]]) -> list[Entry]:
    """The files that no package need bring, and the home of `user` (`UID:GID`).

    `texts`: the contents of the packages' own `JOINED` files, each with its path in the root.
    """
    passwd = [f"{name}:x:{uid}:{uid}:{name}:{home}:{shell}" for name, uid, home, shell in _USERS]
    group = [f"{name}:x:{gid}:" for name, gid in _GROUPS]
    homes = []
    if user:
        uid, gid = user.split(":")
        passwd.append(f"{USER}:x:{uid}:{gid}:{USER}:{HOME}:/bin/sh")
        group.append(f"{USER}:x:{gid}:")
        homes = [directory(HOME.lstrip("/"), 0o775, (int(uid), 0))]
    lines = {"etc/passwd": passwd, "etc/group": group}
    for path, text in texts:
        lines[path] += _new_lines(path, text, lines[path])
    return [
        *(_text(path, "".join(f"{line}\n" for line in lines[path])) for path in JOINED),
        _text("etc/hosts", _HOSTS),
        _text("etc/nsswitch.conf", _NSSWITCH),
        _text("etc/os-release", os_release(package_set)),
        symlink("var/run", "../run"),  # relative, so that extraCommands stay inside the tree
        *homes,
    ]


def aliases(entries: dict[str, Entry]) -> list[Entry]:
    """The links at the paths that programs expect, for what is in the tree and is not at such a path itself."""
    return [
        symlink(name, entries[source].target)
        for name, source in _ALIASES.items()
        if source in entries and name not in entries
    ]


def os_release(package_set: PackageSet) -> str:
    """The text of /etc/os-release: the package set, its source and its revision. Readers take the first line with `ID=` for `ID`."""
    day = package_set.created.partition("T")[0]
    facts = {
        "NAME": "nixfront",
        "ID": "nixfront",
        "ID_LIKE": "nixos",
        "PRETTY_NAME": f"nixfront image of {package_set.name}" + (f", {day}" if day else ""),
        "VERSION_ID": day.replace("-", "."),
        "BUILD_ID": package_set.revision,
        "NIXFRONT_SET": package_set.name,
        "NIXFRONT_SOURCE": package_set.source,
        "NIXFRONT_REVISION": package_set.revision,
    }
    return "".join(f"{name}={_quoted(value)}\n" for name, value in facts.items() if value)


def _quoted(value: str) -> str:
    """The value as os-release(5) wants it: bare, or in double quotes with shell's own characters escaped."""
    if value.isascii() and value.replace(".", "").isalnum():
        return value
    line = " ".join(value.split())
    return '"' + "".join(f"\\{char}" if char in '"$`\\' else char for char in line) + '"'


def _new_lines(path: str, text: str, present: Iterable[str]) -> list[str]:
    """The lines of a package's file that are whole, and whose name is not present yet."""
    fields, numbers = _FORMAT[path]
    names = {line.partition(":")[0] for line in present}
    new: list[str] = []
    for line in text.split("\n"):
        name, *rest = line.split(":")
        whole = len(rest) == fields - 1 and all(_NUMBER.fullmatch(rest[at]) for at in numbers)
        if whole and name and not name.startswith(("#", "+", "-")) and name not in names:
            names.add(name)
            new.append(line)
    return new


def _text(path: str, text: str) -> Entry:
    return file(path, raw(text))
