// The transcript browser. Everything from a transcript reaches the page through textContent and nothing else.
"use strict";
(() => {
  const root = document.getElementById("browser");
  if (!root) return;
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const part = (id) => document.getElementById(id);
  const list = part("session-list");
  const turns = part("turns");
  const GAP = "n/a";
  let shown = []; // indices of the sessions that pass the filters
  let open = null; // index of the session that is open
  let marked = null; // index of the domain whose evidence is marked

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const figure = (value) => (value === null ? GAP : String(Math.round(value * 100) / 100));
  const armOf = (session) => (session.arm === null ? "therapist not recorded" : data.arms[session.arm]);
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  // Filters

  const filters = [
    { select: part("filter-arm"), read: armOf, all: "All therapists" },
    { select: part("filter-patient"), read: (session) => session.patient, all: "All patients" },
    { select: part("filter-ending"), read: (session) => session.ending, all: "All endings" },
  ];
  for (const filter of filters) {
    const every = make("option", "", filter.all);
    every.value = "";
    filter.options = [...new Set(data.sessions.map(filter.read))];
    filter.select.append(every, ...filter.options.map((text, place) => {
      const option = make("option", "", text);
      option.value = String(place);
      return option;
    }));
    filter.select.addEventListener("change", filterSessions);
  }
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  function filterSessions() {
    const passes = (session) => filters.every(
      ({ select, read, options }) => select.value === "" || read(session) === options[Number(select.value)]);
    shown = data.sessions.map((_, index) => index).filter((index) => passes(data.sessions[index]));
    list.replaceChildren(...shown.map(listItem));
    part("session-count").textContent = shown.length
      ? `${shown.length} of ${data.sessions.length} sessions` : "No session matches.";
    openSession(shown.includes(open) ? open : shown.length ? shown[0] : null);
  }

  // The list

  function listItem(index) {
    const session = data.sessions[index];
    const button = make("button");
    button.type = "button";
    button.dataset.index = index;
    const dot = make("span", session.arm === 0 ? "dot first" : "dot");
    dot.style.setProperty("--arm", `var(--arm-${(session.arm ?? 0) % 6})`);
    const about = make("span", "about");
    about.append(dot, [armOf(session), session.ending, session.seed && `seed ${session.seed}`].filter(Boolean).join(", "));
    button.append(make("span", "", session.patient),
      make("span", session.total === null ? "total gap" : "total", figure(session.total)), about);
    const item = make("li");
    item.append(button);
    return item;
  }

  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    openSession(Number(button.dataset.index));
    if (matchMedia("(max-width: 40rem)").matches) part("session-title").scrollIntoView();
  });

  list.addEventListener("keydown", (event) => {
    const place = shown.indexOf(open);
    const goal = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (goal === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (goal < 0 || goal >= shown.length) return;
    openSession(shown[goal]);
    list.querySelector("[aria-current=true]").focus();
  });

  // One session

  function openSession(index) {
    open = index;
    marked = null;
    for (const button of list.querySelectorAll("button")) {
      const current = Number(button.dataset.index) === index;
      button.setAttribute("aria-current", String(current));
      button.tabIndex = current ? 0 : -1;
    }
    root.querySelector(".panes").hidden = index === null;
    if (index === null) return;
    const session = data.sessions[index];
    part("session-title").textContent = `${session.patient}, ${armOf(session)}`;
    part("session-facts").textContent = [
      session.id && `Session ${session.id}`, session.seed && `seed ${session.seed}`, `${session.turns.length} turns`,
      `ended: ${session.ending}`, session.status && `status: ${session.status}`].filter(Boolean).join(" · ");
    part("session-error").textContent = session.error && `Failed: ${session.error}`;
    part("session-error").hidden = !session.error;
    const bubbles = session.turns.map(bubble);
    turns.replaceChildren(...(bubbles.length ? bubbles : [make("li", "gap", "No turn was recorded.")]));
    turns.scrollTop = 0;
    const total = part("session-total");
    total.replaceChildren(make("span", session.total === null ? "gap" : "", figure(session.total)));
    if (data.totalHigh !== null && session.total !== null) total.append(make("small", "", ` of ${data.totalHigh}`));
    part("session-domains").replaceChildren(...data.domains.map((_, domain) => domainItem(session, domain)));
    part("evidence-status").textContent = session.evidence.some((found) => found.length)
      ? "Choose an underlined domain to mark the turns that its score rests on." : "No evidence was recorded.";
  }

  function bubble(turn, place) {
    const known = turn.role === "therapist" || turn.role === "patient";
    const item = make("li", known ? `turn ${turn.role}` : "turn");
    const who = make("p", "who", `${capital(turn.role || "speaker not recorded")} · ${place + 1}`);
    const text = make("p", turn.text ? "text" : "text gap", turn.text || "(empty turn)");
    text.dir = "auto";
    item.append(who, text);
    return item;
  }

  // Scores and their evidence

  function domainItem(session, domain) {
    const score = session.scores[domain];
    const evidence = session.evidence[domain];
    const row = make(evidence.length ? "button" : "div", evidence.length ? "" : "domain");
    const label = data.high !== null && score !== null ? `${figure(score)} / ${data.high}` : figure(score);
    row.append(make("span", "name", data.domains[domain]), make("span", score === null ? "score gap" : "score", label));
    if (score !== null && data.high > (data.low ?? 0)) {
      const meter = make("span", "meter");
      const bar = make("span");
      const low = data.low ?? 0;
      bar.style.width = `${100 * Math.min(Math.max((score - low) / (data.high - low), 0), 1)}%`;
      meter.append(bar);
      row.append(meter);
    }
    if (evidence.length) {
      row.type = "button";
      row.setAttribute("aria-pressed", "false");
      row.addEventListener("click", () => mark(marked === domain ? null : domain));
    }
    row.dataset.domain = domain;
    const item = make("li");
    item.append(row);
    return item;
  }

  function mark(domain) {
    marked = domain;
    const evidence = domain === null ? [] : data.sessions[open].evidence[domain];
    for (const button of part("session-domains").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.domain) === domain));
    }
    for (const [place, item] of [...turns.children].entries()) {
      const found = evidence.includes(place);
      item.classList.toggle("evidence", found);
      item.querySelector(".who b")?.remove();
      if (found) item.querySelector(".who").append(make("b", "", ` · ${data.domains[domain]}`));
    }
    const places = evidence.map((place) => place + 1);
    part("evidence-status").textContent = domain === null ? "No domain chosen."
      : `${data.domains[domain]}: ${places.length === 1 ? "turn" : "turns"} ${places.join(", ")} marked.`;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (evidence.length) turns.children[evidence[0]].scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }

  filterSessions();
  root.hidden = false;
  part("browser-missing").remove();
})();
