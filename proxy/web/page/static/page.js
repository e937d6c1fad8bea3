// What the page does beyond its markup: it copies lines, completes names, and follows builds. It fetches from this host alone.
// The server escapes the markup that it sends; all other text goes in as text.
"use strict";
(() => {
  const said = document.getElementById("said");
  const say = (text) => { said.textContent = text; };

  // --- the colours: those of the device, or those that a visitor chose; the server reads the cookie, so no page flickers
  const colours = document.getElementById("colours");
  const choices = { "": "as this device has them", light: "light", dark: "dark" };
  const nameColours = () => {
    const text = `Colours: ${choices[document.documentElement.dataset.colours || ""]}`;
    colours.setAttribute("aria-label", text);
    colours.title = text;
    return text;
  };
  colours.hidden = false;
  nameColours();
  colours.addEventListener("click", () => {
    const names = Object.keys(choices), root = document.documentElement;
    const next = names[(names.indexOf(root.dataset.colours || "") + 1) % names.length];
    if (next) root.dataset.colours = next; else delete root.dataset.colours;
    document.cookie = `nixfront-colours=${next}; path=/; max-age=${next ? 31536000 : 0}; SameSite=Lax`;
    say(nameColours());
  });

  // --- copy buttons: a browser has no clipboard without a secure context; then we select the text and copy the selection
  const revealCopies = (root) => root.querySelectorAll("button.copy").forEach((button) => { button.hidden = false; });
  const copy = async (text, code) => {
    if (navigator.clipboard && window.isSecureContext) { await navigator.clipboard.writeText(text); return; }
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    document.execCommand("copy");
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    try { await copy(button.dataset.copy, button.previousElementSibling); } catch { return; }
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  revealCopies(document);

  // --- live parts: a section with data-stream listens; each event replaces the child with that name as its data-event
  const log = document.getElementById("log");
  const row = (line) => {  // as in the markup of the server
    const number = Number(log.dataset.earlier) + log.childElementCount + 1;
    const whole = document.createElement("span");
    whole.id = `L${number}`;
    const link = document.createElement("a");
    link.href = `#L${number}`;
    link.tabIndex = -1;
    link.textContent = number;
    whole.append(link, `${line}\n`);
    return whole;
  };
  const atEnd = () => log && log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const listen = (section) => {
    const source = new EventSource(section.dataset.stream);
    section.querySelectorAll("[data-event]").forEach((part) => {
      source.addEventListener(part.dataset.event, (message) => {
        if (part.contains(document.activeElement)) {  // keep the focus: give it to the same link in the new markup
          const link = document.activeElement.getAttribute("href");
          part.innerHTML = message.data;
          const again = link && part.querySelector(`a[href="${CSS.escape(link).replaceAll("\\/", "/")}"]`);
          if (again) again.focus({ preventScroll: true });
        } else {
          part.innerHTML = message.data;
        }
      });
    });
    source.addEventListener("lines", (message) => {
      if (!log) return;
      const stay = atEnd();
      JSON.parse(message.data).forEach((line) => log.append(row(line)));
      document.getElementById("no-log").hidden = true;
      if (stay) log.scrollTop = log.scrollHeight;
    });
    source.addEventListener("ended", (message) => {
      source.close();
      say(`The build has ended: ${message.data}`);
      const reload = setTimeout(() => location.reload(), 600);
      addEventListener("beforeunload", () => clearTimeout(reload));  // do not bring back a person who leaves meanwhile
    });
  };
  if (log && !location.hash) log.scrollTop = log.scrollHeight;
  document.querySelectorAll("[data-stream]").forEach(listen);

  // --- the button that builds: the answer is the page of the build
  document.addEventListener("submit", (event) => {
    const button = event.target.closest("form.make")?.querySelector("button");
    if (!button) return;
    button.textContent = "Building";
    say("Building");
    setTimeout(() => { button.disabled = true; });  // after the form is on its way
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // --- the composer
  const form = document.querySelector("form.composer");
  if (!form) return;
  const input = form.querySelector("#names");
  const list = document.getElementById("names-list");
  const result = document.getElementById("composed");
  const set = form.querySelector("select");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-expanded", "false");
  input.setAttribute("aria-controls", "names-list");
  input.setAttribute("aria-autocomplete", "list");
  let chosen = -1, asking = 0, seeking = 0, timer = 0;

  const look = async () => {
    const query = new URLSearchParams(new FormData(form));
    if (!query.get("names").trim()) { result.textContent = ""; return; }
    result.setAttribute("aria-busy", "true");
    query.set("part", "1");
    const number = ++asking;
    const answer = await fetch(`/compose?${query}`).catch(() => null);
    const text = answer && answer.ok ? await answer.text() : "<p class='trouble'>This host does not answer.</p>";
    if (number !== asking) return;
    result.innerHTML = text;
    result.removeAttribute("aria-busy");
    revealCopies(result);
  };
  const close = () => {  // and drop the answer that is on its way
    clearTimeout(timer);
    seeking++;
    list.hidden = true;
    list.replaceChildren();
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const word = () => /[^\s,/]*$/.exec(input.value.slice(0, input.selectionStart))[0];
  const take = (name) => {
    const before = input.value.slice(0, input.selectionStart).slice(0, -word().length || undefined);
    input.value = `${before}${name} ${input.value.slice(input.selectionStart).trimStart()}`;
    close();
    input.focus();
  };
  const mark = (to) => {
    const options = [...list.children].filter((option) => option.getAttribute("role") === "option");
    if (!options.length) return;
    chosen = (to + options.length) % options.length;
    options.forEach((option, number) => option.setAttribute("aria-selected", String(number === chosen)));
    options[chosen].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[chosen].id);
  };
  const suggest = async () => {
    const typed = word();
    if (typed.length < 1) { close(); return; }
    const query = new URLSearchParams({ q: typed, set: set ? set.value : "" });
    const number = ++seeking;
    const answer = await fetch(`/suggest?${query}`).then((got) => got.json()).catch(() => ({ names: [] }));
    if (number !== seeking || typed !== word() || document.activeElement !== input) return;
    const marked = chosen >= 0 ? list.children[chosen].dataset.pull : null;  // the next list marks it too
    close();
    if (answer.later) {
      const message = document.createElement("li");
      message.className = "later quiet";
      message.textContent = "nixfront lists the names of this set; they appear here in a moment.";
      list.append(message);
      timer = setTimeout(suggest, 3000);
    }
    if (answer.names.length) say(answer.names.length > 1 ? `${answer.names.length} names fit` : "1 name fits");
    const [only] = answer.names;
    if (answer.names.length === 1 && only.pull === typed && only.attribute.toLowerCase() === typed) return;  // the person knows this name, and a list would cover the result
    answer.names.forEach((each, number) => {
      const option = document.createElement("li");
      option.id = `names-${number}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.dataset.pull = each.pull;
      option.append(each.pull);
      if (each.attribute.toLowerCase() !== each.pull) {
        const real = document.createElement("span");
        real.className = "quiet";
        real.textContent = each.attribute;
        option.append(" ", real);
      }
      list.append(option);
    });
    list.hidden = !list.children.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    const again = answer.names.findIndex((each) => each.pull === marked);
    if (again >= 0) mark(again);
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(suggest, 120); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && !list.hidden) { event.preventDefault(); mark(chosen + 1); }
    else if (event.key === "ArrowUp" && !list.hidden) { event.preventDefault(); mark(chosen - 1); }
    else if (event.key === "Escape") close();
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      event.preventDefault();
      take(list.children[chosen].dataset.pull);
    }
  });
  input.addEventListener("blur", () => setTimeout(close, 150));
  list.addEventListener("mousedown", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) { event.preventDefault(); take(option.dataset.pull); }
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); close(); look(); });
})();
