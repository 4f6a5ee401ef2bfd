"use strict";
// Sortable headers: ascending or best first is left to the reader; the third press restores the order.
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
      const first = header.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = header.getAttribute("aria-sort");
      const next = now === "none" ? first : now === first ? second : "none";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? original : sorted(original, column, next === "descending")));
    });
  });
}

function sorted(rows, column, descending) {
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const empty = (text) => text === "" || (/[A-Za-z]/.test(text) === false && Number.isNaN(Number.parseFloat(text)));
  return [...rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b));  // what has no number comes last
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
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
