// The page of conformance/reports/html.py: filters over what stands in the page, drawings of what is opened.
// Texts become text nodes and attributes, never markup.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const CALLS = 20; // environment calls of a step that are shown at first, the last ones
const SVG = "http://www.w3.org/2000/svg";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== ""));
  return node;
}
const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const code = (text) => el("code", {}, text);
const away = (text) => el("span", { class: "away" }, text);

/** Fill a `details` when it is opened for the first time. */
function whenOpened(details, fill) {
  let filled = false;
  const go = () => {
    if (!details.open || filled) return;
    filled = true;
    fill(details);
  };
  details.addEventListener("toggle", go);
  go();
}

// ---- Colours

const theme = document.querySelector(".theme");
theme.hidden = false;
function paint(value) {
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}
try {
  const kept = localStorage.getItem("conformance-theme");
  for (const input of all("input", theme)) if (input.value === kept) input.checked = true;
  if (kept) paint(kept);
} catch { /* pages from disk may not be allowed to keep anything */ }
theme.addEventListener("change", (event) => {
  paint(event.target.value);
  try { localStorage.setItem("conformance-theme", event.target.value); } catch { /* as above */ }
});

// ---- Filters

const filters = document.querySelector(".filters");
const rows = all("tr.clause").map((node) => ({
  node,
  subsystem: node.closest(".subsystem").dataset.subsystem,
  ...node.dataset,
  verdicts: node.dataset.verdicts.split(" "),
}));
const failures = all("details.failure").map((node, place) => ({
  node,
  ...node.dataset,
  verdicts: [node.dataset.verdicts],
  more: () => JSON.stringify(DATA.failures[place].story),
}));
const kills = all(".kills tbody tr").map((node) => ({ node }));
const cells = new Map(); // of the heat maps that are drawn, by id of the clause's row

/** What is searched of a row or a failure, gathered when it is first asked for. */
function haystack(item) {
  item.text ??= `${item.node.textContent} ${item.more ? item.more() : ""}`.toLowerCase();
  return item.text;
}

function wanted() {
  return {
    words: filters.querySelector("#search").value.toLowerCase().split(/\s+/).filter(Boolean),
    verdicts: new Set(all("[name=verdict]:checked", filters).map((box) => box.value)),
    level: filters.querySelector("#level")?.value ?? "",
    subsystem: filters.querySelector("#subsystem").value,
    differs: Boolean(filters.querySelector("#differs")?.checked),
  };
}

function matches(item, want) {
  return (!want.level || item.level === want.level)
    && (!want.subsystem || item.subsystem === want.subsystem)
    && (!want.verdicts.size || item.verdicts.some((verdict) => want.verdicts.has(verdict)))
    && want.words.every((word) => haystack(item).includes(word));
}

function filter() {
  const want = wanted();
  let shownRows = 0;
  for (const row of rows) {
    row.shown = matches(row, want) && (!want.differs || row.differs !== undefined);
    row.node.hidden = !row.shown;
    shownRows += row.shown;
    for (const cell of cells.get(row.node.id) ?? []) cell.classList.toggle("off", !row.shown);
  }
  let shownFailures = 0;
  for (const failure of failures) {
    const shown = matches(failure, want);
    failure.node.hidden = !shown;
    shownFailures += shown;
  }
  let shownKills = 0;
  for (const kill of kills) {
    const shown = want.words.every((word) => haystack(kill).includes(word));
    kill.node.hidden = !shown;
    shownKills += shown && !kill.node.closest("details");
  }
  for (const section of all(".subsystem")) section.hidden = !section.querySelector("tr.clause:not([hidden])");
  for (const part of all(".heat, .scopes, .zoo")) {
    part.hidden = Boolean(want.subsystem) && part.dataset.subsystem !== want.subsystem;
  }
  const nothing = { clauses: shownRows === 0, failures: shownFailures === 0 };
  for (const note of all("p.none")) note.hidden = !nothing[note.closest("section").id];
  const told = [
    rows.length && `${shownRows} of ${count(rows.length, "clause")}, ${shownFailures} of ${count(failures.length, "failure")}`,
    kills.length && `${shownKills} of ${count(kills.filter((kill) => !kill.node.closest("details")).length, "defect")}`,
  ];
  filters.querySelector("#found").textContent = told.filter(Boolean).join(", ");
}

