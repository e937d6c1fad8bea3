"""What a package set says of a package, for people."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """What a package set says of one package, for people who look for it; what it does not say is empty.

    `name`: the attribute. `license`: an SPDX identifier where there is one; several are joined by " AND ".
    """

    name: str
    version: str = ""
    description: str = ""
    license: str = ""
    main_program: str = ""
