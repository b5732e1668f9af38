import { addedNames, readTable, writeCsv } from "./csv.js";

const ROWS_PER_REQUEST = 64, PREVIEW_ROWS = 50, MOST_BYTES = 20 * 2 ** 20, RETRIES = 20;
const get = (id) => document.getElementById(id);
let models = [], model = null, key = "", table = null, stopper = null, downloadUrl = null;

function element(name, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  if (text !== "") made.textContent = text;
  return made;
}

function showProblem(text) {
  get("problem").textContent = text;
  get("problem").hidden = !text;
  if (text) get("problem").scrollIntoView({ block: "nearest" });
}

async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  for (let attempt = 0; ; attempt++) {
    const response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal }).catch((error) => {
      throw error instanceof TypeError ? new Error("The server cannot be reached. Is it still running?") : error;
    });
    if (response.ok) return response.json();
    if (response.status === 429 && attempt < RETRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      signal?.throwIfAborted();
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    if (response.status === 401) { get("keyform").hidden = false; get("key").focus(); }
    throw new Error(answer.error?.message ?? `The server answered ${response.status}.`);
  }
}

async function trying(work) {
  showProblem("");
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error.message);
  }
}

async function loadModels() {
  models = (await ask("v1/models")).data;
  get("keyform").hidden = true;
  get("model").replaceChildren(...models.map(({ id }) => element("option", id, { value: id })));
  get("chooser").hidden = models.length < 2;
  choose(models[0]);
}

function choose(chosen) {
  model = chosen;
  const answers = model.number ? `a number from ${model.number.low} to ${model.number.high}` : model.labels.join(", ");
  get("title").textContent = model.title;
  document.title = `${model.title} · adjudge`;
  get("about").textContent = `Answers: ${answers}. Model: ${model.id}${model.method ? ` (${model.method})` : ""}.`;
  const inputs = Object.keys(model.fields).flatMap((field) => [
    element("label", field, { htmlFor: `field-${field}` }),
    element("textarea", "", { id: `field-${field}`, name: field, dir: "auto", required: !model.optional_fields.includes(field) }),
  ]);
  const line = element("p", "", { className: "line" });
  line.append(element("button", "Judge"), element("span", "or Ctrl+Enter", { className: "small" }));
  get("texts").replaceChildren(...inputs, line);
  for (const id of ["answer", "plan", "progressbox", "preview"]) get(id).hidden = true;
  table = null;
}

async function judgeOne() {
  const row = Object.fromEntries(new FormData(get("texts")));
  const button = get("texts").querySelector("button");
  button.disabled = true;
  try {
    const answer = await ask("v1/classify", { rows: [row], model: model.id });
    showAnswer(answer.predictions[0], answer.latency_ms);
  } finally {
    button.disabled = false;
  }
}

function shown(prediction) {
  if (prediction.unreadable) return "unreadable";
  if (prediction.abstained) return "abstained";
  return String(model.number ? prediction.number.toFixed(model.number.decimals) : prediction.label);
}

function showAnswer(prediction, milliseconds) {
  const odd = prediction.unreadable || prediction.abstained;
  get("answerkind").textContent = odd ? "No answer" : "The answer";
  get("label").textContent = shown(prediction);
  get("label").className = odd ? "odd" : "";
  const chances = Object.entries(prediction.probabilities).sort((one, other) => other[1] - one[1]);
  get("chances").replaceChildren(...chances.flatMap(([word, share]) => {
    const track = element("dd", "", { className: "track", ariaHidden: "true" }), bar = element("i");
    bar.style.width = `${100 * share}%`;
    track.append(bar);
    return [element("dt", word), track, element("dd", `${(100 * share).toFixed(1)} %`, { className: "share" })];
  }));
  get("analysisbox").hidden = !prediction.analysis;
  get("analysis").textContent = prediction.analysis ?? "";
  get("took").textContent = `${milliseconds} ms`;
  get("answer").hidden = false;
}

async function openFile(file) {
  if (!file) return;
  for (const id of ["plan", "progressbox", "preview"]) get(id).hidden = true;
  if (!model) throw new Error("The server has not named its judges yet.");
  if (file.size > MOST_BYTES) throw new Error("The file has more than 20 MB. Use adjudge predict for it.");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error("The file is not UTF-8. Save it as CSV in UTF-8.");
  }
  table = { name: file.name, ...readTable(text) };
  get("filefacts").textContent = `${file.name}: ${table.rows.length} rows, columns ${table.columns.join(", ")}`;
  get("columns").replaceChildren(...Object.entries(model.fields).map(([field, column]) => {
    const line = element("p", "", { className: "line" });
    const select = element("select", "", { id: `column-${field}`, name: field, required: !model.optional_fields.includes(field) });
    const known = [column, field, table.columns.length === 1 ? table.columns[0] : null].find((name) => table.columns.includes(name));
    select.append(element("option", "choose a column", { value: "" }), ...table.columns.map((name) => element("option", name, { value: name, selected: name === known })));
    line.append(element("label", `${field} is in column`, { htmlFor: select.id }), select);
    return line;
  }));
  get("start").textContent = `Judge ${table.rows.length} rows`;
  get("plan").hidden = false;
  get("start").focus();
}

