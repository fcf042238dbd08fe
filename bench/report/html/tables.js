// Tables: sorted by a click on a header, and filtered; what is foreign is only ever set as text.
"use strict";

const Tables = (() => {
  const number = (text) => {
    const found = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(found) ? null : found;
  };

  // What a text sorts by: a number, or itself where the column holds words. Null: nothing, which stands last.
  function key(text, word) {
    if (text === "–" || text === "-" || text === "") return null;
    return word ? text.toLowerCase() : number(text);
  }

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  // Things in the order of their keys; equal ones keep theirs.
  function order(things, keyOf, descending) {
    const keyed = things.map((thing) => [keyOf(thing), thing]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    return keyed.map(([, thing]) => thing);
  }

  // At a click on a header: sort by its column, the best first where one way is better, at the next the other way.
  function onHeader(table, sort) {
    table.tHead.addEventListener("click", (event) => {
      const cell = event.target.closest("th");
      if (!cell) return;
      const sorted = cell.getAttribute("aria-sort");
      const descending = sorted ? sorted === "ascending" : cell.dataset.better === "higher";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(cell.cellIndex, descending);
    });
  }

  function makeSortable(table) {
    onHeader(table, (column, descending) => {
      const word = table.tHead.rows[0].cells[column].classList.contains("word");
      const keyOf = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? key(cell.textContent.trim(), word) : +cell.dataset.value;
      };
      table.tBodies[0].replaceChildren(...order(Array.from(table.tBodies[0].rows), keyOf, descending));
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

  return { filter, key, makeSortable, onHeader, order };
})();
