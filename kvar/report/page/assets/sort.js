// Tables of class "sortable": a click on a head sorts by that column, a second click turns the order round.
(function () {
  "use strict";
  // The value of a cell: data-v where it has one, else the number that its text begins with, else its text.
  function valueOf(cell) {
    if (cell.hasAttribute("data-v")) { return parseFloat(cell.getAttribute("data-v")); }
    var text = cell.textContent.trim();
    if (text === "-" || text === "") { return NaN; }
    return /^[-+]?(\d|\.\d)/.test(text) && !/^\d+\s*[x×]/.test(text) ? parseFloat(text) : text;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    return String(a).localeCompare(String(b), "en", {numeric: true});
  }

  function sort(table, column, descending) {
    var body = table.tBodies[0];
    var rows = Array.from(body.rows).map(function (row) { return [valueOf(row.cells[column]), row]; });
    var missing = function (value) { return typeof value === "number" && isNaN(value); };
    rows.sort(function (a, b) {
      if (missing(a[0]) || missing(b[0])) { return missing(a[0]) - missing(b[0]); }
      return descending ? compare(b[0], a[0]) : compare(a[0], b[0]);
    });
    rows.forEach(function (pair) { body.appendChild(pair[1]); });
  }

  function prepare(table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }

  window.kvarSortable = prepare;
  document.querySelectorAll("table.sortable").forEach(prepare);
}());
