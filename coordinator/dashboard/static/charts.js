// Time series by uPlot, in the page's colours.

import { h, show } from "./dom.js";

// Ticks between whole versions.
const VERSIONS = [1, 2, 5].flatMap((step) => [1, 10, 100, 1e3, 1e4, 1e5, 1e6].map((of) => step * of)).toSorted((a, b) => a - b);

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Where all values are alike, an axis is around them, not from 0 to 100.
function spread(plot, low, high) {
  if (low === null) return [0, 1];
  return low === high ? [Math.min(low, 0), Math.max(high, 1)] : window.uPlot.rangeNum(low, high, 0.1, true);
}

export class Chart {
  // series: [{label, color: a CSS variable, scale: "y" or "right", format}]
  // nothing: what is said where no series has a value.
  constructor(element, label, series, nothing) {
    this.element = element;
    this.nothing = nothing;
    this.label = label;
    this.series = series;
    this.time = false;
    this.data = null;
    this.plot = null;
    this.sized = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.sized.observe(element);
    this.themed = () => this.draw();
    window.addEventListener("theme", this.themed);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.themed);
  }

  size() {
    return { width: Math.max(this.element.clientWidth, 200), height: 220 };
  }

  // data: x, then an array for each series; time: whether x is in seconds since 1970.
  show(data, time) {
    if (!data.slice(1).some((values) => values.some((value) => value !== null && value !== undefined))) {
      this.plot?.destroy();
      this.plot = this.data = null;
      this.element.removeAttribute("role");
      this.element.removeAttribute("aria-label");
      show(this.element, h("p", { class: "empty" }, this.nothing));
      return;
    }
    const anew = !this.plot || time !== this.time;
    this.data = data;
    this.time = time;
    const last = this.series.map((each, index) => {
      const value = data[index + 1].findLast((number) => number !== null && number !== undefined);
      return `${each.label} ${each.format(value)}`;
    });
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", `${this.label}, ${data[0].length} points; last: ${last.join(", ")}`);
    if (anew) this.draw();
    else this.plot.setData(data);
    this.rest();
  }

  // Where nothing is pointed at, the legend has the newest values.
  rest() {
    if (this.plot && !(this.plot.cursor.left >= 0)) this.plot.setLegend({ idx: this.data[0].length - 1 });
  }

  draw() {
    if (!this.data) return;
    this.plot?.destroy();
    show(this.element);
    const ink = token("--quiet"), grid = { stroke: token("--line"), width: 1 }, font = "12px system-ui, sans-serif";
    const axis = { stroke: ink, grid, ticks: { show: false }, font, size: 46 };
    const right = this.series.some((each) => each.scale === "right");
    this.plot = new window.uPlot({
      ...this.size(),
      scales: { x: { time: this.time }, y: { range: spread }, ...(right && { right: { range: spread } }) },
      legend: { live: true },
      cursor: { points: { size: 7 } },
      axes: [
        { ...axis, size: 30, ...(!this.time && { incrs: VERSIONS }) },
        { ...axis, scale: "y" },
        ...(right ? [{ ...axis, scale: "right", side: 1, grid: { show: false } }] : []),
      ],
      series: [
        { label: this.time ? "time" : "version" },
        ...this.series.map((each) => ({
          label: each.label,
          scale: each.scale || "y",
          stroke: token(each.color),
          dash: each.dash,
          width: 2,
          spanGaps: true,
          points: { show: (plot) => plot.data[0].length < 3 },
          value: (plot, value) => each.format(value),
        })),
      ],
      hooks: { setCursor: [() => this.rest()] },
    }, this.data, this.element);
    this.rest();
  }

  close() {
    this.sized.disconnect();
    window.removeEventListener("theme", this.themed);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.themed);
    this.plot?.destroy();
  }
}
