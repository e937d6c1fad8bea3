"""The facts of one image that exists nowhere, for tests of documents."""

from proxy.core.model import OCI_MANIFEST, Descriptor, ImageRequest, Package, PackageSet, PathInfo
from proxy.trust.facts import ImageFacts, LayerFacts

HASHES = ["0" * 31 + char for char in "1234"]
GLIBC, HELLO, HELLO_DEV, ODD = (
    f"/nix/store/{identity}-{name}"
    for identity, name in zip(
        HASHES, ("glibc-2.40-66", "hello-2.12.1", "hello-2.12.1-dev", "X.Y+odd_Z?=q"), strict=True
    )
)
PACKAGE = Package(
    attribute="hello",
    name="hello-2.12.1",
    drv_path=f"/nix/store/{'0' * 32}-hello-2.12.1.drv",
    outputs=(("out", HELLO), ("dev", HELLO_DEV)),
    main_program="hello",
    description="Says hello",
    license="GPL-3.0-or-later AND Some Licence",
    version="2.12.1",
    licenses=("GPL-3.0-or-later", "Some Licence"),
    homepage="https://www.gnu.org/software/hello/",
    vulnerabilities=("CVE-2026-0001: opens the door", "nobody mends it"),
)
FACTS = ImageFacts(
    request=ImageRequest("shell/hello", "latest", ("bash", "hello"), presets=("shell",), first="hello"),
    manifest=Descriptor(OCI_MANIFEST, 1234, "sha256:" + "ab" * 32),
    package_set=PackageSet(
        "nixpkgs",
        "/of/this/host",
        "c" * 40,
        "https://example.org/set.tar.gz",
        "2026-01-31T01:00:00.5+01:00",
        nar_hash="sha256-" + "A" * 43 + "=",
    ),
    system="x86_64-linux",
    packages=(PACKAGE,),
    requested=("hello",),
    paths=(
        PathInfo(GLIBC, 1, (GLIBC,)),
        PathInfo(HELLO, 1, (GLIBC, HELLO)),
        PathInfo(HELLO_DEV, 1, (HELLO,)),
        PathInfo(ODD, 1, ()),
    ),
    layers=(
        LayerFacts("sha256:" + "1" * 64, (GLIBC,)),
        LayerFacts("sha256:" + "2" * 64, (HELLO, HELLO_DEV, ODD)),
        LayerFacts("sha256:" + "3" * 64, ()),
    ),
    settings={"layers.compression": "tar1", "layers.most": 100},
    builder="https://images.example.org",
    version="1.2.3",
)
