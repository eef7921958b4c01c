// On a phone, a table of sentences becomes one block per row (style.css); each cell needs its column's name for that.
for (const table of document.querySelectorAll("article table")) {
  const names = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.cells]);
  const sentences = rows.some((cells) => cells.slice(1).some((cell) => cell.textContent.length > 40));
  if (names.length < 3 || !sentences) continue;
  table.dataset.stacked = "";
  for (const cells of rows) cells.forEach((cell, column) => (cell.dataset.label = names[column]));
}
