"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th"), column = head.cellIndex, body = table.tBodies[0];
      const down = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)], [p, q] = [parseFloat(x), parseFloat(y)];
        if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;
        const order = Number.isNaN(p) ? x.localeCompare(y) : p - q;
        return down ? order : -order;
      });
      body.append(...rows);
    });
  });
}
