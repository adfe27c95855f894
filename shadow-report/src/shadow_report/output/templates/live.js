// A live page takes over what changed on the server, and keeps what the reader unfolded and sorted.
const every = Number(document.documentElement.dataset.refresh) * 1000;
const parts = ["header.banner", ".tiles", "main > section", "footer"];
const blocks = (of) => parts.flatMap((part) => Array.from(of.querySelectorAll(part)));
let served = blocks(document).map((block) => block.outerHTML);
const keep = (old, fresh) => {
  const unfolded = new Map(Array.from(old.querySelectorAll("details"), (d) => [d.dataset.key, d.open]));
  for (const details of fresh.querySelectorAll("details"))
    if (unfolded.has(details.dataset.key)) details.open = unfolded.get(details.dataset.key);
  const tables = fresh.querySelectorAll("table[data-sortable]");
  old.querySelectorAll("table[data-sortable]").forEach((table, index) => {
    const head = table.querySelector('th[aria-sort="ascending"], th[aria-sort="descending"]');
    const cell = head && tables[index]?.tHead.rows[0].cells[head.cellIndex];
    for (let turn = 0; cell && turn < 2 && cell.getAttribute("aria-sort") !== head.getAttribute("aria-sort"); turn++)
      sort(tables[index], cell);
  });
};
// The nearest part of the page that is the same one after it was replaced, and where in it.
const focusable = "a, button, summary, [tabindex]";
const keyed = (key) => document.querySelector(`[data-key="${CSS.escape(key)}"]`);
const finder = (element) => {
  const pair = element.closest("[data-key]"), block = element.closest(parts.join(","));
  const within = pair ?? block;
  if (!within) return null;
  const key = pair?.dataset.key, index = blocks(document).indexOf(block);
  const turn = Array.from(within.querySelectorAll(focusable)).indexOf(element);
  return () => (key ? keyed(key) : blocks(document)[index])?.querySelectorAll(focusable)[turn];
};
// What the reader sees, the focus first and then from the top; each with a way to find it again.
const top_of = (element) => element.getBoundingClientRect().top;
const seen = (refocus) => {
  const marks = Array.from(document.querySelectorAll("section[id], h2[id], [data-key]"), (element) => ({
    top: top_of(element),
    find: element.id ? () => document.getElementById(element.id) : () => keyed(element.dataset.key),
  }));
  if (refocus) marks.unshift({ top: top_of(document.activeElement), find: refocus });
  const within = marks.filter(({ top }) => top >= 0 && top < innerHeight);
  return [...within, ...marks.filter(({ top }) => top < 0).reverse()];
};
// The browser's own anchoring loses an element that is replaced, and would move the page once more.
document.documentElement.style.overflowAnchor = "none";
const take = (text) => {
  const next = new DOMParser().parseFromString(text, "text/html");
  const fresh = blocks(next), html = fresh.map((block) => block.outerHTML), old = blocks(document);
  // A reader who marks text loses it when its element is replaced.
  if (!getSelection().isCollapsed) return;
  const refocus = finder(document.activeElement), verdict = document.title;
  const same = fresh.length === old.length && document.documentElement.dataset.refresh === next.documentElement.dataset.refresh;
  if (!same) return location.reload();
  // At the very top the reader reads the verdict, below which all may move.
  const marks = scrollY > 0 ? seen(refocus) : [];
  fresh.forEach((block, index) => {
    if (html[index] === served[index]) return;
    keep(old[index], block);
    old[index].replaceWith(document.adoptNode(block));
  });
  served = html;
  document.title = next.title;
  const said = document.getElementById("said");
  said.textContent = document.title === verdict ? "" : `The verdict is now ${next.querySelector("h1").textContent.trim()}.`;
  if (refocus && !finder(document.activeElement)) refocus()?.focus({ preventScroll: true });
  const mark = marks.find(({ find }) => find());
  if (mark) scrollBy({ top: top_of(mark.find()) - mark.top, behavior: "instant" });
};
const refresh = async () => {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    take(await answer.text());
  } catch {
    document.getElementById("age").textContent = "shadow-report does not answer; these are its last figures.";
    served = served.map((html, index) => (index ? html : ""));
  }
  setTimeout(refresh, every);
};
setTimeout(refresh, every);
