// Draws the interactive figures of a page from the data beside them, in the colours of the theme, and gives them the keyboard.
"use strict";

(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isDark = () => document.documentElement.dataset.theme === "dark";
  const config = { displaylogo: false, displayModeBar: false, responsive: true };

  // The figure in today's colours: its own light ones replaced by their dark twins, ground and grid from the theme.
  function inTheme(payload) {
    let text = JSON.stringify(payload.figure);
    if (isDark()) payload.light.forEach((colour, i) => { text = text.split(colour).join(payload.dark[i]); });
    const figure = JSON.parse(text);
    const ink = css("--pst-color-text-base"), line = css("--pst-color-border");
    Object.assign(figure.layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: "pan" });
    figure.layout.font = { ...figure.layout.font, color: ink };
    figure.layout.hoverlabel = { bgcolor: css("--pst-color-surface"), bordercolor: line, font: { color: ink } };
    for (const name of Object.keys(figure.layout).filter((key) => /^[xy]axis\d*$/.test(key)).concat(["xaxis", "yaxis"])) {
      figure.layout[name] = { ...figure.layout[name], gridcolor: line, zerolinecolor: line, linecolor: line };
    }
    return figure;
  }

  function onKey(event) {
    const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    const zooms = { "+": 0.8, "=": 0.8, "-": 1.25 };
    const layout = event.currentTarget._fullLayout;
    const next = (axis, shift, zoom) => {
      const [low, high] = axis.range.map(Number), size = high - low, grown = (size * (zoom - 1)) / 2;
      return [low + shift * size - grown, high + shift * size + grown];
    };
    if (event.key === "0") {
      Plotly.relayout(event.currentTarget, { "xaxis.autorange": true, "yaxis.autorange": true });
    } else if (event.key in moves || event.key in zooms) {
      const [dx, dy] = moves[event.key] ?? [0, 0], zoom = zooms[event.key] ?? 1;
      Plotly.relayout(event.currentTarget, { "xaxis.range": next(layout.xaxis, dx, zoom), "yaxis.range": next(layout.yaxis, dy, zoom) });
    } else {
      return;
    }
    event.preventDefault();
  }

  const figures = [...document.querySelectorAll(".zsr-interactive")].map((figure) => ({
    place: figure.querySelector(".zsr-plotly"),
    payload: JSON.parse(figure.querySelector(".zsr-plotly-data").textContent),
    twin: figure.querySelector(".zsr-static"),
  }));
  const drawAll = () => figures.forEach(({ place, payload }) => {
    const { data, layout } = inTheme(payload);
    Plotly.react(place, data, layout, config);
  });
  drawAll();
  figures.forEach(({ place, twin }) => {
    place.addEventListener("keydown", onKey);
    twin.open = false;
  });
  new MutationObserver(drawAll).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
})();
