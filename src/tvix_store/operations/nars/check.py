"""Whether a NAR can be rendered, and is what is said of it."""

from __future__ import annotations

import logging

from tvix_store.errors import CorruptError, InvalidError, NotFoundError
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.services.nar import NarService

_log = logging.getLogger(__name__)


async def check_nar(nar: NarService, node: Node, stated: NarFacts, what: object) -> None:
    """Make sure that the NAR of `node` could be served now, as `stated`. `what` names it in messages.

    That is remembered as long as nothing of the content can have gone; else the NAR is rendered once.

    Raises:
        NotFoundError: it could not; the log tells why.
    """
    try:
        facts = await nar.calculate(node)
    except NotFoundError as error:
        # Of a path that is there, its own content is missing. A NAR may have been collected that no path needs.
        _log.log(logging.ERROR if isinstance(what, StorePath) else logging.INFO, "%s is not served: %s", what, error)
        raise NotFoundError("the content of", what) from error
    except (CorruptError, InvalidError) as error:
        _log.error("%s is not served: %s", what, error)
        raise NotFoundError("the content of", what) from error
    if facts != stated:
        _log.error("%s is not served: its content has NAR hash %s", what, facts.sha256.hex())
        raise NotFoundError("the content of", what)
