// Answers the queries of every search box on the page that is not at work yet, each from the catalogue that it brought along.
"use strict";

(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? []; // what Python's \w+ finds
  const phrases = (found, longest) => // every run of words, once
    new Set(found.flatMap((_, i) => found.slice(i, i + longest).map((_, j, run) => run.slice(0, j + 1).join(" "))));

  async function unpacked(text) {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function matrix({ numbers, scales }, width) {
    const codes = new Int8Array(bytes(numbers).buffer), scale = new Float32Array(bytes(scales).buffer);
    return Float32Array.from(codes, (code, i) => code * scale[Math.floor(i / width)]);
  }

  // The items that hold a word, each with how often.
  function held(posting) {
    const counts = new Map();
    for (let i = 0, item = -1; i < posting.length; i += 2) counts.set((item += posting[i]), posting[i + 1]);
    return counts;
  }

  // Inner products with the sum of the words, which ranks as their mean does; null where nothing is known of any.
  function byVectors(system, places, n) {
    const { width } = system, query = new Float64Array(width), scores = new Float64Array(n);
    for (const place of places) for (let j = 0; j < width; j++) query[j] += system.words[place * width + j];
    if (!query.some(Boolean)) return null;
    for (let i = 0; i < n; i++) for (let j = 0; j < width; j++) scores[i] += query[j] * system.items[i * width + j];
    for (const item of system.silent) scores[item] = -Infinity;
    return scores;
  }

  // BM25 in Lucene's form; null where no text holds a word of the query.
  function byWords({ k1, b }, asked, postings, lengths) {
    const n = lengths.length, mean = lengths.reduce((sum, length) => sum + length, 0) / n, scores = new Float64Array(n);
    for (const items of asked.map((word) => postings.get(word)).filter(Boolean)) {
      const rarity = Math.log1p((n - items.size + 0.5) / (items.size + 0.5));
      for (const [item, count] of items) scores[item] += (rarity * count) / (count + k1 * (1 - b + (b * lengths[item]) / mean));
    }
    return scores.some(Boolean) ? scores.map((score) => score || -Infinity) : null;
  }

  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  // The first words, and how many more there are: what is said is read out whole.
  function few(list, most = 12) {
    const more = list.length - most;
    return list.slice(0, most).map((word) => cut(word, 40)).join(", ") + (more > 0 ? ` and ${more.toLocaleString("en")} more` : "");
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    return made;
  }

  async function start(box) {
    const packed = box.dataset.catalogue;
    delete box.dataset.catalogue;
    const catalogue = await unpacked(packed), n = catalogue.titles.length;
    const systems = Object.values(catalogue.systems).map((s) => ({ ...s, words: matrix(s.words, s.width), items: matrix(s.items, s.width) }));
    const vocabulary = new Map(catalogue.vocabulary.map((word, place) => [word, place]));
    const postings = new Map(catalogue.terms.map((word, i) => [word, held(catalogue.postings[i])]));
    const lengths = new Float64Array(n);
    for (const items of postings.values()) for (const [item, count] of items) lengths[item] += count;

    const form = box.querySelector("form"), input = box.querySelector("input"), status = box.querySelector(".zsr-search-status");
    const columns = [...box.querySelectorAll(".zsr-search-columns > div")];

    function search() {
      const asked = words(input.value), unique = [...new Set(asked)];
      const places = [...phrases(asked, catalogue.longest)].map((phrase) => vocabulary.get(phrase)).filter((place) => place !== undefined);
      const answers = systems.map((system) => byVectors(system, places, n));
      if (catalogue.bm25) answers.push(byWords(catalogue.bm25, asked, postings, lengths));
      const sizes = columns.map((column, c) => show(column, answers[c], unique));
      box.querySelector(".zsr-search-columns").hidden = !asked.length;
      status.replaceChildren(asked.length ? `Found for “${cut(input.value.trim(), 80)}”: ${sizes.join(" · ")}.` : "Type a query of one or more words.");
      const strange = unique.filter((word) => !vocabulary.has(word));
      const rare = strange.filter((word) => catalogue.bm25 && postings.has(word)), unknown = strange.filter((word) => !rare.includes(word));
      if (unknown.length) status.append(element("b", "zsr-search-unknown", `unknown: ${few(unknown)}`));
      if (rare.length) status.append(element("b", "zsr-search-rare", `known to BM25 alone: ${few(rare)}`));
    }

    // Fills one column, and says how many items it found.
    function show(column, scores, asked) {
      const found = [...(scores?.keys() ?? [])].filter((item) => scores[item] > -Infinity);
      const best = found.sort((x, y) => scores[y] - scores[x]).slice(0, catalogue.k);
      column.querySelector("ol").replaceChildren(...best.map((item) => {
        const line = element("li", "", ""), shared = asked.filter((word) => postings.get(word)?.has(item));
        line.append(element("span", "zsr-search-title", catalogue.titles[item]));
        const why = element("span", "zsr-search-why", shared.length ? `holds: ${shared.join(", ")}` : "");
        if (!shared.length) why.append(element("span", "zsr-search-badge", catalogue.badge));
        line.append(why);
        return line;
      }));
      column.querySelector(".zsr-search-message").textContent = best.length ? "" : "Nothing found: this search knows no word of the query.";
      return `${column.querySelector(".zsr-search-name").textContent} ${best.length} ${best.length === 1 ? "item" : "items"}`;
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      search();
    });
    for (const button of box.querySelectorAll(".zsr-search-examples button")) {
      button.addEventListener("click", () => {
        input.value = button.textContent;
        search();
      });
    }
    search();
    box.querySelector(".zsr-search-live").hidden = false;
    box.querySelector("details").open = false;
  }

  if (!("DecompressionStream" in window)) return; // a browser of before 2023 keeps the tables
  for (const box of document.querySelectorAll(".zsr-search[data-catalogue]")) start(box);
})();
