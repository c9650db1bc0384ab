"""The command `theory`."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.output import say
from equilibrist.cli.paths import page_path
from equilibrist.errors import RecipeError, RecordError

if TYPE_CHECKING:
    from equilibrist.theory.statements import CheckedStatement

_WIDTH = 100
_NAME = 66  # columns of a number's name


def theory(
    s: Annotated[float, typer.Option("--s", help="Standard deviation of the data, not 1.")] = 2.0,
    d: Annotated[int, typer.Option("--d", help="Dimension.")] = 2,
    eta: Annotated[
        float, typer.Option("--eta", help="Factor of W2GAN's cost, eta |x - x'|^2.")
    ] = 0.5,
    t: Annotated[
        float, typer.Option("--t", help="Bound on the generator's shift, |u| <= t.")
    ] = 1.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("theory.html"),
) -> None:
    """Check Farnia and Ozdaglar's statements (2020) on chosen numbers, and draw them.

    The data are N(0, s^2 I_d), the generator is W z + u. Each number is computed twice: by a closed form, and
    from the definition by quadrature or search. A statement holds, holds although its condition fails, or
    fails, with the counterexample. Theorem 1 needs s > 1 and Remark 1 s < 1: on the other side 1/s is taken.

    Example: equilibrist theory --s 2 --d 2 --eta 0.5 --t 1 --out theory.html
    """
    path = page_path(out)
    if not all(map(math.isfinite, (s, eta, t))):
        raise RecipeError("--s, --eta and --t must be finite")
    from equilibrist.theory.statements import Setting, statements

    try:
        setting = Setting(d, s, eta, t)
    except ValueError as error:
        raise RecipeError(f"--{error}") from None
    found = statements(setting)
    _print_table(found)
    from equilibrist.theory.page import write_theory

    write_theory(setting, found, path)
    say(f"Pictures: {path}")
    if wrong := [x.title for x in found if x.verdict == "numbers disagree"]:
        raise RecordError(
            f"closed form and independent number disagree in {'; '.join(wrong)}: try numbers nearer to 1, and report it"
        )


def _print_table(found: tuple[CheckedStatement, ...]) -> None:
    print(f"{'':{_NAME}}  {'closed form':>14}  {'independent':>14}")
    for x in found:
        aside = "" if x.printed else " (not claimed by the paper)"
        print(f"\n{x.title}: {x.verdict.upper()}{aside}")
        _fold(f"{x.claim} [{x.at}]")
        for number in x.numbers:
            *above, last = textwrap.wrap(number.name, _NAME - 4)
            for line in above:
                print(f"  {line}")
            checked = "not computed" if number.checked is None else _plain(number.checked)
            print(f"  {last:{_NAME - 2}}  {_plain(number.closed):>14}  {checked:>14}")
        _fold(x.why)
    print()


def _plain(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.8g}"


def _fold(text: str) -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  "))