if (filters) {
  filters.hidden = false;
  new ResizeObserver(() => {
    const isSticky = getComputedStyle(filters).position === "sticky";
    document.documentElement.style.setProperty("--bar", isSticky ? `${filters.offsetHeight}px` : "0px");
  }).observe(filters);
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    filters.querySelector("#search").focus();
  });
  filter();
}

/** Show what a link inside the page leads to, whatever hides it. */
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (filters && target.matches("tr, details") && target.closest("[hidden]")) {
    filters.reset();
    filter();
  }
  if (target.matches("details")) target.open = true;
  target.scrollIntoView({ block: target.matches("tr") ? "center" : "start" });
}
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && link.hash === location.hash) reveal();
});

// ---- Sequence diagrams

const LANE = { left: "one", right: "two" };
const lane = (act, number) => LANE[act.side] ?? (number === 0 ? "one" : "two");

/** What happened in a step, in order: operations begin, make calls, are switched, and end. */
function happenings(told) {
  const { acts, calls = [] } = told;
  const beside = told.switches !== undefined;
  const last = acts.map((_, number) => calls.findLastIndex((call) => call.of === number));
  const begun = new Set();
  const ended = new Set();
  const found = [];
  const begin = (number) => {
    if (begun.has(number)) return;
    begun.add(number);
    found.push({ kind: "op", number });
  };
  const end = (number) => {
    if (ended.has(number)) return;
    ended.add(number);
    found.push({ kind: "result", number });
  };
  begin(0); // of two threads the left one runs first
  if (beside && last[0] < 0 && !told.switches.length && acts[0].ended !== false) end(0);
  calls.forEach((call, place) => {
    const before = place ? calls[place - 1].of : 0;
    if (beside && before !== call.of && !ended.has(before)) found.push({ kind: "switch", number: call.of });
    begin(call.of);
    found.push({ kind: "call", number: call.of, call });
    const isOver = acts[call.of].ended !== false && last[call.of] === place;
    if (isOver && (beside || call.of !== 0)) end(call.of);
  });
  acts.slice(1).forEach((_, place) => {
    begin(place + 1);
    end(place + 1);
  });
  end(0);
  return found;
}

/** The calls that were refused as planned, and what else an operation met. */
function refusals(told) {
  const refused = new Map();
  const others = told.acts.map(() => []);
  told.acts.forEach((act, number) => {
    for (const met of act.met ?? []) {
      const [, name, value] = /^(\S+) (?:refused:|returned) (.*)$/s.exec(met) ?? [];
      const call = (told.calls ?? []).find((c) => c.of === number && name !== undefined && !refused.has(c)
        && c.made.startsWith(`${name}(`) && [value, `-${value}`].includes(c.returned));
      if (call) refused.set(call, met);
      else others[number].push(met);
    }
  });
  return { refused, others };
}

function message(kind, act, number, who, ...children) {
  return el("li", { class: `message ${kind} ${lane(act, number)}` }, away(`${who}: `), ...children);
}

