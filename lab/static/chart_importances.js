// Horizontal bars, the largest on top: the first twenty, or all.
import { axis, tools } from "./chart_frame.js";

const FIRST = 20;

export function importances(view) {
  const { data, colours, state, narrow } = view;
  const total = data.features.length;
  if (total > FIRST) {
    tools(view.figure, (place) => {
      const button = document.createElement("button");
      button.type = "button";
      const show = () => (button.textContent = state.all ? `Show the first ${FIRST}` : `Show all ${total}`);
      button.addEventListener("click", () => {
        state.all = !state.all;
        show();
        view.redraw();
      });
      show();
      place.append(button);
    });
  }
  const count = state.all ? total : Math.min(FIRST, total);
  view.height = Math.max(160, 60 + 18 * count);
  return {
    traces: [
      {
        type: "bar",
        orientation: "h",
        y: data.features.slice(0, count),
        x: data.shares.slice(0, count),
        marker: { color: colours.s0 },
        hovertemplate: "%{y}: %{x:.2f}%<extra></extra>",
      },
    ],
    layout: {
      bargap: 0.28,
      hovermode: "closest",
      margin: { l: 10, r: 16, t: 4, b: 44 },
      xaxis: axis(colours, "Share of the whole (%)", { rangemode: "tozero", nticks: narrow ? 5 : 8 }),
      yaxis: axis(colours, "", {
        autorange: "reversed", type: "category", showgrid: false, tickmode: "linear", dtick: 1, ticksuffix: " ",
        tickfont: { size: 11, color: colours.text },
      }),
    },
  };
}
