"""Structured logs on standard error, ours and those of the libraries alike.

A line is an event and its fields: `log.info("connected", source=1, cursor=42)`. One event per
connection or batch of work, none per message.
"""

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger, Processor

# Libraries that tell at INFO what is of no use to an operator.
_CHATTY = ("alembic", "asyncio", "httpx", "httpcore", "websockets")


def setup(log_format: str = "auto", level: str = "info") -> None:
    """Send every log line to standard error as JSON or for a terminal.

    `log_format` is console, json or auto; auto asks whether standard error is a terminal.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: the pretty ones print local variables, and with them passwords.
        rendering += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=rendering, foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("asyncio").addFilter(_is_news)
    # It warns of a rollback it cannot send when Ctrl-C interrupts a query; what matters it raises.
    logging.getLogger("psycopg").setLevel(max(logging.ERROR, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out that a driver did not fetch the error of a connection that was lost while closed.

    Whoever used the connection has told of it already.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_unfetched = record.getMessage().startswith("Future exception was never retrieved")
    return not (is_unfetched and isinstance(error, ConnectionError))


def get(name: str) -> FilteringBoundLogger:
    """Return a logger whose lines carry `name`."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