function drawn(told, name) {
  const { refused, others } = refusals(told);
  const who = told.acts.map((act, number) => act.side || (number === 0 ? name : "in the middle"));
  const items = [];
  for (const { kind, number, call } of happenings(told)) {
    const act = told.acts[number];
    if (kind === "switch") {
      items.push(el("li", { class: "switch" }, `switched to ${who[number]}`));
    } else if (kind === "op") {
      const at = act.point === undefined || act.point === null ? "" : el("small", {}, ` at point ${act.point}`);
      items.push(message("op", act, number, `${who[number]} is asked`, el("span", {}, act.did), at));
      for (const met of others[number]) items.push(el("li", { class: "remark" }, met));
    } else if (kind === "call") {
      const back = refused.has(call)
        ? el("span", { class: "back" }, away(", "), el("span", { class: "refused" }, `refused: ${call.returned}`))
        : call.returned && el("span", { class: "back" }, away(" returns "), call.returned);
      items.push(message("call", act, number, `${who[number]} calls`, el("span", {}, call.made), back || ""));
    } else if (act.ended === false) {
      const lost = el("span", { class: "lost" }, "✗ did not end");
      items.push(message("result", act, number, who[number], lost));
    } else {
      const returned = act.returned ? el("span", {}, act.returned) : el("small", {}, "returned");
      items.push(message("result", act, number, `${who[number]} returns`, returned));
    }
  }
  return items;
}

/** Hide the calls that are not needed to understand the step, behind a button. */
function folded(items, told, isLast) {
  if (told.acts.length > 1) return items;
  const calls = items.filter((item) => item.matches(".call") && !item.querySelector(".refused"));
  const early = isLast ? calls.slice(0, -CALLS) : calls;
  if (early.length < 3) return items;
  for (const item of early) item.hidden = true;
  const label = `${count(early.length, "environment call")}${isLast ? " before these" : ""}`;
  const button = el("button", { type: "button", "aria-expanded": "false" }, `+ ${label}`);
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    for (const item of early) item.hidden = isOpen;
    button.setAttribute("aria-expanded", String(!isOpen));
    button.textContent = `${isOpen ? "+" : "−"} ${label}`;
  });
  const at = items.indexOf(early[0]);
  return [...items.slice(0, at), el("li", { class: "earlier" }, button), ...items.slice(at)];
}

function drawStory(place) {
  const { story } = DATA.failures[Number(place.dataset.n) - 1];
  if (!story || !story.steps.length) {
    place.append(el("p", { class: "muted" }, "There is no account of its steps."));
    return;
  }
  const beside = story.steps.some((told) => told.switches !== undefined);
  const inside = story.steps.some((told) => told.switches === undefined && told.acts.length > 1);
  const first = beside ? "candidate, left" : "candidate";
  const second = [beside ? "right" : "", inside ? "in the middle" : ""].filter(Boolean).join(" / ");
  const steps = story.steps.map((told, place) => {
    const isLast = place === story.steps.length - 1;
    const at = told.switches?.length ? `, switching at ${told.switches.length === 1 ? "point" : "points"} ${told.switches.join(", ")}` : "";
    const title = `Step ${place + 1}${told.switches === undefined ? "" : `: two threads${at}`}`;
    const changes = told.changes ?? [];
    return el("li", { class: "step" },
      el("h4", {}, title),
      el("ol", { class: "messages" }, ...folded(drawn(told, "candidate"), told, isLast)),
      changes.length ? el("p", { class: "changes" }, el("strong", {}, "Now "), ...changes.map(code)) : "");
  });
  if (story.world?.length) {
    place.append(el("p", { class: "setting" }, el("strong", {}, "World "), ...story.world.flatMap((w) => [code(w), " "])));
  }
  place.append(el("div", { class: `sequence ${beside || inside ? "" : "single"}` },
    el("div", { class: "lanes", "aria-hidden": "true" },
      el("span", { class: "caller" }, "caller"),
      el("span", { class: "one" }, first),
      el("span", { class: "two" }, second),
      el("span", { class: "end" }, "environment")),
    el("ol", { class: "steps", "aria-label": "Steps" }, ...steps)));
}

for (const { node } of failures) whenOpened(node, () => drawStory(node.querySelector(".diagram")));
for (const button of all("button.save")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const { trace, file } = DATA.failures[Number(button.dataset.n) - 1];
    const link = el("a", { href: URL.createObjectURL(new Blob([trace])), download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  });
}

// ---- Heat maps

