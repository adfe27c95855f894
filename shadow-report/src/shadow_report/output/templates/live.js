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
const path = (element) => {
  const block = element.closest(parts.join(","));
  return block && [blocks(document).indexOf(block), Array.from(block.querySelectorAll("a, button, summary, [tabindex]")).indexOf(element)];
};
const take = (text) => {
  const next = new DOMParser().parseFromString(text, "text/html");
  const fresh = blocks(next), html = fresh.map((block) => block.outerHTML), old = blocks(document);
  // A reader who marks text loses it when its element is replaced.
  if (!getSelection().isCollapsed) return;
  const focused = path(document.activeElement), verdict = document.title;
  const same = fresh.length === old.length && document.documentElement.dataset.refresh === next.documentElement.dataset.refresh;
  if (!same) return location.reload();
  fresh.forEach((block, index) => {
    if (html[index] === served[index]) return;
    keep(old[index], block);
    old[index].replaceWith(document.adoptNode(block));
  });
  served = html;
  document.title = next.title;
  const said = document.getElementById("said");
  said.textContent = document.title === verdict ? "" : `The verdict is now ${next.querySelector("h1").textContent.trim()}.`;
  if (focused && !path(document.activeElement))
    blocks(document)[focused[0]]?.querySelectorAll("a, button, summary, [tabindex]")[focused[1]]?.focus({ preventScroll: true });
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
