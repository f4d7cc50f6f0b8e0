// An engine's last bars: the probability against entry and exit, its positions, changes of model, and equity below.
import { axis, band, faded, level, short, timeAxis, upright } from "./chart_frame.js";

export function live({ data, colours, narrow }) {
  const { times } = data;
  const signal = (kind, symbol, colour) => {
    const found = data.signals.filter((item) => item.signal === kind);
    return {
      type: "scatter",
      mode: "markers",
      name: kind.toLowerCase(),
      visible: found.length ? true : "legendonly",
      showlegend: found.length > 0,
      x: found.map((item) => item.time),
      y: found.map((item) => item.probability),
      marker: { symbol, size: 9, color: colour, line: { width: 1, color: colours.panel } },
      hovertemplate: `signal ${kind}`,
    };
  };
  const bound = (value, text) => ({
    xref: "paper", x: 1, xanchor: "right", yref: "y", y: value, yanchor: "bottom", text: `${text} ${value}`, showarrow: false,
    font: { size: 11, color: colours.dim }, bgcolor: faded(colours.panel, 0.7),
  });
  const bounds = [[data.entry, "entry"], [data.exit, "exit"]].filter(([value]) => value !== null);
  return {
    traces: [
      {
        type: "scatter", mode: "lines", name: "probability", x: times, y: data.probability, connectgaps: false,
        line: { color: colours.s0, width: 1.6 }, hovertemplate: "%{y:.4f}",
      },
      signal("LONG", "triangle-up", colours.good),
      signal("SHORT", "triangle-down", colours.bad),
      signal("CLOSE", "x", colours.warn),
      {
        type: "scatter", mode: "lines", name: "equity", x: times, y: data.equity, yaxis: "y2", showlegend: false,
        line: { color: colours.s2, width: 1.6 }, hovertemplate: "%{y:,.2f}",
      },
    ],
    layout: {
      hoversubplots: "axis",
      xaxis: timeAxis(colours, narrow, { anchor: "y2", range: times.length > 1 ? [times[0], times.at(-1)] : undefined }),
      yaxis: axis(colours, "Probability", { domain: [0.4, 1], nticks: 7, tickformat: ".2f" }),
      yaxis2: axis(colours, "Equity", { domain: [0, 0.31], nticks: 4, tickformat: ",.0f" }),
      shapes: [
        ...["y domain", "y2 domain"].flatMap((place) =>
          data.bands.map(([start, end, side]) => band(start, end, faded(side === "long" ? colours.good : colours.bad, 0.12), place)),
        ),
        ...bounds.map(([value]) => level(value, colours.hold)),
        ...data.changes.map(([time]) => upright(time, colours.s3, "paper")),
      ],
      annotations: [
        ...bounds.map(([value, text]) => bound(value, text)),
        ...data.changes.map(([time, , after]) => ({
          x: time, xref: "x", y: 1, yref: "paper", yanchor: "top", xanchor: "left", xshift: 4, showarrow: false,
          text: narrow ? "model changed" : `now ${short(after)}`, font: { size: 11, color: colours.s3 }, bgcolor: faded(colours.panel, 0.8),
        })),
      ],
    },
  };
}
