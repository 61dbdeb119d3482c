"use strict";
(() => {
  const root = document.documentElement;
  const hidden = new Set();
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const paint = (key, value) => (/color$/.test(key) && /^--[a-z0-9-]+$/.test(value) ? colour(value) : value);
  const precise = matchMedia("(pointer: fine)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: precise ? "hover" : false,
    modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg", width: 760, height: 480 },
    scrollZoom: false,
  };

  function draw(plot) {
    const figure = JSON.parse(plot.nextElementSibling.textContent, paint);
    for (const trace of figure.data) trace.visible = !hidden.has(trace.meta);
    figure.layout.dragmode = false;
    plot.dataset.drawn = "yes";
    Plotly.react(plot, figure.data, figure.layout, config);
  }
  const waiting = "figure:not([hidden]) > .plot:not([data-drawn])";
  const drawn = () => document.querySelectorAll(".plot[data-drawn]");

  // One chart a turn, in the order of the page, so that it can be scrolled meanwhile; those that are not shown wait.
  function drawNext() {
    const next = document.querySelector(waiting);
    if (!next) return;
    setTimeout(drawNext, 0);
    draw(next);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn().forEach(draw));
  addEventListener("beforeprint", () => document.querySelectorAll(waiting).forEach(draw));

  document.querySelectorAll(".chip").forEach((chip) =>
    chip.addEventListener("click", () => {
      const shown = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(shown));
      if (shown) hidden.delete(chip.dataset.variant);
      else hidden.add(chip.dataset.variant);
      drawn().forEach(draw);
    }),
  );

  document.querySelectorAll(".choice").forEach((choice) => {
    const buttons = [...choice.querySelectorAll("button")];
    const section = choice.closest("section");
    const choose = (name) => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.choice === name));
      for (const figure of section.querySelectorAll("[data-for]")) figure.hidden = figure.dataset.for !== name;
      drawNext();
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
    choose(buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.choice);
  });

  document.querySelectorAll("input[type=search]").forEach((box) =>
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of box.parentElement.querySelectorAll("tbody tr")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    }),
  );

  drawNext();
})();
