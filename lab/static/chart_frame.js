// What all charts share: the page's colours, the frame, and a place for a chart's own controls.
const NAMES = ["text", "dim", "line", "panel", "accent", "good", "warn", "bad", "hold", "s0", "s1", "s2", "s3"];
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';

// The colours as the page has them now: light-dark() is only resolved where it is used.
export function palette() {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  const found = {};
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

export function faded(colour, share) {
  const parts = colour.match(/[\d.]+/g);
  return `rgba(${parts[0]}, ${parts[1]}, ${parts[2]}, ${share})`;
}

export function axis(colours, title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12, color: colours.dim } },
    gridcolor: colours.line,
    linecolor: colours.line,
    zerolinecolor: colours.line,
    zeroline: false,
    tickfont: { size: 11, color: colours.dim },
    automargin: true,
    ...more,
  };
}

export function timeAxis(colours, narrow, more = {}) {
  return axis(colours, "Time (UTC)", { type: "date", nticks: narrow ? 4 : 9, hoverformat: "%Y-%m-%d %H:%M", ...more });
}

export function framed(layout, { colours, height, narrow }) {
  return {
    height,
    autosize: true,
    separators: ".,",
    font: { family: FONT, size: 12, color: colours.text },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: narrow ? 46 : 62, r: narrow ? 8 : 16, t: 8, b: 44 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.line, font: { size: 12, color: colours.text }, namelength: -1 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 } },
    dragmode: narrow ? false : "zoom", // a finger scrolls the page
    ...layout,
  };
}

// A rectangle behind the curves.
export function band(start, end, colour, yref = "y domain") {
  return {
    type: "rect", layer: "below", xref: "x", yref, x0: start, x1: end, y0: 0, y1: 1, fillcolor: colour, line: { width: 0 },
  };
}

export function upright(time, colour, yref = "y domain", dash = "dot") {
  return { type: "line", xref: "x", yref, x0: time, x1: time, y0: 0, y1: 1, line: { color: colour, width: 1, dash } };
}

export function level(value, colour, yref = "y", dash = "dash") {
  return { type: "line", xref: "paper", yref, x0: 0, x1: 1, y0: value, y1: value, line: { color: colour, width: 1, dash } };
}

// The place above a chart for its own controls; made once.
export function tools(figure, make) {
  if (figure.querySelector(".chart-tools")) return;
  const place = document.createElement("div");
  place.className = "chart-tools";
  make(place);
  figure.prepend(place);
}

// The value of a step curve at a moment: that of the last point not after it.
export function valueAt(times, values, moment) {
  let [low, high] = [0, times.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (times[middle] <= moment) low = middle;
    else high = middle - 1;
  }
  return values[low] ?? null;
}

export function short(text, most = 34) {
  return text.length <= most ? text : `${text.slice(0, most - 12)}…${text.slice(-11)}`;
}
