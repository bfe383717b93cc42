"use strict";
(() => {
  const table = document.getElementById("ranking");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const data = JSON.parse(document.getElementById("curves").textContent);
  const find = document.getElementById("find");
  const status = document.getElementById("status");
  const shown = document.getElementById("shown");
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 560, HEIGHT = 220, LEFT = 44, BOTTOM = 30, TOP = 10, RIGHT = 14;

  function closeAll() {
    for (const detail of body.querySelectorAll(".detail")) detail.remove();
    for (const button of body.querySelectorAll(".open")) button.setAttribute("aria-expanded", "false");
  }

  function filter() {
    closeAll();
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const name = row.dataset.find.toLowerCase();
      const fits = words.every(word => name.includes(word)) &&
        (!status.value || row.dataset.status === status.value);
      row.hidden = !fits;
      if (fits) count += 1;
    }
    shown.textContent = `${count} of ${rows.length} shown`;
  }

  function key(row, column) {
    const value = row.cells[column].dataset.value;
    return value === "" ? null : isNaN(value) ? value : Number(value);
  }

  function sort(header) {
    closeAll();
    const column = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    // What is not known stays at the end, whichever way round.
    const keyed = rows.map(row => [key(row, column), row]);
    keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null)
      : sign * (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a < typeof b ? -1 : 1));
    for (const [, row] of keyed) body.append(row);
  }

  function draw(parent, tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function plot(curve, name) {
    const x = n => LEFT + (WIDTH - LEFT - RIGHT) * Math.log2(Math.max(n, 1)) / Math.log2(data.cap);
    const y = s => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * s;
    const path = (ns, values) => ns.map((n, i) => `${x(n).toFixed(1)},${y(values[i]).toFixed(1)}`);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Predicted learning curve of ${name}`);
    for (const share of [0, 0.5, 1]) {
      draw(svg, "line", {class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share)});
      draw(svg, "text", {x: LEFT - 6, y: y(share) + 4, "text-anchor": "end"}, `${100 * share} %`);
    }
    for (let n = 1; n <= data.cap; n *= data.cap > 100 ? 8 : 2) {
      draw(svg, "text", {x: x(n), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle"}, n);
    }
    draw(svg, "text", {x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end"}, "labels");
    if (curve.low) {
      const outline = [...path(curve.budgets, curve.high), ...path(curve.budgets, curve.low).reverse()];
      draw(svg, "polygon", {class: "band", points: outline.join(" ")});
    }
    draw(svg, "polyline", {class: "line", points: path(curve.budgets, curve.share).join(" ")});
    for (const goal of data.targets) {
      draw(svg, "line", {class: "goal", x1: LEFT, x2: WIDTH - RIGHT, y1: y(goal), y2: y(goal)});
    }
    return svg;
  }

  function toggle(button) {
    const row = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) { row.nextElementSibling.remove(); return; }
    const detail = document.createElement("tr");
    detail.className = "detail";
    const cell = document.createElement("td");
    cell.colSpan = row.cells.length;
    cell.append(plot(data.curves[row.dataset.index], row.dataset.name));
    detail.append(cell);
    row.after(detail);
  }

  find.addEventListener("input", filter);
  status.addEventListener("change", filter);
  table.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("sort")) sort(button.closest("th"));
    else toggle(button);
  });
  for (const tool of document.querySelectorAll(".tools,.open")) tool.hidden = false;
  filter();
})();
