// One session: its dialogue with the evidence in place, its scores and the reasons for them.
const turns = part("turns");
let marked = null; // index of the domain whose evidence is strengthened, here and in a comparison

function factsOf(index, rating) {
  const session = data.sessions[index];
  return [session.id && `Session ${session.id}`, seedOf(session), `${session.length} turns`, `ended: ${session.ending}`,
    rating.status && `status: ${rating.status}`].filter(Boolean).join(" · ");
}

function showFlags(element, session) {
  element.replaceChildren(...session.flags.map((name) => {
    const flag = make("span", "", name);
    flag.title = data.flags.find((known) => known.name === name)?.meaning ?? "";
    return flag;
  }));
}

function showError(element, session, rating) {
  const parts = [session.error && `Failed: ${session.error}`, rating.error && `Rating: ${rating.error}`];
  element.textContent = parts.filter(Boolean).join(" ");
  element.hidden = !element.textContent;
}

// A dialogue in an ordered list; each turn that a score rests on carries a chip for every such domain.
function showDialogue(element, index, rating, choose) {
  const pattern = sought("giu");
  const { turns, asked } = bodyOf(index);
  const bubbles = turns.map((turn, place) => {
    const item = bubble(turn, place, rating, choose, pattern);
    if (asked[place]) item.append(askedDetails(turns, place, asked[place]));
    return item;
  });
  element.replaceChildren(...(bubbles.length ? bubbles : [make("li", "gap", "No turn was recorded.")]));
  element.scrollTop = 0;
  const found = element.querySelector("mark");
  if (found) element.scrollTop = found.offsetTop - element.clientHeight / 3;
}

function bubble(turn, place, rating, choose, pattern) {
  const known = turn.role === "therapist" || turn.role === "patient";
  const item = make("li", known ? `turn ${turn.role}` : "turn");
  const who = make("p", "who");
  who.append(make("span", "", `${capital(turn.role || "speaker not recorded")} · ${place + 1}`));
  rating.domains.forEach(({ name, evidence }, domain) => {
    if (!evidence.includes(place)) return;
    const chip = make("button", "chip", name);
    chip.type = "button";
    chip.tabIndex = -1; // the domain's own button does the same and is in the order of Tab
    chip.dataset.domain = domain;
    chip.addEventListener("click", () => choose(domain, item));
    who.append(" ", chip);
  });
  if (who.children.length > 1) item.classList.add("cited");
  const text = make("p", turn.text ? "text" : "text gap", turn.text ? undefined : "(empty turn)");
  text.dir = "auto";
  if (turn.text) text.append(...withMarks(turn.text, pattern));
  item.append(who, text);
  return item;
}

// How a turn came about, made when it is unfolded: its facts, the request as it was sent, and the raw reply.
function askedDetails(turns, place, asked) {
  const details = make("details", "asked");
  details.append(make("summary", "", "facts and request"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const { raw, text } = turns[place];
    const [, , request, , , , , seed] = asked;
    const frame = data.requests[request];
    details.append(make("p", "muted", factsText(asked)));
    if (frame) details.append(make("p", "muted", frame.local ? "On this machine, after the turns above:" : `POST ${frame.url}`),
      make("pre", "", JSON.stringify(requestOf(frame, turns, place, seed), null, 1)));
    if (raw) details.append(make("p", "muted", "The reply, before anything was taken out:"), make("pre", "", raw.join(text)));
    if (!frame) details.append(make("p", "muted", "The request is not in this page; cbtrain show may have it."));
  });
  return details;
}

function factsText([model, reason, , prompt, cached, answer, seconds, seed, { attempts = 1, ...others } = {}]) {
  const more = Object.entries(others).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  return [model === null ? "this machine" : data.models[model], prompt !== null && `${prompt} prompt tokens`,
    cached && `${cached} of them cached`, answer !== null && `${answer} answer tokens`,
    attempts === 0 ? "kept answer, not asked again" : seconds !== null && `${seconds} s`,
    attempts > 1 && `${attempts} attempts`, reason !== null && `finish reason ${data.reasons[reason]}`,
    seed !== null && `seed ${seed}`, ...more].filter(Boolean).join(" · ");
}

// The body of a request: the turns before it are put back into the list of messages.
function requestOf(frame, turns, place, seed) {
  if (frame.local) return frame.local;
  const body = structuredClone(frame.body);
  const before = turns.slice(frame.seen === null ? 0 : place - frame.seen, place);
  const messages = before.map(({ role, text }, index) => {
    const words = (index ? "" : frame.lead) + text;
    return frame.field === "contents" ? { role: role === frame.role ? "model" : "user", parts: [{ text: words }] }
      : { role: role === frame.role ? "assistant" : "user", content: words };
  });
  body[frame.field] = [...frame.head, ...messages];
  if (frame.seed) frame.seed.slice(0, -1).reduce((section, name) => section[name], body)[frame.seed.at(-1)] = seed;
  return body;
}

// The text in pieces: what was sought is marked, the rest is plain.
function withMarks(text, pattern) {
  if (!pattern) return [text];
  const pieces = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    pieces.push(text.slice(end, found.index), make("mark", "", found[0]));
    end = found.index + found[0].length;
  }
  return [...pieces, text.slice(end)];
}

