// What needs a script: forms that do something ask once, are sent as JSON, and tell what came of it.
"use strict";

const at = (id) => document.getElementById(id);

// What a form says: what the page gave it, its fields, and the button that was pressed. An empty field says nothing.
function bodyOf(form, button) {
  const body = JSON.parse(form.dataset.body);
  for (const field of form.elements) {
    if (field.tagName === "INPUT" && field.name && field.value) {
      body[field.name] = "list" in field.dataset ? [field.value] : field.value;
    }
  }
  if (button?.name) body[button.name] = button.value;
  return body;
}

// Whether it shall be done; with the reason, where one is asked for.
function asked(form, button) {
  const dialog = at("ask");
  const reason = at("ask-reason");
  const withReason = "why" in form.dataset;
  at("ask-what").textContent = form.dataset.ask;
  at("ask-says").textContent = button?.dataset.says ?? "";
  at("ask-why").hidden = !withReason;
  reason.disabled = !withReason;
  reason.value = "";
  // Escape closes it without a value of its own, and would leave the last one.
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "yes" ? (withReason ? { reason: reason.value } : {}) : null),
      { once: true },
    );
  });
}

function tell(kind, said, lines = [], address = "") {
  const place = at("said");
  const paragraph = document.createElement("p");
  paragraph.className = `notice ${kind}`;
  paragraph.textContent = said;
  place.replaceChildren(paragraph);
  if (lines.length) {
    const list = document.createElement("ul");
    for (const line of lines) list.appendChild(document.createElement("li")).textContent = line;
    place.append(list);
  }
  if (address) {
    const link = document.createElement("a");
    link.href = address;
    link.target = "_top";
    link.textContent = "See the run in Airflow";
    place.append(link);
  }
}

async function send(form, body) {
  const answer = await fetch(form.dataset.do, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const told = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(told.error ?? `The server answered ${answer.status}.`);
  return told;
}

async function act(form, button) {
  const more = form.dataset.ask ? await asked(form, button) : {};
  if (more === null) return;
  const buttons = [...form.querySelectorAll("button")];
  const body = { ...bodyOf(form, button), ...more };
  for (const each of buttons) each.disabled = true;
  form.setAttribute("aria-busy", "true");
  tell("none", "Working …");
  let done = false;
  try {
    const told = await send(form, body);
    done = true;
    tell("good", told.said, told.lines, told.address);
  } catch (error) {
    tell("bad", error.message);
  }
  form.removeAttribute("aria-busy");
  // What is decided is decided: the page tells more when it is loaded again.
  if (done && "why" in form.dataset) return;
  for (const each of buttons) each.disabled = false;
  button?.focus();
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-do]")) return;
  event.preventDefault();
  act(event.target, event.submitter);
});

// Airflow's frame lets no link in it lead the window elsewhere. A link of Airflow's own document, which it shares, does.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[target='_top']");
  if (!link || window.top === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const outside = window.top.document.createElement("a");
  outside.href = link.href;
  outside.click();
});
