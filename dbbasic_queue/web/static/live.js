// Ask for this page again while it is seen, and put what has changed into it.
"use strict";
(() => {
  const EVERY = 2000;
  let tag = null, waits = EVERY, timer = 0, busy = false;

  // Make `old` like `new`, with as few changes as possible: focus, scroll, selection and what is
  // unfolded stay.
  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh.cloneNode(true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const keeps = old.nodeName === "DETAILS" ? "open" : "";
    for (const { name, value } of [...fresh.attributes])
      if (name !== keeps && old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (name !== keeps && !fresh.hasAttribute(name)) old.removeAttribute(name);
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((one, at) => {
      if (at < before.length) morph(before[at], one);
      else old.appendChild(one.cloneNode(true));
    });
    before.slice(after.length).forEach((one) => one.remove());
  }

  // Whether somebody writes into the page, or has marked a text in it.
  function inUse(main) {
    const typed = [...main.querySelectorAll("input, textarea, select")].some((one) =>
      one.type !== "hidden" && (one === document.activeElement ||
        (one.type === "checkbox" ? one.checked !== one.defaultChecked
          : "defaultValue" in one && one.value !== one.defaultValue)));
    const marked = document.getSelection();
    return typed || (marked && !marked.isCollapsed && main.contains(marked.anchorNode));
  }

  async function look() {
    const main = document.getElementById("main");
    if (busy || document.hidden || !main || main.querySelector("[data-still]") || inUse(main))
      return;
    busy = true;
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch(location.href, { headers, credentials: "same-origin" });
      waits = answer.status >= 500 ? Math.min(waits * 2, 30000) : EVERY;
      if (answer.status !== 304 && !answer.redirected) {
        const text = await answer.text();
        tag = answer.headers.get("ETag");
        const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
        if (fresh && !inUse(main)) morph(main, fresh);
        else tag = null;
      }
      document.body.classList.remove("lost");
    } catch {
      waits = Math.min(waits * 2, 30000);
      document.body.classList.add("lost");
    } finally {
      busy = false;
    }
  }

  async function turn() {
    clearTimeout(timer);
    await look();
    timer = setTimeout(turn, waits);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  timer = setTimeout(turn, EVERY);
})();
