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
+-- WriterError            a server that writes texts gave none
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


class PredictionError(MegdtError):
    """A measurement that no prediction learns from, or a time that none reaches."""


class WriterError(MegdtError):
    """A server that writes texts gave none, or none that can be used."""


class OutputError(MegdtError):
    """A file cannot be written or read where the user pointed."""


class StudyError(MegdtError):
    """A study's own program failed."""


class MissingExtraError(MegdtError):
    """A feature needs a package that is not installed."""
