// Parallel coordinates: an axis a parameter or metric, a line a parameter set; the best one stands out.
import { faded, short } from "./chart_frame.js";

const MOST_NARROW = 3;
const MOST_WIDE = 10;

export function grid({ data, colours, narrow }) {
  const most = narrow ? MOST_NARROW : MOST_WIDE;
  const parameters = data.axes.filter((item) => item.kind === "parameter").slice(0, narrow ? 2 : 6);
  const metrics = data.axes.filter((item) => item.kind === "metric").slice(0, Math.max(1, most - parameters.length));
  const axes = [...parameters, ...metrics];
  const best = data.ranks.indexOf(Math.min(...data.ranks.filter((rank) => rank !== null)));
  const row = (place) => ({
    type: "scatter",
    mode: "lines+markers",
    x: axes.map((_, at) => at),
    y: axes.map((item) => item.places[place]),
    text: axes.map((item) => `${item.title} ${item.texts[place]}`),
    name: data.ranks[place] === null ? "" : `rank ${data.ranks[place]}`,
    connectgaps: false,
    line: place === best ? { color: colours.s0, width: 3 } : { color: faded(colours.hold, 0.6), width: 1.2 },
    marker: place === best ? { color: colours.s0, size: 7 } : { color: faded(colours.hold, 0.8), size: 4 },
    hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
  });
  // the best goes on top
  const order = data.ranks.map((_, place) => place).filter((place) => place !== best);
  if (best >= 0) order.push(best);
  return {
    traces: order.map(row),
    layout: {
      hovermode: "closest",
      showlegend: false,
      margin: { l: 60, r: narrow ? 34 : 56, t: 14, b: narrow ? 78 : 64 },
      xaxis: {
        range: [-0.25, axes.length - 0.75],
        tickvals: axes.map((_, at) => at),
        ticktext: axes.map((item) => short(item.kind === "parameter" ? item.name : item.title, narrow ? 16 : 22)),
        tickangle: narrow ? -25 : axes.length > 7 ? -15 : 0,
        tickfont: { size: 11, color: colours.text },
        showgrid: false,
        zeroline: false,
        fixedrange: true,
      },
      yaxis: { range: [-0.08, 1.08], visible: false, fixedrange: true },
      shapes: axes.map((_, at) => ({
        type: "line", layer: "below", xref: "x", yref: "y", x0: at, x1: at, y0: 0, y1: 1, line: { color: colours.line, width: 2 },
      })),
      annotations: axes.flatMap((item, at) =>
        item.ticks.map(([place, text]) => ({
          x: at, y: place, text: short(String(text), 14), showarrow: false, yshift: 8,
          xanchor: at === axes.length - 1 ? "right" : "left", xshift: at === axes.length - 1 ? -7 : 7,
          font: { size: 10, color: colours.dim }, bgcolor: faded(colours.panel, 0.75),
        })),
      ),
    },
  };
}