const shade = (n) => (n === 0 ? 0 : Math.min(5, 1 + Math.floor(Math.log10(n))));
const short = (n) => (n < 1000 ? String(n) : n < 1e6 ? `${+(n / 1e3).toPrecision(2)}k` : `${+(n / 1e6).toPrecision(2)}M`);

function heatCell(row, place) {
  const cell = row.node.cells[place + 3];
  if (cell.dataset.v === undefined) return el("td");
  const isHeld = !["not-applicable", "untestable"].includes(cell.dataset.v);
  const n = Number(cell.dataset.n);
  const id = row.node.cells[0].textContent;
  const told = isHeld ? `${id}: exercised ${count(n, "time")}` : `${id}: ${cell.dataset.v.replace("-", " ")}`;
  const shown = el("td", { class: isHeld ? `h${shade(n)}` : "hx" },
    el("a", { href: `#${row.node.id}`, title: told, "aria-label": told }, isHeld ? short(n) : "–"));
  shown.classList.toggle("off", row.shown === false);
  if (!cells.has(row.node.id)) cells.set(row.node.id, []);
  cells.get(row.node.id).push(shown);
  return shown;
}

function drawHeat(details) {
  const mine = rows.filter((row) => row.subsystem === details.dataset.subsystem);
  const decades = new Map(); // of ids: UIO-01x
  for (const row of mine) {
    const id = row.node.cells[0].textContent;
    const decade = id.slice(0, -1);
    if (!decades.has(decade)) decades.set(decade, new Map());
    decades.get(decade).set(id.slice(-1), row);
  }
  const digits = [..."0123456789"];
  const heads = all("th.candidate", mine[0].node.closest("table"));
  details.querySelector(".maps").append(...heads.map((head, place) => el("table", { class: "map" },
    el("caption", {}, head.textContent),
    el("thead", {}, el("tr", {}, el("td"), ...digits.map((digit) => el("th", { scope: "col" }, digit)))),
    el("tbody", {}, ...[...decades].map(([decade, of]) => el("tr", {},
      el("th", { scope: "row" }, `${decade}x`),
      ...digits.map((digit) => (of.has(digit) ? heatCell(of.get(digit), place) : el("td")))))))));
}

setTimeout(() => { for (const details of all("details.heat")) whenOpened(details, drawHeat); });

// ---- State graphs

const total = (scope, name) => scope.depths.reduce((sum, depth) => sum + depth[name], 0);

/** Where each state stands: columns by depth, in a column next to where its arrows come from and go. */
function layout({ states, arrows }) {
  const columns = [];
  states.forEach((state, number) => (columns[state.depth] ??= []).push(number));
  const steps = arrows.filter((arrow) => states[arrow.to].depth === states[arrow.from].depth + 1);
  const height = Math.max(...columns.map((column) => column.length));
  const y = [];
  const settle = (column) => column.forEach((number, place) => { y[number] = place + (height - column.length) / 2; });
  columns.forEach(settle);
  for (let sweep = 0; sweep < 6; sweep++) {
    const [mine, other] = sweep % 2 ? ["from", "to"] : ["to", "from"];
    for (const column of sweep % 2 ? columns.toReversed() : columns) {
      const centre = new Map(column.map((number) => {
        const near = steps.filter((arrow) => arrow[mine] === number).map((arrow) => y[arrow[other]]);
        return [number, near.length ? near.reduce((a, b) => a + b) / near.length : y[number]];
      }));
      column.sort((a, b) => centre.get(a) - centre.get(b) || a - b);
      settle(column);
    }
  }
  return { columns, y, height };
}

const lookOf = (state) =>
  (state.failed ? "failed" : state.legal === 0 ? "rim" : state.tried < state.legal ? "partly" : "whole");

