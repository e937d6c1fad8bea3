"""A build in the log: one line when it has ended, the steps to there at level debug."""

import structlog

from proxy.events import (
    BuildEnded,
    BuildStarted,
    Collided,
    Event,
    LayersReady,
    LayerStored,
    LogLine,
    NixBegun,
    RefreshFailed,
    Resolved,
)

_log = structlog.get_logger("nixfront.build")


def log_event(event: Event) -> None:
    """Write an event: a line at most. A `Sink`."""
    match event:
        case BuildStarted(repository, tag):
            _log.debug("build started", image=f"{repository}:{tag}")
        case Resolved(repository, tag, content):
            _log.debug("build resolved", image=f"{repository}:{tag}", content=content)
        case NixBegun(content, part):
            _log.debug(part, content=content)
        case LogLine(attributes, line):
            _log.debug("log", packages="/".join(attributes), line=line)
        case LayersReady(repository, tag, ready, total):
            _log.debug("layers", image=f"{repository}:{tag}", ready=ready, total=total)
        case LayerStored(how, size):
            _log.debug("layer stored", how=how, bytes=size)
        case Collided(repository, path, winner, loser):
            _log.warning("collision", image=repository, path=f"/{path}", kept=winner, dropped=loser)
        case RefreshFailed(repository, tag, error):
            _log.warning("refresh failed, the old image stays", image=f"{repository}:{tag}", error=error)
        case BuildEnded(repository, tag, digest, error, outcome=outcome, seconds=seconds):
            image = f"{repository}:{tag}"
            if error:
                _log.warning("build failed", image=image, outcome=outcome, error=error)
            else:
                took = {f"{stage}_s": round(each, 3) for stage, each in seconds}
                _log.info("build done", image=image, digest=digest, **took)
