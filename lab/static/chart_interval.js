// A model's own gain beside the band that holds nine in ten of its shifted copies, a row a model.
import { axis, faded, short } from "./chart_frame.js";

export function interval({ data, colours, narrow }) {
  const rows = data.map((_, place) => place);
  return {
    traces: [
      {
        type: "bar",
        orientation: "h",
        name: "90% of the copies",
        y: rows,
        width: 0.5,
        base: data.map((row) => row.low),
        x: data.map((row) => row.high - row.low),
        customdata: data.map((row) => [row.low, row.high]),
        marker: { color: faded(colours.hold, 0.6) },
        hovertemplate: "copies: %{customdata[0]:+.3f} to %{customdata[1]:+.3f} bp<extra></extra>",
      },
      {
        type: "scatter",
        mode: "markers",
        name: "its own gain",
        y: rows,
        x: data.map((row) => row.own),
        marker: { color: colours.s1, size: 11, symbol: "diamond" },
        hovertemplate: "its own: %{x:+.3f} bp<extra></extra>",
      },
    ],
    layout: {
      hovermode: "closest",
      margin: { l: 10, r: 16, t: 8, b: 44 },
      xaxis: axis(colours, narrow ? "Basis points a bar" : "Mean gain (basis points a bar)", { nticks: narrow ? 5 : 9, zeroline: true, zerolinecolor: colours.dim }),
      yaxis: axis(colours, "", {
        range: [data.length - 0.5, -0.5], showgrid: false, tickvals: rows, ticksuffix: " ",
        ticktext: data.map((row) => short(row.name, narrow ? 18 : 34)), tickfont: { size: 11, color: colours.text },
      }),
    },
  };
}