/** The shortest way to a state, as arrows. */
function wayTo(graph, number) {
  const way = [];
  while (graph.states[number].depth > 0) {
    const arrow = graph.arrows.find((a) => a.to === number && graph.states[a.from].depth === graph.states[number].depth - 1);
    if (!arrow) break;
    way.unshift(arrow);
    number = arrow.from;
  }
  return way;
}

function figures(state) {
  if (state.legal === 0) return "the scope ends here";
  const failed = state.failed ? `, ${state.failed} failed` : "";
  return `${state.tried} of ${count(state.legal, "transition")} tried${failed}`;
}

function tellState(graph, number) {
  const state = graph.states[number];
  const way = wayTo(graph, number).map((arrow) => graph.steps[arrow.step]);
  const out = graph.arrows.filter((arrow) => arrow.from === number);
  const stays = state.tried - state.failed - out.reduce((sum, arrow) => sum + arrow.steps, 0);
  return [
    el("p", {}, el("strong", {}, `State ${number}: `), figures(state), stays > 0 ? `, ${stays} change nothing` : ""),
    el("p", {}, "Seen there: ", ...(state.seen.length ? state.seen.flatMap((s) => [code(s), " "]) : ["what is seen at the start"])),
    el("p", {}, "The way there: ", ...(way.length ? way.flatMap((s, i) => [i ? " · " : "", code(s)]) : ["it is the start"])),
    el("ul", {}, ...out.map((arrow) => el("li", {}, code(graph.steps[arrow.step]),
      ` leads to ${arrow.to}`, arrow.steps > 1 ? `, and ${arrow.steps - 1} more` : ""))),
  ];
}

