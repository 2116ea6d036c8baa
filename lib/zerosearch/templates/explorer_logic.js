"use strict";
// What the explorer decides, without a page: unpacking, filtering, counting, sorting, marking.
// Every function here is pure, so that it can be tested by any engine of the language.

const NOISE = { misleading: "some misleading", useful: "all useful", none: "no draw", unsearched: "no search" };
const STAGES = { "03": "training (03)", "04": "evaluation (04)" };
const FACETS = [
  ["stage", "Stage", (r) => STAGES[r.stage] || r.stage],
  ["dataset", "Data set", (r) => r.dataset],
  ["method", "Method or arm", (r) => r.method],
  ["seed", "Seed", (r) => String(r.seed)],
  ["outcome", "Outcome", (r) => r.outcome],
  ["stop", "Stop reason", (r) => r.stop],
  ["searches", "Searches", (r) => String(r.nSearches)],
  ["noise", "Noise", (r) => r.noise],
];
const ORDERS = [
  ["stored", "As stored", null],
  ["worst", "Reward or F1, lowest first", (r) => score(r)],
  ["best", "Reward or F1, highest first", (r) => -score(r)],
  ["advantage", "Advantage, highest first", (r) => (r.advantage === null ? Infinity : -r.advantage)],
  ["disadvantage", "Advantage, lowest first", (r) => (r.advantage === null ? Infinity : r.advantage)],
  ["searches", "Most searches first", (r) => -r.nSearches],
  ["tokens", "Longest first", (r) => -r.nWritten],
  ["step", "Last step first", (r) => -r.step],
  ["question", "Question, A to Z", (r) => r.question.toLowerCase()],
];

function score(r) {
  return r.reward === null ? r.f1 : r.reward;
}

// Returns the records with texts in place of their numbers; tokens stay shared.
function unpack(packed) {
  const text = (place) => packed.texts[place];
  const tokens = packed.tokens.map(([place, ...ids]) => ({ text: text(place), ids }));
  return packed.records.map((raw, index) => {
    const r = {
      ...raw, index, tokens,
      group: text(raw.group), method: text(raw.method), dataset: text(raw.dataset), question: text(raw.question),
      golden: raw.golden.map(text), answer: raw.answer === null ? null : text(raw.answer), error: text(raw.error),
      searches: raw.searches.map((s) => unpackSearch(s, text)),
    };
    r.outcome = r.answer === null ? "no answer" : r.em === 1 ? "right" : "wrong";
    r.noise = noiseOf(r.searches, r.nSearches);
    return r;
  });
}

function unpackSearch([turn, query, source, noisy, cached, error, passages], text) {
  return {
    turn, noisy, cached, query: text(query), source: text(source), error: text(error),
    passages: passages.map(([title, body, kind, misleading, edges]) => ({
      title: text(title), text: text(body), kind: text(kind), misleading, golden: pairs(edges),
    })),
  };
}

function pairs(edges) {
  return edges.flatMap((edge, i) => (i % 2 ? [] : [[edge, edges[i + 1]]]));
}

function noiseOf(searches, nSearches) {
  if (!nSearches) return NOISE.unsearched;
  if (searches.some((s) => s.noisy === true)) return NOISE.misleading;
  return searches.some((s) => s.noisy === false) ? NOISE.useful : NOISE.none;
}

// Returns everything of a record that can be searched, in lower case.
function haystack(r) {
  const written = r.segments.flatMap(([, places]) => [places.map((p) => r.tokens[p].text).join("")]);
  const found = r.searches.flatMap((s) => [s.query, s.source, ...s.passages.flatMap((p) => [p.title, p.text, p.kind])]);
  return [r.key, r.question, r.answer || "", ...r.golden, ...written, ...found].join("\n").toLowerCase();
}

// Returns the words of a search; what stands in double quotes is one.
function terms(query) {
  return [...query.toLowerCase().matchAll(/"([^"]+)"|([^\s"]+)/g)].map((m) => m[1] || m[2]);
}

