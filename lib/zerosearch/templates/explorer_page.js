// The page of the explorer.  Texts enter it through textContent alone.

const SIGNS = { right: "\u2713", wrong: "\u2717", "no answer": "\u2013" };
const TOGGLES = [
  ["source", "Sources", true], ["mask", "Loss mask", false], ["advantage", "Advantage", false],
  ["golden", "Golden answer", true], ["logprob", "Log-probability", false],
];
const KEYS = [
  ["j, \u2193", "next trajectory"], ["k, \u2191", "previous trajectory"], ["Home, End", "first, last (in the list)"],
  ["/", "search; words must all occur, \u201cquoted words\u201d together"], ["Esc", "leave the search, close this help"],
  ["1 \u2026 5", "sources, loss mask, advantage, golden answer, log-probability"],
  ["g", "the whole group side by side"], ["\u2190, \u2192", "from token to token (in a box of tokens)"],
  ["f", "filters"], ["t", "light, dark or automatic"], ["p", "print this trajectory"], ["?", "this help"],
];
const ROW_HEIGHT = 54;
const THEMES = { auto: "automatic", light: "light", dark: "dark" };

const byId = (id) => document.getElementById(id);
const state = { records: [], shown: [], current: -1, chosen: {}, query: "", order: "stored", group: false, on: {} };
const texts = new Map(); // index -> haystack, made when it is first searched
const boxes = new WeakMap(); // box of tokens -> [[token, logprob, source, stage] ...]

function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function add(parent, ...children) {
  parent.append(...children.filter(Boolean));
  return parent;
}

function textOf(r) {
  if (!texts.has(r.index)) texts.set(r.index, haystack(r));
  return texts.get(r.index);
}

// -- list ------------------------------------------------------------------------------------------

function refresh(keep) {
  const before = state.shown[state.current];
  state.shown = arrange(select(state.records, state.chosen, state.query, textOf), state.order);
  state.current = Math.max(0, keep && before ? state.shown.indexOf(before) : 0);
  byId("spacer").style.height = `${state.shown.length * ROW_HEIGHT}px`;
  const all = state.records.length;
  const right = state.shown.filter((r) => r.outcome === "right").length;
  const some = state.shown.length === all ? "" : ` of ${all.toLocaleString("en")}`;
  byId("counts").textContent = `${state.shown.length.toLocaleString("en")}${some} trajectories, ${right.toLocaleString("en")} right`;
  byId("print-all").textContent = `Print all ${state.shown.length.toLocaleString("en")}`;
  drawFilters();
  choose(state.current);
}

function drawList() {
  const list = byId("list");
  const [first, end] = windowOf(list.scrollTop, list.clientHeight || 600, ROW_HEIGHT, state.shown.length);
  const rows = state.shown.slice(first, end).map((r, i) => drawRow(r, first + i));
  byId("spacer").replaceChildren(...rows);
  const current = document.getElementById(`row-${state.current}`);
  if (current) list.setAttribute("aria-activedescendant", current.id);
  else list.removeAttribute("aria-activedescendant");
}

function drawRow(r, place) {
  const row = make("div", "row");
  row.id = `row-${place}`;
  row.style.top = `${place * ROW_HEIGHT}px`;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", String(place === state.current));
  row.setAttribute("aria-setsize", String(state.shown.length));
  row.setAttribute("aria-posinset", String(place + 1));
  const sign = make("span", `sign ${r.outcome.replace(" ", "-")}`, SIGNS[r.outcome]);
  sign.setAttribute("aria-label", r.outcome);
  const about = add(make("small"), make("span", "", shortTitleOf(r)), make("span", "", numbersOf(r)));
  const words = add(make("span", "words"), make("b", "", r.question.slice(0, 240)), about);
  row.addEventListener("click", () => choose(place));
  return add(row, sign, words);
}

function choose(place) {
  const list = byId("list");
  state.current = Math.max(0, Math.min(state.shown.length - 1, place));
  const top = state.current * ROW_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  drawList();
  drawDetail();
}

// -- filters ---------------------------------------------------------------------------------------

function drawFilters() {
  const found = counts(state.records, state.chosen, state.query, textOf);
  const all = select(state.records, {}, state.query, textOf).length;
  FACETS.forEach(([name], i) => {
    const box = byId(`filter-${name}`);
    const options = [["", all], ...found[i]].map(([value, n]) => {
      const option = make("option", "", `${value || "all"} (${n.toLocaleString("en")})`);
      option.value = value;
      return option;
    });
    options[0].textContent = "all";
    box.replaceChildren(...options);
    box.value = state.chosen[name] || "";
  });
  const active = Object.values(state.chosen).filter(Boolean).length;
  byId("active").textContent = active ? ` \u00b7 ${plural(active, "filter")} on` : "";
}

