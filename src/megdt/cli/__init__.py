"""The command line: each command parses, calls, prints. Data on stdout, everything else on stderr.

Exit codes: 0 done, 1 no picture came across or a check failed (recall differs, doctor found something
missing), 2 bad input.
"""

from __future__ import annotations

import sys

import typer

from megdt.cli.app import app
from megdt.errors import MegdtError

# Commands join the application as they are imported, in the order in which help lists them; what is
# heavy is imported inside them, so that help is instant.
# isort: split
from megdt.cli import pictures  # noqa: F401

# isort: split
from megdt.cli import run  # noqa: F401

# isort: split
from megdt.cli import twin  # noqa: F401

# isort: split
from megdt.cli import nodes  # noqa: F401

# isort: split
from megdt.cli import up  # noqa: F401

# isort: split
from megdt.cli import compress  # noqa: F401

# isort: split
from megdt.cli import about  # noqa: F401


def main() -> None:
    """Run the command line; every error on purpose becomes one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message())
    except MegdtError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)