function passes(r, chosen, except) {
  return FACETS.every(([name, , value]) => name === except || !chosen[name] || value(r) === chosen[name]);
}

// Returns the records that fit all choices and hold all words.  text(record): its haystack.
function select(records, chosen, query, text) {
  const wanted = terms(query);
  return records.filter((r) => passes(r, chosen, null) && wanted.every((word) => text(r).includes(word)));
}

// Returns, per facet, [value, how many there would be if it were chosen], in natural order.
function counts(records, chosen, query, text) {
  const wanted = terms(query);
  const holding = wanted.length ? records.filter((r) => wanted.every((word) => text(r).includes(word))) : records;
  return FACETS.map(([name, , value]) => {
    const found = new Map(records.map((r) => [value(r), 0]));
    for (const r of holding) if (passes(r, chosen, name)) found.set(value(r), found.get(value(r)) + 1);
    return [...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  });
}

// Returns the records in one of the ORDERS; equal ones stay as they were stored.
function arrange(records, order) {
  const key = (ORDERS.find(([name]) => name === order) || ORDERS[0])[2];
  if (!key) return records;
  const keyed = records.map((r) => [key(r), r]);
  return keyed.sort(([a, r], [b, s]) => (a < b ? -1 : a > b ? 1 : r.index - s.index)).map(([, r]) => r);
}

// Returns all samples of the record's group, in their order: of one step, or one question by every method.
function groupOf(records, r) {
  return records.filter((other) => other.group === r.group);
}

// Returns [first, end) of the rows that have to exist, some beyond the edges included.
function windowOf(scrolled, height, rowHeight, total, beyond = 8) {
  const first = Math.max(0, Math.min(total, Math.floor(scrolled / rowHeight)) - beyond);
  return [first, Math.min(total, Math.ceil((scrolled + height) / rowHeight) + beyond)];
}

// Returns the text cut at ranges, as [piece, whether it is inside one].
function pieces(text, ranges) {
  const cut = [];
  let done = 0;
  for (const [start, end] of ranges) {
    if (start > done) cut.push([text.slice(done, start), false]);
    cut.push([text.slice(start, end), true]);
    done = end;
  }
  if (done < text.length) cut.push([text.slice(done), false]);
  return cut;
}

function signed(value) {
  return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
}

function plural(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

// Returns the names of the sources; only in training does a token enter a loss.
function sourceNames(stage) {
  return {
    prompt: "prompt", policy: stage === "03" ? "written by the policy (in the loss)" : "written by the policy",
    inserted: "inserted: passages, forced beginnings", text: "text only: neither tokens nor passages were kept",
  };
}

// Returns what the tip says about a token.
function tipOf(token, logprob, source, stage) {
  if (source === "text") return "text only: tokens were not kept";
  const ids = `id ${token.ids.join(", ")}`;
  const likely = logprob === undefined ? "" : ` \u00b7 log-prob ${(logprob / 1000).toFixed(3)} nats`;
  const writer = source === "policy" ? "written by the policy" : source;
  const loss = stage !== "03" ? "" : source === "policy" ? ", in the loss" : ", not in the loss";
  return `${ids}${likely} \u00b7 ${writer}${loss}`;
}

function titleOf(r) {
  const place = r.stage === "03" ? ` \u00b7 step ${r.step}, sample ${r.sample}` : "";
  return `${r.dataset} \u00b7 ${r.method}, seed ${r.seed}${place}`;
}

function shortTitleOf(r) {
  return `${r.dataset} \u00b7 ${r.method} ${r.seed}${r.stage === "03" ? ` \u00b7 step ${r.step} #${r.sample}` : ""}`;
}

function numbersOf(r) {
  const misled = r.noise === NOISE.misleading ? ", misled" : "";
  const gain = r.advantage === null ? `F1 ${r.f1.toFixed(2)}` : `A ${signed(r.advantage)}`;
  return `${plural(r.nSearches, "search", "searches")}${misled} \u00b7 ${gain}`;
}
