"use strict";
// What the other scripts share: the page's packed data, what is hidden, and small makers of elements.
const page = {
  hidden: new Set(),
  hiddenModels: new Set(),
  async unpack(id) {
    const packed = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  },
  make(kind, properties = {}, ...children) {
    const element = Object.assign(document.createElement(kind), properties);
    element.append(...children);
    return element;
  },
  async copy(text, button) {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      page.save(text, "table.txt", "text/plain");
      button.textContent = "saved";
    }
    setTimeout(() => (button.textContent = said), 1200);
  },
  save(content, name, type) {
    const link = page.make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
  // Text that a spreadsheet would run as a formula gets an apostrophe.
  csv: (rows) => rows.map((row) => row.map(page.csvCell).join(",")).join("\n") + "\n",
  csvCell(value) {
    let text = String(value ?? "");
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  },
};
page.data = page.unpack("payload").then(JSON.parse);