let graphs = 0;
function drawGraph(graph) {
  const { columns, y, height } = layout(graph);
  const name = `graph-${++graphs}`;
  const wide = Math.max(70, Math.min(150, 1100 / columns.length));
  const [radius, high, top] = [13, 38, 34];
  const at = (number) => [40 + graph.states[number].depth * wide, top + 20 + y[number] * high];
  const head = (id, colour) => svg("marker", { id: `${name}-${id}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" },
    svg("path", { d: "M0 0 8 4 0 8z", class: colour, fill: "context-stroke" }));
  const curves = graph.arrows.map((arrow) => {
    const [[x1, y1], [x2, y2]] = [at(arrow.from), at(arrow.to)];
    const isOnward = graph.states[arrow.to].depth === graph.states[arrow.from].depth + 1;
    const d = isOnward
      ? `M${x1 + radius} ${y1}C${x1 + wide / 2} ${y1} ${x2 - wide / 2} ${y2} ${x2 - radius - 1} ${y2}`
      : x1 === x2
        ? `M${x1 + radius} ${y1}Q${x1 + wide / 2} ${(y1 + y2) / 2} ${x2 + radius + 1} ${y2}`
        : `M${x1} ${y1 - radius}Q${(x1 + x2) / 2} ${Math.min(y1, y2) - 20 - Math.abs(x1 - x2) / 10} ${x2} ${y2 - radius - 1}`;
    return svg("path", { class: isOnward ? "arrow" : "arrow aside", d, "marker-end": `url(#${name}-head)` });
  });
  const told = el("div", { class: "told", "aria-live": "polite" }, el("p", { class: "muted" }, "Choose a state to read what can be seen there, how it is reached, and where it leads."));
  const nodes = graph.states.map((state, number) => {
    const [x, y] = at(number);
    const node = svg("g", { class: `state ${lookOf(state)}`, tabindex: 0, role: "button", transform: `translate(${x} ${y})`,
      "aria-label": `State ${number}, ${count(state.depth, "step")} from the start, ${figures(state)}` },
      svg("circle", { r: radius }), svg("text", {}, String(number)));
    const choose = () => {
      const way = new Set(wayTo(graph, number));
      nodes.forEach((other) => other.classList.toggle("chosen", other === node));
      graph.arrows.forEach((arrow, place) => {
        curves[place].classList.toggle("lit", arrow.from === number);
        curves[place].classList.toggle("came", way.has(arrow));
      });
      told.replaceChildren(...tellState(graph, number));
    };
    node.addEventListener("click", choose);
    node.addEventListener("focus", choose);
    return node;
  });
  const [width, tall] = [80 + (columns.length - 1) * wide, top + 40 + (height - 1) * high + 10];
  const drawing = svg("svg", { class: "graph", width, height: tall, viewBox: `0 0 ${width} ${tall}`, role: "group", "aria-label": "State graph" },
    svg("defs", {}, head("head")),
    ...columns.map((_, depth) => svg("text", { class: "depth", x: 40 + depth * wide, y: 16 }, depth ? `${depth}` : "start")),
    ...curves, ...nodes);
  const keys = ["all transitions tried", "some not tried", "one failed (thick rim)", "the scope ends there"];
  return [
    el("ul", { class: "key" }, ...["whole", "partly", "failed", "rim"].map((look, place) => el("li", {},
      svg("svg", { viewBox: "-16 -16 32 32", "aria-hidden": "true" }, svg("g", { class: "graph" }, svg("g", { class: `state ${look}` }, svg("circle", { r: 13 })))),
      keys[place])), el("li", {}, "columns: steps from the start; faint: back or beside; on choosing, solid: onwards, dashed: the way there")),
    el("div", { class: "figure-row" }, drawing),
    told,
  ];
}

function depthTable(scope) {
  const most = Math.max(...scope.depths.map((depth) => depth.legal), 1);
  return el("table", { class: "depths" },
    el("caption", {}, scope.limit === null || scope.limit === undefined ? "By steps from the start" : `By steps from the start, of which the scope allows ${scope.limit}`),
    el("thead", {}, el("tr", {}, ...["steps", "states", "tried", "of", "failed", "transitions"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...scope.depths.map((depth, n) => el("tr", {}, el("th", { scope: "row" }, String(n)),
      ...["states", "tried", "legal", "failed"].map((name) => el("td", {}, depth[name].toLocaleString("en"))),
      el("td", {}, svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { width: (100 * depth.tried) / most, height: 8 })))))));
}

function stateTable(graph) {
  const details = el("details", {}, el("summary", {}, "The states as a table"));
  whenOpened(details, () => details.append(el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...["State", "Depth", "Transitions", "Seen there", "Leads to"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...graph.states.map((state, number) => el("tr", {},
      el("th", { scope: "row" }, String(number)),
      el("td", {}, String(state.depth)),
      el("td", {}, figures(state)),
      el("td", {}, ...state.seen.flatMap((s) => [code(s), " "])),
      el("td", {}, graph.arrows.filter((a) => a.from === number).map((a) => `${a.to} by ${graph.steps[a.step]}`).join("; ")))))))));
  return details;
}

function drawWorld(scope) {
  const [tried, legal, failed] = ["tried", "legal", "failed"].map((name) => total(scope, name));
  const details = el("details", { class: "world" }, el("summary", {},
    el("span", { class: "id" }, scope.scope),
    el("span", {}, count(total(scope, "states"), "state")),
    el("span", {}, `${tried.toLocaleString("en")} of ${count(legal, "transition")}`),
    el("span", { class: `verdict ${failed ? "fail" : tried < legal ? "not-exercised" : "pass"}` },
      failed ? `✗ ${failed} failed` : tried < legal ? `○ ${legal - tried} not tried` : "✓ all tried")));
  whenOpened(details, () => details.append(el("div", { class: "inside" },
    scope.world ? el("p", { class: "setting" }, el("strong", {}, "World "), code(scope.world)) : "",
    ...(scope.graph ? [...drawGraph(scope.graph), stateTable(scope.graph)] : [el("p", { class: "muted" }, "Too many states to draw.")]),
    depthTable(scope))));
  return details;
}

for (const details of all("details.scopes")) {
  whenOpened(details, () => details.querySelector(".worlds").append(...DATA.scopes[details.dataset.n].map(drawWorld)));
}

reveal();
