// What a rater has said, {rater, sessions: {code: {ratings: {domain: {score, evidence}}, note, seen}}}, in and out of a
// file. Training sessions are among the sessions here and apart in the file; `seen`: compared with the agreed scores.
"use strict";

function allSessions(data) {
  return [...(data.training ?? []), ...data.sessions];
}

function emptyRatings(data) {
  const sessions = {};
  for (const { code } of allSessions(data)) sessions[code] = { ratings: {}, note: "", seen: false };
  return { rater: "", sessions };
}

// As a file holds it, and `cbtrain rate import` reads it.
function packRatings(data, ratings) {
  const sessions = data.sessions.map(({ code }) => ({ code, ratings: ratings.sessions[code].ratings, note: ratings.sessions[code].note }));
  const training = (data.training ?? []).map(({ code }) => ({ code, ...ratings.sessions[code] }));
  return { schema: data.ratingsSchema, form: data.form, rater: ratings.rater.trim(), ...(training.length ? { training } : {}), sessions };
}

// What packRatings() gave, checked: throws an Error that says what is wrong with it.
function unpackRatings(data, text) {
  const domains = new Set(data.domains.map(({ id }) => id));
  const sessions = new Map(allSessions(data).map((session) => [session.code, session]));
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
  for (const given of [...(Array.isArray(found.training) ? found.training : []), ...found.sessions]) {
    const session = sessions.get(given?.code);
    if (!session) throw new Error("it has a session that this form has not");
    const own = taken.sessions[session.code];
    own.note = typeof given.note === "string" ? given.note : "";
    own.seen = given.seen === true;
    for (const [id, rating] of Object.entries(given.ratings ?? {})) {
      const score = rating?.score;
      const fits = score === undefined || score === data.unratable || data.points.includes(score);
      if (!domains.has(id) || !fits) throw new Error(`its ratings of session ${session.code} do not fit the scale`);
      const turns = Array.isArray(rating?.evidence) ? rating.evidence : [];
      const evidence = turns.filter((turn) => Number.isInteger(turn) && turn >= 1 && turn <= session.turns.length);
      own.ratings[id] = { score, evidence };
    }
  }
  return taken;
}

// The point that `key` means after `typed`, the keys before it, and what is then typed; null if it means none. "3" and
// "." and "5" are 3.5, "1" and "0" are 10.
function typedPoint(points, typed, key) {
  const sign = key === "," ? "." : key;
  if (!/^[-0-9.]$/.test(sign)) return null;
  for (const text of [typed + sign, sign]) {
    const point = points.find((one) => String(one) === text) ?? points.find((one) => String(one).startsWith(text));
    if (point !== undefined) return { point, typed: text };
  }
  return null;
}