// Strengthen the chosen domain's turns; the first of them comes into view, unless its reader stands at one already.
function markTurns(element, rating, from) {
  const evidence = marked === null ? [] : rating.domains[marked].evidence;
  for (const [place, item] of [...element.children].entries()) {
    item.classList.toggle("evidence", evidence.includes(place));
    for (const chip of item.querySelectorAll(".chip")) {
      chip.setAttribute("aria-pressed", String(Number(chip.dataset.domain) === marked));
    }
  }
  if (!evidence.length || from) return;
  bringIntoView(element, element.children[evidence[0]]);
}

// Inside a dialogue that scrolls only the dialogue moves: two smooth scrolls of one page would stop each other.
function bringIntoView(element, item) {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  if (getComputedStyle(element).overflowY === "visible") item.scrollIntoView({ block: "nearest", behavior });
  else element.scrollTo({ top: Math.max(item.offsetTop - 16, 0), behavior });
}

function namedTurns(evidence) {
  const places = evidence.map((place) => place + 1);
  return places.length ? `${places.length === 1 ? "turn" : "turns"} ${places.join(", ")}` : "no turn";
}

function reasonsOf({ reasons }) {
  return reasons.map(({ who, text }) => {
    const reason = make("p", "reason", text);
    reason.dir = "auto";
    if (who) reason.prepend(make("b", "", who), " ");
    return reason;
  });
}

const scoreText = (score) => (data.high !== null && score !== null ? `${figure(score)} / ${data.high}` : figure(score));
const totalText = (total) => (data.totalHigh !== null && total !== null ? ` of ${data.totalHigh}` : "");

// What the patient said to the questionnaire after the session; hidden where nothing was asked.
function showAnswers(element, answers) {
  element.hidden = !answers;
  const { means = [], words = "", problem = "" } = answers ?? {};
  const figures = means.map(([name, mean]) => `${name} ${figure(mean)}`).join(" · ");
  const reasons = [figures, words, problem && `Not filled in: ${problem}`].filter(Boolean);
  element.lastElementChild.replaceChildren(...reasonsOf({ reasons: reasons.map((text) => ({ text })) }));
}

// A summary of sessions before, or of this one; hidden where there is none.
function showSummary(element, text) {
  element.hidden = !text;
  element.lastElementChild.textContent = text ?? "";
}

function openSession(index) {
  marked = null;
  pointAt(index);
  root.querySelector(".panes").hidden = index === null;
  if (index === null) return;
  const session = data.sessions[index];
  const rating = ratingOf(index);
  part("session-title").textContent = `${session.patient}, ${armOf(session)}`;
  part("session-facts").textContent = factsOf(index, rating);
  showFlags(part("session-flags"), session);
  showError(part("session-error"), session, rating);
  const partner = partnerOf(index);
  part("compare").hidden = partner === null;
  if (partner !== null) part("compare").textContent = `Compare with ${sessionName(partner, session)}`;
  part("session-total").replaceChildren(
    make("span", rating.total === null ? "gap" : "", figure(rating.total)), make("small", "", totalText(rating.total)));
  part("session-notes").replaceChildren(...reasonsOf({ reasons: rating.notes }));
  showAnswers(part("session-answers"), bodyOf(index).answers);
  showSummary(part("session-begins"), bodyOf(index).begins_with);
  showSummary(part("session-summary"), bodyOf(index).summary);
  part("session-domains").replaceChildren(...rating.domains.map((_, domain) => domainItem(rating, domain)));
  part("evidence-status").textContent = rating.domains.some(({ evidence }) => evidence.length)
    ? "Turns that a score rests on name its domain. Choose a domain for the reason." : "No evidence was recorded.";
  showDialogue(turns, index, rating, (domain, from) => mark(index, domain, from));
}

function domainItem(rating, domain) {
  const { name, score, range, evidence, reasons } = rating.domains[domain];
  const active = evidence.length || reasons.length;
  const row = make(active ? "button" : "div", active ? "" : "domain");
  const value = make("span", score === null ? "score gap" : "score", scoreText(score));
  if (range) value.prepend(make("small", "", range));
  row.append(make("span", "name", name), value);
  if (score !== null && data.high > (data.low ?? 0)) {
    const meter = make("span", "meter");
    const bar = make("span");
    const low = data.low ?? 0;
    bar.style.width = `${100 * Math.min(Math.max((score - low) / (data.high - low), 0), 1)}%`;
    meter.append(bar);
    row.append(meter);
  }
  if (active) {
    row.type = "button";
    row.setAttribute("aria-pressed", "false");
    row.addEventListener("click", () => mark(indexOf(state.session), domain));
  }
  row.dataset.domain = domain;
  const item = make("li");
  item.append(row);
  return item;
}

function mark(index, domain, from) {
  marked = marked === domain ? null : domain;
  const rating = ratingOf(index);
  for (const row of part("session-domains").querySelectorAll("[data-domain]")) {
    const own = Number(row.dataset.domain) === marked;
    if (row.matches("button")) row.setAttribute("aria-pressed", String(own));
    for (const reason of row.parentElement.querySelectorAll(".reason")) reason.remove();
    if (own) row.after(...reasonsOf(rating.domains[marked]));
    if (own && from) row.scrollIntoView({ block: "nearest" });
  }
  part("evidence-status").textContent = marked === null ? "No domain chosen."
    : `${data.domains[marked]}: ${namedTurns(rating.domains[marked].evidence)} marked.`;
  markTurns(turns, rating, from);
}
