// The rating form, after ratings.js. Transcripts and scale reach the page through textContent and nothing else.
(() => {
  const data = JSON.parse(document.getElementById("form-data").textContent);
  const part = (id) => document.getElementById(id);
  const KEPT = `${data.ratingsSchema}:${data.form}`;
  const NAMED = 4; // gaps of a session that are told by name; more of them are seen in the list
  let ratings = emptyRatings(data);
  let open = 0; // index of the session on show
  let active = 0; // index of the domain that is open, or null
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
  const said = () => ratings.sessions[data.sessions[open].code];
  const rated = (session, domain) => session.ratings[domain.id]?.score !== undefined;
  const gaps = (code) => data.domains.filter((domain) => !rated(ratings.sessions[code], domain));

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
    part("message").textContent = missing
      ? `Downloaded ${link.download}, with ${plural(missing, "rating")} still missing.` : `Downloaded ${link.download}, complete.`;
  }

  async function load(file) {
    try {
      const taken = unpackRatings(data, await file.text());
      const begun = data.sessions.some(({ code }) => gaps(code).length < data.domains.length);
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
    active = Math.max(0, data.domains.findIndex((domain) => !rated(said(), domain)));
    const session = data.sessions[open];
    part("rater").value = ratings.rater;
    part("session-title").textContent = `Session ${session.code}, ${open + 1} of ${data.sessions.length}`;
    const bubbles = session.turns.map(bubble);
    part("turns").replaceChildren(...(bubbles.length ? bubbles : [make("li", "gap", "No turn was recorded.")]));
    part("turns").scrollTop = 0;
    part("note").value = said().note;
    part("previous").disabled = open === 0;
    part("next").disabled = open === data.sessions.length - 1;
    part("domains").replaceChildren(...data.domains.map(domainItem));
    activate(active);
    tellProgress();
  }

  function countMissing() {
    return data.sessions.reduce((sum, { code }) => sum + gaps(code).length, 0);
  }

  function tellProgress() {
    const all = data.sessions.length * data.domains.length;
    const missing = countMissing();
    part("progress").max = all;
    part("progress").value = all - missing;
    const whole = data.sessions.filter(({ code }) => !gaps(code).length).length;
    const here = gaps(data.sessions[open].code);
    const names = here.length && here.length <= NAMED ? `; here: ${here.map(({ name }) => name).join(", ")}` : "";
    part("missing").textContent = missing
      ? `${whole} of ${plural(data.sessions.length, "session")} done, ${plural(missing, "rating")} missing${names}`
      : "Nothing is missing: download your ratings.";
    part("next-gap").hidden = !missing;
    part("sessions").replaceChildren(...data.sessions.map(({ code }, index) => {
      const left = gaps(code).length;
      const button = make("button", left ? "" : "done");
      button.type = "button";
      if (index === open) button.setAttribute("aria-current", "true");
      button.append(make("span", "code", code), make("span", "left", left ? `${data.domains.length - left}/${data.domains.length}` : "done"));
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
    const after = [...data.sessions.keys()].map((step) => (open + step) % data.sessions.length);
    const index = after.find((place) => gaps(data.sessions[place].code).length);
    if (index === undefined) return;
    if (index !== open) show(index);
    activate(data.domains.findIndex((domain) => !rated(said(), domain)), true);
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
    if (active === null) return;
    const domain = data.domains[active];
    const had = evidenceOf(domain);
    const evidence = had.includes(turn) ? had.filter((other) => other !== turn) : [...had, turn].sort((a, b) => a - b);
    said().ratings[domain.id] = { ...said().ratings[domain.id], evidence };
    keep();
    markTurns();
  }

  function markTurns() {
    const domain = active === null ? null : data.domains[active];
    const evidence = domain ? evidenceOf(domain) : [];
    for (const [place, item] of [...part("turns").querySelectorAll(".turn")].entries()) {
      const found = evidence.includes(place + 1);
      const who = item.querySelector(".who");
      item.classList.toggle("evidence", found);
      who.textContent = `${place + 1} · ${capital(data.sessions[open].turns[place].role)}${found ? ` · ${domain.name}` : ""}`;
      who.disabled = domain === null;
      who.setAttribute("aria-pressed", String(found));
    }
    part("marking").textContent = domain === null ? "Open a domain to mark the turns its rating rests on."
      : evidence.length ? `${domain.name}: ${evidence.length === 1 ? "turn" : "turns"} ${evidence.join(", ")} marked.`
      : `${domain.name}: click the turns that this rating rests on (optional).`;
  }

  // Domains and their points

  function domainItem(domain, index) {
    const item = make("li", "domain");
    const heading = make("h3");
    const head = make("button", "name");
    head.type = "button";
    head.id = `domain-${index}`;
    head.append(make("span", "", domain.name), make("span", "score"));
    head.addEventListener("click", () => activate(active === index ? null : index));
    heading.append(head);
    const body = make("fieldset");
    body.append(make("legend", "hidden", domain.name), make("p", "description", domain.description));
    const points = [...domain.anchors, [data.unratable, "Cannot be rated from this session"]];
    for (const [point, text] of points) {
      const label = make("label", "point");
      const radio = make("input");
      radio.type = "radio";
      radio.name = domain.id;
      radio.value = String(point);
      radio.addEventListener("change", () => choose(index, point));
      label.append(radio, make("b", "", point === data.unratable ? "x" : String(point)), make("span", "", text));
      body.append(label);
    }
    const steps = make("div", "steps");
    const clear = make("button", "plain", "Clear");
    clear.type = "button";
    clear.addEventListener("click", () => choose(index, undefined));
    steps.append(clear);
    if (index + 1 < data.domains.length) {
      const next = make("button", "", `Next: ${data.domains[index + 1].name}`);
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
    const domain = data.domains[index];
    const evidence = evidenceOf(domain);
    said().ratings[domain.id] = point === undefined ? { evidence } : { score: point, evidence };
    keep();
    tellScores();
    tellProgress();
  }

  function tellScores() {
    for (const [index, item] of [...part("domains").children].entries()) {
      const domain = data.domains[index];
      const score = said().ratings[domain.id]?.score;
      const text = item.querySelector(".score");
      text.textContent = score === undefined ? "missing" : score === data.unratable ? "cannot be rated" : `${score} of ${data.maximum}`;
      text.classList.toggle("gap", score === undefined);
      for (const radio of item.querySelectorAll("input")) radio.checked = radio.value === String(score);
    }
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
    const wanted = event.key.toLowerCase() === "x" ? data.unratable : event.key;
    const radio = [...event.currentTarget.querySelectorAll("input")].find(({ value }) => value === wanted);
    if (radio) {
      event.preventDefault();
      radio.focus();
      choose(index, wanted === data.unratable ? wanted : Number(wanted));
    } else if (event.key === "Enter" && event.target.type === "radio") {
      event.preventDefault();
      if (index + 1 < data.domains.length) activate(index + 1, true);
      else part("note").focus();
    }
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
  const begun = data.sessions.findIndex(({ code }) => gaps(code).length);
  show(Math.max(0, begun));
})();
