"""What a package set says of a package, for people."""

import re
from dataclasses import dataclass

_WEB_PAGE = re.compile(r"https?://[a-zA-Z0-9.-]+\.[a-z]{2,5}(?::[0-9]{1,5})?(?:/[!#-;=?-Z_a-z~%]*)?")


def web_page(text: str) -> str:
    """The text, if it is the address of a web page and of nothing else; a package set may write anything."""
    return text if _WEB_PAGE.fullmatch(text) else ""


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
