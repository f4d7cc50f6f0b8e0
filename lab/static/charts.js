// Finds the figures of a page and draws them; which chart a figure is stands in its data-chart.
import { calibration } from "./chart_calibration.js";
import { distribution, timing } from "./chart_distribution.js";
import { equity, overlay } from "./chart_equity.js";
import { grid } from "./chart_grid.js";
import { history } from "./chart_history.js";
import { importances } from "./chart_importances.js";
import { interval } from "./chart_interval.js";
import { live } from "./chart_live.js";
import { framed, palette } from "./chart_frame.js";

const KINDS = { calibration, distribution, equity, grid, history, importances, interval, live, overlay, timing };
const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };
const drawn = new Set();

export function drawAll(within) {
  for (const figure of within.querySelectorAll("figure[data-chart]")) {
    if (drawn.has(figure)) continue;
    drawn.add(figure);
    draw(figure);
  }
  for (const figure of drawn) if (!figure.isConnected) drawn.delete(figure);
}

export function redrawAll() {
  for (const figure of drawn) draw(figure);
}

// The figure gets the data of another rendering of it.
export function updateChart(figure, now) {
  const [old, fresh] = [figure, now].map((item) => item.querySelector(':scope > script[type="application/json"]'));
  figure.dataset.chart = now.dataset.chart;
  if (old.textContent === fresh.textContent) return;
  old.textContent = fresh.textContent;
  draw(figure);
}

// Plotly takes text for markup and templates; what stands in the data is a name and nothing else.
function literal(value) {
  if (typeof value === "string")
    return value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "% {");
  if (Array.isArray(value)) return value.map(literal);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, literal(item)]));
  return value;
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const build = KINDS[figure.dataset.chart];
  if (!window.Plotly || !build) {
    plot.hidden = true; // the text below stands alone
    figure.querySelector(".alternative").open = true;
    return;
  }
  const data = literal(JSON.parse(figure.querySelector(':scope > script[type="application/json"]').textContent));
  const narrow = plot.clientWidth < 560;
  const view = {
    data,
    narrow,
    width: plot.clientWidth,
    colours: palette(),
    height: Number(plot.dataset.height),
    state: (figure.state ??= {}),
    figure,
    redraw: () => draw(figure),
  };
  const { traces, layout } = build(view);
  window.Plotly.react(plot, traces, framed(layout, view), CONFIG);
  plot.dataset.drawn = "yes";
}
