// The rating form, after ratings.js and training.js. Transcripts and scale reach the page through textContent and nothing else.
(() => {
  const data = JSON.parse(document.getElementById("form-data").textContent);
  const part = (id) => document.getElementById(id);
  const KEPT = `${data.ratingsSchema}:${data.form}`;
  const SOON = 1500; // milliseconds between two keys of one number
  const sessions = allSessions(data); // those of the training first
  const training = data.training ?? [];
  const NAMED = 4; // gaps of a session that are told by name; more of them are seen in the list
  let ratings = emptyRatings(data);
  let open = 0; // index of the session on show
  let domains = data.domains; // those of the session on show
  let active = 0; // index of the domain that is open, or null
  let typed = { text: "", at: -SOON, index: null }; // keys of a number so far
  let keeps = true; // whether this browser keeps what is said
  let unsaved = false; // something was said after the last download

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const said = () => ratings.sessions[sessions[open].code];
  const rated = (session, domain) => session.ratings[domain.id]?.score !== undefined;
  const domainsOf = (session) => data.domains.filter(({ id }) => !session.domains || session.domains.includes(id));
  const gaps = (session) => domainsOf(session).filter((domain) => !rated(ratings.sessions[session.code], domain));
  const seen = (session) => ratings.sessions[session.code].seen;
  const done = (session) => !gaps(session).length && (!training.includes(session) || seen(session));
  const locked = () => training.includes(sessions[open]) && seen(sessions[open]); // what was compared stays
  const trained = () => training.every((session) => seen(session));
  const reachable = (index) => index < training.length || trained();

  // In and out

  function keep() {
    unsaved = true;
    try {
      localStorage.setItem(KEPT, JSON.stringify(packRatings(data, ratings)));
      keeps = true;
      part("kept").textContent = "Kept in this browser, on this machine only.";
      part("kept").classList.remove("warning");
    } catch {
      keepsNothing();
    }
  }

  function keepsNothing() {
    keeps = false;
    part("kept").textContent = "This browser keeps nothing for this page: download your ratings before you close it.";
    part("kept").classList.add("warning");
  }

  function restore() {
    try {
      const kept = localStorage.getItem(KEPT);
      localStorage.setItem(`${KEPT}:test`, "1"); // reading may be allowed where writing is not
      localStorage.removeItem(`${KEPT}:test`);
      if (kept === null) {
        part("kept").textContent = "What you rate is kept in this browser, on this machine only.";
        return;
      }
      ratings = unpackRatings(data, kept);
      part("kept").textContent = "Taken up where you stopped in this browser.";
    } catch (error) {
      if (error instanceof DOMException) keepsNothing();
      else part("message").textContent = `What this browser had kept could not be used: ${error.message}.`;
    }
  }

  function download() {
    ratings.rater = ratings.rater.trim();
    if (!ratings.rater) {
      part("message").textContent = "Enter your name or initials first.";
      part("rater").focus();
      return;
    }
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(packRatings(data, ratings), null, 1)], { type: "application/json" }));
    link.download = `ratings-${data.form}-${ratings.rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    unsaved = false;
    const missing = countMissing();
    part("message").textContent = missing || !trained()
      ? `Downloaded ${link.download}, with ${plural(missing, "rating")} still missing${trained() ? "" : " and the training not finished"}.` : `Downloaded ${link.download}, complete.`;
  }

  async function load(file) {
    try {
      const taken = unpackRatings(data, await file.text());
      const begun = sessions.some((session) => gaps(session).length < domainsOf(session).length);
      if (begun && !confirm("Replace what is rated on this page by what is in the file?")) return;
      ratings = taken;
      keep();
      show(0);
      part("message").textContent = `Taken up from ${file.name}.`;
    } catch (error) {
      part("message").textContent = `${file.name} was not taken: ${error.message}.`;
    }
  }

  // Sessions and progress

  function show(index) {
    open = index;
    const session = sessions[open];
    domains = domainsOf(session);
    active = Math.max(0, domains.findIndex((domain) => !rated(said(), domain)));
    const place = training.includes(session) ? [open + 1, training.length] : [open + 1 - training.length, data.sessions.length];
    part("rater").value = ratings.rater;
    part("session-title").textContent = `${training.includes(session) ? "Training session" : "Session"} ${session.code}, ${place.join(" of ")}`;
    const bubbles = session.turns.map(bubble);
    part("turns").replaceChildren(...(bubbles.length ? bubbles : [make("li", "gap", "No turn was recorded.")]));
    part("turns").scrollTop = 0;
    part("note").value = said().note;
    part("domains").replaceChildren(...domains.map(domainItem));
    activate(active);
    tellProgress();
  }

  function countMissing() {
    return sessions.reduce((sum, session) => sum + gaps(session).length, 0);
  }

  function tellProgress() {
    const all = sessions.reduce((sum, session) => sum + domainsOf(session).length, 0);
    const missing = countMissing();
    part("progress").max = all;
    part("progress").value = all - missing;
    const whole = sessions.filter(done).length;
    const here = gaps(sessions[open]);
    const names = here.length && here.length <= NAMED ? `; here: ${here.map(({ name }) => name).join(", ")}` : "";
    part("missing").textContent = missing
      ? `${whole} of ${plural(sessions.length, "session")} done, ${plural(missing, "rating")} missing${names}`
      : trained() ? "Nothing is missing: download your ratings." : "Compare the training sessions with the agreed scores.";
    part("next-gap").hidden = !missing && trained();
    part("previous").disabled = open === 0;
    part("next").disabled = open === sessions.length - 1 || !reachable(open + 1);
    tellComparison();
    part("sessions").replaceChildren(...sessions.map((session, index) => {
      const left = gaps(session).length;
      const wanted = domainsOf(session).length;
      const button = make("button", done(session) ? "done" : "");
      button.type = "button";
      button.disabled = !reachable(index);
      if (index === open) button.setAttribute("aria-current", "true");
      const state = done(session) ? "done" : left ? `${wanted - left}/${wanted}` : "compare";
      button.append(make("span", "code", session.code), make("span", "left", training.includes(session) ? `training, ${state}` : state));
      button.addEventListener("click", () => go(index));
      const item = make("li");
      item.append(button);
      return item;
    }));
  }

  function go(index) {
    show(index);
    part("session-title").focus({ preventScroll: true });
    part("dialogue").scrollIntoView({ block: "nearest" });
  }

  function nextGap() {
    const after = [...sessions.keys()].map((step) => (open + step) % sessions.length);
    const index = after.find((place) => reachable(place) && !done(sessions[place]));
    if (index === undefined) return;
    if (index !== open) show(index);
    if (gaps(sessions[open]).length) activate(domains.findIndex((domain) => !rated(said(), domain)), true);
    else part("compare").focus();
  }

  // The dialogue, and turns as evidence

  function bubble(turn, place) {
    const item = make("li", `turn ${turn.role === "therapist" ? "therapist" : "patient"}`);
    const who = make("button", "who");
    who.type = "button";
    const text = make("p", turn.text ? "text" : "text gap", turn.text || "(empty turn)");
    text.dir = "auto";
    who.addEventListener("click", () => toggleEvidence(place + 1));
    text.addEventListener("click", () => {
      if (getSelection().isCollapsed) toggleEvidence(place + 1);
    });
    item.append(who, text);
    return item;
  }

  function evidenceOf(domain) {
    return said().ratings[domain.id]?.evidence ?? [];
  }

  function toggleEvidence(turn) {
    if (active === null || locked()) return;
    const domain = domains[active];
    const had = evidenceOf(domain);
    const evidence = had.includes(turn) ? had.filter((other) => other !== turn) : [...had, turn].sort((a, b) => a - b);
    said().ratings[domain.id] = { ...said().ratings[domain.id], evidence };
    keep();
    markTurns();
  }

  function markTurns() {
    const domain = active === null ? null : domains[active];
    const evidence = domain ? evidenceOf(domain) : [];
    for (const [place, item] of [...part("turns").querySelectorAll(".turn")].entries()) {
      const found = evidence.includes(place + 1);
      const who = item.querySelector(".who");
      item.classList.toggle("evidence", found);
      who.textContent = `${place + 1} · ${capital(sessions[open].turns[place].role)}${found ? ` · ${domain.name}` : ""}`;
      who.disabled = domain === null || locked();
      who.setAttribute("aria-pressed", String(found));
    }
    part("marking").textContent = domain === null ? "Open a domain to mark the turns its rating rests on."
      : evidence.length ? `${domain.name}: ${evidence.length === 1 ? "turn" : "turns"} ${evidence.join(", ")} marked.`
      : `${domain.name}: click the turns that this rating rests on (optional).`;
  }

  // Domains and their points

  function domainItem(domain, index) {
    const item = make("li", "domain");
    if (domain.subscale !== (domains[index - 1]?.subscale ?? "")) item.append(make("p", "subscale", domain.subscale || "Other domains"));
    const heading = make("h3");
    const head = make("button", "name");
    head.type = "button";
    head.id = `domain-${index}`;
    head.append(make("span", "", domain.name), make("span", "score"));
    head.addEventListener("click", () => activate(active === index ? null : index));
    heading.append(head);
    const body = make("fieldset");
    body.append(make("legend", "hidden", domain.name));
    if (domain.description) body.append(make("p", "description", domain.description));
    const others = training.includes(sessions[open]) ? [] : sessions[open].given?.[domain.id] ?? [];
    if (others.length) body.append(make("p", "others", `Said so far: ${others.map((one) => opinionWords(data, one)).join("; ")}`));
    const anchors = new Map(domain.anchors);
    let row = null; // of points without a description, which stand side by side
    for (const point of [...data.points, data.unratable]) {
      const text = point === data.unratable ? "Cannot be rated from this session" : anchors.get(point);
      const label = make("label", text ? "point" : "point bare");
      const radio = make("input");
      radio.type = "radio";
      radio.name = domain.id;
      radio.value = String(point);
      radio.addEventListener("change", () => choose(index, point));
      label.append(radio, make("b", "", point === data.unratable ? "x" : String(point)));
      if (text) {
        label.append(make("span", "", text));
        body.append(label);
        row = null;
      } else {
        if (!row) body.append(row = make("div", "between"));
        row.append(label);
      }
    }
    body.append(make("p", "agreed"));
    const steps = make("div", "steps");
    const clear = make("button", "plain clear", "Clear");
    clear.type = "button";
    clear.addEventListener("click", () => choose(index, undefined));
    steps.append(clear);
    if (index + 1 < domains.length) {
      const next = make("button", "", `Next: ${domains[index + 1].name}`);
      next.type = "button";
      next.addEventListener("click", () => activate(index + 1, true));
      steps.append(next);
    }
    body.append(steps);
    item.append(heading, body);
    item.addEventListener("keydown", (event) => keyed(event, index));
    return item;
  }

  function choose(index, point) {
    if (locked()) return;
    const domain = domains[index];
    const evidence = evidenceOf(domain);
    said().ratings[domain.id] = point === undefined ? { evidence } : { score: point, evidence };
    keep();
    tellScores();
    tellProgress();
  }

  function tellScores() {
    for (const [index, item] of [...part("domains").children].entries()) {
      const domain = domains[index];
      const score = said().ratings[domain.id]?.score;
      const text = item.querySelector(".score");
      text.textContent = score === undefined ? "missing" : score === data.unratable ? "cannot be rated" : `${score} of ${data.maximum}`;
      text.classList.toggle("gap", score === undefined);
      for (const radio of item.querySelectorAll("input")) {
        radio.checked = radio.value === String(score);
        radio.disabled = locked();
      }
      item.querySelector(".clear").hidden = locked();
    }
    if (locked()) tellAgreed();
  }

  // The agreed scores of a training session

  function tellAgreed() {
    for (const { domain, agreed, difference } of comparisonOf(data, sessions[open], said())) {
      const item = part("domains").children[domains.indexOf(domain)];
      const moved = difference === null ? "" : ` (${signed(difference)})`;
      item.querySelector(".score").textContent += `, agreed ${agreed.score}${moved}`;
      item.querySelector(".agreed").textContent = `Agreed: ${opinionWords(data, agreed)}`;
    }
  }

  function tellComparison() {
    const session = sessions[open];
    part("comparison").hidden = !training.includes(session);
    if (!training.includes(session)) return;
    const left = gaps(session).length;
    const rows = seen(session) ? comparisonOf(data, session, said()) : [];
    part("compare").hidden = seen(session);
    part("compare").disabled = left > 0;
    part("compared").textContent = seen(session) ? `${comparisonWords(rows)} ${session.note ?? ""}`.trim()
      : left ? `For training: rate the ${plural(left, "domain")} left, then compare with the agreed scores.`
      : "For training: once you compare, your ratings of this session stay as they are.";
    part("differences").hidden = !seen(session);
    part("differences").querySelector("tbody").replaceChildren(...rows.map(({ domain, own, agreed, difference }) => {
      const line = make("tr", difference ? "differs" : "");
      const name = make("th", "", domain.name);
      name.scope = "row";
      line.append(name, make("td", "", String(own ?? "")), make("td", "", String(agreed.score)), make("td", "", difference === null ? "" : signed(difference)), make("td", "why", agreed.reason));
      return line;
    }));
  }

  function compare() {
    if (gaps(sessions[open]).length) return;
    said().seen = true;
    keep();
    activate(active);
    tellProgress();
    part("compared").focus();
  }

  function activate(index, focus = false) {
    active = index;
    for (const [place, item] of [...part("domains").children].entries()) {
      item.classList.toggle("open", place === active);
      item.querySelector("fieldset").hidden = place !== active;
      item.querySelector(".name").setAttribute("aria-expanded", String(place === active));
    }
    tellScores();
    markTurns();
    if (focus && active !== null) {
      const item = part("domains").children[active];
      (item.querySelector("input:checked") ?? item.querySelector("input")).focus({ preventScroll: true });
      item.scrollIntoView({ block: "nearest" });
    }
  }

  function keyed(event, index) {
    if (event.ctrlKey || event.altKey || event.metaKey || active !== index) return;
    const point = event.key.toLowerCase() === "x" ? data.unratable : pointOf(event, index);
    const radio = [...event.currentTarget.querySelectorAll("input")].find(({ value }) => value === String(point));
    if (radio) {
      event.preventDefault();
      radio.focus();
      choose(index, point);
    } else if (event.key === "Enter" && event.target.type === "radio") {
      event.preventDefault();
      if (index + 1 < domains.length) activate(index + 1, true);
      else part("note").focus();
    }
  }

  // The point that a key means: a number may take several keys, and a decimal mark goes on with the score that is there.
  function pointOf(event, index) {
    const score = said().ratings[domains[index].id]?.score;
    const goesOn = typed.index === index && event.timeStamp - typed.at < SOON;
    const before = goesOn ? typed.text : ".,".includes(event.key) && typeof score === "number" ? String(score) : "";
    const found = typedPoint(data.points, before, event.key);
    typed = { text: found?.typed ?? "", at: event.timeStamp, index };
    return found?.point;
  }

  part("rater").addEventListener("input", () => {
    ratings.rater = part("rater").value;
    keep();
  });
  part("note").addEventListener("input", () => {
    said().note = part("note").value;
    keep();
  });
  part("download").addEventListener("click", download);
  part("load").addEventListener("change", () => {
    const [file] = part("load").files;
    if (file) load(file).then(() => { part("load").value = ""; }); // the same file may be taken again
  });
  part("compare").addEventListener("click", compare);
  part("next-gap").addEventListener("click", nextGap);
  part("previous").addEventListener("click", () => go(open - 1));
  part("next").addEventListener("click", () => go(open + 1));
  addEventListener("storage", (event) => {
    if (event.key === KEPT && event.newValue) {
      part("message").textContent = "This form is open in another tab too: only what was said last is kept. Close one of them.";
    }
  });
  addEventListener("beforeunload", (event) => {
    if (!keeps && unsaved) event.preventDefault();
  });

  restore();
  if (ratings.rater) part("how").open = false; // read before
  part("rating").hidden = false;
  part("script-missing").remove();
  const begun = sessions.findIndex((session) => !done(session));
  show(Math.max(0, begun));
})();
