// A histogram with what was observed, what it is held against, and where nine in ten of the values lie.
import { axis, faded } from "./chart_frame.js";

// The resampled mean differences of two models: right of zero the challenger is better.
export function distribution(view) {
  return histogram(view, {
    title: "Mean difference (basis points a bar)",
    what: "Draws",
    own: "observed",
    against: 0,
    rival: "no difference",
    speaksFor: (middle) => middle > 0,
  });
}

// The mean gains of a model's shifted copies: those below its own speak for its timing.
export function timing(view) {
  const { data } = view;
  return histogram(view, {
    title: "Mean gain (basis points a bar)",
    what: "Copies",
    own: "the model",
    against: data.shifted,
    rival: "its copies",
    speaksFor: (middle) => middle < data.observed,
  });
}

function histogram({ data, colours, narrow }, { title, what, own, against, rival, speaksFor }) {
  const middles = data.counts.map((_, place) => (data.edges[place] + data.edges[place + 1]) / 2);
  const line = (x, colour, dash) => ({
    type: "line", xref: "x", yref: "y domain", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 1.5, dash },
  });
  // one stands left of its line and one right, so that they never lie on each other
  const label = (x, text, colour, xanchor) => ({
    x, xref: "x", y: 1, yref: "y domain", yanchor: "bottom", xanchor, text, showarrow: false, font: { size: 11, color: colour },
  });
  const places = [data.edges[0], data.edges.at(-1), against, data.observed];
  const room = (Math.max(...places) - Math.min(...places)) * (narrow ? 0.24 : 0.12); // for a label at either end
  const low = Math.min(...places, data.observed - room);
  const high = Math.max(...places, data.observed + room);
  const edge = (high - low) * 0.04 || 1;
  return {
    traces: [
      {
        type: "bar",
        x: middles,
        y: data.counts,
        width: data.edges.slice(1).map((edge, place) => edge - data.edges[place]),
        marker: { color: middles.map((middle) => (speaksFor(middle) ? colours.s0 : faded(colours.hold, 0.8))), line: { width: 0 } },
        hovertemplate: `about %{x:.3f} bp: %{y:,} ${what.toLowerCase()}<extra></extra>`,
      },
    ],
    layout: {
      showlegend: false,
      margin: { l: narrow ? 46 : 62, r: narrow ? 8 : 16, t: 24, b: 44 },
      bargap: 0,
      hovermode: "closest",
      xaxis: axis(colours, title, { range: [low - edge, high + edge], nticks: narrow ? 5 : 9 }),
      yaxis: axis(colours, what, { nticks: 5, rangemode: "tozero" }),
      shapes: [
        {
          type: "rect", layer: "below", xref: "x", yref: "y domain", x0: data.low, x1: data.high, y0: 0, y1: 1,
          fillcolor: faded(colours.accent, 0.08), line: { width: 0 },
        },
        line(against, colours.text, "solid"),
        line(data.observed, colours.s1, "dash"),
      ],
      annotations: [
        label(data.observed, own, colours.s1, data.observed < against ? "right" : "left"),
        label(against, rival, colours.text, data.observed < against ? "left" : "right"),
      ],
    },
  };
}
