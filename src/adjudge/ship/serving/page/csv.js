// Read and write CSV as RFC 4180 has it: commas, quotes as syntax, cells that may span lines.

export function parseCsv(text) {
  const rows = [];
  let cells = [], cell = "", quoted = false, wasQuoted = false, line = 1, begun = 1;
  const endCell = () => { cells.push(cell); cell = ""; wasQuoted = false; };
  const endRow = () => {
    const blank = cells.length === 0 && cell === "" && !wasQuoted;
    endCell();
    if (!blank) rows.push({ cells, line: begun });
    cells = [];
  };
  text = text.replace(/^\uFEFF/, "");
  for (let i = 0; i < text.length; i++) {
    const mark = text[i];
    if (quoted) {
      if (mark === '"' && text[i + 1] === '"') { cell += '"'; i++; }
      else if (mark === '"') quoted = false;
      else { if (mark === "\n") line++; cell += mark; }
    } else if (mark === '"' && cell === "" && !wasQuoted) { quoted = wasQuoted = true; }
    else if (mark === ",") endCell();
    else if (mark === "\n" || mark === "\r") {
      if (mark === "\r" && text[i + 1] === "\n") i++;
      endRow();
      begun = ++line;
    } else if (wasQuoted) throw new Error(`Line ${line}: there is text after a closing quote. Write a quote inside a cell twice.`);
    else cell += mark;
  }
  if (quoted) throw new Error(`Line ${begun}: a quote is opened and never closed.`);
  if (cell !== "" || cells.length || wasQuoted) endRow();
  return rows;
}

export function readTable(text) {
  const [head, ...rows] = parseCsv(text);
  if (!head) throw new Error("The file is empty.");
  const columns = head.cells;
  const twice = columns.find((name, index) => columns.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`The column '${twice}' is there twice. Rename one.`);
  if (columns.length === 1 && /[;\t]/.test(columns[0])) throw new Error("The columns must be separated by commas. Save the file as CSV with commas.");
  if (!rows.length) throw new Error("The file names columns and has no rows.");
  const odd = rows.find((row) => row.cells.length !== columns.length);
  if (odd) throw new Error(`Line ${odd.line} has ${odd.cells.length} cells, and the first line names ${columns.length} columns. Quote cells with commas in them.`);
  return { columns, rows };
}

export function addedNames(columns, wanted) {
  return wanted.map((name) => {
    const own = columns.includes(name) ? `predicted_${name}` : name;
    if (columns.includes(own)) throw new Error(`The file has a column '${name}' and a column '${own}'. Rename one.`);
    return own;
  });
}

export function writeCsv(rows) {
  const quote = (cell) => (/[",\r\n]/.test(cell) || cell.startsWith("\uFEFF") ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((row) => row.map(quote).join(",") + "\n").join("");
}
