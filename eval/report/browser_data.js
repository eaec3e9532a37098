// What the parts of the transcript browser share: the data, one session's ratings, and the making of elements.
// Everything from a transcript reaches the page through textContent and nothing else.
const root = document.getElementById("browser");
if (!root) return;
const data = JSON.parse(document.getElementById("browser-data").textContent);
const GAP = "n/a";
const part = (id) => document.getElementById(id);

// What is shown; all of it can be written into the address. `session` and `beside` are keys of sessions.
const state = {
  base: "", arm: "", patient: "", ending: "", flag: "", least: "", most: "", words: "", order: "", rating: "", session: "", beside: "",
};

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
const choice = (value, text) => {
  const option = make("option", "", text);
  option.value = value;
  return option;
};
const rounded = (value) => Math.round(value * 100) / 100;
const figure = (value) => (value === null ? GAP : String(rounded(value)).replace("-", "\u2212"));
const signed = (value) => (value !== null && rounded(value) > 0 ? `+${figure(value)}` : figure(value));
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const distinct = (values) => [...new Set(values)];

const armOf = (session) => (session.arm === null ? "therapist not recorded" : data.arms[session.arm].label);
const baseOf = (session) => (session.arm === null ? "" : data.arms[session.arm].base);
const seedOf = (session) => session.seed && `seed ${session.seed}`;
const keyOf = (index) => data.sessions[index].id || `#${index}`;
const indexOf = (key) => data.sessions.findIndex((_, index) => keyOf(index) === key);

const bodies = new Map();
function bodyOf(index) {
  if (!bodies.has(index)) bodies.set(index, JSON.parse(data.sessions[index].body));
  return bodies.get(index);
}

// One session's scores by domain, the turns that they rest on, and the reasons: of the chosen rating, else of all.
function ratingOf(index) {
  const session = data.sessions[index];
  const { scores, ratings } = bodyOf(index);
  const chosen = data.raters.indexOf(state.rating);
  const used = chosen < 0 ? ratings : ratings.filter((rating) => rating.rater === chosen);
  const mean = chosen < 0;
  const one = used[0];
  return {
    total: mean ? session.total : one?.total ?? null,
    status: mean ? session.status : one?.status ?? "this rating was not made",
    error: used.map((rating) => rating.error).filter(Boolean).join("; "),
    notes: used.filter((rating) => rating.note).map((rating) => ({ who: data.raters[rating.rater], text: rating.note })),
    domains: data.domains.map((name, domain) => {
      const given = used.map((rating) => rating.scores[domain]).filter((score) => score !== null);
      return {
        name,
        score: mean ? scores[domain] : one?.scores[domain] ?? null,
        range: new Set(given).size > 1 ? `${figure(Math.min(...given))} to ${figure(Math.max(...given))}` : "",
        evidence: distinct(used.flatMap((rating) => rating.evidence[domain])).sort((a, b) => a - b),
        reasons: used.filter((rating) => rating.reasons[domain]).map((rating) => ({
          who: ratings.length > 1 ? `${data.raters[rating.rater]}: ${figure(rating.scores[domain])}` : "",
          text: rating.reasons[domain],
        })),
      };
    }),
  };
}
