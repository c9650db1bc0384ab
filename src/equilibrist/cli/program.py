"""The typer app with every command, and `main`, which turns errors into lines and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from equilibrist.cli.audit import audit
from equilibrist.cli.checkpoints import checkpoints
from equilibrist.cli.compare import compare
from equilibrist.cli.exit_codes import DONE, FILES, INTERRUPTED, SUMMARY, UNEXPECTED, USAGE
from equilibrist.cli.export import export
from equilibrist.cli.info import info
from equilibrist.cli.output import complain, show_warnings_in_one_line
from equilibrist.cli.papers import papers
from equilibrist.cli.play import play
from equilibrist.cli.prescribe import prescribe
from equilibrist.cli.recipes import list_recipes
from equilibrist.cli.report import report
from equilibrist.cli.run import run
from equilibrist.cli.sample import sample
from equilibrist.cli.spectrum import spectrum
from equilibrist.cli.theory import theory
from equilibrist.cli.zoo import zoo
from equilibrist.errors import EquilibristError, StoppedError


class _Commands(TyperGroup):
    """A group whose commands end with an error line on Ctrl-C; typer's own would print nothing."""

    def invoke(self, ctx: Any) -> object:  # typer's type for the context is private
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None


app = typer.Typer(
    name="equilibrist",
    cls=_Commands,
    help="Train GANs as the two-player games they are, then say with evidence which equilibrium they "
    "reached.\n\nFirst steps: `equilibrist list`, `equilibrist run digits-sngan`, "
    "`equilibrist audit runs/digits-sngan`, then open runs/digits-sngan/report.html.",
    epilog=SUMMARY,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from equilibrist import __version__

        print(f"equilibrist {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    pass


# In the order of the help.
app.command()(run)
app.command()(audit)
app.command()(checkpoints)
app.command()(prescribe)
app.command()(report)
app.command()(sample)
app.command()(export)
app.command("list")(list_recipes)
app.command()(info)
app.command()(play)
app.command()(spectrum)
app.command()(theory)
app.command()(compare)
app.add_typer(papers)
app.add_typer(zoo)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; errors that a user can act upon become one line on stderr.

    Args:
        arguments: The words after `equilibrist`; those of the process if left out.

    Returns:
        The exit code.
    """
    from typer.exceptions import Abort, TyperException

    show_warnings_in_one_line()
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that has gone away is handled
        return int(code or DONE)
    except EquilibristError as error:
        complain(str(error))
        return error.exit_code
    except TyperException as error:
        text = getattr(error, "format_message", error.__str__)()
        if text:  # empty where the help was shown because there were no arguments
            complain(f"{text} (see equilibrist --help)")
        return USAGE
    except (Abort, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        # The files that this package writes name themselves: an error without a name is about the output.
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return FILES
    except SystemExit as error:  # nothing here raises it: reporting success would be wrong
        if isinstance(error.__context__, BrokenPipeError):  # except typer, for a reader gone away
            return _reader_gone()
        complain(
            f"code of yours ended the program (sys.exit({error.code!r})) before its work was done"
        )
        return USAGE
    except Exception as error:
        return _report_unexpected(error)


def _reader_gone() -> int:
    """End without an error when the reader of stdout has gone away, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _report_unexpected(error: Exception) -> int:
    """Print an error that no check foresaw in one line, or raise it where a traceback is asked for."""
    if os.environ.get("EQUILIBRIST_TRACEBACK"):
        raise error
    text = str(error).splitlines()[0] if str(error) else "no message"
    complain(
        f"unexpected {type(error).__name__}: {text} (a fault of the recipe or of equilibrist: "
        "EQUILIBRIST_TRACEBACK=1 shows where)"
    )
    return UNEXPECTED
