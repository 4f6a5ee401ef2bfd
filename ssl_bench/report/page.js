"use strict";
// A header sorts its table, the largest number or the first word on top; the third press restores the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const numeric = header.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = header.getAttribute("aria-sort");
      const next = now === "none" ? first : now === first ? second : "none";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? original : sorted(original, column, numeric, next === "descending")));
    });
  });
}

// Numbers by size, words by the alphabet; what has no number in a column of numbers, or no word, comes last.
function sorted(rows, column, numeric, descending) {
  const key = (row) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    return numeric ? Number.parseFloat(text) : text;
  };
  const empty = (value) => value === "" || Number.isNaN(value);
  return [...rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b));
    const order = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
    return descending ? -order : order;
  });
}

// A link to what is folded away unfolds it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", unfold);
unfold();

addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details.print")) one.open = true;
});
