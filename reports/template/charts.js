// Charts: drawn when they come near the window, copied as PNG, SVG or CSV.
(() => {
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const paint = (key, value) => (/color$/.test(key) && /^--[a-z0-9-]+$/.test(value) ? colour(value) : value);
  const config = { responsive: true, displayModeBar: false, scrollZoom: false };
  let library;

  function plotly() {
    library ??= page.unpack("plotly").then((text) => {
      document.head.append(page.make("script", { textContent: text }));
      return window.Plotly;
    });
    return library;
  }

  async function figureOf(plot) {
    const { figures } = await page.data;
    const figure = JSON.parse(figures[plot.dataset.figure], paint);
    for (const trace of figure.data) trace.visible = !page.hidden.has(trace.meta);
    figure.layout.dragmode = false;
    return figure;
  }

  async function draw(plot) {
    plot.dataset.drawn = "yes";
    const [figure, tool] = [await figureOf(plot), await plotly()];
    await tool.react(plot, figure.data, figure.layout, config);
    plot.dataset.drawn = "done";
  }
  const shown = (plot) => plot.offsetParent !== null;
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => start(entry.target)),
    { rootMargin: "600px" },
  );
  function start(plot) {
    near.unobserve(plot);
    if (!plot.dataset.drawn) draw(plot);
  }
  const drawn = () => document.querySelectorAll(".plot[data-drawn]");

  page.watchCharts = (within) =>
    within.querySelectorAll(".plot").forEach((plot) => {
      near.observe(plot);
      plot.parentElement.append(tools(plot));
    });
  page.redraw = () => drawn().forEach(draw);
  page.drawAll = () => Promise.all([...document.querySelectorAll(".plot:not([data-drawn])")].filter(shown).map(draw));

  function tools(plot) {
    const name = (plot.parentElement.dataset.title || "chart").trim().replace(/\W+/g, "_");
    const image = (format) => async () => {
      if (!plot.dataset.drawn) await draw(plot);
      const layout = { paper_bgcolor: colour("--surface"), title: { text: plot.parentElement.dataset.title } };
      const figure = await figureOf(plot);
      const size = { format, width: 760, height: 480, filename: name };
      (await plotly()).downloadImage({ data: figure.data, layout: { ...figure.layout, ...layout, margin: { t: 48 } } }, size);
    };
    const rows = async () => {
      const found = [["series", "x", "y", "low", "high"]];
      for (const trace of (await figureOf(plot)).data) {
        if (trace.hoverinfo === "skip") continue;
        const bars = trace.error_y?.visible ? trace.error_y : null;
        trace.x.forEach((x, i) => {
          const ends = bars ? [trace.y[i] - bars.arrayminus[i], trace.y[i] + bars.array[i]] : ["", ""];
          found.push([trace.name, x, trace.y[i], ...ends]);
        });
      }
      page.save(page.csv(found), `${name}.csv`, "text/csv");
    };
    const button = (label, action) => page.make("button", { type: "button", textContent: label, onclick: action });
    const bar = page.make("div", { className: "tools" });
    bar.append(button("PNG", image("png")), button("SVG", image("svg")), button("CSV", rows));
    return bar;
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", page.redraw);
  addEventListener("beforeprint", page.drawAll);

  document.querySelectorAll(".choice").forEach((choice) => {
    const buttons = [...choice.querySelectorAll("button")];
    const section = choice.closest("section");
    const choose = (name) => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.choice === name));
      for (const figure of section.querySelectorAll("[data-for]")) figure.hidden = figure.dataset.for !== name;
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
    choose(buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.choice);
  });
})();
