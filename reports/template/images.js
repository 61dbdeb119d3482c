// Images: a sheet of prompts by variants, sorted by score or by difference, and a viewer that arrow keys step through.
(async () => {
  const place = document.getElementById("image-sheet");
  if (!place) return;
  const { sheets } = await page.data;
  const controls = document.getElementById("image-controls");
  const viewer = document.getElementById("viewer");
  const name = (sheet) => `${sheet.model} at ${sheet.size} px`;
  const chooser = page.make("select", { title: "model and size" });
  sheets.forEach((sheet, i) => {
    const told = sheets.filter((other) => name(other) === name(sheet)).length > 1 ? ` (${sheet.settings})` : "";
    chooser.append(page.make("option", { value: i, textContent: name(sheet) + told }));
  });
  const sorter = page.make("select", { title: "order of the prompts" });
  const across = page.make("select", { title: "of which variant" });
  const contrast = page.make("input", { type: "checkbox" });
  const label = (text, input) => page.make("label", {}, text, " ", input);
  controls.append(label("show", chooser), label("sort by", sorter), label("of", across), label("difference from the teacher", contrast));
  let sheet, columns, rows;

  const isTeacher = (series) => series.variant === "self_attention";
  const teacherOf = (row) => row.cells[sheet.series.findIndex(isTeacher)];
  const lost = (row, column, score) => (row.cells[column]?.scores?.[score] ?? NaN) - (teacherOf(row)?.scores?.[score] ?? NaN);
  function orders() {
    const scores = [...new Set(sheet.rows.flatMap((row) => row.cells.flatMap((cell) => Object.keys(cell.scores ?? {}))))];
    const found = { "order of the prompts": () => 0, "most unlike the teacher": (row, column) => -(row.cells[column]?.apart ?? -1) };
    for (const score of scores) {
      found[`worst ${score}`] = (row, column) => row.cells[column]?.scores?.[score] ?? Infinity;
      found[`largest loss of ${score}`] = (row, column) => lost(row, column, score);
    }
    return found;
  }

  function fill(select, names) {
    const kept = select.value;
    select.replaceChildren(...names.map((text) => page.make("option", { textContent: text, value: text })));
    if (names.includes(kept)) select.value = kept;
  }

  page.showSheet = () => {
    sheet = sheets[chooser.value || 0];
    columns = sheet.series.map((series, i) => i).filter((i) => !page.hidden.has(sheet.series[i].variant));
    fill(sorter, Object.keys(orders()));
    fill(across, sheet.series.filter((series) => !isTeacher(series) && series.colour >= 0).map((series) => series.label));
    const column = sheet.series.findIndex((series) => series.label === across.value);
    const key = orders()[sorter.value];
    rows = sheet.rows.map((row, i) => [Number(key(row, column)), i, row]).sort((a, b) => (isNaN(a[0]) - isNaN(b[0])) || a[0] - b[0] || a[1] - b[1]).map(([, , row]) => row);
    const side = sheet.width <= 144 ? 144 : 260;
    const grid = page.make("div", { className: "sheet" });
    grid.style.setProperty("--columns", columns.length);
    grid.style.setProperty("--side", `${side}px`);
    for (const i of columns) grid.append(page.make("div", { className: "head" }, dot(sheet.series[i]), sheet.series[i].label));
    rows.slice(0, 40).forEach((row, at) => {
      grid.append(page.make("div", { className: "prompt", textContent: row.prompt }));
      columns.forEach((i, j) => grid.append(tile(row, i, () => look(at, j))));
    });
    place.replaceChildren(page.make("p", { className: "small", textContent: `${sheet.rows.length} prompts; ${sheet.settings}` }), grid);
  };

  function dot(series) {
    const shown = page.make("span", { className: `dot s${series.colour}`, textContent: series.glyph });
    shown.ariaHidden = "true";
    return shown;
  }

  function picture(row, i, differs) {
    const cell = row.cells[i];
    if (!cell?.src) return page.make("div", { className: "none", textContent: `– ${cell?.reason ?? "no image"}`, title: cell?.reason ?? "" });
    const image = (src, alt) => page.make("img", { src, alt, loading: "lazy", width: sheet.width, height: sheet.height, className: sheet.width <= 144 ? "fine" : "" });
    const box = page.make("div", { className: "frame" }, image(cell.src, `${sheet.series[i].label}: ${row.prompt}`));
    const teacher = teacherOf(row);
    if (differs && teacher?.src && !isTeacher(sheet.series[i])) {
      box.classList.add("differs");
      box.append(image(teacher.src, ""));
    }
    return box;
  }

  function words(row, i) {
    const cell = row.cells[i];
    const told = Object.entries(cell?.scores ?? {}).map(([score, value]) => `${score} ${value.toFixed(Math.abs(value) < 10 ? 2 : 1)}`);
    if (cell?.apart !== undefined && !isTeacher(sheet.series[i])) told.push(`${(100 * cell.apart).toFixed(1)} % apart`);
    return told.join(", ");
  }

  function tile(row, i, act) {
    const button = page.make("button", { type: "button", className: "tile", onclick: act }, picture(row, i, contrast.checked));
    return page.make("div", {}, button, page.make("small", { textContent: words(row, i) }));
  }

  function look(at, j, differs = contrast.checked) {
    const row = rows[at];
    const i = columns[j];
    const series = sheet.series[i];
    const file = row.cells[i]?.path;
    const head = page.make("p", {}, dot(series), page.make("b", { textContent: series.label }), ` ${words(row, i)}`);
    const foot = page.make("p", { className: "small" }, `“${row.prompt}” ${name(sheet)}. ← → variants, ↑ ↓ prompts, d difference. `);
    if (file) foot.append(page.make("a", { href: encodeURI(file), textContent: "file" }));
    const close = page.make("button", { type: "button", className: "close", textContent: "×", ariaLabel: "close", onclick: () => viewer.close() });
    viewer.replaceChildren(close, head, picture(row, i, differs), foot);
    viewer.onkeydown = (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], d: [0, 0] };
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      const next = [(at + step[0] + rows.length) % rows.length, (j + step[1] + columns.length) % columns.length];
      look(...next, event.key === "d" ? !differs : differs);
    };
    if (!viewer.open) viewer.showModal();
  }

  for (const input of [chooser, sorter, across, contrast]) input.addEventListener("change", page.showSheet);
  page.showSheet();
})();
