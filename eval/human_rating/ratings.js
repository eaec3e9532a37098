// What a rater has said, {rater, sessions: {code: {ratings: {domain: {score, evidence}}, note}}}, in and out of a file.
"use strict";

function emptyRatings(data) {
  const sessions = {};
  for (const { code } of data.sessions) sessions[code] = { ratings: {}, note: "" };
  return { rater: "", sessions };
}

// As a file holds it, and `cbtrain rate import` reads it.
function packRatings(data, ratings) {
  const sessions = data.sessions.map(({ code }) => ({ code, ...ratings.sessions[code] }));
  return { schema: data.ratingsSchema, form: data.form, rater: ratings.rater.trim(), sessions };
}

// What packRatings() gave, checked: throws an Error that says what is wrong with it.
function unpackRatings(data, text) {
  const domains = new Map(data.domains.map((domain) => [domain.id, domain]));
  const sessions = new Map(data.sessions.map((session) => [session.code, session]));
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("it is no file of ratings");
  }
  if (found?.schema !== data.ratingsSchema || !Array.isArray(found.sessions)) throw new Error("it is no file of ratings");
  if (found.form !== data.form) throw new Error(`it belongs to form ${found.form}, and this is form ${data.form}`);
  const taken = emptyRatings(data);
  taken.rater = typeof found.rater === "string" ? found.rater.slice(0, 60) : "";
  for (const given of found.sessions) {
    const session = sessions.get(given?.code);
    if (!session) throw new Error("it has a session that this form has not");
    const own = taken.sessions[session.code];
    own.note = typeof given.note === "string" ? given.note : "";
    for (const [id, rating] of Object.entries(given.ratings ?? {})) {
      const domain = domains.get(id);
      const score = rating?.score;
      const fits = score === undefined || score === data.unratable || domain?.anchors.some(([point]) => point === score);
      if (!domain || !fits) throw new Error(`its ratings of session ${session.code} do not fit the scale`);
      const turns = Array.isArray(rating?.evidence) ? rating.evidence : [];
      const evidence = turns.filter((turn) => Number.isInteger(turn) && turn >= 1 && turn <= session.turns.length);
      own.ratings[id] = { score, evidence };
    }
  }
  return taken;
}
