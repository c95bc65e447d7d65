"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, attributes = {}) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.textContent = text;
    return element;
  };

  // A link opens what its target is folded into.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let box = target; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
    const inner = target.querySelector(":scope > details");
    if (inner) inner.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => all("main > section:not(#records) details").forEach(box => { box.open = true; }));

  // Tables of panels: one selector, which all blocks follow.
  const selectors = all(".panels").map((block, index) => {
    const panels = all(":scope > details", block);
    const select = make("select", "", { id: `panel-${index}` });
    panels.forEach(panel => select.append(new Option(panel.querySelector("summary").textContent, panel.dataset.panel)));
    const show = name => {
      if (!panels.some(panel => panel.dataset.panel === name)) return;
      select.value = name;
      panels.forEach(panel => { panel.hidden = panel.dataset.panel !== name; panel.open = !panel.hidden; });
    };
    const label = make("label", "Panel ", { htmlFor: select.id, className: "selector" });
    label.append(select);
    block.querySelector("h3").after(label);
    block.classList.add("selected");
    show(panels[0].dataset.panel);
    return { select, show };
  });
  selectors.forEach(({ select }) =>
    select.addEventListener("change", () => selectors.forEach(({ show }) => show(select.value))));

  // Sort by a column: numbers by what they are, which a cell has as its title, words by the alphabet.
  const key = (row, index) => {
    const cell = row.cells[index];
    return cell.title ? Number.parseFloat(cell.title) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    return typeof b === "number" ? 1 : a.localeCompare(b, "en", { numeric: true });
  };
  all("table.data").forEach(table => {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    table.classList.add("cards");  // on a phone, each row with the titles of its columns; without scripts it scrolls
    [...body.rows].forEach(row => [...row.cells].slice(1).forEach(cell => {
      cell.dataset.label = heads[cell.cellIndex].textContent;
    }));
    heads.forEach((head, index) => {
      const button = make("button", head.textContent, { type: "button", className: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => compare(key(a, index), key(b, index)) * (down ? -1 : 1));
        body.append(...rows);
      });
    });
    const rest = body.rows.length - 6;  // on a phone, page.css shows six until more are asked for
    const more = make("button", `${rest} more rows`, { type: "button", className: "more-rows" });
    const shorten = yes => { table.classList.toggle("short", yes && rest > 1); more.hidden = !table.matches(".short"); };
    more.addEventListener("click", () => shorten(false));
    table.after(more);
    shorten(true);
    const tools = make("div", "", { className: "tools" });
    if (body.rows.length > 7) {
      const filter = make("input", "", { type: "search", placeholder: "filter rows" });
      filter.setAttribute("aria-label", "Filter rows");
      filter.addEventListener("input", () => {
        shorten(!filter.value);
        [...body.rows].forEach(row => {
          row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase());
        });
      });
      tools.append(filter);
    }
    tools.append(copyButton("Copy table", () =>
      [table.tHead.rows[0], ...body.rows].filter(row => !row.hidden)
        .map(row => [...row.cells].map(cell => cell.textContent.trim()).join("\t")).join("\n")));
    table.closest(".scroll").before(tools);
  });
  all(".command code, dd code").forEach(code =>
    code.after(" ", copyButton("Copy", () => code.textContent)));

  function copyButton(text, content) {
    const button = make("button", text, { type: "button", className: "copy" });
    button.addEventListener("click", async () => {
      let said = "copied";
      try { await navigator.clipboard.writeText(content()); } catch { said = "not allowed here"; }
      button.textContent = said;
      setTimeout(() => { button.textContent = text; }, 1500);
    });
    return button;
  }
})();
