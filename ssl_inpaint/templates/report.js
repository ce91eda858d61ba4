(() => {
  "use strict";
  const DASH = "\u2013";
  const SECONDS = { s: 1, second: 1, min: 60, minute: 60, h: 3600, hour: 3600, day: 86400, week: 604800, month: 2629800 };
  const words = new Intl.Collator("en", { numeric: true });
  document.documentElement.classList.add("has-script");

  // Sorting: a column's own best-known order first, then the other way round, then as it was; dashes always last.

  const textAt = (row, at) => row.cells[at].textContent.trim();

  function durationOf(text) {
    const [, amount, unit] = /^<?\s*([\d.]+)\s*([a-z]+?)s?$/i.exec(text) ?? [];
    return unit === undefined || !(unit in SECONDS) ? NaN : Number(amount) * SECONDS[unit];
  }

  function readerOf(rows, at, isNumber) {
    const filled = rows.map((row) => textAt(row, at)).filter((text) => text !== DASH);
    if (isNumber) return Number.parseFloat;
    // "s" alone is a unit too, so it is not taken for the ending of a plural.
    const duration = (text) => (/^[\d.]+ s$/.test(text) ? Number.parseFloat(text) : durationOf(text));
    return filled.length && filled.every((text) => !Number.isNaN(duration(text))) ? duration : null;
  }

  function sorted(rows, at, isNumber, isRising) {
    const reader = readerOf(rows, at, isNumber);
    const keyed = rows.map((row) => [textAt(row, at), row]);
    const sign = isRising ? 1 : -1;
    return keyed
      .sort(([a], [b]) => {
        if (a === DASH || b === DASH) return (a === DASH) - (b === DASH);
        return sign * (reader ? reader(a) - reader(b) : words.compare(a, b));
      })
      .map(([, row]) => row);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, at) => {
      const isNumber = header.classList.contains("n");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const order = isNumber ? ["descending", "ascending", null] : ["ascending", "descending", null];
        const next = order[(order.indexOf(header.getAttribute("aria-sort")) + 1) % 3];
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) header.setAttribute("aria-sort", next);
        body.append(...(next ? sorted(original, at, isNumber, next === "ascending") : original));
      });
    });
  }

  // Provenance: the records behind a number, put together when they are asked for.

  const LABELS = {
    value: "value", seed: "seed", split: "split", n_examples: "examples", dataset: "data", dataset_sha256: "data SHA-256",
    protocol: "protocol", mode: "mode", metric: "metric", commit: "commit", device: "device", workers: "workers",
    seconds: "time", pretraining_seconds: "pretraining time", versions: "versions", created_at: "measured at",
    weights_sha256: "weights SHA-256", config_hash: "settings hash", recipe: "recipe", pretext: "pretext task",
    supervision: "supervision", encoder: "encoder", method: "method", task: "task", source: "source",
    higher_is_better: "higher is better", schema: "schema",
  };
  const popover = document.getElementById("provenance");
  let stored = null; // the records, read when the first of them is asked for
  let opener = null; // the button whose provenance is shown
  let dismissed = null; // the button whose provenance was closed last: the focus it gets back does not open it again
  let isPinned = false;
  let timer = 0;

  function recordAt(place) {
    stored ??= JSON.parse(document.getElementById("records").textContent);
    const plain = new Set(stored.plain);
    const pairs = stored.fields.map((name, at) => {
      const found = stored.rows[place][at];
      if (plain.has(name)) return [name, found];
      return [name, name === "versions" ? JSON.parse(stored.texts[found]) : stored.texts[found]];
    });
    return Object.fromEntries(pairs);
  }

  function duration(seconds) {
    for (const [unit, size] of [["days", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= 2 * size) return `${(seconds / size).toPrecision(3)} ${unit} (${seconds.toFixed(0)} s)`;
    }
    return `${seconds.toFixed(1)} s`;
  }

  function shown(name, value) {
    if (name === "versions") return Object.entries(value).map((pair) => pair.join(" ")).join(", ") || DASH;
    if (name.endsWith("seconds")) return duration(value);
    if (name === "created_at") return value.replace("T", " ").replace(/\+00:00$/, " UTC");
    if (name === "n_examples") return value.toLocaleString("en");
    return String(value) || DASH;
  }

  function make(name, text, ...children) {
    const element = document.createElement(name);
    if (text !== null) element.textContent = text;
    element.append(...children);
    return element;
  }

  function tableOf(records, names) {
    const field = (kind, text) => Object.assign(make(kind, text), { className: text.length > 24 ? "long" : "" });
    const line = (kind, texts) => make("tr", null, ...texts.map((text) => field(kind, text)));
    const head = make("thead", null, line("th", names.map((name) => LABELS[name])));
    const lines = records.map((record) => line("td", names.map((name) => shown(name, record[name]))));
    const box = make("div", null, make("table", null, head, make("tbody", null, ...lines)));
    box.className = "several";
    return box;
  }

  function listOf(pairs) {
    return make("dl", null, ...pairs.map(([label, text]) => make("div", null, make("dt", label), make("dd", text))));
  }

  function placeOf(cell) {
    const method = cell.parentElement.cells[0].firstChild.textContent.trim();
    return `${method}, ${textAt(cell.closest("table").tHead.rows[0], cell.cellIndex)}`;
  }

  function fillFromRecords(cell) {
    const places = cell.dataset.records.split(" ").map(Number);
    const records = places.map(recordAt).sort((a, b) => a.seed - b.seed);
    const isShared = (name) => records.every((one) => JSON.stringify(one[name]) === JSON.stringify(records[0][name]));
    const names = Object.keys(LABELS);
    const differing = names.filter((name) => !isShared(name));
    const few = new Set(["seed", "value", ...differing]);
    const said = records.length > 1 ? `Mean of ${records.length} records, one a seed.` : "One record.";
    popover.append(make("p", said));
    const details = JSON.parse(cell.dataset.details ?? "[]");
    if (details.length) popover.append(Object.assign(listOf(details), { className: "details" }));
    if (records.length > 1) popover.append(tableOf(records, names.filter((name) => few.has(name))));
    const common = records.length > 1 ? names.filter((name) => !few.has(name)) : names;
    popover.append(listOf(common.map((name) => [LABELS[name], shown(name, records[0][name])])));
  }

  function fillFromArticle(cell) {
    const row = cell.parentElement;
    const headers = [...cell.closest("table").tHead.rows[0].cells];
    const pairs = headers.flatMap((header, at) =>
      header.classList.contains("n") ? [] : [[header.textContent.trim(), textAt(row, at)]]);
    popover.append(make("p", "Printed by the source, and not measured here."), listOf(pairs));
  }

  function place() {
    if (!opener || matchMedia("(max-width: 40rem)").matches) return;
    const number = opener.getBoundingClientRect();
    const size = popover.getBoundingClientRect();
    const room = { above: number.top - 10, below: innerHeight - number.bottom - 10 };
    const isAbove = popover.scrollHeight > room.below && room.above > room.below;
    const height = Math.min(popover.scrollHeight + 2, Math.max(140, isAbove ? room.above : room.below));
    popover.style.maxHeight = `${height}px`;
    popover.style.top = `${Math.max(4, isAbove ? number.top - height - 5 : number.bottom + 5)}px`;
    popover.style.left = `${Math.max(8, Math.min(number.left, document.documentElement.clientWidth - size.width - 8))}px`;
  }

  function show(button, isToStay) {
    clearTimeout(timer);
    if (opener !== button) {
      close();
      opener = button;
      const cell = button.closest("td");
      const dismiss = make("button", "\u00d7");
      dismiss.type = "button";
      dismiss.className = "close";
      dismiss.setAttribute("aria-label", "Close");
      dismiss.addEventListener("click", leave);
      popover.replaceChildren(dismiss, make("h4", button.textContent.trim()), make("p", placeOf(cell)));
      (cell.dataset.records ? fillFromRecords : fillFromArticle)(cell);
      popover.removeAttribute("style");
      popover.hidden = false;
      popover.scrollTop = 0;
      button.setAttribute("aria-expanded", "true");
      place();
    }
    isPinned = isToStay;
  }

  function close() {
    clearTimeout(timer);
    opener?.setAttribute("aria-expanded", "false");
    opener = null;
    isPinned = false;
    popover.hidden = true;
  }

  function leave() {
    const button = opener;
    const isInside = popover.contains(document.activeElement);
    close();
    dismissed = button;
    if (isInside) button?.focus({ preventScroll: true });
  }

  function makeAnswering(table) {
    for (const cell of table.querySelectorAll("td[data-records], .published td.n, .cited td.n")) {
      if (cell.textContent === DASH) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.append(...cell.childNodes);
      cell.append(button);
    }
  }

  // A table gets its buttons shortly before it is seen, so that a page of many opens at once.

  const nearing = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearing.unobserve(target);
      makeSortable(target.querySelector("table"));
      makeAnswering(target);
    }
  }, { rootMargin: "1500px" });
  document.querySelectorAll("main section").forEach((section) => nearing.observe(section));


  const numberAt = (target) => (target instanceof Element ? target.closest("td button") : null);
  const isMouse = (event) => event.pointerType === "mouse";
  document.addEventListener("pointerover", (event) => {
    if (!isMouse(event) || isPinned) return;
    const button = numberAt(event.target);
    clearTimeout(timer);
    if (button) timer = setTimeout(() => show(button, false), opener ? 60 : 180);
    else if (opener && !popover.contains(event.target)) timer = setTimeout(close, 250);
  });
  document.addEventListener("click", (event) => {
    const button = numberAt(event.target);
    if (button && isPinned && button === opener) return leave();
    if (button) {
      show(button, true);
      if (event.detail === 0) popover.focus({ preventScroll: true }); // pressed by a key
    } else if (isPinned && !popover.contains(event.target)) close();
  });
  document.addEventListener("focusin", (event) => {
    const button = numberAt(event.target);
    if (button !== dismissed) dismissed = null;
    if (button && button !== dismissed && button.matches(":focus-visible")) show(button, false);
    else if (opener && !isPinned && !popover.contains(event.target)) close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opener) leave();
  });
  addEventListener("scroll", (event) => { if (!popover.contains(event.target)) place(); }, { capture: true, passive: true });
  addEventListener("resize", place);
  addEventListener("beforeprint", close);

  // Runs

  const setAll = (isOpen) => document.querySelectorAll("details.run").forEach((one) => { one.open = isOpen; });
  document.getElementById("open-all")?.addEventListener("click", () => setAll(true));
  document.getElementById("close-all")?.addEventListener("click", () => setAll(false));
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
