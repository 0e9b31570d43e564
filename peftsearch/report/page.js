"use strict";
(() => {
  const COLOURS = /^--[a-z]+$/;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");

  function theme(css) {
    const axis = {
      gridcolor: css("--grid"), linecolor: css("--grid"), zerolinecolor: css("--grid"),
      tickcolor: css("--grid"), automargin: true, title: { standoff: 12, font: { size: 13 } },
    };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: css("--font"), size: 13, color: css("--ink") },
        colorway: ["--blue", "--orange", "--green", "--red", "--purple", "--sky", "--yellow", "--grey"].map(css),
        xaxis: axis, yaxis: axis,
        margin: { l: 8, r: 16, t: 16, b: 8 },
        legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: {
          align: "left", bgcolor: css("--paper"), bordercolor: css("--muted"),
          font: { family: css("--font"), color: css("--ink") },
        },
        dragmode: coarse.matches ? false : "zoom",  // a finger that scrolls the page must not zoom a chart
      },
    };
  }

  function draw(figure) {
    const box = figure.querySelector(".chart");
    const select = figure.querySelector("select");
    const style = getComputedStyle(document.documentElement);
    const css = (name) => style.getPropertyValue(name).trim();
    const coloured = (key, value) => (typeof value === "string" && COLOURS.test(value) && css(value)) || value;
    const text = figure.querySelector("script").textContent;
    const chosen = JSON.parse(text, coloured)[select ? Number(select.value) : 0];
    const layout = Object.assign({}, chosen.figure.layout, { template: theme(css) });
    const config = { responsive: true, displayModeBar: false };  // the bar covers marks, and has links to a cloud
    box.setAttribute("aria-label", chosen.description);
    figure.querySelector("figcaption").textContent = chosen.caption;
    return Plotly.react(box, chosen.figure.data, layout, config).then(() => box.setAttribute("data-drawn", "1"));
  }

  const figures = [...document.querySelectorAll("figure.charts")];
  const drawAll = () => figures.forEach(draw);
  figures.forEach((figure) => figure.querySelector("select")?.addEventListener("change", () => draw(figure)));
  dark.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; openAll(); drawAll(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.theme; drawAll(); });
  drawAll();

  function openAll() {
    document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  }

  function sort(table, column, header) {
    const down = header.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what is empty comes last either way
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return down ? -order : order;
    };
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  document.querySelectorAll("table").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.firstElementChild.addEventListener("click", () => sort(table, column, header));
    });
  });
  document.querySelectorAll("details input").forEach((input) => {
    const rows = [...input.parentElement.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); });
    });
  });
})();
