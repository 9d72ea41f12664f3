
"use strict";
// Asks for /status.json again and again, and puts what it says into the places that the server has left in
// the page: [data-key] holds one value, table[data-rows] a list, figure[data-series] lines. How a value is
// written ([data-form]) is as in page.py. Text from clients reaches the page as text content only.

const EVERY = 1000, AGAIN = 2000, LATE = 3000, GIVE_UP = 12000;  // milliseconds
const HEIGHT = 170, LEFT = 62, RIGHT = 18, TOP = 10, BOTTOM = 24;  // pixels of a plot
const SVG = "http://www.w3.org/2000/svg";

const grouped = (value) => value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ",");
const three = (value) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

const FORMS = {
  text: String,
  count: grouped,
  rate: (value) => value && value < 9.95 ? value.toFixed(1) : grouped(value),
  flag: (value) => value ? "yes" : "no",
  moment: (value) => value.slice(0, 19).replace("T", " "),
  seconds: (value) => value === 0 ? "0" : value < 1e-3 ? three(value * 1e6) + " µs"
    : value < 1 ? three(value * 1e3) + " ms" : three(value) + " s",
  bytes: (value) => {
    let unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    return (unit ? three(value) : grouped(value)) + [" B", " KiB", " MiB", " GiB", " TiB"][unit];
  },
  duration: (value) => {
    const whole = Math.floor(value), days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600) % 24;
    const minutes = Math.floor(whole / 60) % 60, seconds = whole % 60;
    return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min`
      : minutes ? `${minutes} min ${seconds} s` : `${seconds} s`;
  },
};
const written = (value, form) => value === null || value === undefined ? "–" : FORMS[form](value);
const found = (view, key) => key.split(".").reduce((value, name) => value?.[name], view);
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const clock = (time) => new Date(Math.floor(time) * 1000).toISOString().slice(11, 19) + " UTC";

const present = (values) => values.filter((value) => value !== null);
const mean = (values) => (values = present(values)).length
  ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
const highest = (values) => (values = present(values)).length ? Math.max(...values) : null;

// What the server has told, with what page.view() of the server adds.
function viewed(told) {
  const series = told.history.series, summary = {}, minutes = [];
  for (const [name, values] of Object.entries(series))
    summary[name] = {now: values.at(-1), mean: mean(values), highest: highest(values)};
  const length = series.connections.length;
  for (let minute = 0; 60 * minute < length; minute++) {
    const part = (name) => series[name].slice(Math.max(0, length - 60 * minute - 60), length - 60 * minute);
    const row = {ago: `${minute} to ${minute + 1}`};
    for (const name of Object.keys(series))
      row[name] = (name.endsWith("_per_second") ? mean : highest)(part(name));
    minutes.push(row);
  }
  const calls = told.handler?.calls, drain = told.drain;
  return {...told, summary, minutes,
          drain_left: drain ? grouped(drain.clients_left) + " left" : "no",
          drain_time: drain ? "for " + written(drain.seconds, "duration") : "", uptime_seconds: told.time - told.started,
          handler_mean_seconds: calls ? told.handler.seconds / calls : null};
}

function listed(rows) {
  if (Array.isArray(rows)) return rows;
  return Object.entries(rows).filter(([, count]) => count)
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([reason, count]) => ({reason, count}));
}

function headline(told) {
  if (told.drain) {
    const left = told.drain.clients_left;
    return ["warning", `Draining for ${written(told.drain.seconds, "duration")}: `
      + `${grouped(left)} ${left === 1 ? "client is" : "clients are"} left`];
  }
  if (!told.ready) return ["warning", "Not ready: new clients are not welcome"];
  if (told.backplane && !told.backplane.connected)
    return ["warning", "The backplane is lost: broadcasts reach the clients of one process only"];
  return ["ready", "Ready: new clients are welcome"];
}

function fill(table, rows) {
  const columns = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (!rows.length) {
    if (body.rows.length === 1 && body.rows[0].className === "none") return;
    const row = document.createElement("tr"), cell = row.insertCell();
    row.className = "none";
    cell.colSpan = columns.length;
    cell.textContent = table.dataset.empty;
    body.replaceChildren(row);
    return;
  }
  if (body.rows[0]?.className === "none") body.replaceChildren();
  while (body.rows.length > rows.length) body.deleteRow(-1);
  while (body.rows.length < rows.length) {
    const row = body.insertRow();
    columns.forEach((column, place) => {
      const cell = document.createElement(place ? "td" : "th");
      cell.className = column.className;
      cell.dataset.label = column.textContent;
      if (!place) cell.scope = "row";
      row.append(cell);
    });
  }
  rows.forEach((values, index) => columns.forEach((column, place) =>
    put(body.rows[index].cells[place], written(found(values, column.dataset.key), column.dataset.form))));
}

function drawn(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The end of an axis: a round number whose half is round as well.
function rounded(value, least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, least)));
  return Math.max(least, [1, 2, 4, 6, 8, 10].find((step) => step * power >= value * (1 - 1e-9)) * power);
}

function plot(figure, history) {
  const place = figure.querySelector(".plot"), width = place.clientWidth || figure.clientWidth;
  const lines = figure.dataset.series.split(" ").map((name) => history.series[name]);
  const top = rounded(Math.max(0, ...lines.map((values) => highest(values) ?? 0)), Number(figure.dataset.least));
  const span = [60, 120, 300, history.seconds].find((seconds) => seconds >= lines[0].length - 1 || seconds === history.seconds);
  const across = (seconds) => LEFT + (width - LEFT - RIGHT) * (1 - seconds / span);
  const up = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top;
  const svg = drawn("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img",
    "aria-label": figure.querySelector("h3").textContent + " over the last ten minutes; the table below says it in numbers"});
  for (const value of [0, top / 2, top]) {
    svg.append(drawn("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: up(value), y2: up(value)}));
    svg.append(drawn("text", {x: LEFT - 6, y: up(value) + 4, "text-anchor": "end"},
      written(value, figure.dataset.form).replace(/\.0+(?!\d)/, "")));
  }
  const steps = width < 420 ? 2 : span === 300 || span === 600 ? 5 : 4;
  for (let step = 0; step <= steps; step++) {
    const seconds = span - span * step / steps, x = across(seconds);
    svg.append(drawn("line", {class: "grid", x1: x, x2: x, y1: up(0), y2: up(0) + 4}));
    svg.append(drawn("text", {x, y: HEIGHT - 6, "text-anchor": "middle"},
      seconds === 0 ? "now" : seconds < 60 || seconds % 30 ? `−${seconds} s` : `−${seconds / 60} min`));
  }
  lines.forEach((values, index) => {
    let path = "", pen = "M";
    values.forEach((value, second) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${across(values.length - 1 - second).toFixed(1)} ${up(value).toFixed(1)}`;
      pen = "L";
    });
    if (path && !path.includes("L")) path += "h1";  // a line of one point would not be seen
    svg.append(drawn("path", {class: `s${index + 1}`, d: path}));
  });
  place.replaceChildren(svg);
}

