// What came against what was said: on the diagonal the probabilities mean what they say. Below, how many bars a point is.
import { axis, faded } from "./chart_frame.js";

export function calibration({ data, colours, narrow }) {
  const symbols = ["circle", "circle-open", "diamond", "diamond-open"];
  return {
    traces: [
      {
        type: "scatter", mode: "lines", name: "Perfect", x: [0, 1], y: [0, 1], hoverinfo: "skip",
        line: { color: colours.hold, width: 1, dash: "dot" },
      },
      ...data.map((part, place) => ({
        type: "scatter",
        mode: "lines+markers",
        name: part.name,
        x: part.said,
        y: part.came,
        customdata: part.bars,
        line: { color: colours[`s${place}`], width: 1.5 },
        marker: { color: colours[`s${place}`], size: 8, symbol: symbols[place] },
        hovertemplate: "said %{x:.3f}, came %{y:.3f}, %{customdata:,} bars",
      })),
      ...data.map((part, place) => ({
        type: "bar",
        name: part.name,
        showlegend: false,
        x: part.said,
        y: part.bars,
        yaxis: "y2",
        width: 0.06 / data.length,
        offset: -0.03 + (place * 0.06) / data.length,
        marker: { color: faded(colours[`s${place}`], 0.75) },
        hovertemplate: "%{y:,} bars",
      })),
    ],
    layout: {
      hovermode: "closest",
      xaxis: axis(colours, "Mean probability that was given", { range: [0, 1], anchor: "y2", nticks: narrow ? 6 : 11 }),
      yaxis: axis(colours, "Share of class 1 that came", { range: [0, 1], domain: [0.32, 1], nticks: 6 }),
      yaxis2: axis(colours, "Bars", { domain: [0, 0.22], nticks: 3, rangemode: "tozero" }),
    },
  };
}
