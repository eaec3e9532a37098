// Two sessions of one patient side by side.
const comparison = part("comparison");
const sides = [...comparison.querySelectorAll(".side")].map((element) => ({
  element,
  select: element.querySelector("select"),
  title: element.querySelector(".side-title"), // for print, where selects are left out
  facts: element.querySelector(".side-facts"),
  flags: element.querySelector(".flags"),
  error: element.querySelector(".error"),
  reasons: element.querySelector(".reasons"),
  turns: element.querySelector(".turns"),
}));
const comparedPatient = part("comparison-patient");

const sessionsOf = (patient) => data.sessions.flatMap((session, index) => (session.patient === patient ? [index] : []));
const comparable = distinct(data.sessions.map((session) => session.patient)).filter((name) => sessionsOf(name).length > 1);
comparedPatient.append(...comparable.map((name, place) => choice(String(place), name)));

// The session to put beside another: another therapist with the same seed, of the same base if there is one; else any
// seed; else another seed.
function partnerOf(index) {
  const { arm, seed, patient } = data.sessions[index];
  const base = baseOf(data.sessions[index]);
  const others = sessionsOf(patient).filter((other) => other !== index);
  const fit = (other) => {
    const session = data.sessions[other];
    return 4 * (session.arm !== arm) + 2 * (session.seed === seed) + (baseOf(session) === base);
  };
  return others.length ? others.reduce((best, other) => (fit(other) > fit(best) ? other : best)) : null;
}

// The therapist, and the seed where it is not that of `beside`.
function sessionName(index, beside) {
  const session = data.sessions[index];
  return [armOf(session), session.seed !== beside?.seed && seedOf(session)].filter(Boolean).join(", ");
}

function openComparison(pair) {
  marked = null;
  const patient = data.sessions[pair[0]].patient;
  const ratings = pair.map(ratingOf);
  part("comparison-title").textContent = `${patient}: ${pair.map((index) => sessionName(index)).join(" beside ")}`;
  comparedPatient.value = String(comparable.indexOf(patient));
  const own = sessionsOf(patient);
  sides.forEach((side, place) => {
    const session = data.sessions[pair[place]];
    side.select.replaceChildren(...own.map((index) => choice(String(index), sessionName(index))));
    side.select.value = String(pair[place]);
    side.title.textContent = sessionName(pair[place]);
    side.facts.textContent = factsOf(pair[place], ratings[place]);
    showFlags(side.flags, session);
    showError(side.error, session, ratings[place]);
    showDialogue(side.turns, pair[place], ratings[place], (domain, from) => markBoth(ratings, domain, from));
  });
  [...comparison.querySelectorAll("thead th")].slice(1, 3).forEach((cell, place) => {
    cell.replaceChildren(dot(data.sessions[pair[place]]), sessionName(pair[place], data.sessions[pair[1 - place]]));
  });
  part("comparison-domains").replaceChildren(
    comparedRow(make("b", "", data.totalHigh === null ? "Total" : `Total (of ${data.totalHigh})`), ratings.map(({ total }) => total)),
    ...data.domains.map((_, domain) => comparedRow(comparedName(ratings, domain), ratings.map(({ domains }) => domains[domain].score))));
  markBoth(ratings, null);
  part("comparison-status").textContent = "Difference: second minus first. Choose a domain for reasons and evidence.";
}

function comparedRow(name, values) {
  const row = make("tr");
  const head = make("th");
  head.scope = "row";
  head.append(name);
  const difference = values.includes(null) ? null : values[1] - values[0];
  row.append(head, ...[...values.map(figure), signed(difference)].map((text) => make("td", text === GAP ? "n gap" : "n", text)));
  return row;
}

function comparedName(ratings, domain) {
  const found = ratings.some(({ domains }) => domains[domain].evidence.length || domains[domain].reasons.length);
  if (!found) return make("span", "", data.domains[domain]);
  const button = make("button", "", data.domains[domain]);
  button.type = "button";
  button.dataset.domain = domain;
  button.addEventListener("click", () => markBoth(ratings, domain));
  return button;
}

function markBoth(ratings, domain, from) {
  marked = marked === domain ? null : domain;
  for (const button of part("comparison-domains").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.domain) === marked));
  }
  sides.forEach((side, place) => {
    const chosen = marked === null ? null : ratings[place].domains[marked];
    side.reasons.replaceChildren(...(chosen
      ? [make("h4", "", `${chosen.name}: ${scoreText(chosen.score)}`), ...reasonsOf(chosen)] : []));
    markTurns(side.turns, ratings[place], from);
  });
  const found = marked === null ? [] : ratings.map(({ domains }) => namedTurns(domains[marked].evidence));
  part("comparison-status").textContent = marked === null
    ? "No domain chosen." : `${data.domains[marked]} marked: first, ${found[0]}; second, ${found[1]}.`;
}