let known = null;  // the answer before this, with the whole history

function show(told) {
  const view = viewed(told), [mood, text] = headline(told), first = document.getElementById("headline");
  first.className = mood;
  put(first, text);
  document.title = text;
  document.querySelector("main").className = "";
  put(document.getElementById("freshness"), `Figures of ${clock(told.time)}, renewed each second.`);
  for (const each of document.querySelectorAll("[data-key]:not(th)"))
    put(each, written(found(view, each.dataset.key), each.dataset.form));
  for (const each of document.querySelectorAll("table[data-rows]")) fill(each, listed(found(view, each.dataset.rows)));
  plots();
}

function plots() {
  if (known) for (const each of document.querySelectorAll("figure")) plot(each, known.history);
}

function missing(why) {
  const first = document.getElementById("headline"), since = known ? ` since ${clock(known.time)}` : "";
  first.className = "lost";
  document.querySelector("main").className = "stale";
  put(first, `The server has not answered${since}`);
  document.title = first.textContent;
  put(document.getElementById("freshness"), `${why} The figures are the last that were told. It is asked again every two seconds.`);
}

// The whole history again, of what was known and what came since.
function joined(told) {
  if (!known || known.started !== told.started) return told;
  const series = {};
  for (const [name, values] of Object.entries(told.history.series))
    series[name] = [...known.history.series[name], ...values].slice(-told.history.seconds);
  return {...told, history: {...told.history, series}};
}

let timer = null, asking = false;

async function ask() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  const late = setTimeout(() => missing("It takes long to answer."), LATE);
  let pause = EVERY;
  try {
    const after = known?.history.newest ? `?after=${known.history.newest}` : "";
    const answer = await fetch(`/status.json${after}`, {cache: "no-store", signal: AbortSignal.timeout(GIVE_UP)});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const told = await answer.json();
    if (known && known.version !== told.version) { location.reload(); return; }
    if (known && known.started !== told.started && after) { known = null; pause = 0; }  // another server: from its start
    else { known = joined(told); show(known); }
  } catch (error) {
    pause = AGAIN;
    missing(error.message.startsWith("status") ? `It answered with ${error.message}.` : "It cannot be reached, or does not answer in time.");
  } finally {
    clearTimeout(late);
    asking = false;
  }
  if (!document.hidden) timer = setTimeout(ask, pause);
}

document.getElementById("static").remove();
document.addEventListener("visibilitychange", ask);
new ResizeObserver(plots).observe(document.querySelector(".plots"));
ask();
