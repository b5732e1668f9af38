"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const number = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return (size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)))).replace("-", "−");
  };

  /* ---- tables wider than the page: fade the side on which there is more, and say so ---- */
  document.querySelectorAll(".wide").forEach((box) => {
    const hint = make("p", "scrollhint", "more columns →");
    hint.setAttribute("aria-hidden", "true");
    box.after(hint);
    const mark = () => {
      const hidden = box.scrollWidth - box.clientWidth;
      box.classList.toggle("cut-right", hidden - box.scrollLeft > 2);
      hint.hidden = hidden <= 2;
      hint.textContent = box.scrollLeft > hidden / 2 ? "← more columns" : "more columns →";
    };
    box.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(box);
    mark();
  });

  /* ---- read values off the line charts ---- */
  const panels = read("panels");
  const svgWidth = 360, left = 44, right = 14;
  document.querySelectorAll("[data-panel]").forEach((figure) => {
    const panel = panels[Number(figure.dataset.panel)];
    const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor"), box = figure.querySelector(".readout");
    const hide = () => { box.hidden = true; cursor.setAttribute("visibility", "hidden"); };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const rect = svg.getBoundingClientRect();
      const at = Math.min(Math.max((event.clientX - rect.left) / rect.width * svgWidth, left), svgWidth - right);
      const x = panel.x[0] + (at - left) / (svgWidth - left - right) * (panel.x[1] - panel.x[0]);
      cursor.setAttribute("x1", at); cursor.setAttribute("x2", at); cursor.setAttribute("visibility", "visible");
      box.replaceChildren(make("p", "", number(Math.round(x)) + " " + panel.axis));
      panel.curves.slice(0, 12).forEach((curve) => {
        let best = 0;
        curve.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(curve.x[best] - x)) best = i; });
        const line = make("p"), name = make("span", "method m" + curve.colour);
        name.append(make("i"), make("bdi", "", curve.name));
        line.append(name, make("b", "", number(curve.y[best])));
        box.append(line);
      });
      box.hidden = false;
      const share = (at - left) / (svgWidth - left - right);
      box.style.left = share < 0.5 ? "auto" : "44px";
      box.style.right = share < 0.5 ? "8px" : "auto";
    });
  });

  /* ---- the example browser ---- */
  const section = document.getElementById("examples");
  if (!section) return;
  const data = read("data");
  const form = section.querySelector(".filters"), field = form.elements;
  const cards = section.querySelector(".cards"), count = section.querySelector(".count"), more = section.querySelector(".more button");
  const PAGE = 20;
  const KEYS = ["task", "method", "seed", "outcome", "gold", "answer", "q"];
  const OUTCOMES = [["", "any"], ["right", "right"], ["wrong", "wrong"], ["unreadable", "unreadable"], ["differ", "methods differ"]];
  const SIGNS = { right: "✓", wrong: "✗", unreadable: "?", unlabelled: "·" };
  const WORDS = { right: "right", wrong: "wrong", unreadable: "unreadable", unlabelled: "no gold answer" };
  let matches = [], shown = 0;

  const fill = (select, options) => {
    const old = select.value;
    select.replaceChildren(...options.map(([value, text]) => { const o = make("option", "", text); o.value = value; return o; }));
    select.value = options.some(([value]) => value === old) ? old : options[0][0];
  };
  const unique = (values) => [...new Set(values)];
  const current = () => data.tasks.find((task) => task.task === field.task.value) || data.tasks[0];
  const optional = (name, on) => { form.querySelector(`[data-optional=${name}]`).hidden = !on; };

  const prepare = () => {
    const task = current();
    const any = (values) => [["", "any"], ...values.map((value) => [String(value), String(value)])];
    const seeds = unique(task.judges.map((judge) => String(judge.seed)));
    fill(field.method, any(unique(task.judges.map((judge) => judge.method))));
    fill(field.seed, any(seeds)); optional("seed", seeds.length > 1);
    const extra = task.rows.some((row) => row.gold === null) ? [["unlabelled", "no gold answer"]] : [];
    fill(field.outcome, [...OUTCOMES, ...extra]);
    fill(field.gold, any(task.words)); optional("gold", task.words.length > 0);
    const answered = unique(task.rows.flatMap((row) => row.answers.filter(Boolean).map((a) => a[2])).filter((v) => typeof v === "string"));
    fill(field.answer, any([...task.words, ...answered.filter((word) => !task.words.includes(word))])); optional("answer", task.words.length > 0);
  };

  const find = () => {
    const task = current(), want = Object.fromEntries(KEYS.map((key) => [key, field[key].value]));
    const words = want.q.toLowerCase().split(/\s+/).filter(Boolean);
    const picked = task.judges.map((j) => (!want.method || j.method === want.method) && (!want.seed || String(j.seed) === want.seed));
    matches = task.rows.filter((row) => {
      if (want.gold && String(row.gold) !== want.gold) return false;
      const answers = row.answers.filter((answer, i) => answer && picked[i]);
      if (!answers.length) return false;
      if (want.outcome === "differ") {
        if (new Set(row.answers.filter(Boolean).map((answer) => String(answer[2]))).size < 2) return false;
        if (want.answer && !answers.some((answer) => String(answer[2]) === want.answer)) return false;
      } else if (!answers.some((a) => (!want.outcome || a[0] === want.outcome) && (!want.answer || String(a[2]) === want.answer))) return false;
      if (!words.length) return true;
      const text = [...row.fields, ...answers.map((answer) => answer[1])].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const chosen = KEYS.filter((key) => key !== "task" && want[key]).length > 0;
    count.textContent = chosen
      ? `${matches.length.toLocaleString("en")} of ${task.rows.length.toLocaleString("en")} rows`
      : `${task.rows.length.toLocaleString("en")} rows`;
    shown = 0;
    cards.replaceChildren();
    grow();
    return { want, picked };
  };

  const highlighted = (node, text, words) => {
    const lower = text.toLowerCase();
    if (!words.length || lower.length !== text.length) { node.textContent = text; return node; }
    let at = 0;
    while (at < text.length) {
      const hits = words.map((word) => [lower.indexOf(word, at), word.length]).filter(([i]) => i >= 0).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
      if (!hits.length) break;
      const [start, length] = hits[0];
      node.append(text.slice(at, start), make("mark", "", text.slice(start, start + length)));
      at = start + length;
    }
    node.append(text.slice(at));
    return node;
  };
  /* Invisible characters are spelled out: control characters and bidi overrides in texts; in answers line ends and marks too. */
  const code = (c) => `⟦U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`;
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
  const readable = (text) => text.replace(/\r\n/g, "\n").replace(hidden, code);
  const generated = (text) => text.replace(hidden, code).replace(/[\t\u061c\u200b-\u200f\u2028\u2029\ufeff]/g, code).replace(/\n/g, "↵");

  const answerLine = (task, judge, answer, row, chosen) => {
    const line = make("li", `${answer[0]} m${data.colours[judge.method]}${chosen ? " chosen" : ""}`);
    const sign = make("span", "tick", SIGNS[answer[0]]);
    sign.title = WORDS[answer[0]];
    sign.setAttribute("role", "img"); sign.setAttribute("aria-label", WORDS[answer[0]]);
    const name = make("span", "method");
    const several = task.judges.filter((other) => other.method === judge.method).length > 1;
    name.append(make("i"), make("bdi", "", several ? `${judge.method} · ${judge.seed}` : judge.method));
    const output = answer[1].trim() ? make("bdi", "output", generated(answer[1])) : make("span", "output nothing", "(nothing)");
    const side = make("span", "prob");
    line.append(sign, name, output, side);
    if (answer[3]) {
      const sorted = Object.entries(answer[3]).sort((a, b) => b[1] - a[1]);
      side.textContent = sorted.length ? `${String(sorted[0][0]) === String(answer[2]) ? "" : sorted[0][0] + " "}${(100 * sorted[0][1]).toFixed(0)} %` : "";
      side.title = sorted.map(([word, p]) => `${word} ${p.toFixed(3)}`).join("\n");
      const bar = make("span", "vector");
      sorted.slice(0, 6).forEach(([, p]) => { const part = make("i"); part.style.flex = `${p} 0 0`; bar.append(part); });
      line.append(bar);
    } else if (typeof answer[2] === "number" && typeof row.gold === "number") {
      const off = answer[2] - row.gold;
      side.textContent = `${off < 0 ? "−" : "+"}${Math.abs(off).toFixed(2)}`;
    }
    return line;
  };

  const card = (row) => {
    const task = current(), words = field.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const node = make("li", "card"), meta = make("div", "meta"), gold = make("span");
    gold.append("gold ", make("b", "", row.gold === null ? "none" : String(row.gold)));
    gold.querySelector("b").style.unicodeBidi = "isolate";
    meta.append(gold, make("bdi", "", row.id));
    const texts = make("div");
    row.fields.forEach((text, i) => {
      if (text === null) return;
      const part = make("div", "field");
      if (task.fields.length > 1) part.append(make("span", "", task.fields[i]));
      const shownText = make("p");
      shownText.dir = "auto";
      part.append(highlighted(shownText, readable(text), words));
      texts.append(part);
    });
    const answers = make("ul", "answers");
    row.answers.forEach((answer, i) => {
      const judge = task.judges[i];
      const chosen = Boolean(field.method.value || field.seed.value) && (!field.method.value || judge.method === field.method.value)
        && (!field.seed.value || String(judge.seed) === field.seed.value);
      if (answer) answers.append(answerLine(task, judge, answer, row, chosen));
    });
    node.append(meta, texts, answers);
    return node;
  };
  const grow = () => {
    cards.append(...matches.slice(shown, shown + PAGE).map(card));
    shown = Math.min(shown + PAGE, matches.length);
    more.hidden = shown >= matches.length;
    more.textContent = `Show more (${(matches.length - shown).toLocaleString("en")} left)`;
  };

  /* The filter is kept in each entry of the history, so that Back and Forward bring it back from wherever one went. */
  const quietly = (change) => { try { change(); } catch (error) { if (error.name !== "SecurityError") throw error; } };
  const chosen = () => Object.fromEntries(KEYS.map((key) => [key, field[key].value]));
  const keep = () => {
    const parts = KEYS.filter((key) => field[key].value && (key !== "task" || data.tasks.length > 1))
      .map((key) => `${key}=${encodeURIComponent(field[key].value)}`);
    quietly(() => history.replaceState({ filter: chosen() }, "", parts.length ? "#" + parts.join("&") : "#examples"));
  };
  const choose = (wanted) => {
    field.task.value = wanted.task || data.tasks[0].task;
    if (field.task.selectedIndex < 0) field.task.selectedIndex = 0;
    prepare();
    KEYS.slice(1).forEach((key) => {
      field[key].value = wanted[key] || "";
      if (field[key].selectedIndex === -1) field[key].selectedIndex = 0;
    });
    find();
  };
  const fromHash = () => {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return false;
    choose(Object.fromEntries(new URLSearchParams(hash)));
    return true;
  };

  fill(field.task, data.tasks.map((task) => [task.task, task.task]));
  prepare();
  if (fromHash()) section.scrollIntoView({ behavior: "instant" });
  else if (history.state && history.state.filter) choose(history.state.filter);
  else find();
  let timer = 0;
  const changed = (event) => { clearTimeout(timer); if (event && event.target.name === "task") prepare(); find(); keep(); };
  form.addEventListener("change", changed);
  field.q.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(changed, 150); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { prepare(); find(); keep(); }));
  more.addEventListener("click", grow);
  /* A link elsewhere on the page leaves the entry with its filter: it is written there before the new entry begins. */
  document.addEventListener("click", (event) => {
    if (event.target.closest('a[href^="#"]')) quietly(() => history.replaceState({ filter: chosen() }, "", location.href));
  }, true);
  window.addEventListener("popstate", (event) => { if (event.state && event.state.filter) choose(event.state.filter); });
  window.addEventListener("hashchange", () => {
    if (!(history.state && history.state.filter) && fromHash()) section.scrollIntoView();
  });
})();
