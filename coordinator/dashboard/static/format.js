// Numbers and times for people.

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]]) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return `${value} B`;
}

export const number = (value, digits = 4) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : Number(value.toFixed(digits)).toString();
export const count = (value) => (value ?? 0).toLocaleString("en");
export const percent = (value, digits = 0) =>
  value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 90) return `${number(value, 1)} s`;
  if (value < 5400) return `${number(value / 60, 1)} min`;
  return value < 172800 ? `${number(value / 3600, 1)} h` : `${number(value / 86400, 1)} days`;
}

export const clock = (at) => (at ? new Date(1000 * at).toLocaleTimeString() : "–");
export const date = (at) => (at ? new Date(1000 * at).toLocaleString() : "–");
export const ago = (at) => (at ? `${seconds(Math.max(Date.now() / 1000 - at, 0))} ago` : "never");
export const metrics = (values) =>
  Object.entries(values || {}).map(([name, value]) => `${name} ${number(value)}`).join(", ") || "no metrics";
export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
