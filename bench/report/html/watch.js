// A page that is written anew while a sweep runs: it reloads itself, and what was chosen stays chosen.
"use strict";

(() => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const looks = JSON.parse(document.getElementById("data").textContent).looks;
  const nameOf = (number) => `${looks[number].label} on ${looks[number].net}`;
  const titleOf = (table) => all("table.sortable").indexOf(table);
  const every = 1000 * document.getElementById("watched").dataset.every;

  const state = () => ({
    filters: all("#filters [data-facet]").map((field) => [field.dataset.facet, field.value]),
    hidden: [...new Set(all("button.off[data-look]").map((button) => nameOf(button.dataset.look)))],
    more: document.getElementById("more")?.checked ?? false,
    open: all("details[open] > summary").map((summary) => summary.textContent),
    sorted: all("table.sortable th[aria-sort]").map((cell) =>
      [titleOf(cell.closest("table")), cell.textContent, cell.getAttribute("aria-sort")]),
    at: [scrollX, scrollY],
  });

  function restore(kept) {
    for (const [facet, value] of kept.filters) {
      const field = document.querySelector(`#filters [data-facet=${facet}]`);
      field.value = value;
      if (field.value !== value) field.value = "";
    }
    document.getElementById("filters").dispatchEvent(new Event("input"));
    for (const name of kept.hidden) {
      const number = looks.findIndex((_, k) => nameOf(k) === name);
      if (number >= 0) document.querySelector(`button[data-look="${number}"]`)?.click();
    }
    const more = document.getElementById("more");
    if (more && kept.more) more.click();
    for (const summary of all("details > summary")) {
      if (kept.open.includes(summary.textContent)) summary.parentElement.open = true;
    }
    for (const [k, title, way] of kept.sorted) {
      const cell = Array.from(all("table.sortable")[k]?.tHead.rows[0].cells ?? []).find((of) => of.textContent === title);
      for (let n = 0; cell && n < 2 && cell.getAttribute("aria-sort") !== way; n++) cell.querySelector("button").click();
    }
    scrollTo(...kept.at);
    requestAnimationFrame(() => scrollTo(...kept.at));
  }

  // Not under the hands of a reader, nor where nobody looks.
  const isBusy = () =>
    document.hidden || document.querySelector("dialog[open]") || String(getSelection()) || document.activeElement?.matches("input[type=search], select");

  function reload() {
    if (isBusy()) return setTimeout(reload, 1000);
    history.replaceState({ watched: state() }, "");
    location.reload();
  }

  history.scrollRestoration = "manual";
  if (history.state?.watched) restore(history.state.watched);
  setTimeout(reload, every);
})();
