"use strict";
// The table of single volumes: filtered, sorted and paged over compact columns, so that only the shown rows are elements.
(() => {
  const PAGE = 50;
  const source = document.getElementById("scores-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const counts = { volumes: data.volumes.length, structures: data.structures.length };
  const element = (id) => document.getElementById(id);
  const place = (row) => ({
    configuration: data.configurations[Math.floor(row / (counts.structures * counts.volumes))],
    volume: data.volumes[Math.floor(row / counts.structures) % counts.volumes],
    structure: data.structures[row % counts.structures],
  });
  const texts = [
    { heading: "Volume", of: (row) => place(row).volume },
    { heading: "Model", of: (row) => place(row).configuration[0] },
    { heading: "Prompts", of: (row) => place(row).configuration[1] },
    { heading: "Structure", of: (row) => place(row).structure },
  ];
  // JSON has no infinity: distances to an empty mask come as text.
  const number = (value) => (value === "inf" ? Infinity : value);
  const numbers = data.columns.map((column) => ({ ...column, of: (row) => number(column.values[row]), numeric: true }));
  const status = { heading: "Status", of: (row) => data.statuses[data.status[row]] };
  const columns = [...texts, ...numbers, status];
  const everyRow = data.status.map((_, row) => row).filter((row) => data.status[row] >= 0);
  const state = { sorted: Math.min(4, columns.length - 1), ascending: true, page: 0, rows: [] };

  const filters = {
    text: element("filter-text"), model: element("filter-model"), scheme: element("filter-scheme"),
    structure: element("filter-structure"), status: element("filter-status"),
  };
  const fill = (select, values) => {
    for (const value of new Set(values)) select.add(new Option(value, value));
  };
  fill(filters.model, data.configurations.map((pair) => pair[0]));
  fill(filters.scheme, data.configurations.map((pair) => pair[1]));
  fill(filters.structure, data.structures);
  fill(filters.status, data.statuses);

  const reset = () => {
    for (const filter of Object.values(filters)) filter.value = "";
    filters.structure.value = data.structures[0];
  };

  // Missing values come last in both directions; equal ones keep the order of the study.
  const compare = (first, second) => {
    const column = columns[state.sorted];
    const a = column.of(first), b = column.of(second);
    const sign = state.ascending ? 1 : -1;
    if (a === null || b === null) return (a === null) - (b === null) || first - second;
    if (column.numeric) return (a === b ? 0 : sign * (a - b)) || first - second;
    return sign * a.localeCompare(b, "en", { numeric: true }) || first - second;
  };

  const select = () => {
    const text = filters.text.value.trim().toLowerCase();
    const wanted = { model: filters.model.value, scheme: filters.scheme.value };
    const structure = filters.structure.value, chosenStatus = filters.status.value;
    state.rows = everyRow.filter((row) => {
      const here = place(row);
      return (!text || here.volume.toLowerCase().includes(text))
        && (!wanted.model || here.configuration[0] === wanted.model)
        && (!wanted.scheme || here.configuration[1] === wanted.scheme)
        && (!structure || here.structure === structure)
        && (!chosenStatus || status.of(row) === chosenStatus);
    });
    state.page = 0;
    sort();
  };

  const sort = () => {
    state.rows.sort(compare);
    show();
  };

  const shown = (value, digits) => {
    if (value === null) return "–";
    return value.toFixed(digits).replace("-", "−").replace("Infinity", "∞");
  };

  const show = () => {
    const last = Math.max(0, Math.ceil(state.rows.length / PAGE) - 1);
    state.page = Math.min(Math.max(state.page, 0), last);
    const start = state.page * PAGE, end = Math.min(start + PAGE, state.rows.length);
    const body = document.createElement("tbody");
    for (const row of state.rows.slice(start, end)) {
      const line = body.insertRow();
      columns.forEach((column, index) => {
        const cell = index === 0 ? document.createElement("th") : document.createElement("td");
        if (index === 0) cell.scope = "row";
        if (!column.numeric) cell.className = "text";
        cell.textContent = column.numeric ? shown(column.of(row), column.digits) : column.of(row);
        if (column === status && cell.textContent === "failed") cell.classList.add("failed");
        line.append(cell);
      });
    }
    element("scores-table").tBodies[0].replaceWith(body);
    [...element("scores-table").tHead.rows[0].cells].forEach((cell, index) => {
      const sorted = index === state.sorted ? (state.ascending ? "ascending" : "descending") : "none";
      cell.setAttribute("aria-sort", sorted);
    });
    const total = state.rows.length.toLocaleString("en");
    element("scores-count").textContent = total === "0" ? "No row matches." : `Rows ${start + 1} to ${end} of ${total}`;
    element("page-first").disabled = element("page-previous").disabled = state.page === 0;
    element("page-last").disabled = element("page-next").disabled = state.page === last;
  };

  const head = element("scores-table").tHead.insertRow();
  columns.forEach((column, index) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.dataset.heading = column.heading;
    if (!column.numeric) cell.className = "text";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.heading;
    button.addEventListener("click", () => {
      state.ascending = state.sorted === index ? !state.ascending : true;
      state.sorted = index;
      state.page = 0;
      sort();
    });
    cell.append(button);
    head.append(cell);
  });

  filters.text.addEventListener("input", select);
  for (const name of ["model", "scheme", "structure", "status"]) filters[name].addEventListener("change", select);
  element("filter-reset").addEventListener("click", () => { reset(); select(); });
  const turn = (id, page) => element(id).addEventListener("click", () => { state.page = page(); show(); });
  turn("page-first", () => 0);
  turn("page-previous", () => state.page - 1);
  turn("page-next", () => state.page + 1);
  turn("page-last", () => Infinity);
  reset();
  select();
})();

// A print shows what the screen folds away; newer browsers need only the style sheet for it.
(() => {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
