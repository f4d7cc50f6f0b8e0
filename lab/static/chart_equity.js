// Money over time: one model's backtest with its trades and drawdown, or several models' growth on the same bars.
import { axis, band, faded, short, timeAxis, valueAt } from "./chart_frame.js";

export function equity({ data, colours, narrow }) {
  const { times, trades } = data;
  const few = trades.length <= (narrow ? 30 : 80);
  const marks = (moment, price, name, symbol, colour) => ({
    type: "scatter",
    mode: "markers",
    name,
    x: trades.map((trade) => trade[moment]),
    y: trades.map((trade) => valueAt(times, data.equity, trade[moment] ?? "")),
    text: trades.map((trade) => `${trade.side} at ${trade[price]}`),
    marker: { symbol, color: colour, size: few ? 8 : 5, line: { width: few ? 1 : 0, color: colours.panel } },
    hovertemplate: "%{text}",
  });
  const curve = { type: "scatter", mode: "lines", x: times };
  return {
    traces: [
      { ...curve, name: "Buy and hold", y: data.buy_hold, line: { color: colours.hold, width: 1.2, dash: "dot" }, hovertemplate: "%{y:,.2f}" },
      marks("entry", "entry_price", "Entry", "triangle-up", colours.good),
      marks("exit", "exit_price", "Exit", "triangle-down", colours.bad),
      { ...curve, name: "Model", y: data.equity, line: { color: colours.s0, width: 1.8 }, hovertemplate: "%{y:,.2f}" },
      {
        ...curve, name: "Drawdown", y: data.drawdown, yaxis: "y2", fill: "tozeroy", showlegend: false,
        line: { color: colours.bad, width: 1 }, fillcolor: faded(colours.bad, 0.2), hovertemplate: "%{y:.2f}%",
      },
    ],
    layout: {
      hoversubplots: "axis",
      xaxis: timeAxis(colours, narrow, { anchor: "y2", range: times.length ? [times[0], times.at(-1)] : undefined }),
      yaxis: axis(colours, "Equity", { domain: [0.34, 1], tickformat: ",.0f", nticks: 7 }),
      yaxis2: axis(colours, "Drawdown (%)", { domain: [0, 0.25], nticks: 4, rangemode: "tozero" }),
      shapes: data.holdings.map(([start, end, side]) => band(start, end, faded(side === "long" ? colours.good : colours.bad, 0.1))),
    },
  };
}

export function overlay({ data, colours, narrow }) {
  const dashes = ["solid", "solid", "dash", "dashdot"];
  return {
    traces: [
      {
        type: "scatter", mode: "lines", name: "Buy and hold", x: data.times, y: data.buy_hold,
        line: { color: colours.hold, width: 1.2, dash: "dot" }, hovertemplate: "%{y:.4f}",
      },
      ...data.curves.map((curve, place) => ({
        type: "scatter",
        mode: "lines",
        name: short(curve.name, narrow ? 30 : 60),
        x: data.times,
        y: curve.equity,
        line: { color: colours[`s${place}`], width: 1.8, dash: dashes[place] },
        hovertemplate: "%{y:.4f}",
      })),
    ],
    layout: {
      xaxis: timeAxis(colours, narrow),
      yaxis: axis(colours, "Growth of 1", { tickformat: ".3~f", nticks: 8 }),
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "reversed", font: { size: narrow ? 10 : 12 } },
    },
  };
}
