// A training session: the rater's scores beside the agreed ones.

// One row for each domain that has an agreed score; `difference` is null where one of the two cannot be rated.
function comparisonOf(data, session, said) {
  const rows = [];
  for (const domain of data.domains) {
    const [agreed] = session.given?.[domain.id] ?? [];
    if (!agreed) continue;
    const own = said.ratings[domain.id]?.score;
    const numbers = typeof own === "number" && typeof agreed.score === "number";
    rows.push({ domain, own, agreed, difference: numbers ? Math.round((own - agreed.score) * 1e6) / 1e6 : null });
  }
  return rows;
}

function comparisonWords(rows) {
  const sizes = rows.filter(({ difference }) => difference !== null).map(({ difference }) => Math.abs(difference));
  if (!sizes.length) return "No domain can be compared.";
  const mean = sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
  const exact = sizes.filter((size) => size === 0).length;
  const near = sizes.filter((size) => size <= 1).length;
  return `${exact} of ${sizes.length} the same, ${near} at most one point apart; mean difference ${mean.toFixed(2)} points.`;
}

function signed(difference) {
  return difference > 0 ? `+${difference}` : difference < 0 ? `−${-difference}` : "0";
}

// An opinion on a domain as text: "4 (turns 2, 7). Because …".
function opinionWords(data, { score, turns, reason }) {
  const where = turns.length ? ` (${turns.length === 1 ? "turn" : "turns"} ${turns.join(", ")})` : "";
  return `${score === data.unratable ? "cannot be rated" : score}${where}${reason ? `. ${reason}` : ""}`;
}
