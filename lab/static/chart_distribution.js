// The resampled mean differences as a histogram, with the observed one, zero, and where nine in ten of them lie.
import { axis, faded } from "./chart_frame.js";

export function distribution({ data, colours, narrow }) {
  const middles = data.counts.map((_, place) => (data.edges[place] + data.edges[place + 1]) / 2);
  const line = (x, colour, dash) => ({
    type: "line", xref: "x", yref: "y domain", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 1.5, dash },
  });
  // one stands left of its line and one right, so that they never lie on each other
  const label = (x, text, colour, xanchor) => ({
    x, xref: "x", y: 1, yref: "y domain", yanchor: "bottom", xanchor, text, showarrow: false, font: { size: 11, color: colour },
  });
  const low = Math.min(data.edges[0], 0);
  const high = Math.max(data.edges.at(-1), 0);
  const edge = (high - low) * 0.04 || 1;
  return {
    traces: [
      {
        type: "bar",
        x: middles,
        y: data.counts,
        width: data.edges.slice(1).map((edge, place) => edge - data.edges[place]),
        marker: { color: middles.map((middle) => (middle > 0 ? colours.s0 : faded(colours.hold, 0.8))), line: { width: 0 } },
        hovertemplate: "about %{x:.3f} bp: %{y:,} draws<extra></extra>",
      },
    ],
    layout: {
      showlegend: false,
      margin: { l: narrow ? 46 : 62, r: narrow ? 8 : 16, t: 24, b: 44 },
      bargap: 0,
      hovermode: "closest",
      xaxis: axis(colours, "Mean difference (basis points a bar)", { range: [low - edge, high + edge], nticks: narrow ? 5 : 9 }),
      yaxis: axis(colours, "Draws", { nticks: 5, rangemode: "tozero" }),
      shapes: [
        {
          type: "rect", layer: "below", xref: "x", yref: "y domain", x0: data.low, x1: data.high, y0: 0, y1: 1,
          fillcolor: faded(colours.accent, 0.08), line: { width: 0 },
        },
        line(0, colours.text, "solid"),
        line(data.observed, colours.s1, "dash"),
      ],
      annotations: [
        label(data.observed, "observed", colours.s1, data.observed < 0 ? "right" : "left"),
        label(0, "no difference", colours.text, data.observed < 0 ? "left" : "right"),
      ],
    },
  };
}