function makeFilters() {
  for (const [name, label] of FACETS) {
    const box = make("select");
    box.id = `filter-${name}`;
    box.addEventListener("change", () => { state.chosen[name] = box.value; refresh(true); });
    byId("filters").append(labelled(box, label));
  }
  const order = make("select");
  order.id = "order";
  for (const [name, label] of ORDERS) add(order, Object.assign(make("option", "", label), { value: name }));
  order.addEventListener("change", () => { state.order = order.value; refresh(true); });
  const reset = Object.assign(make("button", "", "Clear filters"), { type: "button" });
  reset.addEventListener("click", () => {
    Object.assign(state, { chosen: {}, query: "" });
    byId("search").value = "";
    refresh(true);
  });
  add(byId("filters"), labelled(order, "Sort"), reset);
}

function labelled(box, text) {
  return add(make("label"), make("span", "", text), box);
}

// -- one trajectory --------------------------------------------------------------------------------

function drawDetail() {
  const detail = byId("detail"), r = state.shown[state.current];
  hideTip();
  detail.replaceChildren();
  detail.scrollTop = 0;
  if (!r) return detail.append(make("p", "message", "No trajectory fits these filters. Clear them, or search for less."));
  add(detail, question(r), toolbar(r));
  if (state.group) {
    detail.append(sideBySide(r));
    detail.querySelector(".current").scrollIntoView({ block: "nearest", inline: "center" });
    detail.scrollTop = 0;
  }
  else detail.append(article(r, false));
  if (!state.embedded) history.replaceState(null, "", `#${encodeURIComponent(r.key)}`);
}

function question(r) {
  const golden = add(make("p", "golden-line"), make("span", "name", "Golden answer"), make("mark", "golden", r.golden.join(" \u00b7 ")));
  return add(make("div", "question"), make("h2", "", r.question), golden);
}

function toolbar(r) {
  const bar = make("div", "toolbar");
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "What is shown");
  TOGGLES.forEach(([name, label], i) => bar.append(press(`${i + 1}`, label, state.on[name], () => toggle(name))));
  bar.querySelector('[data-key="3"]').disabled = r.advantage === null;
  const n = groupOf(state.records, r).length;
  if (n > 1) bar.append(press("g", r.stage === "03" ? `Group of ${n}` : `All ${n} answers`, state.group, toggleGroup));
  return bar;
}

function press(key, label, on, act) {
  const button = add(make("button"), make("kbd", "", key), make("span", "", label));
  button.type = "button";
  button.dataset.key = key;
  button.setAttribute("aria-pressed", String(Boolean(on)));
  button.addEventListener("click", act);
  return button;
}

// The buttons are drawn anew; the focus stays on the one that was pressed.
function toggle(name) {
  state.on[name] = !state.on[name];
  showToggles();
  TOGGLES.forEach(([other], i) => {
    const button = document.querySelector(`.toolbar [data-key="${i + 1}"]`);
    if (button) button.setAttribute("aria-pressed", String(state.on[other]));
  });
}

function toggleGroup() {
  const focused = document.activeElement && document.activeElement.dataset.key;
  state.group = !state.group;
  drawDetail();
  const again = focused && document.querySelector(`.toolbar [data-key="${focused}"]`);
  if (again) again.focus();
}

function showToggles() {
  for (const [name] of TOGGLES) document.body.classList.toggle(`show-${name}`, state.on[name]);
}

function sideBySide(r) {
  const row = make("div", "side-by-side");
  row.tabIndex = 0;
  row.setAttribute("aria-label", "The group side by side");
  for (const other of groupOf(state.records, r)) {
    const card = article(other, true);
    card.classList.toggle("current", other === r);
    row.append(card);
  }
  return row;
}

function article(r, narrow) {
  const made = make("article", "trajectory");
  const title = make("h3", "", titleOf(r));
  return add(made, title, facts(r), r.error && make("p", "message", r.error), narrow ? null : legend(r), tokenBox(r), searches(r));
}

