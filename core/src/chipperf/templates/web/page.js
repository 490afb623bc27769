"use strict";
(() => {
  const html = document.documentElement;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const languages = all("[data-language]").map((button) => button.dataset.language);
  const form = document.querySelector(".filters");
  const filters = form ? all("select", form) : [];

  // What the reader chose is kept behind the address's "#", so that a link passes it on.
  const remembered = () => new URLSearchParams(location.hash.slice(1));

  function remember() {
    const state = new URLSearchParams([["lang", html.lang]]);
    for (const filter of filters) if (filter.value) state.set(filter.name, filter.value);
    history.replaceState(null, "", `#${state}`);
    for (const link of all("a[href]:not([download])")) link.hash = `lang=${html.lang}`;
  }

  // What is left to do after the reader has chosen something.
  function finish() {
    remember();
    fit();
  }

  function setLanguage(language) {
    html.lang = language;
    for (const element of all(`[data-${language}]`)) element.textContent = element.dataset[language];
    for (const button of all("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
    nameCells();
    for (const table of comparable) showRatios(table);
  }

  // A table on which p_core, by which runs are ranked, would have to be scrolled to is a card for each row.
  function fit() {
    const tables = all("table.cells");
    for (const table of tables) table.classList.remove("cards");
    const wide = tables.filter((table) => {
      const place = table.parentElement;
      const last = table.querySelector("thead .p_core") ?? table.tHead.rows[0].lastElementChild;
      // The style lets the last 32 px of a table fade that is to be scrolled.
      const end = place.getBoundingClientRect().right - 32 - place.scrollLeft;
      return table.scrollWidth > place.clientWidth && last.getBoundingClientRect().right > end;
    });
    for (const table of wide) table.classList.add("cards");
  }

  // Every cell of a card says which column it is of.
  function nameCells() {
    for (const table of all("table.cells")) {
      const names = all("thead th", table).map(shownText);
      for (const row of table.tBodies[0].rows) {
        [...row.cells].forEach((cell, index) => { cell.dataset.label = names[index]; });
      }
    }
  }

  // Data of an element that is written in English, and in the languages in which it differs.
  const told = (element, name) =>
    element.dataset[name + html.lang[0].toUpperCase() + html.lang.slice(1)] ?? element.dataset[name];

  function shownText(element) {
    return (element.querySelector(`[lang="${html.lang}"]`) ?? element).textContent.trim();
  }

  function applyFilters() {
    let shown = 0, count = 0;
    for (const board of all(".board")) {
      let here = 0;
      for (const row of all(".cells tbody tr", board)) {
        const kept = filters.every(({ name, value }) =>
          !value || (name === "case" ? board.dataset.case : row.dataset[name]) === value);
        row.hidden = !kept;
        here += kept;
        count += 1;
      }
      board.hidden = !here;
      shown += here;
      for (const failed of all(".failed", board)) {
        const left = all("tbody tr:not([hidden])", failed).length;
        failed.hidden = !left;
        failed.open ||= left === here;
        for (const element of all(".count", failed)) element.textContent = left;
      }
      for (const table of all("table.runs", board)) {
        table.parentElement.hidden = !all("tbody tr:not([hidden])", table).length;
      }
    }
    for (const trend of all(".trend")) {
      trend.hidden = !filters.every(({ name, value }) => !value || !(name in trend.dataset) || trend.dataset[name] === value);
    }
    for (const element of all(".shown", form)) element.textContent = shown;
    for (const element of all(".all", form)) element.textContent = count;
    comparable.forEach(showRatios);
  }

  function restore() {
    const state = remembered();
    setLanguage(languages.includes(state.get("lang")) ? state.get("lang") : html.lang);
    for (const filter of filters) {
      filter.value = state.get(filter.name) ?? "";
      if (filter.selectedIndex < 0) filter.value = "";
    }
    if (form) applyFilters();
    finish();
  }

  // A device has a box that selects its run, and a ratio a button that makes its run the baseline: without this script
  // there is neither.
  const comparable = all("table.runs").filter((table) => table.querySelector(".ratio"));
  const word = (name) => shownText(document.querySelector(`#words .${name}`));
  // What an implausible record says is no baseline, and has no ratio to one.
  const rateOf = (row) =>
    "implausible" in row.dataset ? NaN : Number(row.querySelector(".per_card")?.dataset.sort ?? NaN);
  const conditionsOf = (row) => told(row, "conditions").split("\n");

  function addControls(table, number) {
    for (const row of table.tBodies[0].rows) {
      const select = Object.assign(document.createElement("input"), { type: "checkbox", className: "select" });
      row.querySelector("th").prepend(select, " ");
      if (isNaN(rateOf(row))) continue;
      const base = Object.assign(document.createElement("input"), { type: "radio", name: `base-${number}`, className: "base" });
      row.querySelector(".ratio").append(document.createElement("span"), " ", base);
    }
    const first = table.querySelector(".base");
    if (first) first.checked = true;
  }

  function showRatios(table) {
    // What nobody sees is no baseline.
    if (table.querySelector(".base:checked")?.closest("tr").hidden) {
      const seen = all(".base", table).find((button) => !button.closest("tr").hidden);
      if (seen) seen.checked = true;
    }
    const base = table.querySelector(".base:checked")?.closest("tr");
    const names = all("#words .conditions li").map(shownText);
    for (const row of table.tBodies[0].rows) {
      for (const name of ["select", "base"]) {
        for (const control of all(`.${name}`, row)) control.ariaLabel = control.title = word(name);
      }
      const cell = row.querySelector(".ratio");
      const rate = rateOf(row);
      if (isNaN(rate)) { cell.dataset.missing = "not_applicable"; continue; }
      const others = conditionsOf(base);
      const different = names.filter((_, index) => conditionsOf(row)[index] !== others[index]);
      const ratio = rate / rateOf(base);
      const known = !different.length && isFinite(ratio);
      cell.querySelector("span").textContent = row === base ? word("baseline") : known ? ratio.toFixed(3) : "-";
      if (known) cell.dataset.sort = ratio; else delete cell.dataset.sort;
      if (known) delete cell.dataset.missing; else cell.dataset.missing = "not_applicable";
      cell.dataset.reason = different.length ? `${word("other")} ${different.join(", ")}` : "";
    }
    showSideBySide(table);
  }

  function showSideBySide(table) {
    const place = table.parentElement;
    if (place.nextElementSibling?.matches(".side")) place.nextElementSibling.remove();
    const rows = all(".select:checked", table).map((box) => box.closest("tr")).filter((row) => !row.hidden);
    if (rows.length < 2) return;
    const side = Object.assign(document.createElement("section"), { className: "side" });
    const title = Object.assign(document.createElement("h3"), { textContent: word("side") });
    const clear = Object.assign(document.createElement("button"), { type: "button", className: "clear", textContent: word("clear") });
    const wide = Object.assign(document.createElement("div"), { className: "table" });
    const shown = document.createElement("table");
    const line = (name, contents, differ) => {
      const row = shown.insertRow();
      row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: name }));
      row.classList.toggle("differs", differ);
      for (const content of contents) row.insertCell().append(...content);
    };
    const copy = (cell) => [...cell.cloneNode(true).childNodes].filter((node) => !node.matches?.("input"));
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      line(shownText(heading), rows.map((row) => copy(row.cells[index])), false);
    });
    all("#words .conditions li").forEach((name, index) => {
      const texts = rows.map((row) => conditionsOf(row)[index]);
      line(shownText(name), texts.map((text) => [text]), new Set(texts).size > 1);
    });
    wide.append(shown);
    side.append(title, clear, wide);
    place.after(side);
  }

  const collator = new Intl.Collator(undefined, { numeric: true });

  function sortBy(header) {
    const table = header.closest("table");
    const column = header.cellIndex;
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map((row) => ({ row, cell: row.cells[column] }));
    keyed.sort((a, b) => {
      // A value that is not there is neither the smallest nor the largest.
      const missing = ("missing" in a.cell.dataset) - ("missing" in b.cell.dataset);
      return missing || direction * compare(a.cell, b.cell);
    });
    table.tBodies[0].append(...keyed.map(({ row }) => row));
  }

  function compare(a, b) {
    if ("sort" in a.dataset && "sort" in b.dataset) return Number(a.dataset.sort) - Number(b.dataset.sort);
    return collator.compare(a.textContent, b.textContent);
  }

  // Where a value comes from is said of the cell that the pointer is over or that has the focus.
  const provenance = document.getElementById("provenance");
  const cellSelector = ".cells :is(tbody td, tbody th, dd)";

  function fieldOf(cell) {
    if (cell.dataset.field) return cell.dataset.field;
    return cell.closest("table").tHead.rows[0].cells[cell.cellIndex].dataset.field;
  }

  let named = null;

  function tell(cell) {
    named?.classList.remove("named");
    named?.removeAttribute("aria-describedby");
    named = cell;
    provenance.hidden = !cell;
    if (!cell) return;
    const source = cell.closest("[data-record]");
    const texts = { reason: told(cell, "reason") ?? "", field: fieldOf(cell), record: source.dataset.record, sha: source.dataset.sha };
    for (const [name, text] of Object.entries(texts)) provenance.querySelector(`.${name}`).textContent = text;
    provenance.querySelector(".hint").hidden = cell !== document.activeElement;
    cell.classList.add("named");
    cell.setAttribute("aria-describedby", "provenance");
  }

  // One cell of each table is reached with Tab, the others from there with the arrow keys, as in a grid.
  function focusCell(cell) {
    for (const other of all("[tabindex]", cell.closest(".cells"))) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  }

  function makeReachable() {
    for (const cells of all(".cells")) {
      const first = all("tbody tr:not([hidden]) > :first-child, dd", cells)[0];
      if (first) first.tabIndex = 0;
      if (cells.matches("table")) cells.setAttribute("role", "grid");
    }
  }

  function neighbor(cell, key) {
    if (cell.matches("dd")) {
      const list = all("dd", cell.closest(".cells"));
      const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[key];
      return list[list.indexOf(cell) + step];
    }
    if (key === "ArrowLeft") return cell.previousElementSibling;
    if (key === "ArrowRight") return cell.nextElementSibling;
    const rows = all("tbody tr:not([hidden])", cell.closest("table"));
    const row = rows[rows.indexOf(cell.parentElement) + (key === "ArrowDown" ? 1 : -1)];
    return row?.cells[cell.cellIndex];
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tell(null);
    const cell = event.target.closest(cellSelector);
    if (!cell || event.target.matches("input") || !["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const next = neighbor(cell, event.key);
    if (next) focusCell(next);
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const language = event.target.closest("[data-language]");
    const sort = event.target.closest(".sort");
    const cell = event.target.closest(cellSelector);
    if (language) { setLanguage(language.dataset.language); finish(); }
    if (sort) sortBy(sort.closest("th"));
    if (event.target.closest(".clear")) {
      const table = event.target.closest(".side").previousElementSibling.querySelector("table");
      for (const box of all(".select:checked", table)) box.checked = false;
      showSideBySide(table);
    }
    if (cell && !event.target.closest("a, input")) focusCell(cell);
  });
  document.addEventListener("focusin", (event) => tell(event.target.closest(cellSelector)));
  document.addEventListener("focusout", () => tell(null));
  document.addEventListener("mouseover", (event) => {
    const cell = event.target.closest(cellSelector) ?? document.activeElement.closest(cellSelector);
    tell(cell);
  });
  document.addEventListener("change", (event) => {
    const table = event.target.closest("table.runs");
    if (table && event.target.matches(".base")) showRatios(table);
    if (table && event.target.matches(".select")) showSideBySide(table);
  });
  form?.addEventListener("change", () => { applyFilters(); finish(); });
  form?.addEventListener("reset", () => setTimeout(() => { applyFilters(); finish(); }));
  form?.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("toggle", (event) => { if (event.target.matches(".failed")) fit(); }, true);
  addEventListener("hashchange", restore);
  addEventListener("resize", fit);

  for (const element of all(".needs-script")) element.hidden = false;
  comparable.forEach(addControls);
  makeReachable();
  restore();
})();
