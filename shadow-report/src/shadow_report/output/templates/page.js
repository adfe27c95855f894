"use strict";
// Sorting: every <tbody> is one entry, so that a pair's bodies travel with it.
const keyOf = (body, column) => {
  const cell = body.rows[0].cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const figure = Number(text);
  return text !== "" && Number.isFinite(figure) ? figure : text;
};
// Entries without a value stand last in both directions.
const compare = (a, b, sign) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
};
const sort = (table, head) => {
  const column = head.cellIndex;
  const bodies = Array.from(table.tBodies);
  // Figures start with the largest, words with the first.
  const first = typeof keyOf(bodies[0], column) === "number" || head.classList.contains("figure") ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  for (const cell of head.parentNode.cells) if (cell.hasAttribute("aria-sort")) cell.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  bodies
    .map((body) => [keyOf(body, column), body])
    .sort((left, right) => compare(left[0], right[0], sign))
    .forEach(([, body]) => table.append(body));
  document.getElementById("said").textContent = `Sorted by ${head.textContent.trim()}, ${order}.`;
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("table[data-sortable] thead button");
  if (button) sort(button.closest("table"), button.closest("th"));
});
