// A key's past: a metric of each retrain above; below, one lane for what was in production and one for the decisions.
import { axis, band, faded, short, timeAxis, tools } from "./chart_frame.js";

const MARKS = {
  promote: ["triangle-up", "good", "Promoted"],
  refusal: ["x", "bad", "Refused"],
  rollback: ["triangle-left", "warn", "Rolled back"],
  archive: ["square", "hold", "Archived"],
  external_edit: ["diamond", "warn", "Edited outside"],
};
const SHARES = /return|drawdown|accuracy|precision|recall|hit_rate|exposure|base_rate/;

export function history(view) {
  const { data, colours, narrow, state } = view;
  state.metric ??= data.metrics[0].name;
  tools(view.figure, (place) => choose(place, view));
  const metric = data.metrics.find((item) => item.name === state.metric) ?? data.metrics[0];
  const share = SHARES.test(metric.name);
  const value = (model) => (model.values[metric.name] === null ? null : model.values[metric.name] * (share ? 100 : 1));
  const moments = [...data.models.map((model) => model.time), ...data.marks.map((mark) => mark.time)].sort();
  const [first, last] = [Date.parse(moments[0]), Date.parse(moments.at(-1))];
  const edge = Math.max((last - first) * 0.04, 30_000);
  const range = [new Date(first - edge).toISOString(), new Date(last + edge).toISOString()];
  const types = [...new Set(data.models.map((model) => model.type))];
  const points = types.map((type, place) => {
    const models = data.models.filter((model) => model.type === type);
    return {
      type: "scatter",
      mode: "markers",
      name: type,
      x: models.map((model) => model.time),
      y: models.map(value),
      text: models.map((model) => `${model.id} (${model.status})`),
      marker: {
        color: colours[`s${place % 4}`],
        size: models.map((model) => (model.status === "production" ? 14 : 9)),
        symbol: models.map((model) => (model.status === "deleted" ? "circle-open" : "circle")),
        line: {
          width: models.map((model) => (model.status === "production" ? 2 : 1)),
          color: models.map((model) => (model.status === "production" ? colours.text : colours.panel)),
        },
      },
      hovertemplate: `%{text}<br>${metric.title} %{y:.4~g}${share ? "%" : ""}<extra></extra>`,
    };
  });
  const bands = data.bands.map(([model, start, end], place) => ({
    type: "scatter",
    mode: "lines",
    name: model,
    showlegend: false,
    x: [start ?? range[0], end ?? range[1]],
    y: [1, 1],
    yaxis: "y2",
    line: { color: place % 2 ? colours.good : faded(colours.good, 0.55), width: 12 },
    text: [model, model],
    hovertemplate: "in production: %{text}<extra></extra>",
  }));
  const kinds = [...new Set(data.marks.map((mark) => mark.kind))];
  const marks = kinds.map((kind) => {
    const [symbol, colour, title] = MARKS[kind] ?? ["circle", "hold", kind];
    const found = data.marks.filter((mark) => mark.kind === kind);
    return {
      type: "scatter",
      mode: "markers",
      name: title,
      x: found.map((mark) => mark.time),
      y: found.map(() => 0),
      yaxis: "y2",
      text: found.map(
        (mark) =>
          `revision ${mark.revision}: ${title.toLowerCase()}${mark.forced ? " with force" : ""}<br>${mark.model}` +
          (mark.failed.length ? `<br>${mark.failed.join(", ")}` : ""),
      ),
      marker: { symbol, size: 11, color: colours[colour], line: { width: 1, color: colours.panel } },
      hovertemplate: "%{text}<extra></extra>",
    };
  });
  return {
    traces: [...points, ...bands, ...marks],
    layout: {
      hovermode: "closest",
      showlegend: true,
      xaxis: timeAxis(colours, narrow, { anchor: "y2", range }),
      yaxis: axis(colours, metric.title + (share ? " (%)" : ""), { domain: [0.32, 1], nticks: 7 }),
      yaxis2: axis(colours, "", {
        domain: [0, 0.22], range: [-0.6, 1.6], tickvals: [0, 1], ticktext: narrow ? ["decided", "served"] : ["decisions", "in production"],
        showgrid: false, fixedrange: true,
      }),
      shapes: data.bands.map(([, start, end], place) =>
        band(start ?? range[0], end ?? range[1], faded(colours.good, place % 2 ? 0.09 : 0.04)),
      ),
      annotations: narrow ? [] : labels(data.bands, range, colours),
    },
  };
}

// A band says whose it is where it is long enough.
function labels(bands, range, colours) {
  const whole = Date.parse(range[1]) - Date.parse(range[0]);
  return bands
    .map(([model, start, end]) => [model, Date.parse(start ?? range[0]), Date.parse(end ?? range[1])])
    .filter(([, start, end]) => (end - start) / whole > 0.2)
    .map(([model, start, end]) => ({
      x: new Date((start + end) / 2).toISOString(), y: 1, xref: "x", yref: "y2", yshift: 15, showarrow: false,
      text: short(model), font: { size: 10, color: colours.dim },
    }));
}

function choose(place, view) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  for (const metric of view.data.metrics) select.add(new Option(metric.title, metric.name));
  select.value = view.state.metric;
  select.addEventListener("change", () => {
    view.state.metric = select.value;
    view.redraw();
  });
  label.append("Metric ", select);
  place.append(label);
}