function facts(r) {
  const list = make("dl", "facts");
  const fact = (name, value, style) => add(list, add(make("div", style), make("dt", "", name), make("dd", "", value)));
  fact("Answer", r.answer === null ? "none" : r.answer, `answer ${r.outcome.replace(" ", "-")}`);
  fact("Outcome", `${SIGNS[r.outcome]} ${r.outcome}`);
  fact("EM", r.em.toFixed(0));
  fact("cover EM", r.cover.toFixed(0));
  fact("F1", r.f1.toFixed(2));
  if (r.reward !== null) fact("Reward", r.reward.toFixed(2));
  if (r.advantage !== null) fact("Advantage", signed(r.advantage));
  fact("Stop reason", r.stop);
  fact("Searches", String(r.nSearches));
  fact("Tokens written", r.nTokens ? `${r.nWritten} of ${r.nTokens}` : String(r.nWritten));
  return list;
}

function legend(r) {
  const line = make("p", "legend");
  const sources = [...new Set(r.segments.map(([source]) => source))], names = sourceNames(r.stage);
  for (const source of sources) line.append(make("span", `t s-${source}`, names[source]));
  return line;
}

function tokenBox(r) {
  const box = make("div", "tokens"), all = [];
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Tokens; the left and right arrow keys go from one to the next");
  if (r.advantage !== null) {
    box.style.setProperty("--strength", String(Math.min(1, Math.abs(r.advantage) / 2)));
    box.dataset.advantage = r.advantage > 0 ? "up" : r.advantage < 0 ? "down" : "zero";
  }
  for (const [source, places, logprobs, golden] of r.segments) {
    const part = make("div", `segment p-${source}`), marked = new Set(golden);
    const spans = document.createDocumentFragment();
    places.forEach((place, i) => {
      const span = make("span", `t s-${source}${marked.has(i) ? " golden" : ""}`, r.tokens[place].text);
      if (logprobs.length) span.style.setProperty("--surprise", String(Math.min(1, -logprobs[i] / 3000)));
      span.dataset.place = String(all.length);
      all.push([r.tokens[place], logprobs[i], source, r.stage]);
      spans.append(span);
    });
    part.append(spans);
    part.dir = "auto"; // once all is in: it is worked out anew with every child
    box.append(part);
  }
  boxes.set(box, all);
  return box;
}

function searches(r) {
  if (!r.searches.length) return null;
  const list = make("ol", "searches");
  for (const search of r.searches) list.append(drawSearch(search));
  return add(make("section"), make("h4", "", plural(r.searches.length, "search", "searches")), list);
}

function drawSearch(search) {
  const head = add(make("p", "query"), make("b", "", search.query), make("span", "tag", search.source));
  if (search.noisy !== null) head.append(make("span", search.noisy ? "tag bad" : "tag good", search.noisy ? "misleading" : "useful"));
  if (search.cached) head.append(make("span", "tag", "cached"));
  if (search.turn < 0) head.append(make("span", "tag", "before the first message"));
  const found = make("ul", "passages");
  for (const passage of search.passages) found.append(drawPassage(passage));
  const none = search.error || (search.passages.length ? "" : "no passages");
  return add(make("li"), head, none && make("p", "message", none), found);
}

function drawPassage(passage) {
  const made = make("li");
  for (const [piece, golden] of pieces(passage.text, passage.golden)) made.append(make(golden ? "mark" : "span", golden ? "golden" : "", piece));
  if (passage.kind) made.append(make("span", passage.misleading ? "tag bad" : "tag", passage.kind.replaceAll("_", " ")));
  made.dir = "auto";
  return made;
}

// -- the tip of a token ----------------------------------------------------------------------------