function rowsToJudge() {
  const chosen = [...new FormData(get("plan"))].filter(([, name]) => name !== "");
  const columns = chosen.map(([field, name]) => [field, table.columns.indexOf(name), name]);
  return table.rows.map(({ cells, line }) => Object.fromEntries(columns.map(([field, place, name]) => {
    if (!cells[place].trim() && !model.optional_fields.includes(field)) throw new Error(`Line ${line}: the cell in '${name}' is empty. Fill it in, or remove the row.`);
    return [field, cells[place]];
  })));
}

async function judgeTable() {
  const rows = rowsToJudge(), judged = table, judge = model, predictions = [];
  const wanted = [judge.number ? "number" : "label", ...judge.probability_labels.map((word) => `p_${word}`), "unreadable", ...(judge.abstains ? ["abstained"] : []), ...(judge.analysis ? ["analysis"] : [])];
  const names = addedNames(judged.columns, wanted);
  stopper = new AbortController();
  get("start").disabled = true;
  get("progressbox").hidden = get("stop").hidden = false;
  get("download").hidden = get("preview").hidden = true;
  get("progress").max = rows.length;
  try {
    for (let begin = 0; begin < rows.length; begin += ROWS_PER_REQUEST) {
      showProgress(predictions.length, rows.length);
      const body = { rows: rows.slice(begin, begin + ROWS_PER_REQUEST), model: judge.id };
      predictions.push(...(await ask("v1/classify", body, stopper.signal)).predictions);
    }
    showProgress(predictions.length, rows.length);
  } finally {
    get("start").disabled = false;
    get("stop").hidden = true;
    if (predictions.length < rows.length) get("progresstext").textContent = `Stopped after ${predictions.length} of ${rows.length} rows`;
    if (predictions.length) offer(judged, judge, names, predictions);
  }
}

function showProgress(done, all) {
  get("progress").value = done;
  get("progresstext").textContent = `${done} of ${all} rows judged`;
}

function offer(judged, judge, names, predictions) {
  const added = predictions.map((prediction) => [
    prediction.unreadable || prediction.abstained ? "" : String(judge.number ? prediction.number : prediction.label),
    ...judge.probability_labels.map((word) => word in prediction.probabilities ? String(Number(prediction.probabilities[word].toFixed(6))) : ""),
    String(prediction.unreadable),
    ...(judge.abstains ? [String(prediction.abstained)] : []),
    ...(judge.analysis ? [prediction.analysis ?? ""] : []),
  ]);
  const lines = [[...judged.columns, ...names], ...judged.rows.map(({ cells }, index) => [...cells, ...(added[index] ?? names.map(() => ""))])];
  if (downloadUrl) URL.revokeObjectURL(downloadUrl);
  downloadUrl = URL.createObjectURL(new Blob([writeCsv(lines)], { type: "text/csv" }));
  Object.assign(get("download"), { href: downloadUrl, download: judged.name.replace(/\.csv$/i, "") + "-judged.csv", hidden: false });
  const unreadable = predictions.filter((prediction) => prediction.unreadable).length;
  if (unreadable) get("progresstext").textContent += `, ${unreadable} unreadable`;
  preview(lines);
  get("download").focus();
}

function preview(lines) {
  const made = element("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  for (const name of lines[0]) head.append(element("th", name, { scope: "col" }));
  for (const line of lines.slice(1, PREVIEW_ROWS + 1)) {
    const row = body.insertRow();
    for (const cell of line) row.append(element("td", cell, { dir: "auto" }));
  }
  const more = lines.length - 1 - PREVIEW_ROWS;
  get("preview").replaceChildren(made, ...(more > 0 ? [element("p", `and ${more} more rows in the file`, { className: "small" })] : []));
  get("preview").hidden = false;
}

get("model").addEventListener("change", (event) => choose(models.find(({ id }) => id === event.target.value)));
get("keyform").addEventListener("submit", (event) => { event.preventDefault(); key = get("key").value.trim(); trying(loadModels); });
get("texts").addEventListener("submit", (event) => { event.preventDefault(); trying(judgeOne); });
get("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) get("texts").requestSubmit();
});
get("plan").addEventListener("submit", (event) => { event.preventDefault(); trying(judgeTable); });
get("stop").addEventListener("click", () => stopper?.abort());
get("file").addEventListener("change", (event) => { trying(() => openFile(event.target.files[0])); event.target.value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  get("drop").addEventListener(name, (event) => { event.preventDefault(); get("drop").classList.toggle("over", name === "dragover"); });
}
get("drop").addEventListener("drop", (event) => trying(() => openFile(event.dataTransfer.files[0])));
trying(loadModels);
