// Filters, order and the list of sessions.
const list = part("session-list");
let shown = []; // indices of the sessions that pass the filters, in the chosen order

// Arms in the report's order, under their bases if there are several.
const bases = distinct(data.arms.map((arm) => arm.base).filter(Boolean));
const severalBases = bases.length > 1 && bases.length < data.arms.length;
const armNames = data.arms.map((arm) => arm.name);
const selects = {
  base: {
    element: part("filter-base"), all: "All bases", read: (session) => [baseOf(session)].filter(Boolean), order: bases,
  },
  arm: {
    element: part("filter-arm"), all: "All therapists",
    read: (session) => [session.arm === null ? armOf(session) : data.arms[session.arm].name], label: armOf,
    order: [...armNames, armOf({ arm: null })],
    group: (name) => (severalBases && data.arms[armNames.indexOf(name)]?.base) || "",
  },
  patient: { element: part("filter-patient"), all: "All patients", read: (session) => [session.patient] },
  ending: { element: part("filter-ending"), all: "All endings", read: (session) => [session.ending] },
  flag: {
    element: part("filter-flag"), all: "Any or none", read: (session) => session.flags, counted: true,
    order: data.flags.map((flag) => flag.name),
  },
};
for (const filter of Object.values(selects)) {
  const counts = new Map();
  const labels = new Map();
  for (const session of data.sessions) {
    for (const value of filter.read(session)) {
      counts.set(value, (counts.get(value) ?? 0) + 1);
      labels.set(value, filter.label ? filter.label(session) : value);
    }
  }
  filter.options = filter.order ? filter.order.filter((value) => counts.has(value)) : [...counts.keys()];
  const text = (value) => (filter.counted ? `${labels.get(value)} (${counts.get(value)})` : labels.get(value));
  filter.element.append(choice("", filter.all));
  const groups = new Map([["", filter.element]]);
  filter.options.forEach((value, place) => {
    const name = filter.group ? filter.group(value) : "";
    if (!groups.has(name)) {
      const group = make("optgroup");
      group.label = name;
      groups.set(name, group);
      filter.element.append(group);
    }
    groups.get(name).append(choice(String(place), text(value)));
  });
}
selects.base.element.parentElement.hidden = !severalBases;
const inputs = { least: part("filter-least"), most: part("filter-most"), words: part("filter-words"), order: part("order") };

for (const { name, meaning } of data.flags.filter(({ meaning }) => meaning)) {
  const row = make("div");
  row.append(make("dt", "", name), make("dd", "", meaning));
  part("flag-meanings").append(row);
}

// Controls to state and back; a value that no session has is dropped.
function readControls() {
  for (const [name, { element, options }] of Object.entries(selects)) {
    state[name] = element.value === "" ? "" : options[Number(element.value)];
  }
  for (const [name, element] of Object.entries(inputs)) state[name] = element.value;
}

function writeControls() {
  for (const [name, { element, options }] of Object.entries(selects)) {
    const place = options.indexOf(state[name]);
    element.value = place < 0 ? "" : String(place);
  }
  for (const [name, element] of Object.entries(inputs)) element.value = state[name];
  if (inputs.order.selectedIndex < 0) inputs.order.value = "";
  readControls();
}

// The words sought, as a pattern that finds them in whatever case.
function sought(flags) {
  const words = state.words.trim();
  return words ? new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+"), flags) : null;
}

function passing() {
  const tests = Object.entries(selects).filter(([name]) => state[name])
    .map(([name, { read }]) => (session) => read(session).includes(state[name]));
  if (state.least !== "") tests.push(({ total }) => total !== null && rounded(total) >= Number(state.least));
  if (state.most !== "") tests.push(({ total }) => total !== null && rounded(total) <= Number(state.most));
  const pattern = sought("iu");
  if (pattern) tests.push((_, index) => bodyOf(index).turns.some((turn) => pattern.test(turn.text)));
  return data.sessions.flatMap((session, index) => (tests.every((test) => test(session, index)) ? [index] : []));
}

function ordered(indices) {
  const [what, way] = state.order.split("-");
  if (!way) return indices;
  const sign = way === "up" ? 1 : -1;
  const value = (index) => data.sessions[index][what];
  // What has no total comes last, whichever way.
  return [...indices].sort((a, b) => (value(a) === null) - (value(b) === null) || sign * (value(a) - value(b)) || a - b);
}

function filterSessions() {
  shown = ordered(passing());
  list.replaceChildren(...shown.map(listItem));
  part("session-count").textContent = shown.length
    ? `${shown.length} of ${data.sessions.length} sessions` : "No session matches.";
}

const items = new Map();
function listItem(index) {
  if (items.has(index)) return items.get(index);
  const session = data.sessions[index];
  const button = make("button");
  button.type = "button";
  button.dataset.index = index;
  button.tabIndex = -1;
  const about = make("span", "about", [armOf(session), session.ending, seedOf(session)].filter(Boolean).join(", "));
  about.prepend(dot(session));
  button.append(make("span", "", session.patient),
    make("span", session.total === null ? "total gap" : "total", figure(session.total)), about);
  if (session.flags.length) button.append(make("span", "about raised", session.flags.join(" · ")));
  const item = make("li");
  item.append(button);
  items.set(index, item);
  return item;
}

function dot(session) {
  const arm = data.arms[session.arm];
  const mark = make("span", arm ? `mark shape-${arm.shape} fill-${arm.tone}` : "mark");
  if (arm) mark.style.setProperty("--arm", `var(--arm-${arm.hue}-${arm.tone})`);
  return mark;
}

function pointAt(index) {
  const current = list.querySelector("[aria-current]");
  if (current) {
    current.removeAttribute("aria-current");
    current.tabIndex = -1;
  }
  const button = items.get(index)?.firstChild;
  if (!button) return;
  button.setAttribute("aria-current", "true");
  button.tabIndex = 0;
}
