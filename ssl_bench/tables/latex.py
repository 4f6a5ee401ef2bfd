r"""Tables as LaTeX: one `table` of the package booktabs per block, ready to paste into a paper.

The preamble needs `\usepackage{booktabs}`; the file is UTF-8. Notes stand below the rows, the best of a column is bold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssl_bench.tables.render import Grid, block_grid, published_grid
from ssl_bench.tables.table import Table

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\dots{}",
    "²": "$^2$",
}
_SIGN = re.compile("|".join(map(re.escape, _ESCAPED)))


def to_latex(table: Table, *, published_lists: bool = True) -> str:
    """A `table` environment for each block, then, if wanted, one for each list of printed numbers."""
    name = table.description.id
    parts = ["% needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} with pdfLaTeX"]
    for number, block in enumerate(table.blocks, start=1):
        caption = f"{table.description.title}. {block.heading}."
        parts.append(_environment(block_grid(table, block), caption, f"tab:{name}-{number}", block.notes))
    for number, published in enumerate(table.published if published_lists else (), start=1):
        label = f"tab:{name}-published-{number}"
        parts.append(_environment(published_grid(published), f"{published.heading}.", label, ()))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line.

    >>> escaped("100 % of K_1 & 30.0 → 40.0±0.1")
    '100 \\\\% of K\\\\_1 \\\\& 30.0 $\\\\rightarrow$ 40.0$\\\\pm$0.1'
    """
    return _SIGN.sub(lambda found: _ESCAPED[found.group()], " ".join(text.split()))


def _environment(grid: Grid, caption: str, label: str, notes: Sequence[str]) -> str:
    columns = "".join("r" if right else "l" for right in grid.right)
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escaped(caption)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"    \toprule",
        f"    {_line([escaped(text) for text in grid.header])}",
        r"    \midrule",
        *(f"    {_line(_cells(grid, number))}" for number in range(len(grid.rows))),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]
    if notes:
        lines += [r"  \par\smallskip\raggedright\footnotesize", *(f"  {escaped(note)}\\par" for note in notes)]
    return "\n".join([*lines, r"\end{table}"])


def _cells(grid: Grid, row: int) -> list[str]:
    texts = [escaped(text) for text in grid.rows[row]]
    return [f"\\textbf{{{text}}}" if grid.marks.get((row, i)) == "best" else text for i, text in enumerate(texts)]


def _line(texts: Sequence[str]) -> str:
    # a first cell in brackets would be read as an argument of the line break before it
    first = f"{{{texts[0]}}}" if texts[0].startswith(("[", "*")) else texts[0]
    return " & ".join([first, *texts[1:]]) + r" \\"
