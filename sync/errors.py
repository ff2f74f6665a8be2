"""Every error Standpipe raises on purpose, in one tree.

    StandpipeError                 something a user can act on; carries an exit code
    ├── ConfigurationError         2   a setting is unknown, missing or malformed
    ├── UsageError                 2   an argument is malformed (a bad DID, a bad pattern)
    ├── DatabaseUnavailable        3   PostgreSQL does not answer or refuses the login
    ├── SchemaError                4   the database's schema is older or newer than the code
    ├── BadInput                   5   a file or an upstream document cannot be used
    ├── UpstreamUnavailable        6   a relay, PDS or PLC directory does not answer
    ├── DatabaseRefusal            7   one of our SQL functions said no; carries its SQLSTATE
    │   ├── NotTracked                 a did is not tracked, or not known (SY001)
    │   ├── BadArgument            2   an argument of a function is malformed (SY002)
    │   ├── LaneLost                   another process took the lane over (SY101)
    │   ├── ConsumerOutrun             the change log no longer reaches back to the reader (SY301)
    │   ├── NoSuchConsumer             there is none of that name that is the caller's (SY302)
    │   ├── OtherEpoch                 a position of another log epoch (SY303)
    │   ├── ConsumerExists             the name is taken (SY304)
    │   ├── ViewNameTaken              by something else; or there is no such view (SY401)
    │   ├── ViewInUse                  something depends on the view as it is (SY402)
    │   ├── NoSuchProjection           there is none of that name that is the caller's (SY501)
    │   ├── SearchUnavailable          pgvector is missing, or too old (SY601)
    │   └── NoSuchSearch               there is none of that name (SY602)
    └── ProtocolError              5   bytes that break a rule of the protocol
        ├── FramingError           the connection must be dropped (FA-01)
        ├── MessageError           the message is dropped and counted, state stays (FA-02)
        │   ├── BadSignature       refresh the identity once, then drop (FA-03, SG-08)
        │   └── BrokenCommit       signed, but wrong inside: the repo must be refetched (D-03)
        ├── ExportError            a repo export that does not verify (BF-04)
        └── IdentityError          a DID that does not resolve to a usable document (IN-14)

The text of an error is one sentence that says what to do, where something can be done.
This module imports nothing, so that every layer may use it.
"""


class StandpipeError(Exception):
    """An error with a sentence for the user and an exit code for the shell."""

    exit_code = 1


class ConfigurationError(StandpipeError):
    """A setting is unknown, missing or malformed."""

    exit_code = 2


class UsageError(StandpipeError):
    """An argument is malformed."""

    exit_code = 2


class DatabaseUnavailable(StandpipeError):
    """PostgreSQL does not answer, or refuses the login."""

    exit_code = 3


class SchemaError(StandpipeError):
    """The database's schema does not fit the code."""

    exit_code = 4


class BadInput(StandpipeError):
    """A file or a document cannot be used."""

    exit_code = 5


class UpstreamUnavailable(StandpipeError):
    """A relay, PDS or PLC directory does not answer."""

    exit_code = 6


class DatabaseRefusal(StandpipeError):
    """One of our SQL functions refused the call; `sqlstate` (SY…) says why."""

    exit_code = 7

    def __init__(self, sqlstate: str, message: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class NotTracked(DatabaseRefusal):
    """A did is not tracked, or not known at all."""


class BadArgument(DatabaseRefusal):
    """An argument of a SQL function is malformed."""

    exit_code = 2


class LaneLost(DatabaseRefusal):
    """Another process took the lane over."""


class ConsumerOutrun(DatabaseRefusal):
    """The change log no longer reaches back to where this reader stands."""


class NoSuchConsumer(DatabaseRefusal):
    """There is no consumer of that name, or it is somebody else's."""


class OtherEpoch(DatabaseRefusal):
    """A position was given by this log before a restore, a recovery or a failover."""


class ConsumerExists(DatabaseRefusal):
    """A consumer of that name exists already."""


class ViewNameTaken(DatabaseRefusal):
    """A view's name belongs to something else, or to no view of a collection."""


class ViewInUse(DatabaseRefusal):
    """A view cannot be changed or dropped: something depends on it as it is."""


class NoSuchProjection(DatabaseRefusal):
    """There is no projection of that name, or it is somebody else's."""


class SearchUnavailable(DatabaseRefusal):
    """The database has no pgvector, or one that is too old."""


class NoSuchSearch(DatabaseRefusal):
    """There is no search of that name."""


# The refusals a caller can act on, by SQLSTATE; any other SY… is a plain DatabaseRefusal.
REFUSALS: dict[str, type[DatabaseRefusal]] = {
    "SY001": NotTracked,
    "SY002": BadArgument,
    "SY101": LaneLost,
    "SY301": ConsumerOutrun,
    "SY302": NoSuchConsumer,
    "SY303": OtherEpoch,
    "SY304": ConsumerExists,
    "SY401": ViewNameTaken,
    "SY402": ViewInUse,
    "SY501": NoSuchProjection,
    "SY601": SearchUnavailable,
    "SY602": NoSuchSearch,
}


class ProtocolError(StandpipeError):
    """Bytes that break a rule of the protocol.

    `reason` is the snake_case word under which `sync.problems` counts it, `rule` the id of the
    broken rule where one applies.
    """

    exit_code = 5

    def __init__(self, reason: str, detail: str = "", *, rule: str = "") -> None:
        self.reason = reason
        self.detail = detail
        self.rule = rule
        text = f"{reason}: {detail}" if detail else reason
        super().__init__(f"{text} [{rule}]" if rule else text)


class FramingError(ProtocolError):
    """The stream itself is broken: drop the connection."""


class MessageError(ProtocolError):
    """One message is unusable: drop it, count it, keep the state."""


class BadSignature(MessageError):
    """The signature does not verify with the key at hand."""


class BrokenCommit(MessageError):
    """The signature is good, the contents are not: the repo must be refetched."""

    def __init__(
        self, reason: str, did: str, rev: str, *, detail: str = "", rule: str = ""
    ) -> None:
        super().__init__(reason, detail, rule=rule)
        self.did = did
        self.rev = rev


class ExportError(ProtocolError):
    """A repo export (CAR file) does not verify."""


class IdentityError(ProtocolError):
    """A DID does not resolve to a usable document; the reason says which way.

    Reasons: not_found, tombstoned, transient, malformed.
    """
