// Tables: sorted by a click on a header, and filtered; what is foreign is only ever set as text.
"use strict";

const Tables = (() => {
  const number = (text) => {
    const found = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(found) ? null : found;
  };

  // What a cell sorts by: its value, or its text where the column holds words. Null: nothing, which stands last.
  const keyOf = (cell, word) => {
    if (cell.dataset.value !== undefined) return +cell.dataset.value;
    const text = cell.textContent.trim();
    if (text === "–" || text === "-" || text === "") return null;
    return word ? text.toLowerCase() : number(text);
  };

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const word = table.tHead.rows[0].cells[column].classList.contains("word");
    const keyed = Array.from(body.rows, (row) => [keyOf(row.cells[column], word), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    const rows = document.createDocumentFragment();
    for (const [, row] of keyed) rows.append(row);
    body.append(rows);
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  function makeSortable(table) {
    table.tHead.addEventListener("click", (event) => {
      const cell = event.target.closest("th");
      if (!cell) return;
      const sorted = cell.getAttribute("aria-sort");
      const bestFirst = cell.dataset.better === "higher";
      sort(table, cell.cellIndex, sorted ? sorted === "ascending" : bestFirst);
    });
  }

  // The columns that say what a row is of, by facet.
  function facetsOf(table) {
    const at = {};
    Array.from(table.tHead.rows[0].cells).forEach((cell, k) => {
      const facet = { "data set": "dataset", method: "method", net: "net" }[cell.textContent.trim()];
      if (facet) at[facet] = k;
    });
    return at;
  }

  function filter(table, keeps) {
    const at = facetsOf(table);
    if (!("method" in at) && !("dataset" in at)) return;
    for (const row of table.tBodies[0].rows) {
      const of = {};
      for (const facet in at) of[facet] = row.cells[at[facet]].textContent.trim();
      row.hidden = !keeps(of, row);
    }
  }

  return { sort, makeSortable, filter };
})();