function showTip(span) {
  const told = span && boxes.get(span.closest(".tokens"));
  if (!told) return hideTip();
  const tip = byId("tip"), at = span.getClientRects()[0];
  tip.textContent = tipOf(...told[Number(span.dataset.place)]);
  tip.hidden = false;
  if (!at) return undefined;
  const below = at.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? at.bottom + 6 : at.top - tip.offsetHeight - 6}px`;
  return undefined;
}

function hideTip() {
  byId("tip").hidden = true;
}

function moveToken(box, by) {
  const all = [...box.querySelectorAll(".t")], marked = box.querySelector(".here");
  const place = Math.max(0, Math.min(all.length - 1, marked ? all.indexOf(marked) + by : 0));
  if (marked) marked.classList.remove("here");
  if (!all.length) return;
  all[place].classList.add("here");
  all[place].scrollIntoView({ block: "nearest" });
  showTip(all[place]);
}

// -- theme, printing, help, keys -------------------------------------------------------------------

function nextTheme() {
  const names = Object.keys(THEMES), now = document.documentElement.dataset.theme || "auto";
  const next = names[(names.indexOf(now) + 1) % names.length];
  document.documentElement.dataset.theme = next;
  byId("theme").textContent = `Theme: ${THEMES[next]}`;
}

function printSheets(records) {
  if (!records.length) return;
  const sheets = records.map((r) => add(make("section", "sheet"), question(r), article(r, false)));
  byId("print").replaceChildren(...sheets);
  window.print();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const here = event.target, typing = here.matches("input, select, textarea");
  if (typing && event.key === "Escape") { here.blur(); byId("list").focus(); }
  if (typing) return;
  const box = here.closest(".tokens"), act = box && boxKeys(box)[event.key] || freeKeys(here)[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function boxKeys(box) {
  return { ArrowRight: () => moveToken(box, 1), ArrowLeft: () => moveToken(box, -1) };
}

function freeKeys(here) {
  const next = () => choose(state.current + 1), previous = () => choose(state.current - 1);
  const arrows = here === document.body || here.closest("#list");
  const keys = {
    j: next, k: previous, "/": () => byId("search").focus(), "?": () => byId("help").showModal(), g: toggleGroup,
    t: nextTheme, f: () => { byId("filters-box").open = !byId("filters-box").open; },
    Escape: hideTip,
  };
  if (!state.embedded) keys.p = () => printSheets(state.shown.slice(state.current, state.current + 1));
  TOGGLES.forEach(([name], i) => { keys[String(i + 1)] = () => toggle(name); });
  if (arrows) Object.assign(keys, { ArrowDown: next, ArrowUp: previous });
  if (here.closest("#list")) Object.assign(keys, { Home: () => choose(0), End: () => choose(state.shown.length - 1) });
  return keys;
}

function listen() {
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = event.target.value; refresh(true); }, 120);
  });
  byId("list").addEventListener("scroll", drawList, { passive: true });
  addEventListener("resize", drawList);
  document.addEventListener("keydown", onKey);
  const over = (event) => showTip(event.target.closest(".tokens .t"));
  byId("detail").addEventListener("mouseover", over);
  byId("detail").addEventListener("click", over);
  byId("detail").addEventListener("focusout", hideTip);
  byId("theme").addEventListener("click", nextTheme);
  byId("print-one").addEventListener("click", () => printSheets(state.shown.slice(state.current, state.current + 1)));
  byId("print-all").addEventListener("click", () => printSheets(state.shown));
  addEventListener("beforeprint", () => {
    if (!byId("print").children.length && state.shown.length) {
      const r = state.shown[state.current];
      byId("print").replaceChildren(add(make("section", "sheet"), question(r), article(r, false)));
    }
  });
  addEventListener("afterprint", () => byId("print").replaceChildren());
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("help-close").addEventListener("click", () => byId("help").close());
}

async function inflate(packed) {
  const signs = atob(packed), bytes = new Uint8Array(signs.length);
  for (let i = 0; i < signs.length; i += 1) bytes[i] = signs.charCodeAt(i); // far faster than Uint8Array.from
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function start() {
  const data = JSON.parse(byId("data").textContent);
  byId("title").textContent = data.title;
  state.embedded = data.embedded;
  byId("print-one").hidden = byId("print-all").hidden = data.embedded;
  for (const [key, means] of KEYS) add(byId("keys"), make("dt", "", key), make("dd", "", means));
  for (const note of data.notes) byId("notes").append(make("li", "", note));
  for (const [name, , on] of TOGGLES) state.on[name] = on;
  state.records = unpack(await inflate(data.gzip));
  byId("filters-box").open = innerWidth > 760 && innerHeight > 760;
  makeFilters();
  showToggles();
  listen();
  const wanted = data.embedded ? "" : decodeURIComponent(location.hash.slice(1));
  refresh(false);
  const place = state.shown.findIndex((r) => r.key === wanted);
  if (place > 0) choose(place);
  requestAnimationFrame(() => setTimeout(() => { // the first picture has been drawn
    document.documentElement.dataset.readyMs = performance.now().toFixed(1);
  }));
}

start().catch((error) => {
  byId("message").hidden = false;
  byId("message").textContent = `This page could not be shown (${error.message}). It needs a browser of 2024 or newer.`;
});
