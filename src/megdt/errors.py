"""Every error that megdt raises on purpose.

MegdtError                 the command line turns each of these into one line and exit code 2
+-- RequestError           what the user asked for cannot be done: prompt, size, SNR, option
+-- ScenarioError          a scenario file or a --set override is wrong
+-- WorldError             a world cannot show what was asked of it
+-- BundleError            model weights are missing, damaged or of another make
+-- CodecError             a feature does not fit its codec, or a packet does not decode
|   +-- MissedError        a packet is told by one before it, which did not come
+-- LinkError              a link was set up impossibly
+-- MechanismError         a stage graph does not hold together
+-- PredictionError        a measurement that no prediction learns from, or a time that none reaches
+-- TwinError              the digital twin was asked for what cannot be
|   +-- UnknownEntityError it has no such entity, or had none then
|   +-- ConflictError      an entity has changed since it was read: another revision
|   +-- MeasurementError   a state is out of range, from the future, or no state at all
|   +-- StoreError         its database cannot be opened, read or written
|       +-- DamagedError   its database does not hold what was written
+-- WriterError            a server that writes texts gave none
+-- SessionError           a session between UE and ES cannot go on, or is asked for what it cannot do
|   +-- MessageError       a frame that is no message, or not one for now
|   +-- HandshakeError     the two ends do not go together: protocol version, bundle
|   +-- ResumeError        a session that was cut cannot go on where it was
+-- OutputError            a file cannot be written or read where the user pointed
+-- StudyError             a study's own program failed
+-- MissingExtraError      a feature needs a package that is not installed
"""


class MegdtError(Exception):
    """Root of the tree; its message is one line for the user: found, expected, what to do."""


class RequestError(MegdtError):
    """What the user asked for cannot be done."""


class ScenarioError(MegdtError):
    """A scenario file or an override has a key or value that nothing reads."""


class WorldError(MegdtError):
    """A world cannot show what was asked of it."""


class BundleError(MegdtError):
    """Model weights are missing, damaged or of another make."""


class CodecError(MegdtError):
    """A feature does not fit its codec, or a packet does not decode."""


class MissedError(CodecError):
    """A packet is told by one before it, which did not come."""


class LinkError(MegdtError):
    """A link was set up impossibly."""


class MechanismError(MegdtError):
    """A stage graph does not hold together."""


class TwinError(MegdtError):
    """The digital twin was asked for what cannot be."""


class UnknownEntityError(TwinError):
    """The twin has no entity of this name, or had none at that revision."""


class ConflictError(TwinError):
    """An update was meant for another revision of its entity than the twin has."""

    def __init__(self, message: str, *, expected: int, found: int) -> None:
        super().__init__(message)
        self.expected, self.found = expected, found


class MeasurementError(TwinError):
    """A state, or its time, is out of range, from the future, or not made of JSON's values."""


class StoreError(TwinError):
    """The twin's database cannot be opened, read or written; nothing was acknowledged."""


class DamagedError(StoreError):
    """The twin's database does not hold what was written to it."""


class PredictionError(MegdtError):
    """A measurement that no prediction learns from, or a time that none reaches."""


class WriterError(MegdtError):
    """A server that writes texts gave none, or none that can be used."""


class SessionError(MegdtError):
    """A session between UE and ES cannot go on, or is asked for what it cannot do.

    Args:
        message: One line.
        code: What it is to programs, as `docs/protocol.md` lists them.
        retry_after_s: When to try again; None where that is of no use.
    """

    def __init__(
        self, message: str, *, code: str = "session", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class MessageError(SessionError):
    """A frame that is no message, or not one for now."""

    def __init__(self, message: str, *, code: str = "message") -> None:
        super().__init__(message, code=code)


class HandshakeError(SessionError):
    """The two ends do not go together: protocol version, bundle."""


class ResumeError(SessionError):
    """A session that was cut cannot go on where it was."""


class OutputError(MegdtError):
    """A file cannot be written or read where the user pointed."""


class StudyError(MegdtError):
    """A study's own program failed."""


class MissingExtraError(MegdtError):
    """A feature needs a package that is not installed."""
