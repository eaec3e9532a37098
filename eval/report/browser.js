// What happens when: the address, the controls, the keys.
const MARK = "#transcripts&"; // addresses of the browser's own, beside those of the page's sections
const pickers = [...root.querySelectorAll(".rating-choice")];
for (const picker of pickers) {
  picker.hidden = data.raters.length < 2;
  picker.querySelector("select").append(choice("", data.meanLabel), ...data.raters.map((name) => choice(name, name)));
}

function show() {
  const index = indexOf(state.session);
  const beside = indexOf(state.beside);
  const two = index >= 0 && beside >= 0 && data.sessions[index].patient === data.sessions[beside].patient;
  if (!two) state.beside = "";
  for (const picker of pickers) picker.querySelector("select").value = state.rating;
  comparison.hidden = !two;
  for (const element of root.querySelectorAll(".filters, .flag-help, .panes")) element.hidden = two;
  if (two) openComparison([index, beside]);
  else openSession(index < 0 ? null : index);
}

function filterAndShow() {
  filterSessions();
  if (!shown.includes(indexOf(state.session))) state.session = shown.length ? keyOf(shown[0]) : "";
  show();
}

function read(session) {
  state.session = keyOf(session);
  show();
  remember();
}

function compare(pair) {
  [state.session, state.beside] = pair.map(keyOf);
  show();
  remember();
}

// The address

function remember() {
  const told = Object.entries(state).filter(([, value]) => value !== "");
  history.replaceState(null, "", MARK + new URLSearchParams(told));
}

function recall() {
  if (!location.hash.startsWith(MARK)) return false;
  const told = new URLSearchParams(location.hash.slice(MARK.length));
  for (const name of Object.keys(state)) state[name] = told.get(name) ?? "";
  if (!data.raters.includes(state.rating)) state.rating = "";
  writeControls();
  const { session, beside } = state;
  filterAndShow();
  // A link to two sessions holds whatever the filters say.
  if (indexOf(session) >= 0 && indexOf(beside) >= 0) {
    Object.assign(state, { session, beside });
    show();
  }
  return true;
}

addEventListener("hashchange", () => {
  if (recall()) root.scrollIntoView();
});

// The controls

const form = root.querySelector("form");
let waiting = 0;
function filterNow() {
  clearTimeout(waiting);
  waiting = 0;
  readControls();
  filterAndShow();
  remember();
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", filterNow);
form.addEventListener("input", (event) => {
  if (!event.target.matches("input")) return;
  clearTimeout(waiting);
  waiting = setTimeout(filterNow, 150);
});
form.addEventListener("reset", () => setTimeout(filterNow));

for (const picker of pickers) {
  picker.querySelector("select").addEventListener("change", (event) => {
    state.rating = event.target.value;
    show();
    remember();
  });
}

part("compare").addEventListener("click", () => {
  const index = indexOf(state.session);
  compare([index, partnerOf(index)]);
  part("comparison-title").focus();
});

sides.forEach(({ select }, place) => {
  select.addEventListener("change", () => {
    const pair = [indexOf(state.session), indexOf(state.beside)];
    pair[place] = Number(select.value);
    compare(pair);
  });
});

comparedPatient.addEventListener("change", () => {
  const own = sessionsOf(comparable[Number(comparedPatient.value)]);
  const like = (key, not) => {
    const { arm, seed } = data.sessions[indexOf(key)];
    const fit = (index) => 2 * (data.sessions[index].arm === arm) + (data.sessions[index].seed === seed);
    return own.filter((index) => index !== not).reduce((best, index) => (fit(index) > fit(best) ? index : best));
  };
  const first = like(state.session);
  compare([first, like(state.beside, first)]);
});

function closeComparison() {
  state.beside = "";
  if (!shown.includes(indexOf(state.session))) filterAndShow();
  else show();
  remember();
  part("compare").focus();
}
part("comparison-close").addEventListener("click", closeComparison);
document.addEventListener("keydown", (event) => {
  const here = document.activeElement === document.body || comparison.contains(document.activeElement);
  if (event.key === "Escape" && !comparison.hidden && here) closeComparison();
});

list.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  read(Number(button.dataset.index));
  if (matchMedia("(max-width: 40rem)").matches) part("session-title").scrollIntoView();
});

list.addEventListener("keydown", (event) => {
  const place = shown.indexOf(indexOf(state.session));
  const goal = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: shown.length - 1 }[event.key];
  if (goal === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (goal < 0 || goal >= shown.length) return;
  read(shown[goal]);
  list.querySelector("[aria-current=true]").focus();
});

part("browser-missing").remove();
root.hidden = false;
const recalled = recall();
if (!recalled) filterAndShow();
if (recalled) root.scrollIntoView();
