// Tables: sorted by a click on a head, filtered with the charts, copied as CSV, Markdown or LaTeX; parts laid out when opened.
(() => {
  const clean = (cell) => {
    const shown = cell.querySelector("data") ?? cell;
    return shown.textContent.trim().replace(/\s+/g, " ");
  };
  const value = (cell) => {
    const raw = cell.querySelector("data")?.value ?? clean(cell);
    return raw !== "" && isFinite(raw) ? Number(raw) : raw;
  };
  const order = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b, "en", { numeric: true });

  function sort(table, column, head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => row.cells.length > column && !row.classList.contains("part"));
      rows.sort((a, b) => order(value(a.cells[column]), value(b.cells[column])) * (down ? -1 : 1));
      rows.forEach((row) => body.append(row));
    }
  }

  const text = (cell) => [clean(cell), ...[...cell.querySelectorAll("small")].map((small) => small.textContent.trim())];
  const grid = (table) =>
    [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map((cell) => (cell.querySelector("data") ? text(cell).join(" ") : clean(cell))));
  const markdown = (rows) => {
    const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
    return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n") + "\n";
  };
  const escaped = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "×": "$\\times$", "−": "$-$", "≥": "$\\geq$", "∆": "$\\Delta$", "µ": "$\\mu$", "–": "--", "↑": "$\\uparrow$", "↓": "$\\downarrow$" };
  const tex = (cell) => cell.replace(/[\\~^&%$#_{}×−≥∆µ–↑↓⚠●■◆▲▼★✚✖◀▶\u00a0]/g, (letter) => escaped[letter] ?? (letter === "\u00a0" ? "~" : /[&%$#_{}]/.test(letter) ? `\\${letter}` : ""));
  const latex = (rows) => {
    const lines = rows.map((row) => row.map(tex).join(" & ") + " \\\\");
    return `\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}\n\\hline\n${lines[0]}\n\\hline\n${lines.slice(1).join("\n")}\n\\hline\n\\end{tabular}\n`;
  };

  function equip(table) {
    const box = table.closest(".wide");
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    heads.forEach((head, column) => {
      const act = () => sort(table, column, head);
      head.tabIndex = 0;
      head.classList.add("sorts");
      head.addEventListener("click", (event) => event.target.closest("a") || act());
      head.addEventListener("keydown", (event) => event.key === "Enter" && act());
    });
    const bar = page.make("div", { className: "tools" });
    const forms = { CSV: (rows) => page.csv(rows), Markdown: markdown, LaTeX: latex };
    for (const [label, form] of Object.entries(forms)) {
      bar.append(page.make("button", { type: "button", textContent: label, title: `copy as ${label}`, onclick: (event) => page.copy(form(grid(table)), event.currentTarget) }));
    }
    box.after(bar);
    const scrolls = () => {
      box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
      box.classList.toggle("more-left", box.scrollLeft > 2);
    };
    box.addEventListener("scroll", scrolls, { passive: true });
    new ResizeObserver(scrolls).observe(box);
  }

  function hide(within = document) {
    for (const row of within.querySelectorAll("[data-variant]")) row.hidden = page.hidden.has(row.dataset.variant);
    for (const part of within.querySelectorAll("[data-model]")) part.hidden = page.hiddenModels.has(part.dataset.model);
  }
  page.hide = hide;

  document.querySelectorAll(".chip").forEach((chip) =>
    chip.addEventListener("click", () => {
      const now = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(now));
      const [set, name] = chip.dataset.hides ? [page.hidden, chip.dataset.hides] : [page.hiddenModels, chip.dataset.hidesModel];
      set[now ? "delete" : "add"](name);
      hide();
      page.redraw();
      page.showSheet?.();
      page.showReadings?.();
    }),
  );

  async function open(details) {
    if (!details.open || details.dataset.filled) return;
    details.dataset.filled = "yes";
    const { parts } = await page.data;
    details.append(document.createRange().createContextualFragment(parts[details.dataset.part]));
    ready(details);
  }
  function ready(within) {
    within.querySelectorAll("table").forEach(equip);
    within.querySelectorAll("details[data-part]").forEach((details) => details.addEventListener("toggle", () => open(details)));
    hide(within);
    page.watchCharts(within);
  }

  // All readings: a page of rows at a time.
  const [KEY, MODEL, SIZE, VARIANT, , WEIGHTS, NAME, SPOKEN, VALUE, SHOWN, INTERVAL, N, MARK, REASON, DISTURBED] = [...Array(15).keys()];
  const heads = { model: MODEL, px: SIZE, variant: VARIANT, reading: SPOKEN, value: VALUE, "95 % interval": INTERVAL, n: N, protocol: MARK, weights: WEIGHTS, note: REASON };
  const long = document.getElementById("long-table");
  const EACH = 200;
  async function openLong() {
    if (!long?.open || long.dataset.filled) return;
    long.dataset.filled = "yes";
    const all = JSON.parse(await page.unpack("long"));
    const box = page.make("input", { type: "search", placeholder: "filter, e.g. deltaconv 1024 latency" });
    box.setAttribute("aria-label", "Filter the readings");
    const body = page.make("tbody");
    const row = page.make("tr");
    const table = page.make("table", { className: "long" }, page.make("thead", {}, row), body);
    const more = page.make("button", { type: "button", className: "more" });
    let sorted = [null, 1], limit = EACH, found = all;
    for (const [label, column] of Object.entries(heads)) {
      const head = page.make("th", { scope: "col", textContent: label, className: "sorts", tabIndex: 0 });
      if (![VALUE, INTERVAL, N].includes(column)) head.classList.add("left");
      head.onclick = () => {
        sorted = [column, sorted[0] === column ? -sorted[1] : 1];
        [...row.children].forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sorted[1] > 0 ? "ascending" : "descending");
        show();
      };
      head.onkeydown = (event) => event.key === "Enter" && head.onclick();
      row.append(head);
    }
    const cell = (kind, ...children) => page.make("td", { className: kind }, ...children);
    function line(one) {
      const mark = page.make("a", { className: "mark", href: `#${one[MARK]}`, textContent: one[MARK] });
      const shown = one[VALUE] === null ? "–" : page.make("data", { value: one[VALUE], title: one[VALUE] }, page.make("a", { className: "quiet", href: `records/${one[KEY]}.json`, textContent: one[SHOWN] }));
      const warned = one[DISTURBED] ? page.make("span", { className: "warn", textContent: "⚠", title: one[DISTURBED] }) : "";
      const made = page.make("tr", {}, cell("left", one[MODEL]), cell("left", one[SIZE]), cell("left", one[VARIANT]), cell("left", one[SPOKEN]), cell("", warned, shown), cell("", one[INTERVAL]), cell("", String(one[N])), cell("left", mark), cell("left", one[WEIGHTS]), cell("text", one[REASON] || one[DISTURBED]));
      Object.assign(made.dataset, { key: one[KEY], reading: one[NAME] });
      return made;
    }
    function show() {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      found = all.filter((one) => !page.hidden.has(one[VARIANT]) && !page.hiddenModels.has(one[MODEL]) && words.every((word) => `${one[MODEL]} ${one[SIZE]} ${one[VARIANT]} ${one[SPOKEN]} ${one[NAME]} ${one[WEIGHTS]} ${one[REASON]} ${one[DISTURBED]}`.toLowerCase().includes(word)));
      const [column, way] = sorted;
      if (column !== null) found.sort((a, b) => order(a[column] ?? "", b[column] ?? "") * way);
      body.replaceChildren(...found.slice(0, limit).map(line));
      more.hidden = found.length <= limit;
      more.textContent = `${found.length - limit} more`;
    }
    more.onclick = () => ((limit += 5 * EACH), show());
    box.oninput = () => ((limit = EACH), show());
    page.showReadings = show;
    long.append(box, page.make("div", { className: "wide", tabIndex: 0 }, table), more);
    show();
  }
  long?.addEventListener("toggle", openLong);
  ready(document.body);
})();
