"use strict";
// The table of single volumes: filtered, sorted and paged over compact columns, so that only the shown rows are elements.
(() => {
  const PAGE = 50;
  const source = document.getElementById("scores-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const pages = JSON.parse(document.getElementById("pages-data").textContent);
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

  const shown = (value, { digits, unit, signed }) => {
    if (value === null) return "–";
    const [whole, part] = value.toFixed(digits).replace(/^-(?=[0.]+$)/, "").replace("-", "−").replace("Infinity", "∞").split(".");
    const sign = signed && !whole.startsWith("−") ? "+" : "";
    return sign + [whole.replace(/\B(?=(\d{3})+$)/g, ","), part].filter(Boolean).join(".") + unit;
  };

  // A narrow cell breaks a name after its underscores.
  const breakable = (name) => name.split(/(?<=[_/-])(?=[^_/-])/).flatMap((part, place) => (place ? [document.createElement("wbr"), part] : [part]));

  const linkTo = (name) => {
    const link = document.createElement("a");
    link.href = `#volume=${encodeURIComponent(name)}`;
    link.append(...breakable(name));
    if (!pages[name]) return [link];
    const own = document.createElement("a");
    own.href = pages[name].split("/").map(encodeURIComponent).join("/");
    own.textContent = "↗";
    own.className = "own screen";
    own.setAttribute("aria-label", `Page of ${name}`);
    return [link, own];
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
        if (column.numeric) cell.textContent = shown(column.of(row), column);
        else cell.append(...breakable(column.of(row)));
        if (index === 0) cell.replaceChildren(...linkTo(column.of(row)));
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
    const [from, to] = [start + 1, end].map((row) => row.toLocaleString("en"));
    element("scores-count").textContent = total === "0" ? "No row matches." : `Rows ${from} to ${to} of ${total}`;
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
  // A volume that the address names (#volume=knee_7): its scores, and the viewer if it has it.
  const viewed = JSON.parse(document.getElementById("viewer")?.dataset.names ?? "[]");
  const showNamed = () => {
    const name = new URLSearchParams(location.hash.slice(1)).get("volume");
    if (!name) return;
    reset();
    filters.text.value = name;
    select();
    element(viewed.includes(name) ? "viewer" : "single").scrollIntoView();
  };
  const turn = (id, page) => element(id).addEventListener("click", () => { state.page = page(); show(); });
  turn("page-first", () => 0);
  turn("page-previous", () => state.page - 1);
  turn("page-next", () => state.page + 1);
  turn("page-last", () => Infinity);
  reset();
  select();
  addEventListener("hashchange", showNamed);
  addEventListener("click", ({ target }) => { // a link to what the address names already changes nothing by itself
    if (target.closest?.('a[href^="#volume="]')?.hash === location.hash) showNamed();
  });
  showNamed();

  // Points of figures are volumes: the nearest one within some pixels is named, and opens.
  const REACH = 8;
  const hint = document.createElement("div");
  hint.className = "hint";
  hint.hidden = true;
  document.body.append(hint);
  const dice = data.columns.find((column) => column.heading === "Dice") ?? { values: [] };
  const nearest = (points, figure, event) => {
    const frame = figure.getBoundingClientRect();
    const [left, top, width, height] = points.box;
    const inside = [(event.clientX - frame.left) / frame.width - left, (event.clientY - frame.top) / frame.height - top];
    const share = [inside[0] / width, inside[1] / height];
    if (share.some((part) => part < 0 || part > 1)) return null;
    const value = points.x[0] + share[0] * (points.x[1] - points.x[0]);
    const [model, scheme] = points.rows[Math.round(points.y[1] + share[1] * (points.y[0] - points.y[1]))] ?? [];
    const configuration = data.configurations.findIndex((pair) => pair[0] === model && pair[1] === scheme);
    const structure = data.structures.indexOf(points.structure);
    if (configuration < 0 || structure < 0) return null;
    const perPixel = Math.abs(points.x[1] - points.x[0]) / (frame.width * width);
    let best = null;
    data.volumes.forEach((name, volume) => {
      const found = dice.values[(configuration * counts.volumes + volume) * counts.structures + structure];
      const away = found === null || found === undefined ? Infinity : Math.abs(found - value) / perPixel;
      if (away <= REACH && away < (best?.away ?? Infinity)) best = { name, found, away, model, scheme };
    });
    return best;
  };
  for (const holder of document.querySelectorAll("[data-points]")) {
    const points = JSON.parse(holder.dataset.points), figure = holder.querySelector("svg");
    figure.addEventListener("mousemove", (event) => {
      const found = nearest(points, figure, event);
      hint.hidden = !found;
      figure.style.cursor = found ? "pointer" : "";
      if (!found) return;
      hint.textContent = `${found.name}: ${shown(found.found, dice)} (${found.model}, ${found.scheme})`;
      hint.style.left = `${Math.min(event.clientX + 14, innerWidth - hint.offsetWidth - 4)}px`;
      hint.style.top = `${event.clientY + 14}px`;
    });
    figure.addEventListener("mouseleave", () => { hint.hidden = true; });
    figure.addEventListener("click", (event) => {
      const found = nearest(points, figure, event);
      if (found) location.hash = `volume=${encodeURIComponent(found.name)}`;
    });
  }
})();

// Every other table: a heading sorts, and below it stand buttons that copy it.
(() => {
  const MISSING = "–";
  const textOf = (cell) => {
    const copy = cell.cloneNode(true);
    for (const part of copy.querySelectorAll(".unseen")) part.remove();
    for (const part of copy.querySelectorAll(".interval")) part.prepend(" ");
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  // What a cell is sorted by: a number at its beginning, or its words.
  const valueOf = (cell) => {
    const text = textOf(cell);
    if (!text || text === MISSING) return null;
    const found = text.replace(/−/g, "-").replace("∞", "Infinity").replace(/(\d),(?=\d{3})/g, "$1").replace(/^[<>≈[]\s*/, "");
    const number = Number.parseFloat(found);
    return Number.isNaN(number) || cell.classList.contains("text") || cell.tagName === "TH" ? text : number;
  };
  const compare = (one, other) => (typeof one === "number" && typeof other === "number"
    ? one - other : String(one).localeCompare(String(other), "en", { numeric: true }));

  function sortBy(table, column, ascending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, value: valueOf(row.cells[column]) }));
    rows.sort((one, other) => {
      if (one.value === null || other.value === null) return (one.value === null) - (other.value === null) || one.place - other.place;
      return (ascending ? 1 : -1) * compare(one.value, other.value) || one.place - other.place;
    });
    for (const { row } of rows) row.classList.remove("start");
    body.append(...rows.map(({ row }) => row));
    [...table.tHead.rows[0].cells].forEach((cell, index) => {
      cell.setAttribute("aria-sort", index === column ? (ascending ? "ascending" : "descending") : "none");
    });
  }

  const glossary = new Map([...document.querySelectorAll("#glossary dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]));
  function explain(cell) {
    const meaning = glossary.get(cell.dataset.heading);
    if (!meaning) return;
    cell.title = meaning;
    cell.classList.add("explained");
  }

  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      button.addEventListener("click", () => sortBy(table, column, cell.getAttribute("aria-sort") !== "ascending"));
      cell.dataset.heading = button.textContent;
      cell.append(button);
      explain(cell);
    });
    table.classList.add("sortable");
  }

  // A number as programs read it; nothing where there is none.
  const plain = (text) => (text === "–" ? "" : /^−?\d{1,3}(,\d{3})*(\.\d+)?( %)?$/.test(text)
    ? text.replaceAll(",", "").replace("−", "-") : text);
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const LATEX = {
    "\\": "\\textbackslash{}", "≈": "$\\approx$", "†": "\\textdagger{}", "−": "$-$", "–": "--", "∞": "$\\infty$",
    "<": "$<$", ">": "$>$", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
  };
  const escaped = (text) => text.replace(/[\\≈†−–∞<>~^]|[&%$#_{}]/g, (found) => LATEX[found] ?? `\\${found}`);
  const isText = (cell) => cell.tagName === "TH" && cell.scope === "row" || cell.classList.contains("text") || cell.classList.contains("prose");

  const FORMATS = {
    Markdown: (rows, texts) => rows.map((row) => `| ${row.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`)
      .toSpliced(1, 0, `| ${texts.map((text) => (text ? "---" : "---:")).join(" | ")} |`).join("\n"),
    LaTeX: ([head, ...body], texts) => [
      `\\begin{tabular}{${texts.map((text) => (text ? "l" : "r")).join("")}}`, "\\toprule",
      `${head.map(escaped).join(" & ")} \\\\`, "\\midrule",
      ...body.map((row) => `${row.map(escaped).join(" & ")} \\\\`), "\\bottomrule", "\\end{tabular}",
    ].join("\n"),
    CSV: (rows) => rows.map((row) => row.map((text) => quoted(plain(text))).join(",")).join("\n"),
  };

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file, in some browsers
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  function addCopies(table) {
    const bar = document.createElement("p");
    bar.className = "copies screen";
    const said = document.createElement("span");
    said.setAttribute("role", "status");
    bar.append("Copy as");
    for (const [name, format] of Object.entries(FORMATS)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", async () => {
        const body = [...table.tBodies[0].rows];
        const rows = [table.tHead.rows[0], ...body].map((row) => [...row.cells].map((cell) => (cell.dataset.heading ?? textOf(cell))));
        await copy(`${format(rows, body.length ? [...body[0].cells].map(isText) : rows[0].map(() => true))}\n`);
        said.textContent = `${name} copied`;
      });
      bar.append(button);
    }
    bar.append(said);
    table.closest(".scroll").after(bar);
  }

  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
      await copy(`${document.getElementById(button.dataset.copies).textContent}\n`);
      button.parentElement.querySelector("[role=status]").textContent = "copied";
    });
  }
  for (const table of document.querySelectorAll("main .scroll > table")) {
    if (table.id === "scores-table" || !table.tHead || !table.tBodies[0]?.rows.length) continue;
    makeSortable(table);
    addCopies(table);
  }
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
