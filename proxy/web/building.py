"""A build for one client, whichever way the client wants it: by a pull, or by the button of the page."""

from proxy.builds.coordinator import Coordinator
from proxy.core.model import ImageRequest
from proxy.web.access import Access


async def build(
    access: Access, builds: Coordinator, image: ImageRequest, client: str, *, is_absent: bool = False
) -> None:
    """The registry has the image when this returns; a build that begins for this client of `admit` counts against its rate.

    `is_absent`: as for `Coordinator.image`. Raises a `NixfrontError`.
    """
    if access.has_rate and await builds.is_new(image, is_absent=is_absent):
        access.charge(client, image)
        is_absent = True
    await builds.image(image, client, is_absent=is_absent)
