"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const {kept_as: KEPT, file: FILE, choices, keys, records} = JSON.parse($("data").textContent);
  const count = records.length;
  const own = $("own"), search = $("find").querySelector("input"), single = $("single");
  const buttons = [];
  let state = fresh();

  // `labels` holds what was done here, null where nothing was; the file's labels show through.
  function fresh() {
    return {labels: Array(count).fill(null), skipped: Array(count).fill(false), past: [], at: -1};
  }

  const label = i => state.labels[i] ?? records[i].label;
  const done = () => records.filter((_, i) => label(i)).length;

  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(KEPT));
      const fits = found && [found.labels, found.skipped].every(a => Array.isArray(a) && a.length === count)
        && Array.isArray(found.past) && found.at >= 0 && found.at < count;
      if (fits) state = found;
    } catch (error) {
      warn("What this browser has kept cannot be read: download before closing the page.");
    }
  }

  function keep() {
    try {
      localStorage.setItem(KEPT, JSON.stringify(state));
    } catch (error) {
      warn("This browser keeps nothing: download before closing the page.");
      window.onbeforeunload = event => event.preventDefault();
    }
  }

  function warn(text) {
    $("alert").textContent = text;
    $("alert").hidden = false;
  }

  // The next row to label: one not skipped if there is one, onwards from here and round.
  function after(at) {
    const others = records.map((_, k) => (at + 1 + k) % count);
    return others.find(i => !label(i) && !state.skipped[i]) ?? others.find(i => !label(i)) ?? at;
  }

  function set(text, skipped) {
    const i = state.at;
    state.past.push([i, state.labels[i], state.skipped[i]]);
    state.labels[i] = text;
    state.skipped[i] = skipped;
  }

  function answer(text) {
    const i = state.at;
    set(text, false);
    go(after(i), `Row ${i + 1}: ${text || "label taken away"}. ${progress()}`);
  }

  function skip() {
    const i = state.at;
    set(state.labels[i], true);
    go(after(i), `Row ${i + 1} skipped. ${progress()}`);
  }

  function move(by) {
    // What was typed and not yet saved goes along.
    const text = own.value.trim();
    if (!choices && text && text !== label(state.at)) set(text, false);
    go(state.at + by);
  }

  function undo() {
    const last = state.past.pop();
    if (!last) return say("Nothing to undo.");
    const [i, before, skipped] = last;
    state.labels[i] = before;
    state.skipped[i] = skipped;
    go(i, `Row ${i + 1} is as it was. ${progress()}`);
  }

  function go(at, said) {
    state.at = at;
    keep();
    show();
    say(said ?? "");
    (choices ? $("text") : own).focus();
  }

  function say(text) {
    $("status").textContent = text;
  }

  function progress() {
    const skipped = state.skipped.filter((was, i) => was && !label(i)).length;
    return `${done()} of ${count} labelled${skipped ? `, ${skipped} skipped` : ""}`;
  }

  function show() {
    const i = state.at, record = records[i], all = done() === count;
    $("place").textContent = `Row ${i + 1} of ${count}`;
    $("count").textContent = progress();
    $("progress").value = done();
    $("text").textContent = record.text;
    $("text").scrollTop = 0;
    const differs = record.label && label(i) !== record.label;
    $("note").hidden = !differs && !state.skipped[i];
    $("note").textContent = differs ? `The file says “${record.label}”.` : "Skipped before.";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.value === label(i)));
    }
    own.value = label(i);
    search.value = "";
    narrow();
    $("previous").disabled = i === 0;
    $("next").disabled = i === count - 1;
    $("undo").disabled = !state.past.length;
    $("then").textContent = all ? `All ${count} rows are labelled` : "When all rows are labelled";
    $("download").textContent = all ? `Download ${FILE}` : `Download ${FILE} (${done()} of ${count} labelled)`;
    $("download").classList.toggle("ready", all);
  }

  function build() {
    choices.forEach((choice, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.value = choice;
      if (keys[k]) {
        const key = document.createElement("kbd");
        key.textContent = keys[k];
        key.setAttribute("aria-hidden", "true");
        button.setAttribute("aria-keyshortcuts", keys[k]);
        button.append(key);
      }
      const name = document.createElement("bdi");
      name.textContent = choice;
      button.append(name);
      button.addEventListener("click", () => answer(choice));
      buttons.push(button);
    });
    $("choices").append(...buttons);
    $("choices").classList.toggle("many", choices.length > 9);
    $("find").hidden = choices.length <= 9;
  }

  function narrow() {
    const wanted = search.value.trim().toLowerCase();
    for (const button of buttons) button.hidden = !button.value.toLowerCase().includes(wanted);
  }

  function download() {
    const lines = records.map((record, i) => JSON.stringify({...record, label: label(i)}) + "\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, {type: "application/jsonl"}));
    link.download = FILE;
    link.click();
    say(`${FILE} downloaded. ${progress()}`);
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target === own || event.target === search) {
      if (event.key === "Escape") $("text").focus();
      else if (event.key !== "Enter" || event.shiftKey) return;
      else if (event.target === own) typed();
      else only();
      event.preventDefault();
      return;
    }
    // A key that is held down labels one row, not all.
    if (!single.checked || event.repeat && !event.key.startsWith("Arrow")) return;
    const chosen = choices ? keys.indexOf(event.key) : -1;
    const button = {ArrowLeft: "previous", ArrowRight: "next", s: "skip", u: "undo"}[event.key];
    if (chosen >= 0) answer(choices[chosen]);
    else if (button) $(button).click();
    else return;
    event.preventDefault();
  }

  function typed() {
    const text = own.value.trim();
    if (text || label(state.at)) answer(text);
    else say("Type a label, or skip the row.");
  }

  // Enter in the search takes the label that is left.
  function only() {
    const wanted = search.value.trim().toLowerCase();
    const shown = buttons.filter(button => !button.hidden);
    const exact = shown.filter(button => button.value.toLowerCase() === wanted);
    if (exact.length === 1 || shown.length === 1) answer((exact[0] ?? shown[0]).value);
    else say(`${shown.length} labels fit.`);
  }

  if (choices) build();
  $("choices").hidden = !choices;
  $("typed").hidden = Boolean(choices);
  $("typed").addEventListener("submit", event => { event.preventDefault(); typed(); });
  search.addEventListener("input", narrow);
  $("previous").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("skip").addEventListener("click", skip);
  $("undo").addEventListener("click", undo);
  $("download").addEventListener("click", download);
  document.addEventListener("keydown", press);
  // Another tab with the same rows.
  window.addEventListener("storage", event => {
    if (event.key !== KEPT) return;
    const {at} = state;
    read();
    state.at = at;
    show();
  });
  read();
  $("work").hidden = false;
  go(state.at < 0 ? after(count - 1) : state.at);
})();
